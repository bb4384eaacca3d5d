"""Segmentation metrics over a whole split: one confusion matrix, IoU read off it at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

import engines
from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.errors import ModelError, UsageError
from engines.spec import Metric
from training.data.cityscapes_pairs import Pairs, edge_band

if TYPE_CHECKING:
    from concurrent.futures import Future

    from engines.engine import Precision, Prediction
    from training.recipe import Recipe

UInt8 = NDArray[np.uint8]
Predict = Callable[[UInt8], UInt8]
"""(N, H, W, 3) uint8 RGB → (N, h, w) uint8 class ids, the whole picture squashed into h×w."""

PROTOCOL = "19 classes, one confusion matrix over the split, no test-time augmentation"
BATCH = 8


def confusion_matrix(label: UInt8, prediction: UInt8, classes: int) -> NDArray[np.int64]:
    """(C, C) int64 counts: row = true class, column = predicted class; pixels labelled 255 are left out.

    Args:
        label: uint8 class ids of any shape, 255 ignored.
        prediction: uint8 class ids of the same shape, below `classes`.
    """
    known = label != IGNORE
    pairs = label[known].astype(np.int64) * classes + prediction[known]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


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
        union = matrix.sum(0) + matrix.sum(1) - hits
        iou = np.full(len(hits), np.nan)
        np.divide(hits, union, out=iou, where=union > 0)
        mean = float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")
        return cls(iou, mean, float(hits.sum() / max(matrix.sum(), 1)))


def count(predict: Predict, pairs: Pairs, classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Confusion matrices picture by picture: 2 × (N, C, C) int64, of every labelled pixel and without the edge band.

    A class map of another size than the label is brought to it by nearest neighbour.
    """
    starts = range(0, len(pairs), BATCH)
    rows = np.concatenate(
        [
            count_confusions(predict(pairs.photos[i : i + BATCH]), pairs.labels[i : i + BATCH], classes)
            for i in starts
        ]
    )  # fmt: skip
    return rows[:, 0], rows[:, 1]


def count_confusions(maps: UInt8, labels: UInt8, classes: int) -> NDArray[np.int64]:
    """Confusion matrices by picture: (n, 2, C, C), of every labelled pixel and without the edge band.

    Args:
        maps: (n, h, w) class ids; brought to the labels' size by nearest neighbour.
        labels: (n, H, W) class ids, 255 ignored.
        classes: C.
    """
    counts = np.zeros((len(maps), 2, classes, classes), np.int64)
    for (whole, inner), found, label in zip(counts, maps, labels, strict=True):
        height, width = label.shape
        if found.shape != label.shape:
            found = cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        whole[:] = confusion_matrix(label, found, classes)
        inner[:] = confusion_matrix(np.where(edge_band(label), IGNORE, label).astype(np.uint8), found, classes)
    return counts


def bootstrap(matrices: NDArray[np.int64], resamples: int = 1000, seed: int = 0) -> tuple[Interval, Interval]:
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


class Interval(msgspec.Struct, frozen=True):
    """From and to, of 95 %."""

    low: float
    high: float


