"""The legend: colours and names of the classes that are in the picture, in rows along its lower edge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from engines.classes import ClassInfo
from pipeline.drawing.canvas import Canvas, InkCanvas, Rect
from pipeline.drawing.contrast import ENOUGH, GROUND, WHITE, Measures, contrast
from pipeline.frame import Analysis
from pipeline.pictures.colors import Colorimetry

_LEAST = 0.001
"""Share of the picture from which on a class is in it; a box of it counts, however small."""

_SECONDS = 1.0
"""Time constant of coming and going."""

_COMES, _GOES = 0.6, 0.05
SETTLED = 3.0
"""Seconds after which it is forgotten what was seen before."""

_HIGHEST = 0.25
"""Most of the picture's height that the legend takes."""


class Entry(NamedTuple):
    """A class, or how many more there are, and where it stands."""

    info: ClassInfo | None
    text: str
    at: Rect


class Legend:
    """Of one stream. A class that is seen for about a second is listed, and stays for about three when it is gone.

    Args:
        classes: those that may be listed, in order.
    """

    def __init__(self, classes: Sequence[ClassInfo]) -> None:
        self._classes = tuple(classes)
        self._names = {info.name for info in self._classes}
        self._dark = {info.name for info in self._classes if contrast(info.color, GROUND) < ENOUGH}
        self._seen: dict[str, float] = {}
        self._listed: set[str] = set()
        self._time: float | None = None

    def entries(self, analysis: Analysis, size: tuple[int, int]) -> list[Entry]:
        """Take notice of what is in a picture, and say what stands where; the classes of the first are listed at once.

        Args:
            analysis: of the picture.
            size: its width and height.
        """
        self.look(analysis)
        return self._laid_out(size)

    def look(self, analysis: Analysis) -> None:
        """Take notice of what is in a picture."""
        present = {name for name, share in _areas(analysis, self._classes).items() if share >= _LEAST}
        present |= {box.label for box in analysis.boxes}
        time = analysis.frame.time
        passed = _SECONDS if self._time is None else min(abs(time - self._time), _SECONDS)
        weight = 1.0 if self._time is None else 1 - math.exp(-passed / _SECONDS)
        self._time = time
        for name in self._names & (present | self._seen.keys()):
            level = self._seen.get(name, 0.0)
            level += weight * ((name in present) - level)
            self._seen[name] = level
            if level >= _COMES:
                self._listed.add(name)
            elif level < _GOES:
                self._listed.discard(name)
                if name not in present:
                    del self._seen[name]

    def _laid_out(self, size: tuple[int, int]) -> list[Entry]:
        """Rows of entries from the lower left; what would go beyond a quarter of the picture is told as a number."""
        width, height = size
        measures = Measures.at_the_edge(*size)
        most = max(1, int(_HIGHEST * height / measures.row))
        listed = [info for info in self._classes if info.name in self._listed]
        for shown in range(len(listed), -1, -1):
            texts: list[tuple[ClassInfo | None, str]] = [(info, info.name) for info in listed[:shown]]
            if shown < len(listed):
                texts.append((None, f"+{len(listed) - shown}"))
            rows = _rows([_entry_width(info, text, measures) for info, text in texts], width)
            if rows and rows[-1][0] < most and all(right <= width for _, _, right in rows):
                first = height - (rows[-1][0] + 1) * measures.row
                return [
                    Entry(info, text, Rect(left, top := first + row * measures.row, right, top + measures.row))
                    for (info, text), (row, left, right) in zip(texts, rows, strict=True)
                ]
        return []

    def draw(self, canvas: Canvas | InkCanvas, entries: Sequence[Entry], colorimetry: Colorimetry) -> None:
        """Draw the entries on a dark ground."""
        measures = Measures.at_the_edge(canvas.width, canvas.height)
        inset = measures.row // 5
        side, ring = measures.row - 2 * inset, max(1, round(measures.em / 10))
        white = colorimetry.yuv(WHITE)
        for entry in entries:
            left, top, right, bottom = entry.at
            canvas.fill(left, top, right - left, bottom - top, colorimetry.yuv(GROUND))
            x = left + measures.em // 2
            if entry.info is not None:
                if entry.text in self._dark:  # a dark colour has a light ring
                    canvas.fill(x, top + inset, side, side, white)
                    inner = side - 2 * ring
                    canvas.fill(x + ring, top + inset + ring, inner, inner, colorimetry.yuv(entry.info.color))
                else:
                    canvas.fill(x, top + inset, side, side, colorimetry.yuv(entry.info.color))
                x += side + measures.em // 3
            canvas.text(x, bottom - measures.descent, entry.text, white[0], measures.scale)


def _areas(analysis: Analysis, classes: Sequence[ClassInfo]) -> Mapping[str, float]:
    if analysis.area or analysis.class_map is None:
        return analysis.area
    counts = np.bincount(analysis.class_map.ravel(), minlength=256)
    return {info.name: float(counts[info.id]) / analysis.class_map.size for info in classes}


def _entry_width(info: ClassInfo | None, text: str, measures: Measures) -> int:
    """Pixels that an entry takes, with the room on both sides."""
    swatch = 0 if info is None else measures.row - 2 * (measures.row // 5) + measures.em // 3
    return measures.em // 2 + swatch + measures.width(text) + measures.em // 4


def _rows(widths: Sequence[int], most: int) -> list[tuple[int, int, int]]:
    """Row, left and right of things one after another, broken where the next would go beyond `most`."""
    places, row, left = [], 0, 0
    for width in widths:
        if left and left + width > most:
            row, left = row + 1, 0
        places.append((row, left, left + width))
        left += width
    return places
