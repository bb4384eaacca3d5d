"""The report's section on segmenters: scores in every precision, milliseconds, classes, confusions, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.tools.benchmark import Benchmark
from training.data.cityscapes_pairs import Pairs
from training.metrics.confusion_picture import NONE, with_some
from training.metrics.masks import at_size_of
from training.metrics.segmentation import (
    PROTOCOL,
    Scores,
    SegmentationEvaluation,
    confusions_of,
    mean_iou_difference,
)
from training.report.charts import Mark, axis, scatter_chart
from training.report.curves import curves
from training.report.measuring import PICTURES, Measured, Variant, best_and_worst, milliseconds, predict_again
from training.report.pictures import data_url
from training.results import Interval

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """A picture of the split beside its truth and every model's prediction, as data URLs.

    Attributes:
        name: of the file.
        photo, truth: pictures; what is not labelled is transparent in the truth.
        contents: the three largest classes of the truth, in words.
        predictions: label, picture, mean IoU over the classes in the truth, accuracy: one for each model.
    """

    name: str
    photo: str
    truth: str
    contents: str
    predictions: tuple[tuple[str, str, float, float], ...]


@dataclass(frozen=True)
class SegmentationSection:
    """Everything about the segmenters, ready to be written."""

    models: tuple[Measured, ...]
    split: str
    pictures: int
    protocol: str
    best: tuple[Shown, ...]
    worst: tuple[Shown, ...]

    title = "Segmentation"
    anchor = "segmentation"

    @property
    def speeds(self) -> tuple[Benchmark, ...]:
        """What the milliseconds were measured on."""
        return tuple(model.speed for model in self.models if model.speed is not None)

    @property
    def names(self) -> list[str]:
        """The figures of the table: those that any of the models has."""
        return list(dict.fromkeys(name for model in self.models for name in model.shown.evaluation.headline()))

    def html(self, environment: Environment) -> Markup:
        """The section as HTML."""
        from markupsafe import Markup

        text = environment.get_template("segmentation.html").render(
            section=self, classes=CITYSCAPES_CLASSES, none=NONE, by_class=class_rows(self.models),
            confusions={m.subject.label: confusion_rows(scored(m.shown)) for m in self.models},
            mistakes={m.subject.label: frequent_mistakes(scored(m.shown)) for m in self.models},
            differences=differences(self.models), trade=trade_chart(self.models),
            curves=curves(self.models, "mean_iou"),
        )  # fmt: skip
        return Markup(text)  # noqa: S704  # rendered by a template that escapes what it is given

    def markdown(self, also: Sequence[Measured] = ()) -> str:
        """The table of models for a README, and what its figures mean.

        Args:
            also: models of other tasks, measured on the same pictures, whose evaluations have `mean_iou`, too.
        """
        models = (*self.models, *also)
        order = [p for p in ("fp32", "bf16", "int8") if any(p == v.precision for m in models for v in m.variants)]
        shown = " / ".join(order)
        lines = [
            f"| model | recipe | input | parameters | mIoU {shown} | ms a frame {shown} | ONNX Runtime fp32 | card |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for model in models:
            by_name = {variant.precision: variant for variant in model.variants}
            subject = model.subject
            scores = " / ".join(_mean_iou(by_name[p]) if p in by_name else "–" for p in order)
            speeds = " / ".join(milliseconds(by_name[p].row) if p in by_name else "–" for p in order)
            rival = "–" if model.rival_ms is None else f"{model.rival_ms:.1f} ms"
            card = f"[card](engines/bundled/{subject.label}.md)" if subject.bundled else "–"
            lines.append(
                f"| `{subject.label}` | {subject.description} | {subject.width}×{subject.height} | "
                f"{subject.parameters / 1e6:.1f} M | {scores} | {speeds} | {rival} | {card} |"
            )
        lines += ["", f"mIoU: {self.pictures} pictures of `{self.split}`, {self.protocol}."]
        if timed := [model.speed for model in models if model.speed is not None]:
            speed = timed[0]
            lines.append(
                f"Milliseconds: median latency of one picture on {speed.cores} cores of {speed.device.strip()}, all "
                f"precisions and ONNX Runtime in turn in one run, {speed.measured_at[:10]}, load "
                f"{max(s.load for s in timed):.1f} before."
            )
        return "\n".join(lines) + "\n"


# Measuring ----------------------------------------------------------------------------------------------------------


def segmentation_section(models: Sequence[Measured], pairs: Pairs, split: str) -> SegmentationSection:
    """The section on segmenters that were measured on the same pairs.

    Args:
        models: what was measured of them.
        pairs: the split.
        split: its name.
    """
    best, worst = pick_pictures([matrices(model.shown) for model in models])
    class_maps = [_class_maps(model, pairs, [*best, *worst]) for model in models]
    shown = [
        _show(pairs, index, [(m, maps[place]) for m, maps in zip(models, class_maps, strict=True)])
        for place, index in enumerate([*best, *worst])
    ]
    return SegmentationSection(
        tuple(models), split, len(pairs), f"{PROTOCOL}; {pairs.protocol}", tuple(shown[: len(best)]),
        tuple(shown[len(best) :]),
    )  # fmt: skip


def matrices(variant: Variant) -> NDArray[np.int64]:
    """(N, C, C) confusion counts of every labelled pixel, picture by picture."""
    counts: NDArray[np.int64] = confusions_of(variant.rows)[:, 0]
    return counts


def scored(variant: Variant) -> SegmentationEvaluation:
    """Its evaluation, which is that of a segmenter."""
    assert isinstance(variant.evaluation, SegmentationEvaluation)
    return variant.evaluation


def _mean_iou(variant: Variant) -> str:
    found = variant.evaluation.headline()["mean_iou"].value
    return "–" if found is None else f"{found:.3f}"


def _class_maps(model: Measured, pairs: Pairs, indices: Sequence[int]) -> list[UInt8]:
    """Class maps at the size of the labels, of the variant that is shown."""
    found = [outputs["class_map"] for outputs in predict_again(model, pairs, indices)]
    return list(at_size_of(pairs.labels, np.stack(found))) if found else []


def picture_scores(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean IoU of each picture over the classes that are in its truth: counts of `confusion_matrix` → (N,), NaN for
    no label."""
    hits = np.diagonal(matrices, axis1=1, axis2=2).astype(np.float64)
    truth, found = matrices.sum(2), matrices.sum(1)[:, : hits.shape[1]]
    present = truth > 0
    iou = np.where(present, hits / np.maximum(truth + found - hits, 1), 0)
    number = present.sum(1)
    return np.where(number > 0, iou.sum(1) / np.maximum(number, 1), np.nan)


