"""Scores of boxes against known answers and torchvision's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from torchvision.ops import box_iou

from tests.training.boxes import PAIRS, split
from training.metrics.boxes import average_precision, box_scores, dice_scores, mask_overlaps, overlaps, paired_iou


@settings(deadline=None, max_examples=40)
@given(PAIRS)
def test_paired_iou_is_torchvisions(pairs: list[tuple[list[float], list[float]]]) -> None:
    boxes, truth = split(pairs)
    expected = box_iou(boxes.double(), truth.double()).diagonal().numpy()
    assert paired_iou(boxes.double().numpy(), truth.double().numpy()) == pytest.approx(expected, abs=1e-9)


def test_a_crossed_box_has_no_area() -> None:
    crossed, truth = np.array([[0.5, 0.5, 0.2, 0.9]]), np.array([[0.1, 0.1, 0.9, 0.9]])
    assert paired_iou(crossed, truth).tolist() == [0]
    assert paired_iou(crossed, crossed).tolist() == [0]


def test_the_mean_of_ious_is_not_the_iou_of_sums() -> None:
    # A large box found exactly, and a small one missed.
    truth = np.array([[0.0, 0, 0.8, 0.5], [0.9, 0.9, 1, 1]])
    found = np.array([[0.0, 0, 0.8, 0.5], [0.0, 0, 0.1, 0.1]])
    scores = box_scores(*overlaps(found, truth), right=np.array([True, True]))
    assert scores == pytest.approx(
        {
            "mean_iou": 0.5, "pooled_iou": 0.4 / 0.42, "accuracy_iou_50": 0.5, "accuracy_iou_75": 0.5,
            "class_gated_iou": 0.5,
        }
    )  # fmt: skip
    wrong = box_scores(*overlaps(found, truth), right=np.array([False, True]))
    assert wrong["class_gated_iou"] == 0


def test_dice_of_masks_by_hand() -> None:
    truth, found = np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4), bool)
    truth[0, :2] = True
    found[0, 1:] = True
    assert dice_scores(*mask_overlaps(found, truth)) == pytest.approx({"pooled_dice": 0.4, "mean_dice": (0.4 + 1) / 2})


@pytest.mark.parametrize(
    ("scores", "right", "positives", "expected"),
    [
        ([0.9, 0.8, 0.7], [1, 1, 1], None, 1.0),
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], None, (1 + 2 / 3) / 2),
        ([0.9, 0.8], [1, 0], 2, 0.5),  # one object was never found
        ([0.5, 0.5], [1, 0], None, 0.5),  # finds of one score count as one
        ([0.5, 0.5], [0, 1], None, 0.5),
        ([0.9], [0], None, math.nan),
    ],
)
def test_average_precision_by_hand(
    scores: list[float], right: list[int], positives: int | None, expected: float
) -> None:  # fmt: skip
    found = average_precision(np.array(scores), np.array(right, bool), positives)
    assert found == pytest.approx(expected, nan_ok=True)
