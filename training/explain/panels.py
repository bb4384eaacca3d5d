"""An explanation as a picture of five panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from training.explain.explanation import Explanation

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

_HEIGHT = 320
_GAP = 8
_STRIP = 26
_INK = (40, 40, 40)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BOX = (57, 255, 20)


def colour(evidence: Float32) -> UInt8:
    """(H, W) float32, 0 to 1 → (H, W, 3) uint8 RGB: black, purple, orange, yellow."""
    levels = np.rint(np.clip(evidence, 0, 1) * 255).astype(np.uint8)
    coloured = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)
    return np.asarray(cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB), np.uint8)


def laid_over(picture: UInt8, evidence: Float32) -> UInt8:
    """The heat over the greyed and dimmed picture: (h, w, 3) uint8 RGB and (H, W) float32, 0 to 1 → (h, w, 3) uint8."""
    height, width = picture.shape[:2]
    spread = np.clip(cv2.resize(evidence, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    # Half the heat is shown fully; a linear blend hides all but the peak.
    weight = np.sqrt(spread)[..., None] * 0.85
    blended = 0.8 * grey * (1 - weight) + colour(spread.astype(np.float32)) * weight
    return np.rint(blended).astype(np.uint8)


def boxed(picture: UInt8, box: Float32 | None) -> UInt8:
    """The picture with a box (4,) xyxy fractions on it: (h, w, 3) uint8 RGB."""
    drawn = picture.copy()
    if box is not None:
        height, width = picture.shape[:2]
        thick = max(2, round(min(height, width) / 120))
        x0, y0, x1, y1 = (box * (width, height, width, height)).round().astype(int).tolist()
        cv2.rectangle(drawn, (x0, y0), (max(x1 - 1, x0), max(y1 - 1, y0)), (0, 0, 0), thick + 2)
        cv2.rectangle(drawn, (x0, y0), (max(x1 - 1, x0), max(y1 - 1, y0)), _BOX, thick)
    return drawn


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
