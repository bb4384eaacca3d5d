"""What nearer walls hide of the synthetic street, so that it need not be drawn."""

from __future__ import annotations

import math

Region = tuple[int, int, int, int]
"""Part of a picture: left, top, right, bottom in pixels, the last two exclusive."""
Upright = tuple[float, float, float]
"""An upright edge in the picture: column, upper and lower end, in pixels; the middle of a pixel is at a half."""

STRIP = 8
"""Columns for which it is known together what is hidden."""


class Cover:
    """What the walls so far hide of all that is farther away: of each strip of STRIP columns one span of rows.

    What it says is hidden is; of what is hidden it knows but a part.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._tops = [height] * -(-width // STRIP)
        self._ends = [0] * len(self._tops)

    def add(self, one: Upright, other: Upright) -> None:
        """A wall between two upright edges, in either order."""
        (u1, top1, end1), (u2, top2, end2) = sorted((one, other))
        first = max(math.ceil((u1 + 1) / STRIP), 0)
        last = len(self._tops) if u2 > self.width else math.floor((u2 - 1) / STRIP)
        if first >= last:
            return
        down, end_down = (top2 - top1) / (u2 - u1), (end2 - end1) / (u2 - u1)
        for strip in range(first, last):
            left = strip * STRIP - u1
            top = math.ceil(top1 + down * (left + STRIP if down > 0 else left)) + 1
            end = math.floor(end1 + end_down * (left if end_down > 0 else left + STRIP)) - 1
            top_before, end_before = self._tops[strip], self._ends[strip]
            if top <= end_before and end >= top_before:
                self._tops[strip], self._ends[strip] = min(top, top_before), max(end, end_before)
            elif end - top > end_before - top_before:
                self._tops[strip], self._ends[strip] = top, end

    def visible(self, x1: int, y1: int, x2: int, y2: int) -> Region | None:
        """A part of the picture without the sides, the top and the bottom that are hidden; None: all of it is."""
        x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, self.width), min(y2, self.height)
        if x1 >= x2 or y1 >= y2:
            return None
        first, last = x1 // STRIP, (x2 - 1) // STRIP
        tops, ends = self._tops, self._ends
        while tops[first] <= y1 and ends[first] >= y2:
            first += 1
            if first > last:
                return None
        while tops[last] <= y1 and ends[last] >= y2:
            last -= 1
        tops, ends = tops[first : last + 1], ends[first : last + 1]
        if min(ends) >= y2:
            y2 = min(y2, max(tops))
        elif max(tops) <= y1:
            y1 = max(y1, min(ends))
        return max(x1, first * STRIP), y1, min(x2, (last + 1) * STRIP), y2
