"""A source whose frames, timing and failures are the test's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import av

from pipeline.contracts import AudioPacket, SourceCounts, StreamInfo
from pipeline.frame import Frame, Mode
from pipeline.pictures.planes import plane


def gray_image(level: int, width: int = 64, height: int = 36) -> av.VideoFrame:
    """A yuv420p picture of one grey level (full range of levels taken as limited)."""
    image = av.VideoFrame(width, height, "yuv420p")
    plane(image, 0)[:] = level
    plane(image, 1)[:] = 128
    plane(image, 2)[:] = 128
    image.time_base, image.pts = Fraction(1, 25), 0
    return image


class ScriptedSource:
    """`frames` grey pictures; `before` is called with each index before that frame is yielded: it may wait or raise."""

    address = "scripted"

    def __init__(
        self,
        stream_id: str = "a",
        frames: int = 20,
        mode: Mode = "file",
        before: Callable[[int], None] = lambda _index: None,
    ) -> None:
        self.id, self.frames, self.mode, self._before = stream_id, frames, mode, before
        self.counts = SourceCounts()
        self.closed = 0

    def open(self) -> StreamInfo:
        return StreamInfo(64, 36, "yuv420p", Fraction(1, 25), Fraction(25), self.frames)

    def __iter__(self) -> Iterator[Frame | AudioPacket]:
        for index in range(self.frames):
            self._before(index)
            image = gray_image(30 + index % 200)
            yield Frame(self.id, index, index, Fraction(1, 25), time.time(), time.monotonic(), image, 1)

    def close(self) -> None:
        self.closed += 1
