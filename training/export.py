"""A trained model as one ONNX file that says everything about itself, checked against the eager model first."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.errors import CheckFailed, UsageError
from engines.spec import ModelSpec, embed_spec
from training.files import write_file
from training.models import Segmenter
from training.recipe import Recipe

if TYPE_CHECKING:
    import onnx

    from training.task import Task

UInt8 = NDArray[np.uint8]

OPSET = 18
"""The lowest opset of the house: every engine reads it, and nothing here needs a newer one."""

MAX_FLOAT_ERROR = 1e-3
"""Of scores before any arg-max, of boxes as fractions of the picture, and the like."""

MIN_AGREEMENT = 0.999
"""Of class ids."""

_SCORES = "scores"


class ExportedSegmenter(nn.Module):
    """The graph that is exported: uint8 pictures in, uint8 class map out.

    The arg-max is taken over the scores of each cell *before* its pixels are put in their places, so that one small
    integer map is rearranged in place of C float maps: exact, and 3.5 of 18 ms of CPU time less for the U-Net
    (256×256, OpenVINO bf16, AMD EPYC).

    Args:
        model: in evaluation mode.
        confidence: whether the second output is wanted.
    """

    def __init__(self, model: Segmenter, confidence: bool) -> None:
        super().__init__()
        self.model, self.confidence = model, confidence

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, H, W, 3) uint8 RGB → (N, H, W) uint8 class ids, then, where wanted, (N, H, W) uint8 confidence, the
        probability of that class times 255, and last the (N, C·r², H/r, W/r) scores that both come from."""
        # TensorRT takes uint8 at an input only with a cast right behind it.
        phases = self.model.phases(images.float().permute(0, 3, 1, 2) / 127.5 - 1)
        count, _, height, width = phases.shape
        by_class = phases.reshape(count, self.model.classes, self.model.cell**2, height, width)
        outputs = [self._to_pixels(by_class.argmax(1).int()).to(torch.uint8)]
        if self.confidence:
            # The softmax of the likeliest class alone: a third of the time of the whole softmax and its maximum.
            best = by_class.topk(1, dim=1).values
            likeliest = 1 / (by_class - best).exp().sum(1)
            outputs.append(self._to_pixels(likeliest * 255 + 0.5).to(torch.uint8))
        return *outputs, phases

    def _to_pixels(self, cells: Tensor) -> Tensor:
        """(N, r², h, w) → (N, r·h, r·w)"""
        count, _, height, width = cells.shape
        side = self.model.cell
        grid = cells.reshape(count, side, side, height, width).permute(0, 3, 1, 4, 2)
        return grid.reshape(count, height * side, width * side)


class ExportedPredict(nn.Module):
    """The graph that is exported of a task that needs no other: what its `predict` says, in the order of `roles`."""

    def __init__(self, task: Task[Any, Any, Any], model: nn.Module, roles: Sequence[str]) -> None:
        super().__init__()
        self.task, self.model, self.roles = task, model, roles

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, H, W, 3) uint8 RGB → a tensor (N, …) for each role."""
        outputs = self.task.predict(self.model, images)
        return tuple(outputs[role] for role in self.roles)


def export_segmenter(model: Segmenter, spec: ModelSpec, path: Path, recipe: Recipe | None = None) -> None:
    """Write `model` as an ONNX file with `spec`, after checking it against the eager model at batch 1 and 3.

    Args:
        model: any `Segmenter`; put into evaluation mode and brought to the CPU.
        spec: H×W are static, multiples of 32; `outputs` names `class_map` and, where wanted, `confidence`.
        path: of the file, replaced in one step.
        recipe: that the file says it was made by.

    Raises:
        UsageError: H or W is not a multiple of 32.
        CheckFailed: the graph's answers are not the eager model's; nothing is written.
        OutputError: the file cannot be written.
    """
    if spec.height % 32 or spec.width % 32:
        raise UsageError(
            f"an export is for one size, height and width multiples of 32; {spec.height}×{spec.width} is not: "
            f"take {-(-spec.height // 32) * 32}×{-(-spec.width // 32) * 32}"
        )
    graph = ExportedSegmenter(model, "confidence" in spec.outputs)
    names = [spec.outputs[role] for role in ("class_map", "confidence") if role in spec.outputs]
    export_graph(graph, (*names, _SCORES), spec, path, recipe)


def export_graph(
    graph: nn.Module, names: Sequence[str], spec: ModelSpec, path: Path, recipe: Recipe | None = None
) -> None:
    """Write a graph as an ONNX file with `spec`, after checking it against the eager one at batch 1 and 3.

    What is checked is the very graph that is written: outputs that the spec does not name are there for the check and
    are taken away when it has passed. The confidence is not compared: its rounding may differ.

    Args:
        graph: (N, H, W, 3) uint8 RGB → a tuple of tensors (N, …); put into evaluation mode and brought to the CPU.
        names: of the tensors, in order.
        spec: H×W are static, N is dynamic.
        path: of the file, replaced in one step.
        recipe: that the file says it was made by.

    Raises:
        CheckFailed: the graph's answers are not the eager model's; nothing is written.
        OutputError: the file cannot be written.
    """
    from training.evaluation import RECIPE_KEY

    graph = graph.cpu().float().eval()
    proto = _trace(graph, spec.height, spec.width, names)
    _check(proto, graph, names, spec)
    kept = [output for output in proto.graph.output if output.name in spec.outputs.values()]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    embed_spec(proto, spec)
    if recipe is not None:
        text = msgspec.json.encode(recipe, enc_hook=_name_of_file).decode()
        proto.metadata_props.add(key=RECIPE_KEY, value=text)
    write_file(path, proto.SerializeToString())


def _name_of_file(value: object) -> str:
    """Where a file lay on the machine that trained is nobody's business."""
    if not isinstance(value, Path):
        raise NotImplementedError(f"a recipe cannot hold a {type(value)}")
    return value.name


