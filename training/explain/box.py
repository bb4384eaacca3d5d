"""A box fitted to a heat map: what is hotter than a threshold, joined into components, boxed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.settings import read_yaml
from training.explain.heat.methods import Heat, Method

Box = NDArray[np.float32]
"""(4,) float32: x0, y0, x1, y1 as fractions of the picture, right and bottom exclusive."""

Component = Literal["largest", "hottest"]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class BoxRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a box is fitted.

    Attributes:
        threshold: share of the hottest pixel's heat that a pixel must exceed.
        component: of the joined pixels (also by corners) the component with the most of them, or with the most heat.
        smoothing: standard deviation of the Gaussian that the heat goes through first, as a share of the map's side;
            a gradient without it is specks.
    """

    threshold: Share = 0.3
    component: Component = "hottest"
    smoothing: Share = 0.0


class ChosenRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule and where it comes from.

    Attributes:
        rule: the one chosen.
        mean_iou: that it reached on the pictures that it was chosen on.
        origin: model, data, part of them, number of pictures; in a sentence.
    """

    rule: BoxRule
    mean_iou: float
    origin: str


THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 48))
SMOOTHINGS = (0.0, 0.02, 0.05, 0.1)
"""What `choose_rule` sweeps over."""


def stored_rules(path: Path | None = None) -> dict[Method, ChosenRule]:
    """The rule of each method: of the package's `box_rules.yaml`, or of a file that `explain-eval --rules` wrote.

    Raises:
        UsageError: the file cannot be read as such.
    """
    path = path or Path(str(resources.files("training"))) / "explain" / "box_rules.yaml"
    return read_yaml(path, dict[Method, ChosenRule])


def evidence(heat: Heat, smoothing: float = 0.0) -> Heat:
    """Heat as what speaks for the target: (H, W) float32, 0 to 1, the hottest pixel 1; all 0 where nothing does."""
    positive = np.maximum(heat, 0).astype(np.float32)
    if smoothing:
        positive = np.asarray(cv2.GaussianBlur(positive, (0, 0), smoothing * float(np.mean(heat.shape))), np.float32)
    peak = float(positive.max())
    return positive / np.float32(peak) if peak > 0 else positive


def fit_box(heat: Heat, rule: BoxRule) -> Box | None:
    """The box of a heat map, None where the map is empty.

    Args:
        heat: (H, W) float32.
        rule: how.
    """
    boxes, sizes, masses = components(evidence(heat, rule.smoothing), rule.threshold)
    if not len(boxes):
        return None
    chosen: Box = boxes[int((sizes if rule.component == "largest" else masses).argmax())]
    return chosen


def components(evidence: Heat, threshold: float) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """The components of what exceeds a threshold.

    Args:
        evidence: (H, W) float32, 0 to 1.
        threshold: 0 to 1.

    Returns:
        (K, 4) float32 boxes as fractions, (K,) pixels, (K,) sums of evidence.
    """
    height, width = evidence.shape
    hot = (evidence > threshold).astype(np.uint8)
    count, labels, found, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
    masses = np.bincount(labels.ravel(), weights=evidence.ravel(), minlength=count)[1:].astype(np.float64)
    x, y, wide, high, sizes = np.asarray(found[1:], np.int64).reshape(-1, 5).T
    boxes = np.stack([x / width, y / height, (x + wide) / width, (y + high) / height], axis=1).astype(np.float32)
    return boxes, sizes, masses


def box_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of boxes xyxy: (…, 4) and (…, 4), broadcast → (…)."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    size = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = size.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    ious: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ious


def choose_rule(heats: Sequence[Heat], boxes: Sequence[Box]) -> tuple[BoxRule, float]:
    """The rule whose boxes have the highest mean IoU with the true ones, and that mean.

    For pictures set aside for it, never for those that are reported.

    Args:
        heats: (H, W) float32 each.
        boxes: the true ones, of the same pictures.
    """
    kinds: tuple[Component, ...] = ("largest", "hottest")
    totals = np.zeros((len(SMOOTHINGS), len(THRESHOLDS), len(kinds)))
    for heat, truth in zip(heats, boxes, strict=True):
        for i, smoothing in enumerate(SMOOTHINGS):
            shown = evidence(heat, smoothing)
            for j, threshold in enumerate(THRESHOLDS):
                found, sizes, masses = components(shown, threshold)
                if len(found):
                    ious = box_iou(found, truth)
                    totals[i, j] += ious[sizes.argmax()], ious[masses.argmax()]
    i, j, k = (int(place) for place in np.unravel_index(int(totals.argmax()), totals.shape))
    return BoxRule(THRESHOLDS[j], kinds[k], SMOOTHINGS[i]), float(totals[i, j, k] / max(len(boxes), 1))
