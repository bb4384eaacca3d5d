"""A loss for circles. (N, 3): centre x and y, radius, in pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

DIRECTIONS = 32


def outline_loss(circles: Tensor, truth: Tensor) -> Tensor:
    """How far two circles' outlines lie apart, for small distances 1 − IoU: (N, 3), (N, 3) → (N,).

    Seen in direction θ a circle reaches as far as its support h(θ) = x·cos θ + y·sin θ + r. The area between two
    outlines close to each other is r·∫|Δh(θ)|dθ, so that 1 − IoU is the mean of 2·|Δh|/r over the directions, to first
    order. Unlike 1 − IoU it is convex and has a slope where the circles do not touch, or one lies within the other.
    """
    angle = torch.arange(DIRECTIONS, device=truth.device, dtype=truth.dtype) * (2 * math.pi / DIRECTIONS)
    support = torch.stack([angle.cos(), angle.sin(), torch.ones_like(angle)])
    difference = (circles - truth) @ support
    return 2 * difference.abs().mean(1) / truth[:, 2].clamp_min(1)
