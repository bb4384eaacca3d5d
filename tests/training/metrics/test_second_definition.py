"""Every figure that is reported, computed again by somebody else's definition of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryCalibrationError
from torchmetrics.functional import average_precision as binary_average_precision
from torchmetrics.functional.classification import multiclass_jaccard_index
from torchmetrics.functional.segmentation import dice_score
from torchvision.ops import box_iou

from training.metrics.boxes import average_precision, box_scores, dice_scores, mask_overlaps, overlaps, paired_iou
from training.metrics.calibration import calibration_error, confidence_counts
from training.metrics.circles import circle_overlaps, rendered_overlaps
from training.metrics.masks import confusions, jaccard
from training.metrics.segmentation import Scores, count_with_confidence

RNG = np.random.default_rng(7)


def random_boxes(number: int, rng: np.random.Generator) -> np.ndarray:
    corners = np.sort(rng.random((number, 2, 2)), axis=1)
    return corners.reshape(number, 4)


@pytest.mark.parametrize("seed", range(3))
def test_boxes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, truth = random_boxes(50, rng), random_boxes(50, rng)
    theirs = np.diagonal(box_iou(torch.from_numpy(found), torch.from_numpy(truth)).numpy())
    np.testing.assert_allclose(paired_iou(found, truth), theirs, atol=1e-9)
    scores = box_scores(*overlaps(found, truth))
    assert scores["mean_iou"] == pytest.approx(theirs.mean())
    assert scores["accuracy_iou_50"] == pytest.approx((theirs >= 0.5).mean())


@pytest.mark.parametrize("seed", range(3))
def test_average_precision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    right = rng.random(80) < 0.4
    scores = np.round(rng.random(80) * 0.5 + right * 0.3, 2)  # with ties
    theirs = binary_average_precision(torch.from_numpy(scores), torch.from_numpy(right.astype(int)), task="binary")
    assert average_precision(scores, right) == pytest.approx(float(theirs), abs=1e-6)
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is a second definition, and no dependency")
    assert average_precision(scores, right) == pytest.approx(metrics.average_precision_score(right, scores))


@pytest.mark.parametrize("seed", range(3))
def test_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = (rng.integers(0, 4, (5, 12, 10)).astype(np.uint8) for _ in range(2))
    y, p = (torch.from_numpy(each.astype(np.int64)) for each in (truth, found))
    counts = confusions(truth, found, 4)
    whole = Scores.from_confusion(counts.sum(0))
    assert whole.mean_iou == pytest.approx(float(multiclass_jaccard_index(p, y, 4)), abs=1e-6)
    one, other = truth == 1, found == 1
    dice = dice_scores(*mask_overlaps(other, one))["mean_dice"]
    as_masks = [torch.from_numpy(each.astype(int))[:, None] for each in (other, one)]
    theirs = dice_score(*as_masks, num_classes=1, include_background=True, input_format="one-hot")
    assert dice == pytest.approx(float(theirs.mean()), abs=1e-6)
    # The index of binary masks, one a class, taken together: of sets, as Jaccard has it.
    for place in range(5):
        sets = [
            {(c, *at) for c in range(4) for at in np.argwhere(each[place] == c).tolist()} for each in (truth, found)
        ]
        index = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        assert jaccard(counts, counts)[place] == pytest.approx(index)


def test_circles() -> None:
    circles, truth = (np.column_stack([RNG.uniform(8, 20, (20, 2)), RNG.uniform(2, 8, 20)]) for _ in range(2))
    shared, union = circle_overlaps(circles, truth)
    scale = 40  # drawn so large that the pixels at the rim no longer matter
    drawn = rendered_overlaps(circles * scale, truth * scale, 28 * scale, 28 * scale)
    np.testing.assert_allclose(shared / union, drawn[0] / drawn[1], atol=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_is_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.5, 1, 2000)
    right = rng.random(2000) < sure**2  # surer than it may be
    # Theirs takes a probability of "yes"; of ours, which are all above one half, being right is yes.
    theirs = BinaryCalibrationError(n_bins=15, norm="l1")(torch.from_numpy(sure), torch.from_numpy(right.astype(int)))
    counts = confidence_counts(sure[:700], right[:700]) + confidence_counts(sure[700:], right[700:])
    assert calibration_error(counts) == pytest.approx(float(theirs), abs=1e-5)


def test_calibration_of_pixels() -> None:
    labels = np.zeros((2, 4, 4), np.uint8)
    labels[0, 0] = 255
    maps = np.zeros((2, 4, 4), np.uint8)
    maps[1, :2] = 1  # half of one picture is wrong
    rows = count_with_confidence(maps, np.full((2, 4, 4), 255, np.uint8), labels, 2)
    assert calibration_error(rows["confidence"].sum(0)) == pytest.approx(8 / 28)  # certain, and wrong in 8 of 28
    assert np.isnan(calibration_error(rows["confidence"][:0].sum(0)))
