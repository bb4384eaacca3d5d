"""Black bars and burnt-in panels along the edges of a picture, found over time.

A bar is what stays: pixels of one dark colour that no sample changes, up to a straight edge behind which the picture
moves. One dark frame has no such edge that stays, and neither has a night: where its black ends is ragged and flickers.
Letters, digits and curves on a panel are holes in its colour, and are filled. All of it is a running minimum and
maximum of the luma plane a few times a second (0.4 ms at 720p), and a look at them ever more rarely.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Rect

UInt8 = NDArray[np.uint8]

_TOLERANCES = (2, 5, 10)
"""Levels that a bar may differ from its colour, by place and over time: the least one that finds an edge is taken, for
only that tells a bar from a night sky; coding leaves up to the last."""

_STRAIGHT = 0.5
"""Share of an edge's pixels that must lie on one line. Beside the rest the picture is as dark as the bar."""

_REACH = 0.9
"""Share of an edge along which a bar is at least that deep."""

_LIGHT, _STRAIGHT_IF_DOUBTFUL = 64, 0.9
"""Luma from which on a bar might as well be a sky or a wall, and how straight its edge must be then."""

_STEP, _UNEVEN = 0.15, 0.3
"""Share of an edge that a deeper panel beside a bar takes at least, and how much straighter both must then be."""

_LETTERS, _DRAWING, _DRAWN = 0.02, 0.06, 0.3
"""Shares of the picture up to which a hole in a bar is writing, and up to which it is a drawing if it fills no more
than so much of its bounding rectangle; else it is the picture."""

_LEAST_DEPTH = 0.012
"""Share of the picture that a bar takes at least, unless its edge is as straight as a light one's must be."""

_LEAST_LEFT = 0.3
"""Share of width and of height that bars leave at least."""

_MOVING, _LEAST_MOVING = 16, 0.05
"""Levels by which a pixel that shows the road changes, and the share of what is left that must have done so."""

_LEAST_PANEL, _LARGEST_PANEL = 0.004, 0.5
"""Share of the picture that a panel has at least and at most."""

_RIM = 0.02
"""Share of the pixels along the edges that have a panel's colour at least."""

_RAGGED, _MOST_CORNERS = 4, 12
"""Pixels by which a panel's edge may leave its line, and how many corners it may have."""

LEAST_SAMPLES = 5
"""Samples before anything is believed."""


Polygon = tuple[tuple[int, int], ...]
"""Corners in pixels, x right, y down."""


@dataclass(frozen=True, slots=True)
class Margins:
    """What is no picture.

    Attributes:
        crop: what is left between the bars; the whole picture where there are none.
        panels: polygons inside of `crop` that reach its edge along a part of it only.
    """

    crop: Rect
    panels: tuple[Polygon, ...] = ()


def find_margins(low: UInt8, high: UInt8) -> Margins:
    """The bars of a picture.

    Args:
        low, high: (h, w) uint8, the least and the greatest luma of each pixel over time.

    Returns:
        Rectangles in pixels of these arrays.
    """
    height, width = low.shape
    crop, changed = Rect(0, 0, width, height), True
    bars: dict[int, tuple[int, int]] = {}
    while changed:
        changed = False
        for side in range(4):
            found = _bar(low, high, crop, side)
            if found is None:
                continue
            smaller = _without(crop, side, found[0])
            if min((smaller.x2 - smaller.x1) / width, (smaller.y2 - smaller.y1) / height) >= _LEAST_LEFT:
                crop, changed = smaller, True
                bars[side] = (found[0] + bars.get(side, (0, 0))[0], found[1])
    for side, (depth, color) in bars.items():
        if (side + 2) % 4 not in bars:
            crop = _opposite(low, high, crop, side, depth, color) or crop
    moved = high[crop.y1 : crop.y2, crop.x1 : crop.x2] - low[crop.y1 : crop.y2, crop.x1 : crop.x2] > _MOVING
    if moved.mean() < _LEAST_MOVING:
        return Margins(Rect(0, 0, width, height))
    return Margins(crop, tuple(_panels(low, high, crop)))


def _turned(plane: UInt8, crop: Rect, side: int) -> UInt8:
    """The cropped plane with a side (top, right, bottom, left) on top."""
    return np.rot90(plane[crop.y1 : crop.y2, crop.x1 : crop.x2], side)


def _without(crop: Rect, side: int, depth: int) -> Rect:
    x1, y1, x2, y2 = crop
    return (
        Rect(x1, y1 + depth, x2, y2), Rect(x1, y1, x2 - depth, y2), Rect(x1, y1, x2, y2 - depth),
        Rect(x1 + depth, y1, x2, y2),
    )[side]  # fmt: skip


def _bar(low: UInt8, high: UInt8, crop: Rect, side: int) -> tuple[int, int] | None:
    """Depth and colour of the bar along a side."""
    low, high = _turned(low, crop, side), _turned(high, crop, side)
    color = int(np.median(low[:2]))
    for tolerance in _TOLERANCES:
        if _flat(low[:2], high[:2], color, tolerance).mean() < 255 * _REACH:
            continue
        depths = _depths(_filled(_flat(low, high, color, tolerance)))
        depth = int(np.quantile(depths, 1 - _REACH))
        if color >= _LIGHT and _shown(low, high, depth + 2, color, tolerance):
            continue
        doubtful = color >= _LIGHT or depth < _LEAST_DEPTH * len(low)
        if 2 <= depth < len(low) - 2 and _straight(depths, depth) >= (_STRAIGHT_IF_DOUBTFUL if doubtful else _STRAIGHT):
            return depth, color
    return None


