"""The report's section on segmenters: scores in every precision, milliseconds, classes, confusions, pictures."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.benchmark import Benchmark, Row, benchmark
from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.engine import Precision
from engines.errors import OutputError
from training.data import load_split, recognise
from training.data.cityscapes_pairs import SIDE, Pairs, Split
from training.evaluation import (
    PROTOCOL,
    Evaluation,
    Interval,
    Scores,
    count,
    mean_iou_difference,
    open_predictor,
    summarise,
)
from training.recipe import PSPNetSettings, Recipe, UNetSettings
from training.report.charts import Line, Mark, axis, line_chart, moving_average, scatter_chart
from training.report.subject import Subject
from training.tasks.segmentation import SegmentationRecipe

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

UInt8 = NDArray[np.uint8]

PICTURES = 6
"""How many of the best and of the worst pictures are shown."""

COLORS = 6
"""Series colours of the style sheet; the seventh model has the first one's again."""

RIVAL = "onnxruntime"
_ARCHITECTURES = {UNetSettings: "U-Net", PSPNetSettings: "PSPNet"}
_ENCODERS = {"mobilenet_v2": "MobileNetV2", "resnet18": "ResNet-18", "resnet50": "ResNet-50"}


@dataclass(frozen=True)
class Variant:
    """A model in one precision.

    Attributes:
        precision: `fp32`, `bf16` or `int8`.
        backend: that computed it.
        megabytes: of the file that is loaded.
        evaluation: its scores on the split.
        matrices: (N, C, C) int64, its confusion counts picture by picture.
        row: its speed; None for a checkpoint, which is no engine.
    """

    precision: str
    backend: str
    megabytes: float
    evaluation: Evaluation
    matrices: NDArray[np.int64]
    row: Row | None


