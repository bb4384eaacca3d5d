"""Losses. Shapes are (N, C, H, W) for scores and (N, H, W) for labels; 255 is ignored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.classes import IGNORE


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def lovasz_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """Lovász extension of the Jaccard loss, averaged over the classes present (Berman et al. 2018, arXiv:1705.08790).

    The whole batch counts as one picture, as the data-set level metric does.

    Args:
        logits: (N, C, H, W) float.
        target: (N, H, W) int64, 255 ignored.

    Returns:
        Scalar, float32 (float64 for float64 logits); 0 when nothing is labelled.
    """
    classes = logits.shape[1]
    scores = _at_least_float32(logits).permute(0, 2, 3, 1).reshape(-1, classes)
    labels = target.reshape(-1)
    known = labels != IGNORE
    probabilities, labels = scores[known].softmax(1), labels[known]
    losses = []
    for class_id in range(classes):
        truth = (labels == class_id).to(probabilities)
        positives = truth.sum()
        if positives == 0:
            continue
        errors, order = (truth - probabilities[:, class_id]).abs().sort(descending=True)
        hits = truth[order]
        intersection = positives - hits.cumsum(0)
        union = positives + (1 - hits).cumsum(0)
        jaccard = 1 - intersection / union
        gradient = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
        losses.append(torch.dot(errors, gradient))
    if not losses:
        return logits.sum() * 0
    return torch.stack(losses).mean()


def cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor) -> Tensor:
    """Weighted cross-entropy, averaged by weight over the labelled pixels; 0 (not NaN) when nothing is labelled.

    Args:
        logits: (N, C, H, W) float.
        target: (N, H, W) int64, 255 ignored.
        class_weights: (C,) float32.
    """
    if bool((target == IGNORE).all()):
        return logits.sum() * 0
    return F.cross_entropy(_at_least_float32(logits), target, weight=class_weights, ignore_index=IGNORE)


def segmentation_loss(
    logits: Tensor, target: Tensor, class_weights: Tensor, lovasz_weight: float, phase: tuple[int, int], stride: int = 4
) -> Tensor:
    """Weighted cross-entropy on every pixel plus Lovász-softmax on every `stride`-th.

    Sorting every pixel by class would cost as much as the network's forward pass on a CPU; the sample's phase moves
    from step to step, so every pixel is seen.

    Args:
        logits: (N, C, H, W) float.
        target: (N, H, W) int64, 255 ignored.
        class_weights: (C,) float32.
        lovasz_weight: factor of the Lovász term.
        phase: (row, column) offset of the sample, each below `stride`.
        stride: distance of the sample's pixels.
    """
    loss = cross_entropy(logits, target, class_weights)
    if lovasz_weight:
        y, x = phase
        loss = loss + lovasz_weight * lovasz_softmax(
            logits[:, :, y::stride, x::stride], target[:, y::stride, x::stride]
        )
    return loss


def cell_loss(
    phases: Tensor, target: Tensor, class_weights: Tensor, lovasz_weight: float, step: int, cell: int = 2
) -> Tensor:
    """`segmentation_loss` on two pixels of each cell of four, other ones from step to step.

    The scores stay where the network gives them, by cell: putting all of them in their places and back, in float32,
    takes longer on a CPU than the network's own decoder.

    Args:
        phases: (N, C·4, h, w) float scores; see `training.models.segmenter.Segmenter.phases`.
        target: (N, 2h, 2w) int64, 255 ignored.
        class_weights: (C,) float32.
        lovasz_weight: factor of the Lovász term, which is on a quarter of the first of the two.
        step: number of steps done.
        cell: side of a cell; 2.
    """
    number, _, height, width = phases.shape
    by_phase = phases.reshape(number, -1, cell**2, height, width)
    first, second = ((0, 3), (1, 2), (3, 0), (2, 1))[step % 4]
    scores = torch.cat([by_phase[:, :, first], by_phase[:, :, second]], 2)
    labels = torch.cat([target[:, p // cell :: cell, p % cell :: cell] for p in (first, second)], 1)
    loss = cross_entropy(scores, labels, class_weights)
    if lovasz_weight:
        y, x = divmod(step // 4 % 4, 2)
        sample, truth = scores[:, :, y:height:2, x::2], labels[:, y:height:2, x::2]
        loss = loss + lovasz_weight * lovasz_softmax(sample, truth)
    return loss


def auxiliary_loss(scores: Tensor, target: Tensor, class_weights: Tensor, stride: int = 4) -> Tensor:
    """Weighted cross-entropy of a coarse head, at 1/`stride` of the labels' resolution.

    The scores are interpolated to that size; at full size this term would cost more than the head itself.

    Args:
        scores: (N, C, h, w) float, any h and w.
        target: (N, H, W) int64, 255 ignored.
        class_weights: (C,) float32.
        stride: distance of the label pixels that are looked at.
    """
    labels = target[:, stride // 2 :: stride, stride // 2 :: stride]
    scores = F.interpolate(scores.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return cross_entropy(scores, labels, class_weights)


def class_balance(frequencies: Tensor, power: float, limit: float) -> Tensor:
    """Weights that lift rare classes: (median frequency / frequency)^power, at most `limit`, mean-normalised by
    frequency so that the loss keeps its scale (after Eigen & Fergus 2015; power 0 switches it off).

    Args:
        frequencies: (C,) shares of the labelled pixels.
    """
    safe = frequencies.clamp_min(1e-8)
    weights = (safe.median() / safe).pow(power).clamp(max=limit)
    return (weights / (weights * frequencies).sum()).float()
