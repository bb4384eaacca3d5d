"""Recordings as cameras and their owners make them, by Debian's FFmpeg, and what FFprobe says of files.

Every clip is made of two: forty pictures of 160×96 at 25 a second, with a sine of 48 kHz beside them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import Config, ModelConfig, StreamConfig, VideoConfig
from pipeline.drawing.overlay import OverlayStyle
from pipeline.messages.jsonlines import read_lines
from pipeline.session import Session

PLAIN = OverlayStyle(opacity=0, outlines=False, boxes=False)
FRAMES, RATE, SIZE = 40, 25, (160, 96)
SOUND_SECONDS = 1.6


def available() -> bool:
    return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None


class Kitchen:
    """Makes recordings in a folder.

    Args:
        folder: where they are made.
        pantry: where what several of them need is kept.
    """

    def __init__(self, folder: Path, pantry: Path) -> None:
        self.folder, self._pantry = folder, pantry

    def ffmpeg(self, arguments: str, name: str, folder: Path | None = None) -> Path:
        """The file that `ffmpeg ARGUMENTS name` makes; in the arguments {base}, {plain} and {corner} are clips."""
        path = (folder or self.folder) / name
        inputs = {key: str(self._pantry / f"{key}.mp4") for key in ("base", "plain", "corner")}
        words = [word.format(**inputs, here=self.folder) for word in arguments.split()]
        command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *words, str(path)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return path

    def stock(self) -> None:
        """Make the base clips: with sound, without, and one that is white in its upper left quarter alone."""
        picture = f"-f lavfi -i testsrc2=s=160x96:r={RATE}:d=1.6"
        x264 = "-c:v libx264 -preset ultrafast -threads 1"
        self.ffmpeg(f"{picture} -f lavfi -i sine=440:r=48000:d=1.6 {x264} -c:a aac", "base.mp4", self._pantry)
        self.ffmpeg(f"{picture} {x264}", "plain.mp4", self._pantry)
        corner = "-f lavfi -i color=black:s=160x96:r=25:d=0.2 -vf drawbox=w=80:h=48:color=white:t=fill"
        self.ffmpeg(f"{corner} {x264} -crf 1", "corner.mp4", self._pantry)

    def joined(self, name: str, *parts: Path) -> Path:
        """Files one behind the other."""
        path = self.folder / name
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        return path

    def turned(self, name: str, matrix: tuple[int, int, int, int]) -> Path:
        """The clip with the white corner, with a display matrix (a, b, c, d) in its header (ISO/IEC 14496-12)."""
        path = self.ffmpeg("-i {corner} -c copy", name)
        data = bytearray(path.read_bytes())
        header = data.index(b"tkhd") + 4
        at = header + (52 if data[header] == 1 else 40)
        a, b, c, d = matrix
        data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        path.write_bytes(data)
        return path

    def photograph(self, name: str, orientation: int, taken: str = "", zone: str = "") -> Path:
        """The white corner as a JPEG with an Exif orientation, and when it was taken (CIPA DC-008)."""
        path = self.ffmpeg("-i {corner} -frames:v 1 -q:v 2", name)
        data = path.read_bytes()
        texts = [(tag, text.encode() + b"\0") for tag, text in ((36_867, taken), (36_881, zone)) if text]
        more, at = b"", 8 + 2 + 2 * 12 + 4
        texts_at = at + 2 + 12 * len(texts) + 4
        for n, (tag, text) in enumerate(texts):
            more += struct.pack(">HHII", tag, 2, len(text), texts_at + sum(len(before) for _, before in texts[:n]))
        first = struct.pack(">HHHIHHHHIII", 2, 274, 3, 1, orientation, 0, 34_665, 4, 1, at, 0)
        second = struct.pack(">H", len(texts)) + more + struct.pack(">I", 0) + b"".join(text for _, text in texts)
        exif = b"Exif\0\0" + b"MM\0*" + struct.pack(">I", 8) + first + second
        path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
        return path


@dataclass
class Track:
    """What FFprobe says of a track: its header, the times of its pictures, its packets."""

    header: dict[str, Any]
    times: list[float] = field(default_factory=list)
    packets: list[dict[str, Any]] = field(default_factory=list)

    @property
    def kept(self) -> list[dict[str, Any]]:
        """Packets that are not marked as trimmed."""
        return [packet for packet in self.packets if "D" not in packet["flags"]]


def probed(path: Path) -> dict[str, Track]:
    """The first track of pictures and of sound, as `video` and `audio`, of a file that FFprobe takes without a word."""
    fields = (
        "stream:packet=stream_index,pts_time,duration_time,flags:frame=stream_index,best_effort_timestamp_time,pts_time"
    )
    command = ["ffprobe", "-v", "error", "-show_streams", "-show_entries", fields, "-of", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert not done.stderr, done.stderr
    said = json.loads(done.stdout)
    by_index = {stream["index"]: Track(stream) for stream in said["streams"]}
    for item in said["packets_and_frames"]:
        if item["type"] == "subtitle":  # text, of which FFprobe does not say whose it is
            continue
        track = by_index[item["stream_index"]]
        if item["type"] == "packet":
            track.packets.append(item)
        elif track.header["codec_type"] == "video":
            track.times.append(float(item.get("best_effort_timestamp_time", "nan")))
    tracks: dict[str, Track] = {}
    for track in by_index.values():
        tracks.setdefault(track.header["codec_type"], track)
    return tracks


def header(path: Path) -> dict[str, Any]:
    """What FFprobe says of a file as a whole."""
    command = ["ffprobe", "-v", "error", "-show_format", "-of", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    said: dict[str, Any] = json.loads(done.stdout)["format"]
    return said


def grey(path: Path, size: tuple[int, int], at: int = 0) -> list[bytes]:
    """The rows of a picture of a video, 8-bit grey, decoded by FFmpeg, which does not turn it."""
    command = ["ffmpeg", "-v", "error", "-noautorotate", "-i", str(path), "-vf", f"select=eq(n\\,{at})", "-frames:v",
               "1", "-pix_fmt", "gray", "-f", "rawvideo", "-"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    width, height = size
    assert len(done.stdout) == width * height
    return [done.stdout[row * width : (row + 1) * width] for row in range(height)]


def written(source: Path, out: Path, segmenter: Path) -> tuple[int, Path]:
    """How many frames a run says that it analysed, and the video that it wrote; what it read is as it was."""
    before = hashes(source.parent)
    config = Config(
        (StreamConfig(str(source), id="clip"),), (ModelConfig(str(segmenter)),), overlay=PLAIN,
        video=VideoConfig(path=out / "o.mp4", preset="ultrafast", crf=1), jsonl=str(out / "o.jsonl"),
    )  # fmt: skip
    with Session(config) as session:
        result = session.run()
    if result.error is not None:
        raise result.error
    assert hashes(source.parent) == before
    return sum(1 for _ in read_lines(out / "o.jsonl")), out / "o.mp4"


def hashes(folder: Path) -> dict[Path, str]:
    return {path: _hash(path, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()}


@functools.lru_cache(maxsize=512)
def _hash(path: Path, _changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
