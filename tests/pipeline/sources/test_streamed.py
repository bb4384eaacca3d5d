"""Recordings that are no files of this machine: every frame, once, in order, to the end, or a sentence why not."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from engines.errors import SourceError
from pipeline.contracts import AudioPacket, Source
from pipeline.frame import Frame
from pipeline.sources.live.address import LiveOptions
from pipeline.sources.live.connection import Reconnect
from pipeline.sources.reading import Wanted
from pipeline.sources.resolve import resolve_source
from pipeline.state import StateChange
from tests.footage import read_number, write_clip
from tests.pipeline.encoded import until
from tests.pipeline.recordings import available
from tests.pipeline.rtsp_server import free_port
from tests.pipeline.web import PLAYLIST, Server

pytestmark = pytest.mark.skipif(not available(), reason="FFmpeg's commands are not installed")

FRAMES = 125
OPTIONS = LiveOptions(open_timeout=60, read_timeout=60, reconnect=Reconnect(first=0.05))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds of numbered pictures with sound in every container, and as a playlist with an end."""
    folder = tmp_path_factory.mktemp("kept")
    write_clip(folder / "base.mp4", frames=FRAMES, size=(160, 96), gop=25, bframes=2, audio=True, numbered=True)
    for arguments in (
        "-c copy late.mp4", "-c copy -movflags +faststart early.mp4", "-c copy clip.mkv", "-c copy clip.ts",
        "-c copy clip.flv", "-c copy -movflags empty_moov+frag_keyframe pieces.mp4",
        "-c copy -f hls -hls_time 1 -hls_playlist_type vod index.m3u8",
    ):  # fmt: skip
        command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", "base.mp4", *arguments.split()]
        subprocess.run(command, cwd=folder, check=True, timeout=60)
    (folder / "watch").write_bytes((folder / "index.m3u8").read_bytes())
    return folder


def number_of(frame: Frame) -> int:
    """The number that is drawn in a picture."""
    return read_number(frame.image.to_ndarray(format="gray"))


class Read:
    """A source read to its end."""

    def __init__(self, address: str, mode: Wanted = "auto", options: LiveOptions = OPTIONS) -> None:
        self.changes: list[StateChange] = []
        source = resolve_source(address, "clip", live=options, observe=self.changes.append, mode=mode)
        self.source: Source = source
        self.sound = 0
        self.numbers: list[int] = []
        self.times: list[float] = []
        self.indices: list[int] = []
        try:
            self.info = source.open()
            for item in source:
                if isinstance(item, Frame):
                    self.numbers.append(number_of(item))
                    self.times.append(item.time)
                    self.indices.append(item.index)
                self.sound += isinstance(item, AudioPacket)
        finally:
            source.close()

    def assert_whole(self, count: int = FRAMES) -> None:
        assert self.source.mode == "file"
        assert self.numbers == list(range(count))
        assert self.indices == list(range(count))
        assert self.times == sorted(set(self.times))
        assert self.times[-1] - self.times[0] == pytest.approx((count - 1) / 25, abs=0.01)
        assert [c.state.value for c in self.changes] in (
            ["connecting", "streaming", "ended"], ["connecting", "connecting", "streaming", "ended"]
        )  # fmt: skip
        assert self.sound > 0
        assert self.source.counts.missing == 0


SERVERS: dict[str, dict[str, bool]] = {
    "ranges": {},
    "no ranges": {"ranges": False},
    "no HEAD": {"head": False},
    "chunks": {"ranges": False, "length": False, "head": False},
}


@pytest.mark.seconds
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("name", ["early.mp4", "clip.mkv", "clip.flv", "index.m3u8", "index.m3u8?token=x", "watch?v=1"])
def test_what_has_a_length_is_read_once(kept: Path, server: str, name: str) -> None:
    with Server(kept, **SERVERS[server]) as web:
        web.pages["watch"] = lambda: ((kept / "watch").read_bytes(), PLAYLIST)
        Read(web.url(name)).assert_whole()
    bodies = [path for method, path, _ in web.asked if method == "GET" and path.endswith(".ts")]
    assert len(bodies) == len(set(bodies)), "no segment twice"


@pytest.mark.seconds
@pytest.mark.parametrize("name", ["late.mp4", "clip.ts", "pieces.mp4"])
@pytest.mark.parametrize("server", ["ranges", "no HEAD"])
def test_what_has_its_index_or_no_duration_at_all_is_read_by_parts(kept: Path, server: str, name: str) -> None:
    with Server(kept, **SERVERS[server]) as web:
        Read(web.url(name)).assert_whole()


