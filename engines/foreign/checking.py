"""Does the built model say what the original says? Both are asked about the same pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.boxes import SAME_CLASS, iou_matrix, suppress
from engines.engine import Prediction
from engines.errors import CheckFailed
from engines.foreign.building import Plan
from engines.foreign.forms import PixelForm
from engines.foreign.original import Original, session_of
from engines.foreign.picture import UInt8
from engines.foreign.reference import Boxes, Pixels, boxes_of, pixels_of
from engines.openvino import OpenVINOEngine
from engines.spec import ModelSpec

if TYPE_CHECKING:
    import onnx

MIN_AGREEMENT = 0.999
"""Of pixels, without those where two classes are as good as equal."""

MIN_IOU = 0.99
MIN_FOUND = 0.98
"""Share of the original's boxes that are found: where two scores are as good as equal, either may be the last one."""

_COMPARED = 50
"""Boxes of a picture that are compared, the likeliest."""

_SCORE = 0.01
"""By how much a score may differ."""


class Check(msgspec.Struct, frozen=True):
    """How the built model compares with the original in ONNX Runtime, and with its own half precision.

    Attributes:
        pictures: how many.
        agreement: share of pixels of one class, ties left out; None for a detector.
        ties: share of pixels whose two best classes are as good as equal; None for a detector.
        boxes: how many were compared; None for a segmenter.
        found: share of those that are there with their class and score, at an IoU of at least `MIN_IOU`.
        iou: mean of those found.
        precision, in_precision: what this CPU computes in by itself, and the share of pixels, or of boxes at an IoU of
            0.5, that are the same then.
        doubles: boxes worth telling of that a likelier one of their class covers.
    """

    pictures: int
    agreement: float | None
    ties: float | None
    boxes: int | None
    found: float | None
    iou: float | None
    precision: str
    in_precision: float
    doubles: int = 0


def drawn_streets(count: int, height: int, width: int) -> list[UInt8]:
    """Streets in a few strokes, with noise on them: pictures for those who give none. (height, width, 3) uint8 RGB."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        image = np.zeros((360, 640, 3), np.uint8)
        horizon = int(rng.integers(120, 200))
        image[:horizon] = rng.integers((90, 140, 180), (200, 220, 255))
        image[horizon:] = rng.integers((50, 90, 40), (110, 140, 80))
        road = np.array([[0, 359], [639, 359], [340, horizon], [300, horizon]])
        cv2.fillPoly(image, [road], (90, 90, 95))
        for _ in range(8):
            x, y = int(rng.integers(0, 600)), int(rng.integers(horizon - 60, 300))
            w, h = int(rng.integers(20, 140)), int(rng.integers(20, 110))
            cv2.rectangle(image, (x, y), (x + w, y + h), rng.integers(0, 256, 3).tolist(), -1)
            cv2.rectangle(image, (x + w // 6, y + h // 6), (x + w * 5 // 6, y + h // 2), (30, 40, 50), -1)
        noisy = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
        found.append(np.asarray(cv2.resize(noisy, (width, height), interpolation=cv2.INTER_AREA), np.uint8))
    return found


def takes_several(model: onnx.ModelProto, pictures: Sequence[UInt8]) -> str | None:
    """Why several pictures at once do not give what each gives alone; None where they do."""
    try:
        session = session_of(model)
        (images,) = session.get_inputs()
        alone = [session.run(None, {images.name: picture[None]}) for picture in pictures]
        together = session.run(None, {images.name: np.stack(pictures)})
    except Exception as error:  # noqa: BLE001  # ONNX Runtime's exceptions have no common class but that
        return str(error).splitlines()[0]
    for number, array in enumerate(together):
        if len(array) != len(pictures):
            return f"{len(pictures)} pictures give {len(array)} answers"
        for place, answers in enumerate(alone):
            one, other = array[place], answers[number][0]
            if one.shape != other.shape:
                return f"its shape is {one.shape} in place of {other.shape}"
            same = np.isclose(one, other, 1e-3, 1e-3) | (np.isnan(one) & np.isnan(other))
            if same.mean() < MIN_AGREEMENT:
                return f"{same.mean():.1%} of the numbers are the same"
    return None


def check(model: onnx.ModelProto, spec: ModelSpec, plan: Plan, original: Original, pictures: Sequence[UInt8]) -> Check:
    """Compare the built model, run by OpenVINO in fp32, with the original.

    Raises:
        CheckFailed: they differ.
        ModelError: OpenVINO does not take the graph.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{spec.name}.onnx"
        path.write_bytes(model.SerializeToString())
        with OpenVINOEngine(path, precision="fp32", max_batch=1) as engine:
            found = [engine(picture) for picture in pictures]
        with OpenVINOEngine(path, max_batch=1) as engine:
            precision, quick = engine.precision, [engine(picture) for picture in pictures]
    answers = [original(picture) for picture in pictures]
    if isinstance(plan.form, PixelForm):
        return _pixels(found, quick, precision, [pixels_of(each, plan) for each in answers])
    return _boxes(found, quick, precision, [boxes_of(each, plan) for each in answers], spec)


