"""A confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import ClassInfo

_CELL = 40
_MARGIN = 150
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK = (40, 40, 40)


NONE = "none"
"""What a last column is called, of pixels that a model calls no class at all."""


def with_some(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """A (C, C) or (C, C + 1) matrix without its last column where that is of no class and empty."""
    classes = len(matrix)
    return matrix if matrix[:, classes:].any() else matrix[:, :classes]


def draw_confusion(matrix: NDArray[np.int64], classes: Sequence[ClassInfo]) -> NDArray[np.uint8]:
    """Rows are true classes, columns predicted ones; a cell shows the share of its row, in per cent.

    Args:
        matrix: (C, C) counts, or (C, C + 1), the last column for none of the classes.
        classes: in the order of the matrix.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    matrix = with_some(matrix)
    rows, columns = matrix.shape
    canvas = np.full((_MARGIN + rows * _CELL + 10, _MARGIN + columns * _CELL + 10, 3), 255, np.uint8)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    for row in range(rows):
        for column in range(columns):
            x, y, part = _MARGIN + column * _CELL, _MARGIN + row * _CELL, float(share[row, column])
            strength = part**0.5  # small confusions are what one looks for
            color = tuple(int(255 + strength * (dark - 255)) for dark in (16, 78, 139))
            cv2.rectangle(canvas, (x, y), (x + _CELL - 2, y + _CELL - 2), color, -1)
            if part >= 0.01:
                ink = (255, 255, 255) if strength > 0.6 else _INK
                text = f"{part * 100:.0f}"
                (width, height), _ = cv2.getTextSize(text, _FONT, 0.42, 1)
                place = (x + (_CELL - width) // 2, y + (_CELL + height) // 2 - 1)
                cv2.putText(canvas, text, place, _FONT, 0.42, ink, 1, cv2.LINE_AA)
    for i, info in enumerate(classes):
        middle = _MARGIN + i * _CELL + _CELL // 2
        (width, _), _ = cv2.getTextSize(info.name, _FONT, 0.45, 1)
        cv2.putText(canvas, info.name, (_MARGIN - 18 - width, middle + 5), _FONT, 0.45, _INK, 1, cv2.LINE_AA)
        cv2.rectangle(canvas, (_MARGIN - 14, middle - 6), (_MARGIN - 4, middle + 6), info.color, -1)
        cv2.rectangle(canvas, (middle - 6, _MARGIN - 14), (middle + 6, _MARGIN - 4), info.color, -1)
        _write_upwards(canvas, info.name, middle, _MARGIN - 18)
    if columns > rows:
        _write_upwards(canvas, NONE, _MARGIN + rows * _CELL + _CELL // 2, _MARGIN - 18)
    cv2.putText(canvas, "true (rows), predicted", (4, 20), _FONT, 0.38, _INK, 1, cv2.LINE_AA)
    return canvas


def _write_upwards(canvas: NDArray[np.uint8], text: str, x: int, bottom: int) -> None:
    (width, height), base = cv2.getTextSize(text, _FONT, 0.45, 1)
    strip = np.full((height + base + 2, width + 2, 3), 255, np.uint8)
    cv2.putText(strip, text, (1, height + 1), _FONT, 0.45, _INK, 1, cv2.LINE_AA)
    turned = np.rot90(strip)
    left = x - turned.shape[1] // 2
    canvas[bottom - turned.shape[0] : bottom, left : left + turned.shape[1]] = turned
