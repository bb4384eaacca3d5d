"""Does a precision say what fp32 says? Class maps compared on footage, or both compared with the truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

import engines
from engines.bundled import fp32_file, resolve
from engines.classes import IGNORE, ClassInfo
from engines.engine import Backend, Engine, Precision
from engines.errors import CheckFailed, ModelError, SourceError
from engines.squash import squash

UInt8 = NDArray[np.uint8]
Counts = NDArray[np.int64]

BATCH = 4


class ClassAgreement(msgspec.Struct, frozen=True):
    """One class: its share of the pixels (by fp32, or by the truth) and IoUs, None where it does not occur.

    `iou` is of the two class maps against each other; `fp32_iou` and `precision_iou` are each against the truth.
    """

    name: str
    share: float
    iou: float | None
    fp32_iou: float | None = None
    precision_iou: float | None = None


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What a precision of a model gives compared with its fp32.

    Attributes:
        agreement: share of pixels, 0 to 1, where both give the same class.
        mean_iou: of the two class maps against each other, over the classes that either gives.
        fp32_mean_iou, precision_mean_iou: each against the truth, over the classes that occur; None without labels.
        miou_drop: points (hundredths) that the precision loses; None without labels.
    """

    model: str
    precision: str
    device: str
    frames: int
    agreement: float
    mean_iou: float
    fp32_mean_iou: float | None
    precision_mean_iou: float | None
    miou_drop: float | None
    classes: tuple[ClassAgreement, ...]


def verify(
    model: str | Path,
    precision: Precision,
    frames: Iterable[UInt8] | None = None,
    labelled: Iterable[tuple[UInt8, UInt8]] | None = None,
    *,
    limit: int | None = None,
    device: engines.Device = "cpu",
    backend: Backend | Literal["auto"] = "auto",
) -> Verification:
    """Run a segmenter in fp32 and in another precision over the same pictures.

    Args:
        model: name or path. Of a quantised file the fp32 file beside it (`drive.onnx` to `drive.int8.onnx`) is the
            reference.
        precision: the one that is verified.
        frames: (h, w, 3) uint8 RGB pictures of any size; compared at the model's size.
        labelled: such pictures with (h', w') uint8 class ids, 255 ignored, in place of `frames`. Class maps are brought
            to the label's size by nearest neighbour.
        limit: most pictures.
        device, backend: where the precision runs; fp32, which it is compared with, runs on the CPU by OpenVINO.

    Raises:
        ModelError: no such model or precision, or a model that is no segmenter.
        DeviceError: the device or the backend is not there.
        SourceError: there is no picture.
        ValueError: not exactly one of `frames` and `labelled` is given.
    """
    if (frames is None) == (labelled is None):
        raise ValueError("give either frames or labelled pictures")
    path = resolve(model)
    reference_path = fp32_file(path)
    if not reference_path.is_file():
        raise ModelError(f"{path} is verified against {reference_path}, which is missing; put the fp32 file there.")
    pairs: Iterable[tuple[UInt8, UInt8 | None]] = (
        labelled if labelled is not None else ((f, None) for f in frames or ())
    )
    with ExitStack() as stack:
        reference = stack.enter_context(closing(engines.load(reference_path, "cpu", "fp32", BATCH)))
        other = stack.enter_context(closing(engines.load(path, device, precision, BATCH, backend=backend)))
        for engine in (reference, other):
            if "class_map" not in engine.spec.outputs:
                raise ModelError(f"{engine.spec.name} is for {engine.spec.task}; verify compares class maps.")
        if (reference.spec.height, reference.spec.width) != (other.spec.height, other.spec.width):
            raise ModelError(f"{path} and {reference_path} take pictures of other sizes; quantise the model again.")
        tally = _Tally()
        size = min(BATCH, other.max_batch)
        for batch in _batches(islice(pairs, limit), reference.spec.height, reference.spec.width, size):
            maps = zip(_class_maps(reference, batch), _class_maps(other, batch), batch, strict=True)
            for ours, theirs, (_, label) in maps:
                tally.add(ours, theirs, label)
        if not tally.frames:
            raise SourceError("There is no picture to verify with; give footage or a folder of images.")
        return tally.verification(other, labelled is not None)


