from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import pytest

from engines.errors import OutputError
from pipeline.outputs.encoded import EncodedPicture
from pipeline.outputs.live.hls import Hls, HlsOptions, hls_file
from pipeline.state import OutputChange, OutputState
from tests.pipeline.encoded import VIDEO, pictures, until


def write(hls: Hls, count: int, key_every: int = 25, between: Callable[[int], None] = lambda _i: None) -> None:
    hls.begin(VIDEO, lambda: None)
    for index, picture in enumerate(pictures(count, key_every)):
        between(index)
        hls.put(picture, wait=True)
    hls.end()
    assert hls.join(60)
    hls.close()


def test_a_sliding_window_of_segments_a_second_each(tmp_path: Path) -> None:
    changes: list[OutputChange] = []
    hls = Hls("cam", HlsOptions(tmp_path, window=4), observe=changes.append)
    write(hls, 20 * 25)
    text = hls.playlist.read_text()
    assert [float(x) for x in re.findall(r"#EXTINF:([\d.]+)", text)] == [1.0] * 4
    assert "#EXT-X-MEDIA-SEQUENCE:16" in text
    assert text.rstrip().endswith("#EXT-X-ENDLIST")
    segments = sorted(p.name for p in hls.folder.glob("*.m4s"))
    assert len(segments) <= 4 + 4, "older ones are removed"
    assert set(re.findall(r"^.*\.m4s$", text, re.MULTILINE)) <= set(segments)
    assert [c.state for c in changes] == [OutputState.RUNNING, OutputState.CLOSED]
    assert not list(hls.folder.glob("*.tmp"))


def test_every_playlist_on_the_way_is_whole_and_begins_with_a_key_frame(tmp_path: Path) -> None:
    hls = Hls("cam", HlsOptions(tmp_path, window=3))
    seen: set[str] = set()

    def look(index: int) -> None:
        if index % 20 == 0 and hls.playlist.exists():
            text = hls.playlist.read_text()
            seen.add(text)
            for name in re.findall(r"^.*\.m4s$", text, re.MULTILINE):
                assert (hls.folder / name).stat().st_size > 0

    write(hls, 300, between=look)
    assert len(seen) > 2
    with av.open(str(hls.playlist)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert packets[0].is_keyframe


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="FFmpeg's ffprobe is the foreign player")
def test_a_foreign_player_plays_it(tmp_path: Path) -> None:
    hls = Hls("cam", HlsOptions(tmp_path, window=100))
    write(hls, 130)
    probed = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=codec_name,width,height,nb_read_frames",
         "-of", "json", str(hls.playlist)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert probed.stderr == ""
    (stream,) = json.loads(probed.stdout)["streams"]
    assert (stream["codec_name"], stream["width"], stream["height"]) == ("h264", VIDEO.width, VIDEO.height)
    assert int(stream["nb_read_frames"]) == 130


def test_an_earlier_runs_files_go_and_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "cam"
    folder.mkdir()
    for name in ("index.m3u8", "20261121T063345-000001.m4s", "20261121T063345-init.mp4", "mine.mp4", "notes.m3u8"):
        (folder / name).touch()
    Hls("cam", HlsOptions(tmp_path))
    assert sorted(p.name for p in folder.iterdir()) == ["mine.mp4", "notes.m3u8"]


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"HLS cannot be written to .*file/cam: not a directory"):
        Hls("cam", HlsOptions(tmp_path / "file"))


