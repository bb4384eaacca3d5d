"""Fragmented MP4 after a kill: where the last whole fragment ends, and from which frame a run can go on."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error

from engines.containers import local
from engines.errors import OutputError


def whole_fragments(path: Path) -> int:
    """Bytes up to the end of the last whole fragment (`moof` with its `mdat`); 0 when there is no whole one.

    Top-level boxes only, ISO/IEC 14496-12 §4.2.
    """
    size, position, good, header = path.stat().st_size, 0, 0, False
    with path.open("rb") as file:
        while position + 8 <= size:
            file.seek(position)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1 and len(head) == 16:
                length = int.from_bytes(head[8:16], "big")
            if length < 8 or position + length > size:
                break
            position += length
            header = header or kind == b"moov"
            if kind == b"mdat" and header:
                good = position
    return good


def cut_torn_tail(path: Path) -> None:
    """Cut off what a kill or a full disk left behind the last whole fragment."""
    end = whole_fragments(path)
    if 0 < end < path.stat().st_size:
        with path.open("r+b") as file:
            file.truncate(end)


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """From where a recording can go on without doubling or losing a frame.

    Attributes:
        frames: how many frames, in order of presentation, stand before the point.
        packets: how many video packets, in order of decoding, stand before it.
        time: presentation time of the first frame to make anew, in seconds.
    """

    frames: int
    packets: int
    time: Fraction


def find_resume_point(path: Path, at_most: int | None = None) -> ResumePoint | None:
    """The last key frame that nothing before depends on, with at most `at_most` frames before it.

    The encoder closes every group of pictures, so all frames before a key frame in decoding order are also before it
    in time. None when there is nothing to keep.

    Raises:
        OutputError: the file is not a video FFmpeg can read.
    """
    if whole_fragments(path) == 0:
        return None
    try:
        with av.open(local(path)) as container:
            video = container.streams.video[0]
            packets = [p for p in container.demux(video) if p.pts is not None and p.size]
    except (av.error.FFmpegError, IndexError):
        raise OutputError(f"{path} cannot be resumed: it is not a video this program wrote; move it away") from None
    best = None
    for position, packet in enumerate(packets):
        if packet.is_keyframe and position and packet.pts is not None and (at_most is None or position <= at_most):
            best = ResumePoint(position, position, packet.pts * packet.time_base)
    return best


class EarlierRecording:
    """The recording of an interrupted run, kept beside the one that goes on from it until that one holds as much.

    What is copied into the new recording is in its file with the next whole fragment only: until then a kill would cost
    what the interrupted run had.

    Args:
        path: the recording of the interrupted run.
        later: the recording that goes on from it.
        point: where it goes on.
        rate: frames a second.
    """

    def __init__(self, path: Path, later: Path, point: ResumePoint, rate: Fraction) -> None:
        self._path, self._later, self._point = path, later, point
        self._wait = max(round(2 * rate), 1)
        self._look_at = point.frames + self._wait
        self._kept = True

    def follow(self, frames: int) -> None:
        """The later recording has got so many frames. It is looked through when there are two seconds of new ones, and
        then each time there are twice as many, for looking through a long one takes a second.
        """
        if self._kept and frames >= self._look_at:
            self._wait *= 2
            self._look_at = self._point.frames + self._wait
            self.compare()

    def compare(self) -> None:
        """Remove it where the later recording can be resumed at the same point or behind it."""
        if self._kept and self._later.exists():
            now = find_resume_point(self._later)
            if now is not None and now.frames >= self._point.frames:
                self.remove()

    def remove(self) -> None:
        """The later recording is whole."""
        self._kept = False
        self._path.unlink(missing_ok=True)
