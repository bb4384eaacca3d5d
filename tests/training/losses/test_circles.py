"""A loss of circles that is 1 − IoU to first order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.losses.circles import outline_loss
from training.metrics.circles import circle_overlaps


@pytest.mark.parametrize("offset", [(0.05, 0, 0), (0.03, 0.04, 0), (0, 0, 0.05), (0, 0, -0.05), (0.02, -0.03, 0.05)])
def test_the_loss_is_one_less_the_iou_for_small_distances(offset: tuple[float, ...]) -> None:
    truth = np.array([[14.0, 13.0, 10.0]])
    found = truth + offset
    loss = outline_loss(torch.from_numpy(found), torch.from_numpy(truth))
    intersection, union = circle_overlaps(found, truth)
    assert float(loss) == pytest.approx(1 - intersection[0] / union[0], rel=0.04)


@pytest.mark.parametrize("start", [(100.0, 0.0, 3.0), (14.0, 13.0, 2.0), (14.0, 13.0, 40.0)])
def test_the_loss_has_a_slope_wherever_the_circle_is(start: tuple[float, ...]) -> None:
    circles = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    truth = torch.tensor([[14.0, 13.0, 10.0]], dtype=torch.float64)
    loss = outline_loss(circles, truth).sum()
    (gradient,) = torch.autograd.grad(loss, circles)
    assert outline_loss(circles - 0.1 * gradient, truth) < loss
