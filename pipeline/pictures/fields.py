"""Interlaced pictures: which of their two fields is shown first.

A decoder marks each picture, and x264 goes by the mark of each picture, whatever it was opened with. PyAV shows the
mark to filters only, and a picture that is drawn anew has none.
"""

from __future__ import annotations

from fractions import Fraction

import av
import av.error
from av.filter import Graph

from pipeline.pictures.picture import Picture

UPPER, LOWER = 2, 3
"""The field that is coded and shown first, as FFmpeg numbers it (AVFieldOrder)."""


def order_of(image: av.VideoFrame) -> int:
    """Which field of a picture is shown first; 0 where it is progressive, and in GPU memory, where no filter looks."""
    if not image.interlaced_frame or Picture.of(image).in_gpu_memory:
        return 0
    return UPPER if _Filter("select", r"eq(interlace_type\,TOPFIRST)")(image) is not None else LOWER


class FieldMarks:
    """Marks pictures as interlaced. They share their planes with the pictures given.

    Args:
        order: `UPPER` or `LOWER`.
    """

    def __init__(self, order: int) -> None:
        self._mode = "tff" if order == UPPER else "bff"
        self._shape: tuple[int, int, str] | None = None
        self._filter = _Filter("setfield", self._mode)

    def __call__(self, image: av.VideoFrame) -> av.VideoFrame:
        shape = image.width, image.height, image.format.name
        if shape != self._shape:
            self._shape, self._filter = shape, _Filter("setfield", self._mode)
        marked = self._filter(image)
        return image if marked is None else marked


class _Filter:
    """A filter of FFmpeg that pictures of one shape go through one by one."""

    def __init__(self, name: str, arguments: str) -> None:
        self._name, self._arguments = name, arguments
        self._graph: Graph | None = None

    def __call__(self, image: av.VideoFrame) -> av.VideoFrame | None:
        if self._graph is None:
            self._graph = Graph()
            begin = self._graph.add_buffer(
                width=image.width, height=image.height, format=image.format, time_base=Fraction(1, 1000)
            )
            middle, end = self._graph.add(self._name, self._arguments), self._graph.add("buffersink")
            begin.link_to(middle)
            middle.link_to(end)
            self._graph.configure()
        self._graph.push(image)
        try:
            return self._graph.pull()  # type: ignore[return-value]  # pictures went in
        except (BlockingIOError, av.error.EOFError):
            return None