def pick_pictures(counts: Sequence[NDArray[np.int64]], most: int = PICTURES) -> tuple[list[int], list[int]]:
    """The pictures that are, as the mean over the models, best and worst: no picture in both.

    Args:
        counts: (N, C, C) by picture, of each model.
        most: pictures of each kind.

    Returns:
        Numbers of pictures, the best first in one, the worst first in the other.
    """
    return best_and_worst(np.mean([picture_scores(each) for each in counts], axis=0), most)


def _show(pairs: Pairs, index: int, found: Sequence[tuple[Measured, UInt8]]) -> Shown:
    label = pairs.labels[index]
    shares = np.bincount(label.ravel(), minlength=256)[: len(CITYSCAPES_CLASSES)] / max((label != IGNORE).sum(), 1)
    largest = [int(i) for i in np.argsort(-shares)[:3] if shares[i] > 0]
    predictions = []
    for model, class_map in found:
        counts = matrices(model.shown)[index]
        score, accuracy = float(picture_scores(counts[None])[0]), Scores.from_confusion(counts).accuracy
        predictions.append((model.subject.label, class_picture(class_map), score, accuracy))
    return Shown(
        pairs.names[index], data_url(".jpg", cv2.cvtColor(pairs.photos[index], cv2.COLOR_RGB2BGR)),
        class_picture(label), ", ".join(f"{CITYSCAPES_CLASSES[i].name} {shares[i]:.0%}" for i in largest),
        tuple(predictions),
    )  # fmt: skip


