"""What is no picture of the road: the own car at the lower edge, bars, and panels burnt into the picture.

The pairs show one make of bonnet, always in the same place, and no bars or panels. So others are drawn into the views
that a network learns from.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, IGNORE

UInt8 = NDArray[np.uint8]
Rectangle = tuple[int, int, int, int]

VOID = len(CITYSCAPES_CLASSES)
"""Its number in the labels that a network learns from; a class map says 255 there."""

WIDE = 0.4
"""Share of the lower edge that the own car covers at least."""

OFTEN = 0.25
"""Share of the pictures that are void where the own car is, at least; cameras stood in more cars than one."""

_OWN_CAR = 0.7
"""Share of the drawn views that get a bonnet; as many get no panel."""


def own_car(labels: UInt8) -> NDArray[np.bool_]:
    """Where labels of the pairs, which have one colour for all that is void, show the own car: (N, H, W) bool.

    It is what of the void reaches from the lower edge up, and is void in many pictures: a strip for parking is in one.

    Args:
        labels: (N, H, W) uint8 trainIds, 255 void.
    """
    often = _at_lower_edge((labels == IGNORE).mean(0) >= OFTEN)
    return np.stack([_at_lower_edge(label == IGNORE) & often for label in labels])


def _at_lower_edge(void: NDArray[np.bool_]) -> NDArray[np.bool_]:
    opened = cv2.morphologyEx(void.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, parts = cv2.connectedComponents(opened, connectivity=4)
    along = np.bincount(parts[-2])  # the lowest row is a blend with what is not there
    wide = [part for part in range(1, len(along)) if along[part] >= WIDE * void.shape[1]]
    found: NDArray[np.bool_] = np.isin(parts, wide)
    found[-1] |= found[-2]
    return found


def draw_void(picture: UInt8, label: UInt8, rng: np.random.Generator) -> tuple[UInt8, UInt8]:
    """A view with a bonnet or a dashboard, with bars or panels, or with both, and with lettering.

    Args:
        picture: (H, W, 3) uint8 RGB.
        label: (H, W) uint8.
        rng: source of randomness; the result is a pure function of its state.

    Returns:
        Copies of both; the label is `VOID` where something was drawn, lettering on the road left out.
    """
    picture, label = picture.copy(), label.copy()
    if rng.random() < _OWN_CAR:
        _draw_bonnet(picture, label, rng)
    if rng.random() > _OWN_CAR:
        for _ in range(rng.integers(1, 4)):
            _draw_panel(picture, label, rng)
    if rng.random() < 0.25:
        height, width = label.shape
        _write(picture, (0, 0, width, height), rng)
    return picture, label


def _draw_bonnet(picture: UInt8, label: UInt8, rng: np.random.Generator) -> None:
    """What a camera behind the windscreen sees of its own car, in place: an arc over the lower edge, of one colour
    with its light from above, most often a mirror of the scene."""
    height, width = label.shape
    rise = height * np.exp(rng.uniform(np.log(0.03), np.log(0.28)))
    across = (np.arange(width) / width - rng.uniform(0.2, 0.8)) / rng.uniform(0.5, 1.2)
    top = height - rise * (1 - rng.uniform(0, 1.2) * np.abs(across) ** rng.uniform(1.5, 4))
    top += rng.uniform(-0.04, 0.04) * height * across
    inside = np.arange(height)[:, None] + 0.5 - top
    mask = inside > 0
    if not mask.any():
        return
    first = int(np.argmax(mask.any(1)))
    rows, depth = slice(first, height), height - first
    painted = _paint(picture, inside[rows], depth, rng)
    # Its edge is as sharp as a lens that looks far away draws something near.
    alpha = np.clip(inside[rows] / rng.uniform(0.8, 4) + 0.5, 0, 1)[..., None]
    picture[rows] = np.rint(picture[rows] * (1 - alpha) + painted * alpha).astype(np.uint8)
    label[mask] = VOID


def _paint(picture: UInt8, inside: NDArray[np.float64], depth: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(depth, W, 3) levels of a painted surface; `inside` is how many pixels below its upper edge each pixel lies."""
    height, width = picture.shape[:2]
    base = 255 * rng.beta(0.7, 1.0) * (1 - rng.uniform(0, 1) ** 2 * rng.uniform(0, 1, 3))
    down = np.clip(inside / depth, 0, 1)
    light = 1 + rng.uniform(-0.6, 0.6) * (down - 0.5)
    light = light + rng.uniform(-0.3, 0.3) * (np.arange(width) / width - 0.5)
    painted = base * light[..., None]
    if rng.random() < 0.7:
        start = int(rng.uniform(0, 0.6) * height)
        strip = picture[start : start + max(int(rng.uniform(0.1, 0.4) * height), 2)]
        mirror = cv2.resize(strip[::-1], (width, depth), interpolation=cv2.INTER_LINEAR)
        mirror = cv2.GaussianBlur(mirror, (0, 0), rng.uniform(0.5, 5))
        share = rng.uniform(0.05, 0.65)
        painted = painted * (1 - share) + mirror * share
    if rng.random() < 0.5:
        shine = np.exp(-(((inside - rng.uniform(0, 0.5) * depth) / (rng.uniform(0.03, 0.25) * depth + 0.5)) ** 2))
        painted = painted + rng.uniform(-60, 120) * shine[..., None]
    painted = painted + rng.normal(0, rng.uniform(0, 5), (depth, width, 1))
    canvas = np.clip(painted, 0, 255).astype(np.float32)
    for _ in range(rng.integers(0, 4)):
        ends = rng.uniform(0, 1, (2, 2)) * (width, depth)
        level = float(rng.uniform(0, 120))
        first, last = ((int(x), int(y)) for x, y in ends)
        cv2.line(canvas, first, last, (level, level, level), int(rng.integers(1, 4)), cv2.LINE_AA)
    return np.asarray(canvas, np.float64)


