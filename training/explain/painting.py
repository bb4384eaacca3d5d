"""Heat and boxes painted on pictures."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

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