def _trace(graph: nn.Module, height: int, width: int, names: Sequence[str]) -> onnx.ModelProto:
    example = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            graph, (example,), dynamo=True, external_data=False, opset_version=OPSET, input_names=["images"],
            output_names=list(names), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=256)},),
            verbose=False,
        )  # fmt: skip
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    # The exporter notes for every node which line of which file made it: paths of this machine, of use to nobody else.
    for part in (
        proto,
        proto.graph,
        *proto.graph.node,
        *proto.graph.value_info,
        *proto.graph.input,
        *proto.graph.output,
    ):
        del part.metadata_props[:]
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress and deprecation notes mean nothing to a user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def check_pictures(count: int, height: int, width: int, seed: int = 0) -> UInt8:
    """(count, H, W, 3) uint8: smooth coloured patches with noise on them, closer to a photo than noise alone."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
    smooth = np.stack([cv2.resize(patch, (width, height), interpolation=cv2.INTER_CUBIC) for patch in patches])
    noise = rng.normal(0, 12, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def _check(proto: onnx.ModelProto, graph: nn.Module, names: Sequence[str], spec: ModelSpec) -> None:
    import onnx
    import openvino

    onnx.checker.check_model(proto, full_check=True)
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(proto.SerializeToString()), "CPU", options)
    for batch in (1, 3):
        pictures = check_pictures(batch, spec.height, spec.width, seed=batch)
        with torch.no_grad():
            eager = dict(zip(names, (t.numpy() for t in graph(torch.from_numpy(pictures))), strict=True))
        answer = compiled([pictures])
        faults = [
            fault
            for name, expected in eager.items()
            if name != spec.outputs.get("confidence") and (fault := _difference(name, answer[name], expected))
        ]
        if faults:
            raise CheckFailed(
                f"the exported graph of {spec.name} is not the model: at batch {batch} {' and '.join(faults)}; "
                "nothing was written"
            )


def _difference(name: str, found: NDArray[Any], expected: NDArray[Any]) -> str | None:
    """By how much an output is not what it should be, as a clause; None where it is."""
    if found.shape != expected.shape:
        return f"its output `{name}` has the shape {found.shape} in place of {expected.shape}"
    # `not <=`, so that NaN fails.
    if np.issubdtype(expected.dtype, np.floating):
        error = float(np.abs(found - expected).max())
        if not error <= MAX_FLOAT_ERROR:
            return f"its output `{name}` differs by up to {error:.2g} (at most {MAX_FLOAT_ERROR:g})"
        return None
    agreement = float((found == expected).mean())
    if not agreement >= MIN_AGREEMENT:
        return f"{agreement:.2%} of its output `{name}` agrees (at least {MIN_AGREEMENT:.1%})"
    return None
