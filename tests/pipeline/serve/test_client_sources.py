"""What a client of the API may make a stream of, and what its answer tells it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ModelConfig, StreamConfig
from pipeline.serve.bodies import BodyError
from pipeline.serve.client_sources import SENTENCE, check_client_stream
from pipeline.sources.live.address import LiveOptions, live_input
from tests.footage import write_clip
from tests.pipeline.serve.conftest import running

STREAMS = "/api/v1/streams"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with a folder that its owner has named, `open`, and one that he has not, `closed`."""
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        write_clip(tmp_path / name / "a.mp4", frames=4)
    (tmp_path / "open" / "sub").mkdir()
    write_clip(tmp_path / "open" / "sub" / "b.mp4", frames=4)
    os.mkfifo(tmp_path / "open" / "pipe.mp4")
    (tmp_path / "open" / "sub" / "notes.txt").write_text("nobody's business\n" * 20)
    (tmp_path / "open" / "link.mp4").symlink_to("../closed/a.mp4")
    (tmp_path / "open" / "folder").symlink_to("../closed")
    (tmp_path / "open" / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nfile:/etc/passwd\n")
    (tmp_path / "open" / "list.mp4").write_text("ffconcat version 1.0\nfile ../closed/a.mp4\n")
    (tmp_path / "open" / "session.sdp").write_text("v=0\nm=video 5000 RTP/AVP 96\n")
    return tmp_path


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("rtsp://10.0.0.7/live", True),
        ("udp://@:5000", True),
        ("srt://10.0.0.7:9000?mode=caller", True),
        ("srt://0.0.0.0:9000?mode=listener", False),
        ("tcp://0.0.0.0:5000?listen", False),
        ("tcp://0.0.0.0:5000?listen=1", False),
        ("rtsp://10.0.0.7/a\r\nX: y", False),
        ("{}/open/pipe.mp4", False),
        ("v4l2:{}/open/pipe.mp4", False),
        ("{}/open/%d.mp4", True),  # a name like any other: nothing is counted up in it
        ("synthetic:?seconds=1", True),
        ("{}/open/a.mp4", True),
        ("{}/open/sub", True),
        ("{}/open/sub/*.mp4", True),
        ("{}/open/nowhere.mp4", True),
        ("{}/closed/a.mp4", False),
        ("{}/closed/nowhere.mp4", False),
        ("{}/closed", False),
        ("{}/*/a.mp4", False),
        ("{}/open/../closed/a.mp4", False),
        ("{}/open/link.mp4", False),
        ("{}/open", False),  # one of its files leads out of it
        ("{}/open/*.mp4", False),
        ("{}/open/folder/a.mp4", False),
        ("{}/open/list.m3u8", False),
        ("{}/open/list.mp4", False),
        ("{}/open/session.sdp", False),
        ("-", False),
        ("/dev/video0", False),
        ("v4l2:/dev/video0", False),
        ("v4l2:{}/closed/a.mp4", False),
        ("file:{}/open/a.mp4", False),
        ("file://{}/open/a.mp4", False),
        ("concat:{}/open/a.mp4|{}/closed/a.mp4", False),
        ("subfile,,start,0,end,9,,:{}/closed/a.mp4", False),
        ("crypto:file://{}/closed/a.mp4", False),
        ("~/a.mp4", False),
        ("a\0b", False),
        ("x" * 5000, False),
    ],
)
def test_files_of_named_folders_only(machine: Path, source: str, allowed: bool) -> None:
    config = StreamConfig(source.replace("{}", str(machine)))
    if allowed:
        check_client_stream(config, [machine / "open"])
    else:
        with pytest.raises(BodyError) as refused:
            check_client_stream(config, [machine / "open"])
        assert (refused.value.loc, refused.value.sentence) == (["body", "source"], SENTENCE)


@pytest.mark.parametrize(
    ("live", "field"),
    [
        ({"ffmpeg": {"protocol_whitelist": "file,http"}}, "ffmpeg"),
        ({"ffmpeg": {"format_whitelist": "concat"}}, "ffmpeg"),
        ({"ffmpeg": {"cert_file": "/etc/passwd"}}, "ffmpeg"),
        *(
            ({"ffmpeg": {key: value}}, "ffmpeg")
            for key, value in (
                ("method", "PUT"),
                ("headers", "X: y\r\n"),
                ("post_data", "00"),
                ("listen", "1"),
                ("cookies", "a=b"),
                ("user_agent", "a\r\nX: y"),
                ("referer", "a\n"),
                ("rtsp_flags", "listen"),
                ("probesize", "2147483647"),
                ("buffer_size", "99999999999"),
                ("probesize", "-1"),
                ("video_size", "99999x99999"),
                ("safe", "0"),
                ("http_proxy", "http://10.0.0.7"),
                ("seekable", "0"),
                ("max_pixels", "2147483647"),
            )
        ),
        ({"format": "tty"}, "format"),
        ({"format": "rawvideo"}, "format"),
        ({"format": "lavfi"}, "format"),
        ({"format": "concat"}, "format"),
        ({"format": "mpegts", "ffmpeg": {"video_size": "640x480"}}, None),
    ],
)
def test_options_that_open_files_are_the_owners(live: dict[str, Any], field: str | None) -> None:
    config = StreamConfig("rtsp://10.0.0.7/live", live=LiveOptions(**live))
    if field is None:
        check_client_stream(config, [])
    else:
        with pytest.raises(BodyError) as refused:
            check_client_stream(config, [])
        assert refused.value.loc[:3] == ["body", "live", field]
    check_client_stream(config, [], before=config)  # the owner's own stay


@pytest.mark.parametrize("address", ["http://10.0.0.7/a.m3u8", "rtsp://10.0.0.7/a", "udp://@:5000", "srt://10.0.0.7:1"])
def test_what_comes_over_a_network_names_no_file(address: str) -> None:
    allowed = live_input(address, LiveOptions()).options["protocol_whitelist"].split(",")
    assert not {"file", "concat", "subfile", "pipe", "fd", "cache", "async", "unix"} & set(allowed)


@pytest.mark.seconds
def test_the_answer_tells_nothing_of_what_is_there(segmenter: Path, machine: Path) -> None:
    own = StreamConfig(str(machine / "closed" / "a.mp4"), "own", realtime=True)
    with running(segmenter, settings={"streams": (own,)}) as server:
        answers = {
            server.client.post(STREAMS, json={"source": source}).text
            for source in (str(machine / "closed" / "a.mp4"), str(machine / "nowhere"), "/etc/passwd", os.devnull, "/")
        }
        assert len(answers) == 1
        kept = server.client.patch(f"{STREAMS}/own", json={"decode_threads": 2})
        assert kept.status_code == 200, kept.text
        other = server.client.patch(f"{STREAMS}/own", json={"source": str(machine / "open" / "a.mp4")})
        assert other.status_code == 422
        assert SENTENCE in other.text
    with running(segmenter, source_folders=(machine / "open",)) as server:
        assert server.client.post(STREAMS, json={"source": str(machine / "open" / "a.mp4")}).status_code == 201


def test_the_model_is_configured_not_asked_for(segmenter: Path) -> None:
    with running(segmenter) as server:
        body = {"source": "synthetic:", "model": str(ModelConfig(str(segmenter)).model)}
        assert server.client.post(STREAMS, json=body).status_code == 422
