"""What a model says that cannot be so: found and counted, so that nobody looks for their cars in vain.

Models of the house do none of it. Those that people export themselves do: boxes in pixels in place of fractions,
numbers that are none, scores beyond 1, classes that nobody named.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np

from engines.classes import IGNORE
from engines.engine import Prediction
from engines.spec import ModelSpec

FAULTS = {
    "nan": "boxes have numbers that are none (NaN or infinite) and are left out",
    "outside": "boxes lie far outside the picture and are left out: are they in pixels, where fractions are wanted",
    "score": "scores are above 1 and count as 1",
    "class": "classes are said that its spec does not name",
}
"""What can be wrong, in words, by the name that it is counted under."""

_FAR = 0.5
"""How far outside the picture, in parts of it, a box may begin or end: a network's last cell reaches over the edge."""

_HAIR = 1e-3
"""By how much half precision may carry a score beyond 1."""


def sound(prediction: Prediction, spec: ModelSpec, least: float) -> tuple[Prediction, Counter[str]]:
    """A prediction without what cannot be so.

    Args:
        prediction: what the model says of one picture.
        spec: of the model.
        least: score from which on boxes matter; what is wrong with others is nobody's business.

    Returns:
        The prediction, its scores at most 1, and how often each of `FAULTS` was found: boxes, and a class map that has
        classes which the spec does not name as one.
    """
    faults: Counter[str] = Counter()
    named = {info.id for info in spec.classes}
    if prediction.class_map is not None:
        counts = cv2.calcHist([prediction.class_map], [0], None, [256], [0, 256]).ravel()
        faults["class"] += bool(set(np.flatnonzero(counts).tolist()) - named - {IGNORE})
    if prediction.boxes is None or prediction.scores is None:
        return prediction, +faults
    boxes, scores = prediction.boxes, prediction.scores
    matters = ~(scores < least)  # a score that is no number matters
    finite = np.isfinite(boxes).all(1) & np.isfinite(scores)
    near = (np.nan_to_num(np.abs(boxes - 0.5), nan=0.0) <= 0.5 + _FAR).all(1)
    faults["nan"] += int((matters & ~finite).sum())
    faults["outside"] += int((matters & finite & ~near).sum())
    good = matters & finite & near
    faults["score"] += int((good & (scores > 1 + _HAIR)).sum())
    if prediction.labels is not None:
        faults["class"] += int((good & ~np.isin(prediction.labels, list(named))).sum())
    if good.sum() == matters.sum() and not (scores > 1).any():
        return prediction, +faults
    labels = None if prediction.labels is None else prediction.labels[good]
    return replace(prediction, boxes=boxes[good], scores=np.minimum(scores[good], 1), labels=labels), +faults