def class_picture(class_map: UInt8) -> str:
    """(H, W) uint8 class ids → a PNG in their colours as a data URL; what is ignored is transparent."""
    table = np.zeros((256, 4), np.uint8)
    for info in CITYSCAPES_CLASSES:
        table[info.id] = (*info.color[::-1], 255)
    return data_url(".png", table[class_map])


# What is drawn ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassRow:
    """One class: its share of the labelled pixels, and (colour, label, IoU) of each model."""

    name: str
    color: str
    share: float
    scores: tuple[tuple[int, str, float | None], ...]


def class_rows(models: Sequence[Measured]) -> list[ClassRow]:
    """The classes, the best understood first."""
    rows = []
    for place, info in enumerate(CITYSCAPES_CLASSES):
        scores = tuple((m.color, m.subject.label, scored(m.shown).classes[place].iou) for m in models)
        share = scored(models[0].shown).classes[place].share
        rows.append(ClassRow(info.name, "#{:02x}{:02x}{:02x}".format(*info.color), share, scores))
    return sorted(rows, key=lambda row: -sum(iou or 0 for *_, iou in row.scores))


def confusion_rows(evaluation: SegmentationEvaluation) -> list[list[float]]:
    """The confusion matrix as shares of its rows: of what is truly one class, how much is found to be each, and none
    in a last column if there is any."""
    matrix = with_some(np.array(evaluation.confusion, np.int64))
    shares: list[list[float]] = (matrix / np.maximum(matrix.sum(1, keepdims=True), 1)).tolist()
    return shares


def frequent_mistakes(evaluation: SegmentationEvaluation, most: int = 5) -> list[tuple[str, str, float]]:
    """(true class, class it is taken for, share of the true class's pixels), the largest first."""
    shares = np.array(confusion_rows(evaluation))
    np.fill_diagonal(shares, 0)
    largest = np.argsort(-shares, axis=None, kind="stable")[:most]
    places = [divmod(int(place), shares.shape[1]) for place in largest]
    names = [*(info.name for info in CITYSCAPES_CLASSES), NONE]
    return [(names[row], names[column], float(shares[row, column])) for row, column in places if shares[row, column]]


def differences(models: Sequence[Measured]) -> list[tuple[str, str, float, Interval]]:
    """The first model against each other one: (label, label, difference in mean IoU, its interval)."""
    first = models[0]
    found = []
    for other in models[1:]:
        difference, interval = mean_iou_difference(matrices(first.shown), matrices(other.shown))
        found.append((first.subject.label, other.subject.label, difference, interval))
    return found


def trade_chart(models: Sequence[Measured]) -> Markup | None:
    """Mean IoU against milliseconds; None where nothing was timed."""
    marks = [
        Mark(
            f"{m.subject.label} {v.precision}: mIoU {scored(v).mean_iou:.3f}, {v.row.latency_ms:.1f} ms",
            v.precision, m.color, v.row.latency_ms, scored(v).mean_iou, scored(v).mean_iou_interval.low,
            scored(v).mean_iou_interval.high,
        )
        for m in models for v in m.variants if v.row is not None
    ]  # fmt: skip
    if not marks:
        return None
    spread = [bound for mark in marks for bound in (mark.low - 0.01, mark.high + 0.01)]
    return scatter_chart(
        marks, axis([0, *(mark.x for mark in marks)]), axis(spread), title="Mean IoU against milliseconds a frame",
        description="; ".join(mark.name for mark in marks), x_label="milliseconds a frame",
    )  # fmt: skip
