"""How well heat maps point at what was labelled, and how much the network itself hangs on what they point at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.explain.box import Box, box_iou, components, evidence
from training.explain.heat.methods import Heat
from training.explain.networks.network import Network
from training.explain.targets import Target

Mask = NDArray[np.bool_]

MAX_BOX_IOUS = (0.3, 0.5, 0.7)
MAX_BOX_THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(100))
_PIXEL_STEPS = 20
_BATCH = 32


def points_into(heat: Heat, box: Box) -> bool:
    """The pointing game (Zhang et al. 2018, arXiv:1608.00507): whether the centre of the hottest pixel lies in the box.

    Without the tolerance of 15 pixels that the paper allows.

    Args:
        heat: (H, W) float32.
        box: (4,) xyxy fractions.
    """
    y, x = np.unravel_index(int(heat.argmax()), heat.shape)
    across, down = (x + 0.5) / heat.shape[1], (y + 0.5) / heat.shape[0]
    return bool(box[0] <= across < box[2] and box[1] <= down < box[3])


def points_onto(heat: Heat, mask: Mask) -> bool:
    """The pointing game with a mask: whether the hottest pixel belongs to it. (H, W) float32 and (H, W) bool."""
    return bool(mask.ravel()[int(heat.argmax())])


def mask_iou(heat: Heat, threshold: float, smoothing: float, mask: Mask, counted: Mask) -> float:
    """Intersection over union of what is hotter than a threshold with a mask, over the pixels that count.

    Args:
        heat: (H, W) float32.
        threshold, smoothing: as in `training.explain.box.BoxRule`.
        mask: (H, W) bool.
        counted: (H, W) bool; of a trimap all but the border.
    """
    hot = (evidence(heat, smoothing) > threshold) & counted
    union = (hot | (mask & counted)).sum()
    return float((hot & mask).sum() / union) if union else 0.0


def best_box_ious(heat: Heat, box: Box) -> NDArray[np.float64]:
    """For each of `MAX_BOX_THRESHOLDS` the best IoU of any component's box with the true one: (T,) float64.

    Args:
        heat: (H, W) float32; what it measures against is the smallest and the largest of it, as the paper has it.
        box: (4,) xyxy fractions.
    """
    span = float(heat.max() - heat.min())
    scaled = ((heat - heat.min()) / span if span > 0 else np.zeros_like(heat)).astype(np.float32)
    found = (components(scaled, threshold)[0] for threshold in MAX_BOX_THRESHOLDS)
    return np.array([box_iou(boxes, box).max() if len(boxes) else 0.0 for boxes in found])


def max_box_acc_v2(ious: NDArray[np.float64]) -> float:
    """MaxBoxAccV2 (Choe et al. 2020, "Evaluating weakly supervised object localization methods right", CVPR, and its
    extension arXiv:2007.04178).

    BoxAccV2(τ, δ) = 1/N · Σ_n 1[max over boxes b of components of {s_n > τ} of IoU(b, B_n) ≥ δ], and
    MaxBoxAccV2 = mean over δ ∈ {0.3, 0.5, 0.7} of max_τ BoxAccV2(τ, δ). The threshold is thus the best for the very
    pictures that are scored: a figure to compare methods by, not what a fitted box reaches.

    Args:
        ious: (N, T), from `best_box_ious`.
    """
    return float(np.mean([(ious >= bound).mean(0).max() for bound in MAX_BOX_IOUS]))


def deletion_and_insertion(network: Network, picture: Tensor, target: Target, heat: Heat) -> tuple[float, float]:
    """Areas under the target's curve while pixels go, and while they come, hottest first (Petsiuk et al. 2018, RISE,
    arXiv:1806.07421). Low is good for deletion, high for insertion.

    Deleted pixels become grey; inserted ones replace a blurred picture. 20 equal steps; the areas are by the
    trapezoidal rule over shares from 0 to 1. The target should be a probability, so that pictures compare.

    Args:
        network: that was explained.
        picture: (1, 3, H, W) float32 RGB, 0 to 255.
        target: what is watched.
        heat: (H, W) float32.

    Returns:
        Deletion, insertion.
    """
    sigma = max(picture.shape[-2:]) / 20
    blurred = cv2.GaussianBlur(picture[0].permute(1, 2, 0).numpy(), (0, 0), sigma)
    soft = torch.from_numpy(np.ascontiguousarray(blurred)).permute(2, 0, 1)[None]
    order = np.argsort(-heat.ravel(), kind="stable")
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    ranks = torch.from_numpy(rank.reshape(heat.shape))
    shares = torch.linspace(0, 1, _PIXEL_STEPS + 1)
    gone = (ranks[None] < (shares * order.size).round().reshape(-1, 1, 1))[:, None]
    areas = []
    with torch.inference_mode():
        for changed in (torch.where(gone, torch.tensor(127.5), picture), torch.where(gone, picture, soft)):
            parts = torch.split(changed.contiguous(memory_format=torch.channels_last), _BATCH)
            values = torch.cat([target.score(network(part)) for part in parts])
            areas.append(float(torch.trapezoid(values, shares)))
    return areas[0], areas[1]


def interval(
    rows: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], float], draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic over pictures drawn with replacement (Efron's bootstrap).

    Args:
        rows: (N, …), one picture each.
        statistic: of such rows.
        draws: how often.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    values: Sequence[float] = [statistic(rows[rng.integers(0, len(rows), len(rows))]) for _ in range(draws)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