def _pixels(
    found: Sequence[Prediction], quick: Sequence[Prediction], precision: str, wanted: Sequence[Pixels]
) -> Check:
    maps, fast = np.stack([_map(each) for each in found]), np.stack([_map(each) for each in quick])
    ids, ties = np.stack([each.ids for each in wanted]), np.stack([each.ties for each in wanted])
    same = (maps == ids)[~ties]
    agreement = float(same.mean()) if same.size else 1.0
    if not agreement >= MIN_AGREEMENT:
        raise CheckFailed(
            f"The built model agrees with the original on {agreement:.2%} of {len(maps)} pictures' pixels, wanted "
            f"are {MIN_AGREEMENT:.1%}; nothing was written."
        )
    return Check(len(maps), agreement, float(ties.mean()), None, None, None, precision, float((maps == fast).mean()))


def _map(prediction: Prediction) -> NDArray[np.uint8]:
    assert prediction.class_map is not None
    return prediction.class_map


def _boxes(
    found: Sequence[Prediction], quick: Sequence[Prediction], precision: str, wanted: Sequence[Boxes], spec: ModelSpec
) -> Check:
    ious: list[float] = []
    same: list[bool] = []
    for prediction, fast, truth in zip(found, quick, wanted, strict=True):
        assert prediction.boxes is not None
        assert prediction.scores is not None
        assert prediction.labels is not None
        ious += _matched(prediction, _likeliest(truth))
        ours = Boxes(
            prediction.boxes.astype(np.float64), prediction.scores.astype(np.float64),
            prediction.labels.astype(np.int64),
        )  # fmt: skip
        same += [iou >= 0.5 for iou in _matched(fast, _likeliest(ours), 0.1)]
    near = [iou for iou in ious if iou >= MIN_IOU]
    share = len(near) / len(ious) if ious else 1.0
    if not share >= MIN_FOUND:
        raise CheckFailed(
            f"Of the original's {len(ious)} likeliest boxes on {len(wanted)} pictures the built model has {share:.1%}, "
            f"wanted are {MIN_FOUND:.0%} at an IoU of {MIN_IOU}; nothing was written."
        )
    least = spec.min_score
    doubles = sum(_doubles(each, least) for each in found)
    return Check(
        len(wanted), None, None, len(ious), share, float(np.mean(near)) if near else None, precision,
        float(np.mean(same)) if same else 1.0, doubles,
    )  # fmt: skip


def _doubles(prediction: Prediction, least: float) -> int:
    assert prediction.boxes is not None
    assert prediction.scores is not None
    assert prediction.labels is not None
    told = prediction.scores >= least
    boxes, scores, labels = prediction.boxes[told], prediction.scores[told], prediction.labels[told]
    return len(boxes) - len(suppress(boxes, scores, labels, SAME_CLASS))


def _likeliest(boxes: Boxes) -> Boxes:
    """Those with area that come before a gap: no box that a hair's breadth of score kept in."""
    area = (boxes.corners[:, 2] > boxes.corners[:, 0]) & (boxes.corners[:, 3] > boxes.corners[:, 1])
    chosen = np.flatnonzero(area & np.isfinite(boxes.scores) & (boxes.scores > 0))[:_COMPARED]
    return Boxes(boxes.corners[chosen], boxes.scores[chosen], boxes.labels[chosen])


def _matched(prediction: Prediction, wanted: Boxes, score: float = _SCORE) -> list[float]:
    """The IoU of each wanted box with the nearest that was found of its class and score; 0 where there is none."""
    assert prediction.boxes is not None
    assert prediction.scores is not None
    assert prediction.labels is not None
    if not len(wanted.scores):
        return []
    overlaps = iou_matrix(wanted.corners, prediction.boxes)
    fits = (np.abs(wanted.scores[:, None] - prediction.scores) <= score) & (wanted.labels[:, None] == prediction.labels)
    return [float(value) for value in np.where(fits, overlaps, 0).max(1, initial=0)]
