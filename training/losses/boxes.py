"""Losses of boxes, presence and class. Boxes are (N, 4) xyxy; in fractions of the picture unless said otherwise."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

BoxLossName = Literal["mse", "log_mse", "smooth_l1", "giou", "diou", "ciou"]

_OVERLAP = {"giou": generalized_box_iou_loss, "diou": distance_box_iou_loss, "ciou": complete_box_iou_loss}
"""GIoU (Rezatofighi et al. 2019), DIoU and CIoU (Zheng et al. 2020)."""


def box_loss(boxes: Tensor, truth: Tensor, kind: BoxLossName, l1_weight: float = 0.0, scale: float = 1.0) -> Tensor:
    """How far boxes are from the true ones: (N, 4) and (N, 4) → (N,), float32.

    Args:
        boxes: found; `…iou` wants right ≥ left and bottom ≥ top.
        truth: true.
        kind: `mse`; `log_mse`, log((ŷ − y)² + 1), which a far outlier cannot rule; `smooth_l1` with its bend at a
            tenth of a unit of `scale`; or one minus GIoU, DIoU or CIoU.
        l1_weight: factor of the mean absolute distance of the four edges that is added: an overlap alone has a weak
            gradient where boxes are small or far apart.
        scale: units of a coordinate for the first three, such as 224 for pixels: `log_mse` bends at one unit.
    """
    boxes, truth = boxes.float(), truth.float()
    difference = boxes - truth
    match kind:
        case "mse":
            loss = (difference * scale).square().mean(1)
        case "log_mse":
            loss = (difference * scale).square().log1p().mean(1)
        case "smooth_l1":
            loss = F.smooth_l1_loss(boxes * scale, truth * scale, beta=0.1 * scale, reduction="none").mean(1)
        case _:
            loss = _OVERLAP[kind](boxes, truth)
    return loss + l1_weight * difference.abs().mean(1) if l1_weight else loss


def cell_box_loss(
    cell_boxes: Tensor, truth: Tensor, kind: BoxLossName, l1_weight: float = 0.0, scale: float = 1.0
) -> Tensor:
    """`box_loss` of the cells inside the true box, each for itself: (N, h, w, 4) and (N, 4) → (N,).

    The mean vote alone leaves it open which cell errs; this teaches all that see the object.
    """
    count, height, width, _ = cell_boxes.shape
    inside = box_mask(truth, height, width)
    spread = truth[:, None, None].expand(-1, height, width, -1)
    losses = box_loss(cell_boxes.reshape(-1, 4), spread.reshape(-1, 4), kind, l1_weight, scale)
    weighted = losses.reshape(count, height, width) * inside
    return weighted.sum((1, 2)) / inside.sum((1, 2)).clamp_min(1e-6)


def box_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """Share of each cell of an h×w grid that a box covers: (N, 4) fractions → (N, h, w) float32 in 0 to 1."""
    left, top, right, bottom = boxes.float().unbind(1)

    def covered(low: Tensor, high: Tensor, cells: int) -> Tensor:
        start = torch.arange(cells, device=boxes.device, dtype=torch.float32)
        ends = torch.minimum(high[:, None] * cells, start + 1)
        return (ends - torch.maximum(low[:, None] * cells, start)).clamp(0, 1)

    return covered(top, bottom, height)[:, :, None] * covered(left, right, width)[:, None, :]


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """One minus the Dice coefficient of a map of probabilities, picture by picture: (N, h, w), (N, h, w) → (N,).

    One is added above and below (Milletari et al. 2016 leave it out), so that an empty map has a loss, too.

    Args:
        logits: of the map.
        truth: in 0 to 1.
    """
    found = logits.float().sigmoid()
    overlap = (found * truth).sum((1, 2))
    return 1 - (2 * overlap + 1) / (found.sum((1, 2)) + truth.sum((1, 2)) + 1)


def objectness_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy of each cell plus `dice_loss`: (N, h, w) logits, (N, h, w) in 0 to 1 → (N,)."""
    entropy = F.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none").mean((1, 2))
    return entropy + dice_loss(logits, truth)


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, less of it where the class is right already (Lin et al. 2017, for several classes): → (N,).

    Args:
        logits: (N, C).
        target: (N,) int64 class ids; a negative one is unknown and costs nothing.
        gamma: exponent of 1 − p; 0 is plain cross-entropy.
        smoothing: share of the target that is spread over all classes (Szegedy et al. 2016).
    """
    logits = logits.float()
    known = target >= 0
    entropy = F.cross_entropy(logits, target.clamp_min(0), reduction="none", label_smoothing=smoothing)
    right = logits.softmax(1).gather(1, target.clamp_min(0)[:, None]).squeeze(1)
    return entropy * (1 - right) ** gamma * known


def binary_focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = 0.5) -> Tensor:
    """Focal loss of a yes or no: (N,) logits, (N,) in 0 to 1 → (N,).

    Args:
        logits: that it is so.
        target: whether it is.
        gamma: exponent; 0 is plain cross-entropy.
        alpha: weight of yes, 1 − alpha that of no; both are doubled, so that one half changes nothing.
    """
    logits, target = logits.float(), target.float()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong = (logits.sigmoid() - target).abs()
    return entropy * wrong**gamma * 2 * (alpha * target + (1 - alpha) * (1 - target))


def mean_over(losses: Tensor, chosen: Tensor) -> Tensor:
    """Mean of (N,) losses over the pictures that have what they are about; 0 (not NaN) where none has.

    Args:
        losses: picture by picture.
        chosen: (N,) bool.
    """
    return (losses * chosen).sum() / chosen.sum().clamp_min(1)
