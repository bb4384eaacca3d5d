"""Scores of circles against circles, exactly and as rendered masks.

Circles are (N, 3): centre x and y, radius, in pixels; pixel (x, y) has its centre at x + ½, y + ½.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


def circle_overlaps(circles: NDArray[np.floating], truth: NDArray[np.floating]) -> tuple[Float, Float]:
    """Areas of intersection and of union of pairs of circles: (N, 3), (N, 3) → (N,), (N,) float64.

    Where the outlines cross at distance d of the centres, the intersection is a lens of two circular segments:
    r²·acos((d² + r² − R²)/2dr) + R²·acos((d² + R² − r²)/2dR) − ½·√((−d+r+R)(d+r−R)(d−r+R)(d+r+R))
    (Weisstein, "Circle-Circle Intersection", MathWorld, eq. 14). Circles reach beyond the frame, and so do the areas.
    """
    (x, y, r), (u, v, s) = np.asarray(circles, np.float64).T, np.asarray(truth, np.float64).T
    distance = np.hypot(x - u, y - v)
    areas = np.pi * r**2, np.pi * s**2
    apart, inside = distance >= r + s, distance <= np.abs(r - s)
    crossing = ~(apart | inside)
    intersection = np.where(apart, 0.0, np.minimum(*areas))
    d, a, b = distance[crossing], r[crossing], s[crossing]
    lens = a**2 * _arc((d**2 + a**2 - b**2) / (2 * d * a)) + b**2 * _arc((d**2 + b**2 - a**2) / (2 * d * b))
    # Rounding may push circles that all but touch over the edge.
    kite = np.sqrt(np.maximum((-d + a + b) * (d + a - b) * (d - a + b) * (d + a + b), 0)) / 2
    intersection[crossing] = lens - kite
    return intersection, areas[0] + areas[1] - intersection


def _arc(cosine: Float) -> Float:
    angle: Float = np.arccos(np.clip(cosine, -1, 1))
    return angle


def render_circles(circles: NDArray[np.floating], height: int, width: int) -> Bool:
    """(N, 3) circles → (N, height, width) masks of the pixels whose centre lies in the circle."""
    x, y, radius = (column[:, None, None] for column in np.asarray(circles, np.float64).T)
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width)[None, :] + 0.5
    masks: Bool = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return masks


def rendered_overlaps(
    circles: NDArray[np.floating], truth: NDArray[np.floating], height: int, width: int
) -> tuple[Float, Float]:
    """Pixels of intersection and of union of pairs of circles as masks of a frame: (N,), (N,) float64."""
    found, wanted = render_circles(circles, height, width), render_circles(truth, height, width)
    return (found & wanted).sum((1, 2)).astype(np.float64), (found | wanted).sum((1, 2)).astype(np.float64)