def removed(folder: Path) -> bool:
    """Whether a folder is gone: a segment may be written into it while it goes."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


@pytest.mark.seconds
def test_a_folder_that_vanishes_pauses_it_and_it_goes_on(tmp_path: Path) -> None:
    changes: list[OutputChange] = []
    hls = Hls("cam", HlsOptions(tmp_path, window=3), observe=changes.append)
    hls.begin(VIDEO, lambda: None)
    source = iter(pictures(100_000, key_every=25))

    def put(count: int) -> int:
        for _ in range(count):
            picture: EncodedPicture = next(source)
            hls.put(picture, wait=False)
        return count

    put(60)
    until(lambda: hls.playlist.exists())
    until(lambda: removed(hls.folder))
    until(lambda: put(25) and any(c.state is OutputState.PAUSED for c in changes))
    assert next(c.reason for c in changes if c.reason).startswith(f"{hls.folder} cannot be written")
    os.makedirs(hls.folder)  # noqa: PTH103  # as an administrator would
    until(lambda: put(25) and hls.playlist.exists())
    hls.end()
    assert hls.join(60)


@pytest.mark.seconds
def test_what_was_written_before_a_pause_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full for hours must not be filled with the remains of every attempt."""
    folder, changes, token = tmp_path / "cam", list[OutputChange](), "0123abcd"
    seconds = iter(range(1_700_000_000, 1_700_000_060))

    def clock() -> float:
        at = next(seconds)
        if folder.exists():  # the third segment of a run that begins now cannot be written: it would be elsewhere
            time = f"{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%S}"
            (folder / f"{time}-{token}-000002.m4s.tmp").symlink_to("nowhere/segment")
        return float(at)

    monkeypatch.setattr("secrets.token_hex", lambda _bytes: token)
    hls = Hls("cam", HlsOptions(tmp_path, window=3), observe=changes.append, wall_clock=clock)
    hls.begin(VIDEO, lambda: None)
    source = iter(pictures(100_000, key_every=25))
    until(lambda: hls.put(next(source), wait=False) or sum(c.state is OutputState.PAUSED for c in changes) == 2)
    hls.end()
    assert hls.join(60)
    assert len({p.name[:15] for p in folder.glob("*.m4s")}) == 1


def test_a_server_gives_out_what_is_there_and_nothing_else(tmp_path: Path) -> None:
    hls = Hls("cam", HlsOptions(tmp_path))
    write(hls, 60)
    (tmp_path / "cam" / "mine.mp4").touch()
    (tmp_path / "secret").touch()
    kinds = {path.name: hls_file(hls.options, "cam", path.name) for path in hls.folder.iterdir()}
    assert kinds["index.m3u8"] == (hls.playlist, "application/vnd.apple.mpegurl")
    assert kinds.pop("mine.mp4") is None
    assert all(found is not None for found in kinds.values())
    for name in ("../secret", "nothing.m4s", "20261121T063345-000001.m4s", "", "/etc/passwd", "index.m3u8.tmp"):
        assert hls_file(hls.options, "cam", name) is None


CHROMIUM = shutil.which("chromium")


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = {".m3u8": "application/vnd.apple.mpegurl", ".m4s": "video/mp4", ".mp4": "video/mp4"}  # noqa: RUF012  # as the class has it

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class calls it so
        pass


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_a_browser_plays_it_while_it_is_written(tmp_path: Path) -> None:
    """Chromium plays HLS by itself since version 142: no library, nothing from another server."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    hls = Hls("cam", HlsOptions(tmp_path, window=5))
    hls.begin(VIDEO, lambda: None)
    stop = threading.Event()

    def write_in_real_time() -> None:
        began = time.monotonic()
        for picture in pictures(1_000_000, key_every=25):
            if stop.wait(max(0.0, began + picture.pts / 90_000 - time.monotonic())):
                return
            hls.put(picture, wait=False)

    writer = threading.Thread(target=write_in_real_time, daemon=True)
    writer.start()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "page.html").write_text("<video muted autoplay src='cam/index.m3u8'></video>")
    until(lambda: hls.playlist.exists() and hls.playlist.read_text().count("EXTINF") >= 4)
    try:
        with playwright.sync_playwright() as driver:
            arguments = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
            if int(browser.version.split(".")[0]) < 142:
                pytest.skip(f"Chromium {browser.version} knows no HLS")
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{server.server_port}/page.html")
            # More than there was when it opened the playlist: it goes on reading it.
            page.wait_for_function("document.querySelector('video').currentTime > 6", timeout=180_000)
            shown = page.evaluate("(v => [v.videoWidth, v.videoHeight])(document.querySelector('video'))")
            browser.close()
        assert shown == [VIDEO.width, VIDEO.height]
    finally:
        stop.set()
        server.shutdown()
        hls.close()
        assert hls.join(60)
