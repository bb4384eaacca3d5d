"""Segmentation metrics over a whole split: one confusion matrix, IoU read off it at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.errors import SourceError
from training.data.cityscapes_pairs import Pairs, edge_band
from training.metrics.calibration import BINS, calibration_error, confidence_counts
from training.metrics.masks import at_size_of
from training.metrics.soundness import require_ids
from training.results import Evaluation, Figure, Interval, Label

UInt8 = NDArray[np.uint8]

PROTOCOL = "19 classes, one confusion matrix over the split, no test-time augmentation"


def iou_of_true_classes(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C,) IoU of each class by a (C, C) or (C, C + 1) confusion matrix; NaN for classes that the truth lacks."""
    hits, truth = np.diag(matrix).astype(np.float64), matrix.sum(1)
    union = truth + matrix.sum(0)[: len(hits)] - hits
    return np.where(truth > 0, hits / np.maximum(union, 1), np.nan)


def confusion_matrix(label: UInt8, prediction: UInt8, classes: int) -> NDArray[np.int64]:
    """(C, C + 1) int64 counts: row = true class, column = predicted class, the last for none; pixels labelled 255 are
    left out.

    Args:
        label: uint8 class ids of any shape, 255 ignored.
        prediction: uint8 class ids of the same shape, below `classes`, or 255 for none.

    Raises:
        SourceError, ModelError: an id of a known pixel that is not below `classes`; see `require_ids`.
    """
    known = label != IGNORE
    truth, found = label[known].astype(np.int64), prediction[known]
    require_ids(label[known], found[found != IGNORE], classes)
    pairs = truth * (classes + 1) + np.minimum(found, classes)
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


@dataclass(frozen=True)
class Scores:
    """What one confusion matrix says.

    Attributes:
        iou: (C,) float64, intersection over union of each class; NaN where a class occurs in neither label nor
            prediction.
        mean_iou: mean of `iou` over the classes that occur.
        accuracy: share of labelled pixels that are right.
    """

    iou: NDArray[np.float64]
    mean_iou: float
    accuracy: float

    @classmethod
    def from_confusion(cls, matrix: NDArray[np.int64]) -> Scores:
        hits = np.diag(matrix).astype(np.float64)
        union = matrix.sum(0)[: len(hits)] + matrix.sum(1) - hits
        iou = np.full(len(hits), np.nan)
        np.divide(hits, union, out=iou, where=union > 0)
        mean = float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")
        return cls(iou, mean, float(hits.sum() / max(matrix.sum(), 1)))


def count_confusions(maps: UInt8, labels: UInt8, classes: int) -> NDArray[np.int64]:
    """Confusion matrices by picture: (n, 2, C, C), of every labelled pixel and without the edge band.

    Args:
        maps: (n, h, w) class ids; brought to the labels' size by nearest neighbour.
        labels: (n, H, W) class ids, 255 ignored.
        classes: C.
    """
    counts = np.zeros((len(maps), 2, classes, classes + 1), np.int64)
    for (whole, inner), found, label in zip(counts, at_size_of(labels, maps), labels, strict=True):
        whole[:] = confusion_matrix(label, found, classes)
        inner[:] = confusion_matrix(np.where(edge_band(label), IGNORE, label).astype(np.uint8), found, classes)
    return counts


def row_type(classes: int) -> np.dtype[np.void]:
    """A row of figures of a model that says how sure it is: the counts of `count_confusions`, and those of
    `confidence_counts`."""
    return np.dtype([("confusion", np.int64, (2, classes, classes + 1)), ("confidence", np.float64, (BINS, 3))])


def confusions_of(rows: NDArray[Any]) -> NDArray[np.int64]:
    """(N, 2, C, C) counts of rows with or without those of confidence."""
    counts: NDArray[np.int64] = rows["confusion"] if rows.dtype.names else rows
    return counts


def calibration_of(rows: NDArray[Any]) -> float | None:
    """The expected calibration error of all pixels of rows; None of a model that does not say how sure it is."""
    return calibration_error(rows["confidence"].sum(0)) if rows.dtype.names else None


def count_with_confidence(
    maps: UInt8, confidence: UInt8 | None, labels: UInt8, classes: int
) -> NDArray[Any]:  # fmt: skip
    """Rows of figures, one a picture: (n,) of `row_type`, or those of `count_confusions` without a confidence.

    Args:
        maps: (n, h, w) class ids.
        confidence: (n, h, w), 255 for certain; or None.
        labels: (n, H, W) class ids, 255 ignored.
        classes: C.
    """
    counts = count_confusions(maps, labels, classes)
    if confidence is None:
        return counts
    rows = np.zeros(len(maps), row_type(classes))
    rows["confusion"] = counts
    found, sure, known = at_size_of(labels, maps), at_size_of(labels, confidence), labels != IGNORE
    for row, place in zip(rows, range(len(maps)), strict=True):
        chosen = known[place]
        row["confidence"] = confidence_counts(sure[place][chosen], (found[place] == labels[place])[chosen])
    return rows


def bootstrap_confusions(
    matrices: NDArray[np.int64], resamples: int = 1000, seed: int = 0
) -> tuple[Interval, Interval]:
    """95 % intervals of mean IoU and accuracy: pictures drawn with replacement, percentiles of the results.

    Args:
        matrices: (N, C, C) counts by picture.
        resamples: how often a set of N pictures is drawn.
        seed: of the draws.
    """
    scores = _resampled(matrices, resamples, seed)
    return _interval([s.mean_iou for s in scores]), _interval([s.accuracy for s in scores])


