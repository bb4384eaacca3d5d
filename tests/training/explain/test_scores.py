"""Figures of heat maps against known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.explain.tiny import HEIGHT, PATCH, WIDTH, Linear, OnePatch, chain, classifier, lit_patch, picture
from training.explain.heat.methods import heat_map
from training.explain.randomisation import cascade, likeness, randomise, weights
from training.explain.scores import (
    best_box_ious,
    deletion_and_insertion,
    interval,
    mask_iou,
    max_box_acc_v2,
    points_into,
    points_onto,
)
from training.explain.targets import Target

FIRST = Target("class", 0, "a", "logit", "class")


def peak(y: int, x: int) -> np.ndarray:
    heat = np.zeros((10, 20), np.float32)
    heat[y, x] = 1
    return heat


def test_the_pointing_game() -> None:
    box = np.array([0.5, 0.2, 0.75, 0.6], np.float32)  # columns 10 to 14, rows 2 to 5
    hits = {(y, x) for y in range(10) for x in range(20) if points_into(peak(y, x), box)}
    assert hits == {(y, x) for y in range(2, 6) for x in range(10, 15)}
    mask = np.zeros((10, 20), bool)
    mask[3, 7] = True
    assert points_onto(peak(3, 7), mask)
    assert not points_onto(peak(3, 8), mask)


def test_the_mask_leaves_the_border_out() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[:, :3] = 1
    mask = np.zeros((4, 4), bool)
    mask[:, :2] = True
    everything = np.ones((4, 4), bool)
    assert mask_iou(heat, 0.5, 0, mask, everything) == pytest.approx(2 / 3)
    border = everything.copy()
    border[:, 2] = False
    assert mask_iou(heat, 0.5, 0, mask, border) == pytest.approx(1)


def test_max_box_acc_v2_by_hand() -> None:
    """Two pictures, two thresholds: at 0.3 and 0.5 the first threshold serves both, at 0.7 each serves one."""
    ious = np.array([[0.9, 0.2], [0.6, 0.8]])
    assert max_box_acc_v2(ious) == pytest.approx((1 + 1 + 0.5) / 3)


def test_any_component_counts_for_it() -> None:
    heat = np.full((20, 20), -1, np.float32)
    heat[0:10, 0:10], heat[14:18, 14:18] = 3, 1
    ious = best_box_ious(heat, np.array([0.7, 0.7, 0.9, 0.9], np.float32))
    assert ious.max() == pytest.approx(1)
    assert ious[50] == 0  # above half of the span only the wrong one is left


def test_deletion_falls_fast_and_insertion_climbs_fast_for_the_true_map() -> None:
    network, x = classifier(OnePatch(), 2), lit_patch()
    sure = replace(FIRST, scale="probability")
    top, left, bottom, right = PATCH
    right_map = np.zeros((HEIGHT, WIDTH), np.float32)
    right_map[top:bottom, left:right] = 1
    deletion, insertion = deletion_and_insertion(network, x, sure, right_map)
    worse_deletion, worse_insertion = deletion_and_insertion(network, x, sure, -right_map)
    assert deletion < worse_deletion
    assert insertion > worse_insertion
    assert 0 <= deletion <= 1


def test_the_interval_of_a_mean() -> None:
    rows = np.random.default_rng(0).normal(5, 1, 400)
    low, high = interval(rows, lambda sample: float(sample.mean()))
    assert low < rows.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)  # 1.96 standard errors to each side


def test_the_cascade_starts_at_the_output_and_leaves_the_network_alone() -> None:
    network = classifier(chain())
    before = [weight.clone() for weight in weights(network)]
    layers = len(before)
    found = [
        (share, [not torch.equal(a, b) for a, b in zip(before, weights(spoilt), strict=True)])
        for share, spoilt in cascade(network, layers)
    ]
    for step, (share, changed) in enumerate(found, 1):
        assert share == pytest.approx(step / layers)
        assert changed == [False] * (layers - step) + [True] * step
    assert all(torch.equal(a, b) for a, b in zip(before, weights(network), strict=True))


def test_a_map_is_like_itself_and_unlike_one_with_its_pixels_shuffled() -> None:
    heat = heat_map(classifier(Linear(torch.randn(2, 3, HEIGHT, WIDTH))), picture(), FIRST, "gradient")
    same = likeness(heat, heat, 1.0)
    assert (same.rank_correlation, same.ssim) == pytest.approx((1, 1))
    other = likeness(heat, np.random.default_rng(0).permutation(heat.ravel()).reshape(heat.shape), 1.0)
    assert abs(other.rank_correlation) < 0.1
    assert other.ssim < 0.2


def test_randomising_gives_a_step_each() -> None:
    network = classifier(chain())
    steps = randomise(network, picture(), FIRST, "gradient", steps=2)
    assert [step.spoilt for step in steps] == [pytest.approx(3 / 5), 1.0]
    assert all(-1 <= step.rank_correlation <= 0.98 for step in steps)
