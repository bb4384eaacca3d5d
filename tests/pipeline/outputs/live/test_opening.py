"""Live outputs as a run has them: from the configuration, with a session around them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import pytest

from engines.errors import OutputError, RoadlensError, UsageError
from engines.settings import decode
from pipeline.config import Config, ModelConfig, StreamConfig
from pipeline.outputs.live.hls import HlsOptions
from pipeline.outputs.live.opening import OutputOptions, check_outputs
from pipeline.outputs.live.output import CardOptions
from pipeline.outputs.live.restream import RestreamOptions
from pipeline.outputs.live.segments import RecordingOptions
from pipeline.session import Session
from pipeline.state import OutputChange, OutputState
from tests.pipeline.encoded import until
from tests.pipeline.outputs.live.test_restream import free_port, needs_ffmpeg, process
from tests.pipeline.outputs.test_event_clip import record
from tests.pipeline.rtsp_server import Mount, RtspServer, missing, write_units


def outputs(*addresses: str) -> OutputOptions:
    return OutputOptions(restream=tuple(RestreamOptions(a) for a in addresses))


@pytest.mark.parametrize(
    ("options", "many", "error", "sentence"),
    [
        (OutputOptions(), True, None, ""),
        (outputs("rtsp://h/x"), False, None, ""),
        (outputs("rtsp://h/{stream}", "rtmp://h/a/{stream}"), True, None, ""),
        (outputs("rtsp://u:s3cret@h/x"), True, UsageError, "sent to the one address rtsp://h/x; put {stream}"),
        (outputs("http://u:s3cret@h/x"), False, OutputError, "'http://h/x' is no address that video can be sent to"),
    ],
)  # fmt: skip
def test_what_types_cannot_say(
    options: OutputOptions, many: bool, error: type[RoadlensError] | None, sentence: str
) -> None:
    if error is None:
        check_outputs(options, many)
        return
    with pytest.raises(error) as caught:
        check_outputs(options, many)
    assert sentence in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"restream": [{"address": "rtsp://h/x", "timeout": 0}]}, "outputs.restream[0].timeout"),
        ({"hls": {"folder": "x", "window": 1}}, "outputs.hls.window"),
        ({"record": {"folder": "x", "segment_seconds": -1}}, "outputs.record.segment_seconds"),
        ({"encoder": {"crf": 99}}, "outputs.encoder.crf"),
        ({"card": {"rate": 0}}, "outputs.card.rate"),
        ({"hsl": {}}, "hsl"),
    ],
)
def test_a_wrong_value_is_named_by_its_place(values: dict[str, object], place: str) -> None:
    with pytest.raises(UsageError) as caught:
        decode({"outputs": values}, Config, "run.yaml")
    assert "run.yaml" in str(caught.value)
    assert place in str(caught.value)


def frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_of_a_file_every_frame_is_recorded_and_counted(tmp_path: Path, segmenter: Path) -> None:
    clip = record(tmp_path / "in.mp4", 60)
    changes: list[OutputChange] = []
    config = Config(
        streams=(StreamConfig(str(clip), "drive"),),
        models=(ModelConfig(str(segmenter)),),
        outputs=OutputOptions(
            hls=HlsOptions(tmp_path / "hls"), record=RecordingOptions(tmp_path / "rec"), card=CardOptions()
        ),
    )
    with Session(config, output_observers=[changes.append]) as session:
        result = session.run()
        assert result.error is None
    (recorded,) = (tmp_path / "rec" / "drive").glob("*.mp4")
    assert frames(recorded) == 60
    assert frames(tmp_path / "hls" / "drive" / "index.m3u8") == 60
    for output in ("hls", "recording"):
        assert [c.state for c in changes if c.output == output] == [OutputState.RUNNING, OutputState.CLOSED]
    value = session.metrics.registry.get_sample_value
    assert value("roadlens_output_running", {"stream": "drive", "output": "hls"}) == 0
    assert value("roadlens_output_failures_total", {"stream": "drive", "output": "hls"}) == 0


def test_a_recording_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, segmenter: Path) -> None:
    clip = record(tmp_path / "in.mp4", 5)
    config = Config(
        streams=(StreamConfig(str(clip)),),
        models=(ModelConfig(str(segmenter)),),
        outputs=OutputOptions(record=RecordingOptions(clip)),
    )
    with pytest.raises(OutputError, match=r"recordings cannot be written to .*in\.mp4/in: not a directory"):
        Session(config)


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.skipif(bool(missing()), reason=missing() or "-")
def test_a_viewer_stays_connected_while_the_camera_is_away(tmp_path: Path, segmenter: Path) -> None:
    """A camera that dies and comes back, the command, and FFmpeg as the viewer: three processes, one connection out."""
    units = write_units(record(tmp_path / "in.mp4", 100, (320, 180), gop=25), tmp_path / "units")
    address, received = f"rtmp://127.0.0.1:{free_port()}/live/cam", tmp_path / "received.flv"
    viewer = (
        "ffmpeg",
        "-v",
        "error",
        "-listen",
        "1",
        "-i",
        address,
        "-c",
        "copy",
        "-flush_packets",
        "1",
        "-y",
        received,
    )
    log = tmp_path / "log"

    def grown(by: int) -> None:
        before = received.stat().st_size if received.exists() else 0
        until(lambda: received.exists() and received.stat().st_size > before + by, log.read_text())

    with process(*viewer) as watching, RtspServer({"/cam": Mount(units)}) as camera, log.open("w") as said:
        command = [
            sys.executable,
            "-m",
            "pipeline.cli",
            "run",
            camera.url("/cam"),
            "--model",
            segmenter,
            "--restream",
            address,
        ]
        root = Path(__file__).parents[4]
        run = subprocess.Popen([str(c) for c in command], cwd=root, stderr=said, env={**os.environ, "COLUMNS": "120"})
        try:
            grown(20_000)
            camera.kill()
            until(lambda: "trying again" in log.read_text())
            grown(5_000)
            camera.start()
            until(lambda: ": back" in log.read_text())
            grown(20_000)
            run.send_signal(signal.SIGINT)
            assert run.wait(60) == 130
        finally:
            run.kill()
        watching.wait(60)
    assert log.read_text().count("restreaming to") == 1
    with av.open(str(received)) as container:
        levels = [float(f.to_ndarray(format="gray").mean()) for f in container.decode(video=0)]
    assert min(levels) < 0.6 * levels[0], "the dimmed card was seen"
    assert levels[-1] == pytest.approx(levels[0], rel=0.2), "and the camera after it"