def _straight(depths: NDArray[np.intp], depth: int) -> float:
    """Share of a bar's edge that lies at its depth, and if that is little, of it and of deeper panels' edges."""
    own = float((np.abs(depths - depth) <= 2).mean())
    near = np.convolve(np.bincount(depths, minlength=5), np.ones(5), "same")  # columns within two of each depth
    popular = np.convolve(near >= _STEP * len(depths), np.ones(5), "same") > 0
    return max(own, float(popular[depths].mean()) - _UNEVEN) if own >= _STEP else own


def _shown(low: UInt8, high: UInt8, row: int, color: int, tolerance: int) -> bool:
    """Whether most of a row behind a bar has its colour at times: a horizon that nods is no edge of a bar."""
    there = (low[row : row + 1] <= color + tolerance) & (high[row : row + 1] >= color - tolerance)
    return there.size > 0 and bool(there.mean() > 1 - _STRAIGHT)


def _opposite(low: UInt8, high: UInt8, crop: Rect, side: int, depth: int, color: int) -> Rect | None:
    """The crop without a bar across from one that was found, as deep: its own edge may lie in the dark."""
    other = (side + 2) % 4
    strip = slice(0, depth)
    low, high = _turned(low, crop, other), _turned(high, crop, other)
    if depth >= len(low) // 2:
        return None
    inside = _flat(low[strip], high[strip], color, _TOLERANCES[0])
    return _without(crop, other, depth) if inside.mean() > 0.99 * 255 else None


def _flat(low: UInt8, high: UInt8, color: int, tolerance: int) -> UInt8:
    """(h, w) 255 where a pixel always has the colour; else 0."""
    darkest, lightest = max(color - tolerance, 0), min(color + tolerance, 255)
    return np.where((low >= darkest) & (high <= lightest), np.uint8(255), np.uint8(0))


def _filled(flat: UInt8) -> UInt8:
    """`flat` with what is written or drawn on it: holes that are small, or thin lines."""
    height, width = flat.shape
    other = cv2.bitwise_not(flat)
    _, labels, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(other, 8, cv2.CV_32S, cv2.CCL_BOLELLI)
    x, y, w, h, area = stats.T
    hole = (x > 0) & (y > 0) & (x + w < width) & (y + h < height)
    thin = (area <= _DRAWING * flat.size) & (area <= _DRAWN * w * h)
    table = np.where(hole & (thin | (area <= _LETTERS * flat.size)), 255, 0).astype(np.uint8)
    table[0] = 255  # what is flat already
    return np.asarray(table[labels], np.uint8)


def _depths(flat: UInt8) -> NDArray[np.intp]:
    """How far each column is flat from the top."""
    edge = flat == 0
    return np.where(edge.any(0), edge.argmax(0), len(flat))


def _panels(low: UInt8, high: UInt8, crop: Rect) -> list[Polygon]:
    """Regions of one colour with upright and level edges that begin at an edge of the crop."""
    low, high = (np.ascontiguousarray(_turned(plane, crop, 0)) for plane in (low, high))
    height, width = low.shape
    near = max(2, min(height, width) // 50)
    rim = np.concatenate([low[near], low[-near - 1], low[:, near], low[:, -near - 1]])
    common = np.bincount(rim, minlength=256)[:_LIGHT]
    panels: list[Polygon] = []
    taken = np.zeros_like(low)
    for color in np.argsort(-common, kind="stable")[: np.count_nonzero(common > _RIM * rim.size)].tolist():
        flat = _filled(_flat(low, high, color, _TOLERANCES[1]))
        contours, _ = cv2.findContours(flat, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for contour in contours:
            x, y, w, h = cv2.boundingRect(contour)
            at_edge = x <= near or y <= near or x + w >= width - near or y + h >= height - near
            if not at_edge or not _LEAST_PANEL <= cv2.contourArea(contour) / low.size <= _LARGEST_PANEL:
                continue
            outline = _rectilinear(np.asarray(contour, np.int32)[:, 0])
            if outline is None or taken[outline[:, 1], outline[:, 0]].any():
                continue
            cv2.fillPoly(taken, [outline], 255)
            panels.append(tuple((crop.x1 + x, crop.y1 + y) for x, y in outline.tolist()))
    return panels


def _rectilinear(contour: NDArray[np.int32]) -> NDArray[np.int32] | None:
    """A contour, (n, 2), by its corners, where all of its edges are upright or level; else None."""
    corners = np.asarray(cv2.approxPolyDP(contour, _RAGGED, True), np.int32)[:, 0]
    sides = np.abs(corners - np.roll(corners, 1, 0)).min(1)
    return corners if 4 <= len(corners) <= _MOST_CORNERS and (sides <= _RAGGED).all() else None
