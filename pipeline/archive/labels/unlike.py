"""How unlike the other clips of its archive a clip is.

How new it is to the model is another question (`engines.novelty`). Here it is how far a clip is from the archive's
bulk, by figures of the archive itself: the mean area of each class, and of its thumbnails lightness, contrast, colour
on two axes (CIE Lab) and how much of edges there is. Each figure is taken less its median over the
clips, in units of their spread (1.4826 times the median absolute deviation, the standard deviation of what is normally
distributed); a clip is as unlike as the root of the mean square of these: about 1 for one as all others, above 3 for
one that stands out. Night, rain, snow and another camera stand out; what all clips of the archive share does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.archive.columns import column
from pipeline.archive.reading import Archive

Float64 = NDArray[np.float64]

FEWEST = 8
"""Clips of an archive below which there is no bulk to be unlike."""

LEAST_SPREAD = 0.01
"""The spread of a figure, all of which are 0 to 1, at least: what hardly differs anywhere is no measure of anything."""

MOST = 10.0
"""Spreads that a single figure counts for at most."""

_LOOKS = 5
"""Figures of thumbnails."""


def unlike(archive: Archive) -> dict[str, float | None]:
    """How unlike the others each clip is, by its id; None for all of a small archive.

    Raises:
        SourceError: a table is damaged.
    """
    names = [f'avg(f."area_{column(name)}")' for name in archive.terms.areas]
    means = "".join(f", {name}" for name in names)
    rows = archive.rows(
        f"SELECT c.clip, any_value(c.thumbnails){means} FROM clips c LEFT JOIN frames f ON c.clip = f.clip "  # noqa: S608
        "GROUP BY c.clip ORDER BY c.clip"
    )
    clips = [row[0] for row in rows]
    if len(clips) < FEWEST:
        return dict.fromkeys(clips)
    figures = np.array([[*_of_thumbnails(archive, row[1] or ()), *row[2:]] for row in rows], np.float64)
    return dict(zip(clips, distances(figures), strict=True))


def distances(figures: Float64) -> list[float | None]:
    """How far each row of (N, K) figures is from the bulk of all. NaN is not known; None is a row of that alone."""
    with np.errstate(invalid="ignore"):
        known = figures[:, ~np.isnan(figures).all(axis=0)]
        middle = np.nanmedian(known, axis=0)
        spread = np.maximum(1.4826 * np.nanmedian(np.abs(known - middle), axis=0), LEAST_SPREAD)
        far = np.minimum(np.abs(known - middle) / spread, MOST)
    counts = np.count_nonzero(~np.isnan(far), axis=1)
    squares = np.nansum(far**2, axis=1)
    return [round(float(np.sqrt(s / n)), 3) if n else None for s, n in zip(squares, counts, strict=True)]


def _of_thumbnails(archive: Archive, names: Sequence[str]) -> Float64:
    """Figures of a clip's thumbnails, (5,), each 0 to 1; NaN where none can be read."""
    found = []
    for name in names:
        try:
            data = np.frombuffer((archive.path / name).read_bytes(), np.uint8)
        except OSError:
            continue
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if picture is not None:
            found.append(_figures(np.asarray(picture, np.uint8)))
    return np.mean(found, axis=0) if found else np.full(_LOOKS, np.nan)


def _figures(picture: NDArray[np.uint8]) -> Float64:
    """Of a picture, (H, W, 3) uint8 BGR: lightness, contrast, both axes of colour, edges."""
    lab = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2Lab), np.float64) / 255
    edges = np.abs(cv2.Laplacian(lab[..., 0], cv2.CV_64F)).mean()
    return np.array([lab[..., 0].mean(), lab[..., 0].std(), lab[..., 1].mean(), lab[..., 2].mean(), edges])