def _draw_panel(picture: UInt8, label: UInt8, rng: np.random.Generator) -> None:
    """A bar along a side or a panel at one, dark, often with lettering or a plot, in place.

    With bright ones of any colour among them a clear sky was taken for a panel.
    """
    height, width = label.shape
    x1, y1, x2, y2 = _place(height, width, rng)
    picture[y1:y2, x1:x2] = np.rint(rng.uniform(0, 40, 3)).astype(np.uint8)
    label[y1:y2, x1:x2] = VOID
    if rng.random() < 0.6:
        _write(picture, (x1, y1, x2, y2), rng)
    if rng.random() < 0.3:
        points = np.cumsum(rng.normal(0, 0.06, 12)) + 0.5
        across = np.linspace(x1 + 2, x2 - 2, len(points))
        line = np.column_stack([across, y1 + (y2 - y1) * np.clip(points, 0.1, 0.9)]).astype(np.int32)
        cv2.polylines(picture, [line], False, _bright(rng), 1, cv2.LINE_AA)


def _place(height: int, width: int, rng: np.random.Generator) -> Rectangle:
    kind = rng.integers(4)
    if kind == 0:  # a bar at the left or right
        wide = int(rng.uniform(0.03, 0.4) * width)
        x = 0 if rng.random() < 0.5 else width - wide
        return x, 0, x + wide, height
    if kind == 1:  # a bar at the top or bottom
        high = int(rng.uniform(0.03, 0.25) * height)
        y = 0 if rng.random() < 0.6 else height - high
        return 0, y, width, y + high
    wide, high = int(rng.uniform(0.15, 0.75) * width), int(rng.uniform(0.06, 0.45) * height)
    x = 0 if rng.random() < 0.4 else int(rng.uniform(0, width - wide))
    y = 0 if rng.random() < 0.7 else height - high
    return x, y, x + wide, y + high


def _write(picture: UInt8, within: Rectangle, rng: np.random.Generator) -> None:
    x1, y1, x2, y2 = within
    size = rng.uniform(0.2, 0.5)
    color, font = _bright(rng), int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN]))
    step = max(int(30 * size), 6)
    first = int(rng.uniform(y1 + step, max(y1 + step + 1, y2)))
    for line in range(rng.integers(1, 6)):
        letters = rng.choice(np.arange(45, 123, dtype=np.uint8), int(rng.integers(4, 30))).tobytes().decode("ascii")
        if (y := first + line * step) < y2:
            inner = np.ascontiguousarray(picture[y1:y2, x1:x2])
            cv2.putText(inner, letters, (3, y - y1), font, size, color, 1, cv2.LINE_AA)
            picture[y1:y2, x1:x2] = inner


def _bright(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(level) for level in rng.choice([0, 90, 200, 255], 3))
    return (255, 255, 255) if red + green + blue < 200 else (red, green, blue)
