"""Numbers added to the scores of classes, on pixels whose rare class was lifted too far."""

from __future__ import annotations

import numpy as np
import pytest

from training.metrics.adjustment import fit_biases
from training.metrics.segmentation import Scores, confusion_matrix

LIFTED = np.array([0.0, 0.5, 2.5])


def pixels(seed: int, number: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian scores of three classes, 80, 17 and 3 in 100 of the pixels, each lifted as much as it is rare."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, number, p=(0.8, 0.17, 0.03))
    scores = rng.normal(0, 1, (number, 3)) + 3.0 * np.eye(3)[truth] + LIFTED
    return scores.astype(np.float32), truth.astype(np.int64)


def mean_iou(scores: np.ndarray, truth: np.ndarray) -> float:
    found = scores.argmax(1).astype(np.uint8)
    return Scores.from_confusion(confusion_matrix(truth.astype(np.uint8), found, scores.shape[1])).mean_iou


def test_what_a_loss_lifted_comes_down_for_other_pixels_too():
    biases = fit_biases(*pixels(0), penalty=0.0)
    others, truth = pixels(1)
    assert mean_iou(others + biases, truth) > mean_iou(others, truth) + 0.05
    assert biases[2] - biases[0] == pytest.approx(-LIFTED[2], abs=1.5)
    assert np.bincount(pixels(0)[1]) @ biases == pytest.approx(0, abs=1)  # over 20,000 pixels


def test_a_penalty_holds_the_numbers_back():
    free, held, still = (np.abs(fit_biases(*pixels(0), penalty=by)).max() for by in (0.0, 0.01, 10.0))
    assert free > held > still == 0


def test_of_no_pixels_nothing_is_learned():
    scores, truth = pixels(0, 0)
    assert fit_biases(scores, truth).tolist() == [0, 0, 0]


def test_a_class_that_is_nowhere_is_said_no_more():
    scores, truth = pixels(0)
    chosen = truth != 2
    biases = fit_biases(scores[chosen], truth[chosen], penalty=0.0)
    assert np.isfinite(biases).all()
    before, after = ((scores[chosen] + by).argmax(1) == 2 for by in (0, biases))
    assert after.sum() < before.sum() / 2
