"""Scores of class maps against an independent implementation, their intervals, and what they are written as."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from training.data.cityscapes_pairs import Pairs
from training.metrics.confusion_picture import draw_confusion
from training.metrics.segmentation import (
    Scores,
    SegmentationEvaluation,
    bootstrap_confusions,
    confusion_matrix,
    count_confusions,
    mean_iou_difference,
    summarise_confusions,
)
from training.results import Interval, Label, read_evaluation, write_evaluation

LABEL = Label("reader", "test", "fp32", "val")


def random_maps(seed: int, classes: int = 19, agreement: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, (3, 40, 50)).astype(np.uint8)
    found = np.where(rng.random(label.shape) < agreement, label, rng.integers(0, classes, label.shape)).astype(np.uint8)
    label[rng.random(label.shape) < 0.2] = IGNORE
    return label, found


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_torchmetrics(seed: int) -> None:
    label, found = random_maps(seed)
    scores = Scores.from_confusion(confusion_matrix(label, found, 19))
    y, p = torch.from_numpy(label.astype(np.int64)), torch.from_numpy(found.astype(np.int64))
    by_class = MulticlassJaccardIndex(19, average=None, ignore_index=IGNORE)(p, y)
    np.testing.assert_allclose(scores.iou, by_class.numpy(), rtol=1e-5)
    accuracy = MulticlassAccuracy(19, average="micro", ignore_index=IGNORE)(p, y)
    assert scores.accuracy == pytest.approx(accuracy.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("label", "found", "iou", "mean", "accuracy"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], [1, 1, None], 1.0, 1.0),
        ([0, 0, 1, 1], [0, 1, 1, 1], [1 / 2, 2 / 3, None], 7 / 12, 3 / 4),
        ([0, 0, 0, 255], [0, 0, 2, 1], [2 / 3, None, 0], 1 / 3, 2 / 3),  # predicted but nowhere true counts as 0
        ([0, 0, 1, 1], [0, 255, 1, 1], [1 / 2, 1, None], 3 / 4, 3 / 4),  # no class at all is wrong, too
        ([0, 0, 255, 255], [0, 0, 255, 1], [1, None, None], 1.0, 1.0),
        ([255, 255, 255, 255], [0, 1, 2, 0], [None, None, None], None, 0.0),
    ],
    ids=[
        "right",
        "one wrong",
        "an absent class is predicted",
        "none is predicted",
        "none is right where none is known",
        "nothing labelled",
    ],
)
def test_known_answers(label: list, found: list, iou: list, mean: float | None, accuracy: float) -> None:
    scores = Scores.from_confusion(confusion_matrix(np.array(label, np.uint8), np.array(found, np.uint8), 3))
    expected = [np.nan if value is None else value for value in iou]
    np.testing.assert_allclose(scores.iou, expected)
    np.testing.assert_allclose(scores.mean_iou, np.nan if mean is None else mean)
    assert scores.accuracy == accuracy


def some_pairs(number: int) -> tuple[Pairs, np.ndarray]:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 19, (number, 4, 4))
    labels = np.kron(blocks, np.ones((1, 8, 8))).astype(np.uint8)
    found = np.where(rng.random(labels.shape) < 0.8, labels, 0).astype(np.uint8)
    photos = np.zeros((*labels.shape, 3), np.uint8)
    photos[..., 0] = found  # a model that reads its answer from the red channel
    return Pairs(photos, labels, tuple(f"{i}.jpg" for i in range(number))), found


@pytest.mark.parametrize("scale", [0.5, 2])
def test_a_class_map_of_another_size_is_brought_to_the_label(scale: float) -> None:
    labels = np.kron(np.arange(16).reshape(1, 4, 4), np.ones((1, 8, 8))).astype(np.uint8)
    side = int(32 * scale)
    found = np.kron(np.arange(16).reshape(1, 4, 4), np.ones((1, side // 4, side // 4))).astype(np.uint8)
    whole, _ = count_confusions(found, labels, 19)[0]
    assert np.diag(whole).sum() == whole.sum() == 32 * 32


def test_bootstrap_covers_the_value_and_narrows_with_more_pictures() -> None:
    widths = []
    for number in (20, 320):
        matrices = np.stack([confusion_matrix(*random_maps(s, 4, 0.5 + 0.4 * (s % 2)), 4) for s in range(number)])
        mean, accuracy = bootstrap_confusions(matrices, resamples=400)
        scores = Scores.from_confusion(matrices.sum(0))
        assert mean.low < scores.mean_iou < mean.high
        assert accuracy.low < scores.accuracy < accuracy.high
        widths.append(mean.high - mean.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)  # √(320/20)


def test_a_difference_is_surer_than_its_two_sides() -> None:
    truth = [random_maps(s, 4, 1.0)[0] for s in range(60)]
    rng = np.random.default_rng(1)
    first, second = [], []
    for i, label in enumerate(truth):
        # Both models fail where a picture is hard; the second misses a little more everywhere.
        hard = 0.2 + 0.6 * (i % 3) / 2
        guess = rng.integers(0, 4, label.shape).astype(np.uint8)
        right = np.where(label == IGNORE, 0, label).astype(np.uint8)
        draw = rng.random(label.shape)
        first.append(confusion_matrix(label, np.where(draw > hard, right, guess).astype(np.uint8), 4))
        second.append(confusion_matrix(label, np.where(draw > hard + 0.05, right, guess).astype(np.uint8), 4))
    a, b = np.stack(first), np.stack(second)
    difference, interval = mean_iou_difference(a, b, resamples=200)
    assert difference == Scores.from_confusion(a.sum(0)).mean_iou - Scores.from_confusion(b.sum(0)).mean_iou
    assert 0 < interval.low < difference < interval.high
    alone, _ = bootstrap_confusions(a, resamples=200)
    assert interval.high - interval.low < (alone.high - alone.low) / 3
    assert mean_iou_difference(a, a, resamples=20) == (0, Interval(0, 0))


def test_identical_pictures_leave_no_doubt() -> None:
    matrices = np.stack([confusion_matrix(*random_maps(0), 19)] * 10)
    mean, _ = bootstrap_confusions(matrices, resamples=50)
    assert mean.low == pytest.approx(mean.high)


@pytest.fixture(scope="module")
def evaluation() -> SegmentationEvaluation:
    pairs, found = some_pairs(10)
    return summarise_confusions(count_confusions(found, pairs.labels, 19), pairs, LABEL)


def test_an_evaluation_says_how_it_was_measured(evaluation: SegmentationEvaluation) -> None:
    metric = evaluation.metrics()[0]
    assert (metric.name, metric.split) == ("mean_iou", "val")
    assert metric.value == round(evaluation.mean_iou, 4)
    assert "one confusion matrix" in metric.protocol
    assert "test fp32, 10 pictures" in metric.protocol
    page = evaluation.markdown()
    assert all(f"| {info.name} |" in page for info in CITYSCAPES_CLASSES)
    assert f"{evaluation.mean_iou:.4f}" in page
    assert sum(c.share for c in evaluation.classes) == pytest.approx(1)


def test_an_evaluation_survives_its_file(evaluation: SegmentationEvaluation, tmp_path: Path) -> None:
    write_evaluation(evaluation, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["confusion.png", "evaluation.json", "evaluation.md"]
    assert read_evaluation(tmp_path / "evaluation.json", SegmentationEvaluation) == evaluation


def test_a_class_that_occurs_nowhere_is_null() -> None:
    pairs = Pairs(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.uint8), ("1.jpg",))
    result = summarise_confusions(count_confusions(pairs.labels, pairs.labels, 19), pairs, LABEL)
    assert [c.iou for c in result.classes] == [1.0] + [None] * 18
    assert msgspec.json.decode(msgspec.json.encode(result), type=SegmentationEvaluation) == result


def test_the_picture_shows_the_shares() -> None:
    matrix = np.diag(np.full(19, 100))
    matrix[3, 3], matrix[3, 5] = 0, 100
    picture = draw_confusion(matrix, CITYSCAPES_CLASSES)
    np.testing.assert_array_equal(draw_confusion(np.pad(matrix, ((0, 0), (0, 1))), CITYSCAPES_CLASSES), picture)
    some = np.pad(matrix, ((0, 0), (0, 1)))
    some[7, 19] = 5
    assert draw_confusion(some, CITYSCAPES_CLASSES).shape[1] == picture.shape[1] + 40

    def cell(row: int, column: int) -> np.ndarray:
        return picture[150 + row * 40 + 2, 150 + column * 40 + 2]

    np.testing.assert_array_equal(cell(3, 5), cell(0, 0))
    np.testing.assert_array_equal(cell(3, 3), [255, 255, 255])