def check(result: Verification, min_agreement: float | None = None, max_miou_drop: float | None = None) -> None:
    """Compare with bounds; None is no bound.

    Args:
        result: of `verify`.
        min_agreement: share of pixels, 0 to 1.
        max_miou_drop: points.

    Raises:
        CheckFailed: a bound is passed; the sentence names it and the class that differs most.
    """
    who = f"{result.precision} of {result.model}"
    if min_agreement is not None and not result.agreement >= min_agreement:
        known = [entry for entry in result.classes if entry.iou is not None]
        worst = min(known, key=lambda entry: entry.iou or 0.0)
        raise CheckFailed(
            f"{who} agrees with fp32 on {result.agreement:.2%} of {result.frames} frames' pixels, wanted are at least "
            f"{min_agreement:.2%}; they differ most on {worst.name} (IoU {worst.iou:.3f})."
        )
    if max_miou_drop is not None and result.miou_drop is not None and not result.miou_drop <= max_miou_drop:
        raise CheckFailed(
            f"{who} has a mean IoU {result.miou_drop:.2f} points below fp32 on {result.frames} labelled pictures, "
            f"allowed are {max_miou_drop:.2f}; quantise it with more of its layers kept, or use another precision."
        )


class _Tally:
    """Confusion matrices over all pictures; 256 classes, so that any uint8 map fits."""

    def __init__(self) -> None:
        self.frames = 0
        self.between = np.zeros((256, 256), np.int64)
        self.fp32 = np.zeros((256, 256), np.int64)
        self.precision = np.zeros((256, 256), np.int64)

    def add(self, reference: UInt8, other: UInt8, label: UInt8 | None) -> None:
        self.frames += 1
        self.between += _confusion(reference, other)
        if label is not None:
            known = label != IGNORE
            self.fp32 += _confusion(label[known], _at_size_of(label, reference)[known])
            self.precision += _confusion(label[known], _at_size_of(label, other)[known])

    def verification(self, engine: Engine, labelled: bool) -> Verification:
        ids = [info.id for info in engine.spec.classes]
        between, fp32, precision = (_ious(matrix) for matrix in (self.between, self.fp32, self.precision))
        counted = (self.fp32 if labelled else self.between).sum(1)
        means = (_mean(fp32[ids]), _mean(precision[ids])) if labelled else (None, None)

        def entry(info: ClassInfo) -> ClassAgreement:
            return ClassAgreement(
                info.name,
                float(counted[info.id] / max(counted.sum(), 1)),
                _or_none(between[info.id]),
                _or_none(fp32[info.id]) if labelled else None,
                _or_none(precision[info.id]) if labelled else None,
            )

        return Verification(
            model=engine.spec.name,
            precision=engine.precision,
            device=engine.device,
            frames=self.frames,
            agreement=float(np.trace(self.between) / self.between.sum()),
            mean_iou=_mean(between),
            fp32_mean_iou=means[0],
            precision_mean_iou=means[1],
            miou_drop=None if means[0] is None or means[1] is None else 100 * (means[0] - means[1]),
            classes=tuple(entry(info) for info in engine.spec.classes),
        )


def _confusion(first: UInt8, second: UInt8) -> Counts:
    """(256, 256) counts of pixels by the class in each."""
    return np.bincount(first.ravel().astype(np.int32) * 256 + second.ravel(), minlength=65536).reshape(256, 256)


def _ious(matrix: Counts) -> NDArray[np.float64]:
    """(256,) intersection over union by class, NaN where it occurs in neither."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - hits
    ious = np.full(256, np.nan)
    np.divide(hits, union, out=ious, where=union > 0)
    return ious


def _mean(ious: NDArray[np.float64]) -> float:
    return float(np.nanmean(ious)) if np.isfinite(ious).any() else 0.0


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _at_size_of(label: UInt8, class_map: UInt8) -> UInt8:
    if class_map.shape == label.shape:
        return class_map
    height, width = label.shape
    return np.asarray(cv2.resize(class_map, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)


def _batches(
    pairs: Iterator[tuple[UInt8, UInt8 | None]], height: int, width: int, size: int
) -> Iterator[list[tuple[UInt8, UInt8 | None]]]:
    while batch := [(squash(image, height, width), label) for image, label in islice(pairs, size)]:
        yield batch


def _class_maps(engine: Engine, batch: list[tuple[UInt8, UInt8 | None]]) -> list[UInt8]:
    predictions = engine.submit([image for image, _ in batch]).result()
    return [prediction.class_map for prediction in predictions if prediction.class_map is not None]