@pytest.mark.seconds
def test_a_length_without_a_duration_is_an_end(kept: Path) -> None:
    with Server(kept, ranges=False) as web:
        Read(web.url("clip.ts")).assert_whole()


@pytest.mark.seconds
@pytest.mark.parametrize("name", ["clip.ts", "pieces.mp4"])
def test_what_says_nothing_of_an_end_is_asked_for_and_read_as_told(kept: Path, name: str) -> None:
    with Server(kept, **SERVERS["chunks"]) as web:
        with pytest.raises(SourceError, match=r"neither how long .* --mode file \(mode: file\).*--mode live") as caught:
            Read(web.url(name))
        assert "\n" not in str(caught.value)
        Read(web.url(name), "file").assert_whole()
        live = resolve_source(web.url(name), "clip", live=OPTIONS, mode="live")
        assert live.open().latency_bound is not None
        assert live.mode == "live"
        live.close()


LIVE = {
    "MJPEG": "-an -c:v mjpeg -f mpjpeg",
    "MPEG-TS": "-c copy -f mpegts",
    "FLV": "-c copy -f flv",
    "Matroska": "-c copy -f matroska",
    "MP4 in fragments": "-c copy -f mp4 -movflags empty_moov+frag_keyframe+default_base_moof",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LIVE)
def test_a_camera_behind_http_is_never_taken_for_a_recording(kept: Path, kind: str) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}/live"
    command = f"ffmpeg -v quiet -nostdin -re -stream_loop -1 -i {kept / 'base.mp4'} {LIVE[kind]} -listen 1 {address}"
    options = LiveOptions(open_timeout=20, read_timeout=20, reconnect=Reconnect(first=0.1, at_start="wait"))
    with subprocess.Popen(command.split()) as camera:
        try:
            source = resolve_source(address, "cam", live=options, mode="auto" if kind == "MJPEG" else "live")
            source.open()
            assert source.mode == "live"
            source.close()
        finally:
            camera.kill()
    if kind != "MJPEG":
        with subprocess.Popen(command.split()) as camera:
            try:
                until(lambda: listens(port))
                with pytest.raises(SourceError, match="--mode live"):
                    resolve_source(address, "cam", live=OPTIONS).open()
            finally:
                camera.kill()


def listens(port: int) -> bool:
    """Whether somebody does, without connecting: FFmpeg serves one client."""
    return f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()


@pytest.mark.seconds
def test_an_index_at_the_end_without_parts_is_refused_with_a_way_out(kept: Path) -> None:
    """When its time is over: FFmpeg waits for more on a connection that is kept open."""
    options = LiveOptions(open_timeout=10, read_timeout=10)
    with Server(kept, ranges=False) as web, pytest.raises(SourceError, match="faststart") as caught:
        Read(web.url("late.mp4"), options=options)
    assert "\n" not in str(caught.value)


@pytest.mark.seconds
@pytest.mark.parametrize("name", ["early.mp4", "clip.ts", "clip.mkv"])
def test_a_connection_that_breaks_costs_nothing_where_parts_are_given(kept: Path, name: str) -> None:
    with Server(kept) as web:
        web.cuts[name] = (kept / name).stat().st_size // 2
        Read(web.url(name)).assert_whole()
        assert not web.cuts


@pytest.mark.seconds
@pytest.mark.parametrize("name", ["early.mp4", "clip.ts", "clip.mkv"])
def test_one_that_breaks_elsewhere_is_no_end(kept: Path, name: str) -> None:
    with Server(kept, ranges=False) as web:
        web.cuts[name] = (kept / name).stat().st_size // 2
        source = resolve_source(web.url(name), "clip", live=OPTIONS)
        source.open()
        seen: list[int] = []
        with pytest.raises(SourceError, match="broke off behind"):
            seen.extend(number_of(item) for item in source if isinstance(item, Frame))
        source.close()
    assert seen == list(range(len(seen)))
    assert 30 < len(seen) < FRAMES