class ClassScore(msgspec.Struct, frozen=True):
    """One class: its share of the labelled pixels and its IoU, None where it occurs nowhere."""

    name: str
    share: float
    iou: float | None
    iou_without_band: float | None


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What a model reaches on a split. `…_without_band`: pixels within one of a label edge left out.

    `confusion` is the matrix of every labelled pixel: row = true class, column = predicted class.
    """

    model: str
    backend: str
    precision: str
    split: str
    pictures: int
    protocol: str
    mean_iou: float
    mean_iou_interval: Interval
    accuracy: float
    accuracy_interval: Interval
    mean_iou_without_band: float
    accuracy_without_band: float
    classes: tuple[ClassScore, ...]
    confusion: list[list[int]]

    def metrics(self) -> tuple[Metric, ...]:
        """The figures that go into a `ModelSpec`."""
        protocol = f"{self.protocol}; {self.backend} {self.precision}, {self.pictures} pictures"
        return (
            Metric("mean_iou", round(self.mean_iou, 4), self.split, protocol),
            Metric("accuracy", round(self.accuracy, 4), self.split, protocol),
        )

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
            "",
            "| class | share | IoU | without band |",
            "|---|---:|---:|---:|",
            *(f"| {c.name} | {c.share:.2%} | {_figure(c.iou)} | {_figure(c.iou_without_band)} |" for c in self.classes),
        ]
        return "\n".join(lines) + "\n"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def evaluate(
    predict: Predict, pairs: Pairs, *, model: str, backend: str, precision: str, split: str
) -> Evaluation:  # fmt: skip
    """Run a model over a split and score it.

    Args:
        predict: the model.
        pairs: the split.
        model, backend, precision, split: what the result is labelled with.
    """
    whole, inner = count(predict, pairs, len(CITYSCAPES_CLASSES))
    return summarise(whole, inner, pairs, model=model, backend=backend, precision=precision, split=split)


def summarise(
    whole: NDArray[np.int64], inner: NDArray[np.int64], pairs: Pairs, *, model: str, backend: str, precision: str,
    split: str,
) -> Evaluation:  # fmt: skip
    """The scores of a split from the counts of its pictures.

    Args:
        whole, inner: (N, C, C) counts; see `count`.
        pairs: the split.
        model, backend, precision, split: what the result is labelled with.
    """
    total = whole.sum(0)
    scores, without = Scores.from_confusion(total), Scores.from_confusion(inner.sum(0))
    mean_iou_interval, accuracy_interval = bootstrap(whole)
    shares = total.sum(1) / max(total.sum(), 1)
    return Evaluation(
        model=model, backend=backend, precision=precision, split=split, pictures=len(pairs),
        protocol=f"{PROTOCOL}; {pairs.protocol}",
        mean_iou=scores.mean_iou, mean_iou_interval=mean_iou_interval,
        accuracy=scores.accuracy, accuracy_interval=accuracy_interval,
        mean_iou_without_band=without.mean_iou, accuracy_without_band=without.accuracy,
        classes=tuple(
            ClassScore(info.name, float(share), _or_none(iou), _or_none(inside))
            for info, share, iou, inside in zip(CITYSCAPES_CLASSES, shares, scores.iou, without.iou, strict=True)
        ),
        confusion=total.tolist(),
    )  # fmt: skip


def read_evaluation(path: Path) -> Evaluation:
    """Read an evaluation.json.

    Raises:
        UsageError: no such file, or not an evaluation.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Evaluation)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); give an evaluation.json") from None
    except msgspec.DecodeError as error:
        raise UsageError(f"{path} is not an evaluation of `roadlens eval --output` ({error})") from None


@dataclass(frozen=True)
class Predictor:
    """A model ready to be evaluated, how it computes, and the size it is made for."""

    predict: Predict
    name: str
    backend: str
    precision: str
    height: int
    width: int


@contextlib.contextmanager
def open_predictor(
    model: str, precision: Precision = "auto", device: engines.Device = "auto", recipe: Recipe | None = None
) -> Iterator[Predictor]:
    """A checkpoint (`….ckpt`, through torch), or a bundled or exported model through an engine.

    Args:
        model: the path of a checkpoint, the path of an ONNX file, or a bundled model's name.
        precision: of the engine; a checkpoint computes in fp32 (`auto`) or bf16.
        device: of the engine.
        recipe: the one a checkpoint was made with, where it does not say.

    Raises:
        ModelError: no such model, one of another task or with other classes, or a precision it does not have.
        UsageError: a checkpoint that does not say its recipe, and none is given.
    """
    if model.endswith(".ckpt"):
        from training.prediction import checkpoint_predictor  # torch, for checkpoints only

        yield checkpoint_predictor(Path(model), precision, recipe)
        return
    engine = engines.load(model, device=device, precision=precision, max_batch=BATCH)
    try:
        spec = engine.spec
        if spec.task != "segmentation" or spec.classes != CITYSCAPES_CLASSES:
            raise ModelError(f"{model} is not a segmenter of the 19 Cityscapes classes; evaluate one that is")

        def predict(photos: UInt8) -> UInt8:
            size = (spec.width, spec.height)
            inputs = [p if p.shape[:2] == size[::-1] else cv2.resize(p, size) for p in photos]
            future: Future[list[Prediction]] = engine.submit([i.astype(np.uint8, copy=False) for i in inputs])
            return np.stack([p.class_map for p in future.result() if p.class_map is not None])

        yield Predictor(predict, spec.name, engine.backend, engine.precision, spec.height, spec.width)
    finally:
        engine.close()