def mean_iou_difference(
    first: NDArray[np.int64], second: NDArray[np.int64], resamples: int = 1000, seed: int = 0
) -> tuple[float, Interval]:
    """By how much the mean IoU of one model is above another's on the same pictures, with its 95 % interval.

    Both are resampled alike, so what makes a picture hard for both falls out: narrower than two separate intervals.

    Args:
        first, second: (N, C, C) counts by picture, of the same pictures in the same order.
        resamples: how often a set of N pictures is drawn.
        seed: of the draws.
    """
    pairs = zip(_resampled(first, resamples, seed), _resampled(second, resamples, seed), strict=True)
    difference = Scores.from_confusion(first.sum(0)).mean_iou - Scores.from_confusion(second.sum(0)).mean_iou
    return difference, _interval([a.mean_iou - b.mean_iou for a, b in pairs])


def _resampled(matrices: NDArray[np.int64], resamples: int, seed: int) -> list[Scores]:
    """Scores of sets of N pictures drawn with replacement; the draws depend on N and the seed only."""
    number = len(matrices)
    draws = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=resamples)
    sums = (draws @ matrices.reshape(number, -1)).reshape(resamples, *matrices.shape[1:])
    return [Scores.from_confusion(matrix) for matrix in sums]


def _interval(values: list[float]) -> Interval:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


class ClassScore(msgspec.Struct, frozen=True):
    """One class: its share of the labelled pixels and its IoU, None where it occurs nowhere."""

    name: str
    share: float
    iou: float | None
    iou_without_band: float | None


class SegmentationEvaluation(Evaluation, frozen=True, kw_only=True):
    """What a segmenter reaches on a split. `…_without_band`: pixels within one of a label edge left out.

    `confusion` is the matrix of every labelled pixel: row = true class, column = predicted class. `calibration_error`
    is that of `training.metrics.calibration`, None of a model that does not say how sure it is.
    """

    mean_iou: float
    mean_iou_interval: Interval
    accuracy: float
    accuracy_interval: Interval
    mean_iou_without_band: float
    accuracy_without_band: float
    classes: tuple[ClassScore, ...]
    confusion: list[list[int]]
    calibration_error: float | None = None

    def headline(self) -> dict[str, Figure]:
        figures = {
            "mean_iou": Figure(self.mean_iou, self.mean_iou_interval),
            "accuracy": Figure(self.accuracy, self.accuracy_interval),
        }
        sure = self.calibration_error
        return figures if sure is None else figures | {"calibration_error": Figure(sure)}

    def drawings(self) -> dict[str, UInt8]:
        from training.metrics.confusion_picture import draw_confusion

        return {"confusion.png": draw_confusion(np.array(self.confusion, np.int64), CITYSCAPES_CLASSES)}

    def markdown(self) -> str:
        """The figures as a page."""
        interval, accuracy = self.mean_iou_interval, self.accuracy_interval
        inner = (self.mean_iou_without_band, self.accuracy_without_band)
        lines = [
            f"# {self.model} on {self.split}: {self.backend} {self.precision}, {self.pictures} pictures",
            "",
            f"{self.protocol}.",
            "Intervals: 95 %, bootstrap over pictures. Without band: pixels within one of a label edge left out.",
            "",
            "| | all labelled pixels | interval | without band |",
            "|---|---:|---:|---:|",
            f"| mean IoU | {self.mean_iou:.4f} | {interval.low:.4f} to {interval.high:.4f} | {inner[0]:.4f} |",
            f"| accuracy | {self.accuracy:.4f} | {accuracy.low:.4f} to {accuracy.high:.4f} | {inner[1]:.4f} |",
            *self._calibration(),
            "",
            "| class | share | IoU | without band |",
            "|---|---:|---:|---:|",
            *(f"| {c.name} | {c.share:.2%} | {_figure(c.iou)} | {_figure(c.iou_without_band)} |" for c in self.classes),
        ]
        return "\n".join(lines) + "\n"

    def _calibration(self) -> list[str]:
        """The line of the table on confidence, where the model has one."""
        if self.calibration_error is None:
            return []
        return [f"| calibration error (ECE, {BINS} bins) | {self.calibration_error:.4f} | – | – |"]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def summarise_confusions(rows: NDArray[Any], pairs: Pairs, label: Label) -> SegmentationEvaluation:
    """The scores of a split from the counts of its pictures.

    Args:
        rows: (N, 2, C, C) counts, or rows with them; see `count_with_confidence`.
        pairs: the split.
        label: what the result is of.

    Raises:
        SourceError: no pixel of the split has a class.
    """
    counts = confusions_of(rows)
    whole, inner = counts[:, 0], counts[:, 1]
    total = whole.sum(0)
    if not total.any():
        raise SourceError(f"{label.split} has no pixel with a class: there is nothing to score; see data check")
    scores, without = Scores.from_confusion(total), Scores.from_confusion(inner.sum(0))
    mean_iou_interval, accuracy_interval = bootstrap_confusions(whole)
    shares = total.sum(1) / max(total.sum(), 1)
    return SegmentationEvaluation(
        model=label.model, backend=label.backend, precision=label.precision, split=label.split, pictures=len(pairs),
        protocol=f"{PROTOCOL}; {pairs.protocol}",
        mean_iou=scores.mean_iou, mean_iou_interval=mean_iou_interval,
        accuracy=scores.accuracy, accuracy_interval=accuracy_interval,
        mean_iou_without_band=without.mean_iou, accuracy_without_band=without.accuracy,
        classes=tuple(
            ClassScore(info.name, float(share), _or_none(iou), _or_none(inside))
            for info, share, iou, inside in zip(CITYSCAPES_CLASSES, shares, scores.iou, without.iou, strict=True)
        ),
        confusion=total.tolist(), calibration_error=calibration_of(rows),
    )  # fmt: skip