@pytest.mark.seconds
def test_a_playlist_that_lacks_a_segment_says_so(kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    for lost, numbers in (
        ("index2.ts", {*range(50, 75)}),
        ("index0.ts", {*range(25)}),
        ("index4.ts", {*range(100, 125)}),
    ):
        with Server(kept) as web, caplog.at_level(logging.WARNING):
            web.gone.add(lost)
            read = Read(web.url("index.m3u8"))
        assert set(read.numbers) == {*range(FRAMES)} - numbers
        assert read.source.counts.missing == pytest.approx(25, abs=3), lost
        assert any("a segment could not be read" in record.getMessage() for record in caplog.records)
        caplog.clear()


@pytest.mark.seconds
def test_in_real_time_it_takes_its_time_and_ends(kept: Path) -> None:
    with Server(kept) as web:
        source = resolve_source(web.url("clip.mkv"), "clip", live=OPTIONS, realtime=True)
        assert source.open().latency_bound == OPTIONS.latency_bound
        assert source.mode == "live"
        frames = [item for item in source if isinstance(item, Frame)]
        source.close()
    assert [frame.index for frame in frames] == list(range(FRAMES))
    assert frames[-1].arrived_at - frames[0].arrived_at > 0.9 * FRAMES / 25


# Pipes ----------------------------------------------------------------------------------------------------------------
@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def fed(fifo: Path, data: bytes) -> threading.Thread:
    """Somebody who writes into a FIFO, as soon as somebody reads."""

    def write() -> None:
        with suppress(BrokenPipeError), fifo.open("wb") as file:
            file.write(data)

    feeding = threading.Thread(target=write, daemon=True)
    feeding.start()
    return feeding


@pytest.mark.seconds
@pytest.mark.parametrize("name", ["clip.ts", "clip.mkv", "clip.flv", "early.mp4", "pieces.mp4"])
def test_a_pipe_is_read_to_its_end(kept: Path, fifo: Path, name: str) -> None:
    feeding = fed(fifo, (kept / name).read_bytes())
    Read(str(fifo)).assert_whole()
    feeding.join(60)
    assert not feeding.is_alive()


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "a pipe cannot be read twice"), (bytes(100_000), "a pipe cannot be read twice"), (None, "faststart")],
    ids=["empty", "no video", "index at its end"],
)
def test_a_pipe_that_cannot_be_read_is_refused_with_a_way_out(
    kept: Path, fifo: Path, data: bytes | None, says: str
) -> None:
    fed(fifo, (kept / "late.mp4").read_bytes() if data is None else data)
    with pytest.raises(SourceError, match=says) as caught:
        Read(str(fifo))
    assert "\n" not in str(caught.value)


def test_a_pipe_to_which_nobody_writes_is_left_at_once(fifo: Path) -> None:
    source = resolve_source(str(fifo), "clip", live=OPTIONS)
    failed: list[BaseException] = []

    def open_it() -> None:
        try:
            source.open()
        except SourceError as error:
            failed.append(error)

    opening = threading.Thread(target=open_it, daemon=True)
    opening.start()
    opening.join(0.5)
    assert opening.is_alive(), "it waits"
    source.close()
    opening.join(60)
    assert failed


def test_a_cameras_pipe_is_read_as_told(kept: Path, fifo: Path) -> None:
    fed(fifo, (kept / "clip.ts").read_bytes())
    source = resolve_source(str(fifo), "clip", live=OPTIONS, mode="live")
    assert source.open().latency_bound is not None
    assert source.mode == "live"
    source.close()


@pytest.mark.parametrize(
    ("address", "mode", "says"),
    [
        ("rtsp://127.0.0.1:1/x", "file", "is a live source, of which not every frame can be had; record it first"),
        ("v4l2:/dev/video9", "file", "is a live source"),
        ("synthetic:?seconds=1", "live", "is no live source; --realtime"),
        ("base.mp4", "live", "is no live source; --realtime"),
    ],
)
def test_what_cannot_be_had_as_told_is_refused(address: str, mode: Wanted, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        resolve_source(address, "clip", mode=mode)


def test_two_recordings_are_told_apart_by_what_came(kept: Path, fifo: Path, tmp_path: Path) -> None:
    """So that a run is resumed with the footage it began with only."""
    write_clip(tmp_path / "other.mkv", frames=30, size=(160, 96), gop=25, audio=True)
    contents = []
    for path in (kept / "clip.mkv", kept / "clip.mkv", tmp_path / "other.mkv"):
        feeding = fed(fifo, path.read_bytes())
        source = resolve_source(str(fifo), "clip", live=OPTIONS)
        source.open()
        contents.append(source.content)  # type: ignore[attr-defined]
        source.close()
        del source
        feeding.join(60)
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["cat {} |", "< {}", "<(cat {})"])
def test_the_command_reads_what_a_shell_gives_it(kept: Path, tmp_path: Path, way: str, segmenter: Path) -> None:
    given = way.format(kept / "clip.mkv")
    command = f"{sys.executable} -m pipeline.cli run --model {segmenter}:1000 --jsonl {tmp_path / 'out.jsonl'}"
    line = f"{given} {command} -" if way.endswith("|") else f"{command} - {given}"
    if way.startswith("<("):
        line = f"{command} {given}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == FRAMES
    assert "every frame" in done.stderr