@dataclass(frozen=True)
class Measured:
    """A model and everything that was measured of it. `shown` is the variant that runs when nothing is asked for."""

    subject: Subject
    color: int
    variants: tuple[Variant, ...]
    shown: Variant
    speed: Benchmark | None

    @property
    def rival_ms(self) -> float | None:
        """Milliseconds a picture of ONNX Runtime in fp32, in the same run."""
        rows = [] if self.speed is None else self.speed.rows
        return next((row.latency_ms for row in rows if row.side.startswith(RIVAL)), None)


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

    def html(self, environment: Environment) -> Markup:
        """The section as HTML."""
        from markupsafe import Markup

        text = environment.get_template("segmentation.html").render(
            section=self, classes=CITYSCAPES_CLASSES, describe=describe_recipe, by_class=class_rows(self.models),
            confusions={m.subject.label: confusion_rows(m.shown.evaluation) for m in self.models},
            mistakes={m.subject.label: frequent_mistakes(m.shown.evaluation) for m in self.models},
            differences=differences(self.models), trade=trade_chart(self.models), curves=curves(self.models),
        )  # fmt: skip
        return Markup(text)  # noqa: S704  # rendered by a template that escapes what it is given

    def markdown(self) -> str:
        """The table of models for a README, and what its figures mean."""
        order = [p for p in ("fp32", "bf16", "int8") if any(p == v.precision for m in self.models for v in m.variants)]
        shown = " / ".join(order)
        lines = [
            f"| model | recipe | input | parameters | mIoU {shown} | ms a frame {shown} | ONNX Runtime fp32 | card |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for model in self.models:
            by_name = {variant.precision: variant for variant in model.variants}
            subject = model.subject
            scores = " / ".join(f"{by_name[p].evaluation.mean_iou:.3f}" if p in by_name else "–" for p in order)
            speeds = " / ".join(_milliseconds(by_name[p].row) if p in by_name else "–" for p in order)
            rival = "–" if model.rival_ms is None else f"{model.rival_ms:.1f} ms"
            card = f"[card](engines/bundled/{subject.label}.md)" if subject.bundled else "–"
            lines.append(
                f"| `{subject.label}` | {describe_recipe(subject.recipe)} | {subject.width}×{subject.height} | "
                f"{subject.parameters / 1e6:.1f} M | {scores} | {speeds} | {rival} | {card} |"
            )
        lines += ["", f"mIoU: {self.pictures} pictures of `{self.split}`, {self.protocol}."]
        if self.speeds:
            speed = self.speeds[0]
            lines.append(
                f"Milliseconds: median latency of one picture on {speed.cores} cores of {speed.device.strip()}, all "
                f"precisions and ONNX Runtime in turn in one run, {speed.measured_at[:10]}, load "
                f"{max(s.load for s in self.speeds):.1f} before."
            )
        return "\n".join(lines) + "\n"


def _milliseconds(row: Row | None) -> str:
    return "–" if row is None else f"{row.latency_ms:.1f}"


def describe_recipe(recipe: Recipe | None) -> str:
    """What a recipe makes, in words; a dash where none is known."""
    if not isinstance(recipe, SegmentationRecipe):
        return "–"
    architecture, encoder = _ARCHITECTURES[type(recipe.model)], _ENCODERS[recipe.model.encoder]
    return f"{architecture} over {encoder}, {recipe.steps:,} steps of {recipe.batch}"


# Measuring ----------------------------------------------------------------------------------------------------------


def measure_segmenters(
    subjects: Sequence[Subject], data: Path, split: Split, *, seconds: float, cache: Path | None, skip_broken: bool,
    say: Callable[[str], None],
) -> SegmentationSection:  # fmt: skip
    """Score every model in every precision that this machine has, and time it.

    Args:
        subjects: the models.
        data: folder of the pairs or of Cityscapes.
        split: of it.
        seconds: of timing, for each precision.
        cache, skip_broken: see `training.data.load_split`.
        say: gets a line before each step that takes a while.

    Raises:
        SourceError: the data cannot be read.
        ModelError: a model that cannot run here.
    """
    data_set = recognise(data)
    # The pairs come in one size; Cityscapes is read at the first model's, so that all are scored on the same pixels.
    size = (SIDE, SIDE) if data_set == "cityscapes-pairs" else (subjects[0].height, subjects[0].width)
    pairs = load_split(data_set, data, split, *size, cache, skip_broken=skip_broken, say=say)
    models = tuple(_measure(s, i % COLORS, pairs, split, seconds, say) for i, s in enumerate(subjects))
    best, worst = pick_pictures([model.shown.matrices for model in models])
    class_maps = [_predict(model, pairs, [*best, *worst]) for model in models]
    shown = [
        _show(pairs, index, [(m, maps[place]) for m, maps in zip(models, class_maps, strict=True)])
        for place, index in enumerate([*best, *worst])
    ]
    return SegmentationSection(
        models, split, len(pairs), f"{PROTOCOL}; {pairs.protocol}", tuple(shown[: len(best)]), tuple(shown[len(best) :])
    )


def _measure(
    subject: Subject, color: int, pairs: Pairs, split: str, seconds: float, say: Callable[[str], None]
) -> Measured:
    speed: Benchmark | None = None
    if not subject.is_checkpoint:
        say(f"{subject.label}: timing")
        plain = "fp32" in subject.precisions and find_spec(RIVAL) is not None
        speed = benchmark(
            subject.path, subject.precisions, frames=list(pairs.photos[:4]), against="onnxruntime" if plain else None,
            seconds=seconds,
        )  # fmt: skip
    rows = {} if speed is None else {row.side.split()[-1]: row for row in speed.rows if not row.side.startswith(RIVAL)}
    variants = []
    for precision in subject.precisions:
        say(f"{subject.label}: scoring in {precision}")
        with open_predictor(subject.given, precision) as predictor:
            whole, inner = count(predictor.predict, pairs, len(CITYSCAPES_CLASSES))
        evaluation = summarise(
            whole, inner, pairs, model=subject.label, backend=predictor.backend, precision=predictor.precision,
            split=split,
        )  # fmt: skip
        megabytes = subject.file(precision).stat().st_size / 1e6
        variants.append(
            Variant(precision, predictor.backend, megabytes, evaluation, whole, rows.get(precision))
        )  # fmt: skip
    by_name = {variant.precision: variant for variant in variants}
    return Measured(subject, color, tuple(variants), by_name.get("bf16", variants[0]), speed)


def _predict(model: Measured, pairs: Pairs, indices: Sequence[int]) -> list[UInt8]:
    """Class maps at the size of the labels, of the variant that is shown."""
    precision: Precision = model.shown.precision  # type: ignore[assignment]  # a variant's precision is one
    with open_predictor(model.subject.given, precision) as predictor:
        found = [predictor.predict(pairs.photos[i : i + 1])[0] for i in indices]
    height, width = pairs.labels.shape[1:]
    resized = [cv2.resize(m, (width, height), interpolation=cv2.INTER_NEAREST_EXACT) for m in found]
    return [class_map.astype(np.uint8, copy=False) for class_map in resized]


def picture_scores(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean IoU of each picture over the classes that are in its truth: (N, C, C) counts → (N,), NaN for no label."""
    hits = np.diagonal(matrices, axis1=1, axis2=2).astype(np.float64)
    truth, found = matrices.sum(2), matrices.sum(1)
    present = truth > 0
    iou = np.where(present, hits / np.maximum(truth + found - hits, 1), 0)
    number = present.sum(1)
    return np.where(number > 0, iou.sum(1) / np.maximum(number, 1), np.nan)


def pick_pictures(matrices: Sequence[NDArray[np.int64]], most: int = PICTURES) -> tuple[list[int], list[int]]:
    """The pictures that are, as the mean over the models, best and worst: no picture in both.

    Args:
        matrices: (N, C, C) counts by picture, of each model.
        most: pictures of each kind.

    Returns:
        Numbers of pictures, the best first in one, the worst first in the other.
    """
    scores = np.mean([picture_scores(counts) for counts in matrices], axis=0)
    order = [int(i) for i in np.argsort(-scores, kind="stable") if np.isfinite(scores[i])]
    number = min(most, len(order) // 2)
    return order[:number], order[len(order) - number :][::-1]


def _show(pairs: Pairs, index: int, found: Sequence[tuple[Measured, UInt8]]) -> Shown:
    label = pairs.labels[index]
    shares = np.bincount(label.ravel(), minlength=256)[: len(CITYSCAPES_CLASSES)] / max((label != IGNORE).sum(), 1)
    largest = [int(i) for i in np.argsort(-shares)[:3] if shares[i] > 0]
    predictions = []
    for model, class_map in found:
        counts = model.shown.matrices[index]
        score, accuracy = float(picture_scores(counts[None])[0]), Scores.from_confusion(counts).accuracy
        predictions.append((model.subject.label, class_picture(class_map), score, accuracy))
    return Shown(
        pairs.names[index], _data_url(".jpg", cv2.cvtColor(pairs.photos[index], cv2.COLOR_RGB2BGR)),
        class_picture(label), ", ".join(f"{CITYSCAPES_CLASSES[i].name} {shares[i]:.0%}" for i in largest),
        tuple(predictions),
    )  # fmt: skip


def class_picture(class_map: UInt8) -> str:
    """(H, W) uint8 class ids → a PNG in their colours as a data URL; what is ignored is transparent."""
    table = np.zeros((256, 4), np.uint8)
    for info in CITYSCAPES_CLASSES:
        table[info.id] = (*info.color[::-1], 255)
    return _data_url(".png", table[class_map])


def _data_url(suffix: str, picture: NDArray[np.uint8] | cv2.typing.MatLike) -> str:
    options = [cv2.IMWRITE_JPEG_QUALITY, 88] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    done, content = cv2.imencode(suffix, picture, options)
    if not done:
        raise OutputError(f"a picture cannot be encoded as {suffix}; is OpenCV whole?")
    kind = "jpeg" if suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"


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
        scores = tuple((m.color, m.subject.label, m.shown.evaluation.classes[place].iou) for m in models)
        share = models[0].shown.evaluation.classes[place].share
        rows.append(ClassRow(info.name, "#{:02x}{:02x}{:02x}".format(*info.color), share, scores))
    return sorted(rows, key=lambda row: -sum(iou or 0 for *_, iou in row.scores))


def confusion_rows(evaluation: Evaluation) -> list[list[float]]:
    """The confusion matrix as shares of its rows: of what is truly one class, how much is found to be each."""
    matrix = np.array(evaluation.confusion, np.float64)
    shares: list[list[float]] = (matrix / np.maximum(matrix.sum(1, keepdims=True), 1)).tolist()
    return shares


def frequent_mistakes(evaluation: Evaluation, most: int = 5) -> list[tuple[str, str, float]]:
    """(true class, class it is taken for, share of the true class's pixels), the largest first."""
    shares = np.array(confusion_rows(evaluation))
    np.fill_diagonal(shares, 0)
    largest = np.argsort(-shares, axis=None, kind="stable")[:most]
    places = [divmod(int(place), len(shares)) for place in largest]
    names = [info.name for info in CITYSCAPES_CLASSES]
    return [(names[row], names[column], float(shares[row, column])) for row, column in places if shares[row, column]]


def differences(models: Sequence[Measured]) -> list[tuple[str, str, float, Interval]]:
    """The first model against each other one: (label, label, difference in mean IoU, its interval)."""
    first = models[0]
    found = []
    for other in models[1:]:
        difference, interval = mean_iou_difference(first.shown.matrices, other.shown.matrices)
        found.append((first.subject.label, other.subject.label, difference, interval))
    return found


def trade_chart(models: Sequence[Measured]) -> Markup | None:
    """Mean IoU against milliseconds; None where nothing was timed."""
    marks = [
        Mark(
            f"{m.subject.label} {v.precision}: mIoU {v.evaluation.mean_iou:.3f}, {v.row.latency_ms:.1f} ms",
            v.precision, m.color, v.row.latency_ms, v.evaluation.mean_iou, v.evaluation.mean_iou_interval.low,
            v.evaluation.mean_iou_interval.high,
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


def curves(models: Sequence[Measured]) -> list[tuple[str, Markup]]:
    """Captions and charts of the models' runs: the mean IoU on `dev` and the training loss by step."""
    runs = [(m.subject.label, m.color, m.subject.run) for m in models if m.subject.run is not None]
    charts = []
    scores = [Line(label, color, run.scores.get("mean_iou", ()), dots=True) for label, color, run in runs]
    if drawn := [line for line in scores if line.points]:
        charts.append(
            (
                "Mean IoU while training: on dev, the part of train set aside",
                _curve(drawn, "Mean IoU on dev by training step", 0.0),
            )
        )
    losses = [Line(label, color, moving_average(run.loss, 5), behind=run.loss) for label, color, run in runs]
    if drawn := [line for line in losses if line.points]:
        caption = "Training loss: single batches (faint) and the mean of five of them"
        charts.append((caption, _curve(drawn, "Training loss by step", None)))
    return charts


def _curve(lines: Sequence[Line], title: str, low: float | None) -> Markup:
    points = [point for line in lines for point in (*line.points, *line.behind)]
    y_axis = axis([y for _, y in points] + ([] if low is None else [low]))
    ends = "; ".join(f"{line.name} ends at {line.points[-1][1]:.3f}, step {line.points[-1][0]:,.0f}" for line in lines)
    return line_chart(
        lines, axis([0, *(x for x, _ in points)], 4), y_axis, title=title, description=ends, x_label="step"
    )
