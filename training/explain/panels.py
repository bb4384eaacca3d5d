"""An explanation as a picture of five panels."""

from __future__ import annotations

import cv2
import numpy as np

from training.explain.explanation import Explanation
from training.explain.painting import UInt8

_HEIGHT = 320
_GAP = 8
_STRIP = 26
_INK = (40, 40, 40)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_panels(explanation: Explanation) -> UInt8:
    """Input, network input, heat map, heat over the picture, and box, side by side with what they show.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = explanation.network_input.shape[:2]
    heat = explanation.heat
    panels = [
        ("input", explanation.picture),
        (f"network input, {width} x {height}", explanation.network_input),
        (f"{explanation.method}, {heat.min():.2g} to {heat.max():.2g}", explanation.heat_picture),
        ("over the picture", explanation.overlay),
        (_box_caption(explanation), explanation.boxed),
    ]
    columns = [_panel(caption, picture) for caption, picture in panels]
    gap = np.full((columns[0].shape[0], _GAP, 3), 255, np.uint8)
    row = np.concatenate([gap, *(part for column in columns for part in (column, gap))], axis=1)
    title = np.full((_STRIP + 4, row.shape[1], 3), 255, np.uint8)
    text = f"{explanation.model}: {explanation.target}, {explanation.score:.4g}"
    _write(title, text, (_GAP, 20), 0.55)
    return np.concatenate([title, row, np.full((_GAP, row.shape[1], 3), 255, np.uint8)], axis=0)


def _box_caption(explanation: Explanation) -> str:
    rule = explanation.rule
    if explanation.box is None:
        return "no heat, no box"
    smooth = f", smoothed {rule.smoothing:g}" if rule.smoothing else ""
    return f"{rule.component} above {rule.threshold:g}{smooth}"


def _panel(caption: str, picture: UInt8) -> UInt8:
    height, width = picture.shape[:2]
    wide = max(round(width * _HEIGHT / height), 1)
    way = cv2.INTER_AREA if height > _HEIGHT else cv2.INTER_LINEAR
    shown = np.asarray(cv2.resize(picture, (wide, _HEIGHT), interpolation=way), np.uint8)
    least = cv2.getTextSize(caption, _FONT, 0.45, 1)[0][0] + 4
    if wide < least:
        shown = np.pad(shown, ((0, 0), (0, least - wide), (0, 0)), constant_values=255)
    strip = np.full((_STRIP, shown.shape[1], 3), 255, np.uint8)
    _write(strip, caption, (2, 18), 0.45)
    return np.concatenate([strip, shown], axis=0)


def _write(canvas: UInt8, text: str, place: tuple[int, int], size: float) -> None:
    plain = text.encode("ascii", "replace").decode()  # OpenCV's letters are ASCII
    cv2.putText(canvas, plain, place, _FONT, size, _INK, 1, cv2.LINE_AA)
