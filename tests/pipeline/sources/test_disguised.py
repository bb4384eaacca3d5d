"""Files that are not what their names say: lists that lead to other files, text, and pictures of gigabytes. A dash
cam's card is somebody else's, too.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.containers import FORMATS, MAX_PIXELS, open_container
from engines.errors import SourceError
from pipeline.sources.clips import open_clip
from pipeline.sources.live.address import LiveOptions, live_input, open_input
from pipeline.sources.live.faults import Fault
from pipeline.sources.stills import ImageSource
from tests.footage import write_clip

HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
LISTS = {
    "concat": "ffconcat version 1.0\nfile {}\n",
    "HLS": HLS,
    "DASH": "<!-- {} --><MPD profiles='urn:mpeg:dash:profile:isoff-on-demand:2011'><BaseURL>{}</BaseURL></MPD>",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "text": "\x1b[1mroot:x:0:0 {}\x1b[0m\r\n" * 40,
    "NFO": "root:x:0:0 {}\n" * 40,
}


@pytest.mark.seconds
@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize(
    "name", ["a.mp4", "a.ts", "a.mkv", "a.avi", "a.txt", "a.nfo", "a.ans", "a", "a.ffconcat", "a.sdp"]
)
def test_a_file_is_no_list_of_others_and_no_text(tmp_path: Path, kind: str, name: str) -> None:
    write_clip(tmp_path / "secret.mp4", frames=3)
    (tmp_path / name).write_text(LISTS[kind].replace("{}", "secret.mp4"))
    with pytest.raises(SourceError, match=str(tmp_path / name)):
        open_clip(tmp_path / name)


def test_a_playlist_is_one_where_it_is_called_so(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.ts", frames=5)
    (tmp_path / "a.m3u8").write_text(HLS.format("a.ts"))
    container, video = open_clip(tmp_path / "a.m3u8")
    with container:
        assert len(list(container.decode(video))) == 5


@pytest.mark.parametrize("name", ["p%d.jpg", "p%03d.png", "p*.jpg"])
def test_a_picture_is_the_one_of_its_name(tmp_path: Path, name: str) -> None:
    for other, side in (("p1", 64), ("p001", 64)):
        for suffix in (".jpg", ".png"):
            cv2.imwrite(str(tmp_path / f"{other}{suffix}"), np.zeros((side, side, 3), np.uint8))
    cv2.imwrite(str(tmp_path / name), np.zeros((32, 32, 3), np.uint8))
    info = ImageSource("a", [tmp_path / name]).open()
    assert (info.width, info.height) == (32, 32)


def bomb(side: int) -> bytes:
    """A PNG of one colour: 12,000 pixels a side are some 400 kB."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    deflate = zlib.compressobj(1)
    data = b"".join([*(deflate.compress(bytes(side + 1)) for _ in range(side)), deflate.flush()])
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_picture_of_gigabytes_is_not_decoded(tmp_path: Path) -> None:
    side = 12_000
    assert side * side > MAX_PIXELS
    (tmp_path / "a.png").write_bytes(bomb(side))
    with pytest.raises(SourceError, match="none of the 1 pictures"):
        ImageSource("a", [tmp_path / "a.png"]).open()


def test_a_camera_s_device_is_a_device(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=3)
    for options in (LiveOptions(), LiveOptions(format="tty"), LiveOptions(format="mp4")):
        with pytest.raises(Fault, match="is no device"):
            open_input(live_input(f"v4l2:{tmp_path / 'a.mp4'}", options), options, lambda: False)


def test_no_format_leads_elsewhere_or_shows_text() -> None:
    others = {"concat", "dash", "hls", "imf", "sdp", "tty", "lavfi", "rawvideo", "xbin", "bin", "adf", "idf", "vobsub"}
    assert not FORMATS & others
    assert "image2" in FORMATS  # with `pattern_type: none`, see `open_container`


def test_a_pipe_names_no_files(tmp_path: Path) -> None:
    write_clip(tmp_path / "secret.mp4", frames=3)
    (tmp_path / "list").write_text(LISTS["concat"].replace("{}", "secret.mp4"))
    with (tmp_path / "list").open("rb") as pipe, pytest.raises((OSError, ValueError)):
        open_container(pipe)
