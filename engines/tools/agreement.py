"""How far two files of one model agree: on pixels, or on boxes where there is no class map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.boxes import iou_matrix
from engines.spec import ModelSpec, OutputRole
from engines.telemetry import no_telemetry

if TYPE_CHECKING:
    import onnx

UInt8 = NDArray[np.uint8]
Answers = dict[OutputRole, NDArray[Any]]

SAME_BOX = 0.9
"""Least IoU at which a box of one file is the box of the other."""

_E4M3 = 17
"""ONNX's number of FLOAT8E4M3FN."""


def answers(model: onnx.ModelProto, spec: ModelSpec, pictures: Sequence[UInt8]) -> Answers:
    """What a model says of (1, H, W, 3) pictures, by role: of the class map alone where there is one.

    What is not int8 is computed in fp32, on every CPU alike.
    """
    roles: tuple[OutputRole, ...] = ("class_map",) if "class_map" in spec.outputs else ("boxes", "scores", "labels")
    names = {role: spec.outputs[role] for role in roles if role in spec.outputs}
    fp8 = any(weight.data_type == _E4M3 for weight in model.graph.initializer)
    found = (_by_onnxruntime if fp8 else _by_openvino)(model, list(names.values()), pictures)
    return dict(zip(names, found, strict=True))


def agreement(first: Answers, second: Answers, least_score: float) -> float:
    """The share of two files' answers that is the same, 0 to 1.

    Of class maps: the share of pixels. Of boxes: those of either file that have a partner in the other, of the same
    class and an IoU of at least `SAME_BOX`, among those that are worth telling of; the surest of a picture always is.

    Args:
        first, second: of the same pictures.
        least_score: from which a box is worth telling of.
    """
    if "class_map" in first:
        return float((first["class_map"] == second["class_map"]).mean())
    paired = total = 0
    for place in range(len(first["boxes"])):
        one, other = (_told(each, place, least_score) for each in (first, second))
        same = iou_matrix(one[0], other[0]) >= SAME_BOX
        # A box without an area has no IoU, and may be the same all the same.
        same |= np.isclose(one[0][:, None], other[0][None], atol=1e-4).all(-1)
        same &= one[1][:, None] == other[1][None]
        total += len(one[0]) + len(other[0])
        paired += int(same.any(1).sum()) + int(same.any(0).sum())
    return paired / total if total else 1.0


def _told(found: Answers, place: int, least_score: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Boxes and classes of a picture that are worth telling of."""
    boxes, scores = found["boxes"][place], found["scores"][place]
    labels = found["labels"][place] if "labels" in found else np.zeros(len(boxes), np.int32)
    kept = scores >= least_score
    if len(scores):
        kept[int(scores.argmax())] = True
    return boxes[kept], labels[kept]


def _by_openvino(model: onnx.ModelProto, names: Sequence[str], pictures: Sequence[UInt8]) -> list[NDArray[Any]]:
    with no_telemetry():
        import openvino as ov

    from engines.graphs.saturation import adds_bytes_exactly, fit_weights

    core = ov.Core()
    graph = core.read_model(model.SerializeToString())
    if not adds_bytes_exactly():
        fit_weights(graph)
    graph.reshape(ov.PartialShape(list(pictures[0].shape)))
    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    compiled = core.compile_model(graph, "CPU", hints)
    outputs = [compiled.output(name) for name in names]
    each = []
    for picture in pictures:
        result = compiled([picture])
        each.append([result[output].copy() for output in outputs])
    return [np.concatenate(parts) for parts in zip(*each, strict=True)]


def _by_onnxruntime(model: onnx.ModelProto, names: Sequence[str], pictures: Sequence[UInt8]) -> list[NDArray[Any]]:
    """The same of fp8, which ONNX Runtime rounds to on every CPU; its optimisations, which fuse quantisers into layers
    that it has for int8 only, stay off."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    each = [session.run(list(names), {images.name: picture}) for picture in pictures]
    return [np.concatenate(parts) for parts in zip(*each, strict=True)]
