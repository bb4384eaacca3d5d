"""Losses of boxes against known answers and torchvision's."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import distance_box_iou, generalized_box_iou, sigmoid_focal_loss

from tests.training.boxes import PAIRS, box, split
from training.losses.boxes import (
    binary_focal_loss,
    box_loss,
    box_mask,
    cell_box_loss,
    dice_loss,
    focal_loss,
    mean_over,
    objectness_loss,
)
from training.metrics.boxes import paired_iou


@settings(deadline=None, max_examples=40)
@given(PAIRS)
def test_overlap_losses_are_one_minus_torchvisions_overlaps(pairs: list[tuple[list[float], list[float]]]) -> None:
    boxes, truth = split(pairs)
    for kind, reference in (("giou", generalized_box_iou), ("diou", distance_box_iou)):
        expected = 1 - reference(boxes, truth).diagonal()
        # The losses keep a denominator from being 0, which tiny boxes feel.
        torch.testing.assert_close(box_loss(boxes, truth, kind), expected, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "scale", "expected"),
    [
        ("mse", 1, (0.1**2 + 0.2**2) / 4),
        ("mse", 100, (10**2 + 20**2) / 4),
        ("log_mse", 100, (math.log(101) + math.log(401)) / 4),
        ("smooth_l1", 1, (0.05 + 0.15) / 4),  # beyond the bend at 0.1: the distance less half of it
    ],
)
def test_losses_of_coordinates_by_hand(kind: str, scale: float, expected: float) -> None:
    boxes, truth = torch.tensor([[0.1, 0.2, 0.6, 0.9]]), torch.tensor([[0.2, 0.2, 0.6, 0.7]])
    assert box_loss(boxes, truth, kind, scale=scale).item() == pytest.approx(expected, rel=1e-5)
    with_l1 = box_loss(boxes, truth, kind, l1_weight=2, scale=scale).item()
    assert with_l1 == pytest.approx(expected + 2 * 0.3 / 4, rel=1e-5)


@pytest.mark.parametrize("kind", ["mse", "log_mse", "smooth_l1", "giou", "diou", "ciou"])
def test_every_box_loss_leads_to_the_true_box(kind: str) -> None:
    truth = torch.tensor([[0.2, 0.3, 0.5, 0.9]])
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.6]], requires_grad=True)
    optimizer = torch.optim.Adam([boxes], lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        box_loss(boxes, truth, kind, l1_weight=1, scale=10).sum().backward()
        optimizer.step()
    assert paired_iou(boxes.detach().numpy(), truth.numpy())[0] > 0.9
    assert box_loss(truth, truth, kind).item() == pytest.approx(0, abs=1e-5)


@settings(deadline=None, max_examples=40)
@given(box(), st.integers(1, 20), st.integers(1, 20))
def test_a_mask_covers_as_much_as_its_box(corners: list[float], height: int, width: int) -> None:
    mask = box_mask(torch.tensor([corners]), height, width)
    assert mask.shape == (1, height, width)
    assert ((mask >= 0) & (mask <= 1)).all()
    area = (corners[2] - corners[0]) * (corners[3] - corners[1]) * height * width
    assert mask.sum().item() == pytest.approx(area, abs=1e-3)


def test_cells_outside_the_box_cost_nothing() -> None:
    truth = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    cells = truth[:, None, None].expand(1, 4, 4, 4).clone()
    cells[:, 2:] = 0.7  # wrong, and outside
    assert cell_box_loss(cells, truth, "smooth_l1").item() == pytest.approx(0, abs=1e-6)
    cells[:, 0, 0] += 0.3
    assert cell_box_loss(cells, truth, "mse").item() == pytest.approx(0.3**2 / 4, rel=1e-4)


def test_dice_of_a_map_by_hand() -> None:
    truth = torch.zeros(1, 4, 4)
    truth[:, :2] = 1
    sure = (truth * 2 - 1) * 50
    assert dice_loss(sure, truth).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(-sure, truth).item() == pytest.approx(1 - 1 / 17, abs=1e-6)
    assert objectness_loss(sure, truth).item() == pytest.approx(0, abs=1e-6)


def test_focal_loss_without_gamma_is_cross_entropy_and_less_with_it() -> None:
    logits, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    entropy = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(focal_loss(logits, target, gamma=0), entropy)
    right = logits.softmax(1)[torch.arange(5), target]
    torch.testing.assert_close(focal_loss(logits, target, gamma=2), (1 - right) ** 2 * entropy)


def test_an_unknown_class_costs_nothing() -> None:
    assert focal_loss(torch.randn(2, 3), torch.tensor([-1, -1])).tolist() == [0, 0]


def test_binary_focal_loss_is_torchvisions() -> None:
    logits, target = torch.randn(6), torch.tensor([0.0, 1, 1, 0, 1, 0])
    for gamma, alpha in ((0.0, 0.5), (2.0, 0.9)):
        expected = 2 * sigmoid_focal_loss(logits, target, alpha, gamma)
        torch.testing.assert_close(binary_focal_loss(logits, target, gamma, alpha), expected)


def test_a_mean_over_nothing_is_zero() -> None:
    losses = torch.tensor([1.0, 2, 6], requires_grad=True)
    assert mean_over(losses, torch.tensor([True, False, True])).item() == 3.5
    assert mean_over(losses, torch.zeros(3, dtype=torch.bool)).item() == 0
