"""Losses of heat maps and sides against their formulas, cell by cell in plain Python."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch

from training.losses.road_users import heat_loss, sides_loss


def test_heat_loss_against_its_formula():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (2, 3, 4, 5))
    target = rng.uniform(0, 0.9, logits.shape)
    target[0, 0, 1, 1] = target[0, 2, 3, 4] = target[1, 1, 0, 0] = 1
    target[1, 2] = -1  # unknown
    weights = [0.5, 1.0, 2.0]
    total = 0.0
    for place, y in np.ndenumerate(target):
        p = 1 / (1 + exp(-logits[place]))
        if y == 1:
            total -= weights[place[1]] * (1 - p) ** 2 * log(p)
        elif y >= 0:
            total -= (1 - y) ** 4 * p**2 * log(1 - p)
    found = heat_loss(torch.tensor(logits), torch.tensor(target), torch.tensor(weights))
    assert found.item() == pytest.approx(total / 3, rel=1e-5)


def test_heat_loss_of_a_picture_without_centres_is_finite_and_pushes_down():
    logits = torch.zeros((1, 2, 3, 3), requires_grad=True)
    loss = heat_loss(logits, torch.zeros((1, 2, 3, 3)), torch.ones(2))
    loss.backward()
    assert torch.isfinite(loss)
    assert (logits.grad > 0).all()


def giou(a: list[float], b: list[float]) -> float:
    def area(x1: float, y1: float, x2: float, y2: float) -> float:
        return max(x2 - x1, 0) * max(y2 - y1, 0)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a) + area(*b) - shared
    hull = area(min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    return shared / union - (hull - union) / hull


def test_sides_loss_is_a_weighted_mean_of_one_minus_giou():
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 50, (2, 2, 4, 3, 3))
    corners[:, :, 2:] = corners[:, :, :2] + rng.uniform(1, 60, (2, 2, 2, 3, 3))
    boxes, truth = corners
    weight = rng.uniform(0.1, 1, (2, 3, 3))
    weight[0, 0] = weight[1, 2, 1] = 0
    total = sum(
        w * (1 - giou(boxes[n, :, y, x].tolist(), truth[n, :, y, x].tolist()))
        for (n, y, x), w in np.ndenumerate(weight)
    )
    found = sides_loss(*(torch.tensor(v) for v in (boxes, truth, weight)))
    assert found.item() == pytest.approx(total / weight.sum(), rel=1e-4)


def test_sides_loss_without_objects_is_zero_and_has_a_gradient():
    boxes = torch.rand((1, 4, 2, 2), requires_grad=True)
    loss = sides_loss(boxes, torch.zeros((1, 4, 2, 2)), torch.zeros((1, 2, 2)))
    loss.backward()
    assert loss.item() == 0
    assert (boxes.grad == 0).all()
