"""Losses of a heat map of centres and of the sides of boxes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss


def heat_loss(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Focal loss of centres (Law & Deng 2018), a scalar: the sum over cells by the number of centres.

    A cell next to a centre is punished less for being taken for one, by (1 − target)^4.

    Args:
        logits: (N, T, h, w).
        target: (N, T, h, w), 1 at a centre, less around it, negative where nothing is known.
        weights: (T,) of the centres of each class.
    """
    logits, target = logits.float(), target.float()
    likely = logits.sigmoid()
    centres = target >= 1
    hit = F.logsigmoid(logits) * (1 - likely) ** 2 * weights[:, None, None]
    miss = F.logsigmoid(-logits) * likely**2 * (1 - target.clamp(0, 1)) ** 4 * (target >= 0)
    return -torch.where(centres, hit, miss).sum() / centres.sum().clamp_min(1)


def sides_loss(boxes: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """One minus GIoU, a mean over cells by their weights; 0 where no cell has any.

    Args:
        boxes: (N, 4, h, w) xyxy in pixels.
        truth: (N, 4, h, w) of the object that a cell belongs to.
        weight: (N, h, w), 0 for cells that belong to none.
    """
    chosen = weight > 0
    found, true = (b.float().permute(0, 2, 3, 1)[chosen] for b in (boxes, truth))
    share = weight.float()[chosen]
    losses: Tensor = generalized_box_iou_loss(found, true)
    return (losses * share).sum() / share.sum().clamp_min(1e-6)
