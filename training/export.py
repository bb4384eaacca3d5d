"""A trained model as one ONNX file that says everything about itself, checked against the eager model first."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from engines.errors import CheckFailed
from engines.novelty.distance import figures, fit
from engines.novelty.familiar import FEWEST
from engines.spec import ModelSpec, OutputRole, embed_spec, figure_names
from engines.telemetry import no_telemetry
from training.files import write_file
from training.models.graphs import Graph
from training.recipe import RECIPE_KEY, Recipe
from training.task import Samples, Task, as_arrays, at_size

if TYPE_CHECKING:
    import onnx

UInt8 = NDArray[np.uint8]
M = TypeVar("M", bound=nn.Module)

OPSET = 18
"""The lowest opset of the house: every engine reads it, and nothing here needs a newer one."""

MAX_FLOAT_ERROR = 1e-3
"""Of scores before any arg-max, of boxes as fractions of the picture, and the like."""

MIN_AGREEMENT = 0.999
"""Of class ids."""

MIN_FOUND = 0.98
"""Share of the objects of a list that are the model's: where two neighbours are as good as equal, either may be the
peak."""

Arrays = Mapping[str, NDArray[Any]]
"""Outputs by name."""

FAMILIAR = 600
"""Pictures of the training data that a model's novelty is told by, at most."""

_AT_ONCE = 8
"""Pictures that a network is shown at once, for that."""


def export(task: Task[Any, M, Any], model: M, spec: ModelSpec, path: Path) -> None:
    """Write a model of a task as an ONNX file with `spec` and the task's recipe, after checking it.

    Args:
        task: that the model was trained for.
        model: put into evaluation mode and brought to the CPU.
        spec: of `task.spec`; its outputs may be more, see `Task.optional_outputs`.
        path: of the file, replaced in one step.

    Raises:
        UsageError: a size of input that the graph cannot have.
        CheckFailed: the graph's answers are not the network's; nothing is written.
        OutputError: the file cannot be written.
    """
    export_graph(task.graph(model, spec), spec, path, task.recipe)


def with_familiar(task: Task[Any, M, Any], model: M, spec: ModelSpec, samples: Samples, split: str) -> ModelSpec:
    """A spec with what is familiar to its model: what that says of a sample of the pictures that it was trained on.

    Args:
        task: that the model was trained for.
        model: put into evaluation mode and brought to the CPU.
        spec: of `task.spec`, with the outputs that are exported.
        samples: the training data.
        split: what they are called.

    Returns:
        The spec as it is where its model gives no class map, or the pictures are too few.
    """
    names, ids = figure_names(spec), [info.id for info in spec.classes]
    if not names or len(samples) < FEWEST:
        return spec
    count = min(len(samples), FAMILIAR)
    chosen = np.sort(np.random.default_rng(0).choice(len(samples), count, replace=False))
    model.cpu().float().eval()
    rows = []
    for some in np.array_split(chosen, -(-count // _AT_ONCE)):
        pictures = at_size(samples.photos[some], spec.height, spec.width)
        with torch.no_grad():
            found = as_arrays(task.predict(model, torch.from_numpy(pictures)))
        sure = found["confidence"] if "confidence" in spec.outputs else [None] * len(some)
        rows += [figures(*pair, ids) for pair in zip(found["class_map"], sure, strict=True)]
    source = f"{count} of the {len(samples):,} pictures of {split} (seed 0)"
    return msgspec.structs.replace(spec, familiar=fit(np.array(rows), names, source))


def export_graph(graph: Graph, spec: ModelSpec, path: Path, recipe: Recipe | None = None) -> None:
    """Write a graph as an ONNX file with `spec`, after checking it against the eager one at batch 1 and 3.

    What is checked is the very graph that is written: outputs that the spec does not name are there for the check and
    are taken away when it has passed. The confidence is not compared: its rounding may differ.

    Args:
        graph: its module is put into evaluation mode and brought to the CPU.
        spec: H×W are static, N is dynamic.
        path: of the file, replaced in one step.
        recipe: that the file says it was made by.

    Raises:
        CheckFailed: the graph's answers are not the eager model's; nothing is written.
        OutputError: the file cannot be written.
    """
    graph.module.cpu().float().eval()
    proto = _trace(graph, spec.height, spec.width)
    _check(proto, graph, spec)
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


def _trace(graph: Graph, height: int, width: int) -> onnx.ModelProto:
    example = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            graph.module, (example,), dynamo=True, external_data=False, opset_version=OPSET, input_names=["images"],
            output_names=list(graph.outputs), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=256)},),
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


def _check(proto: onnx.ModelProto, graph: Graph, spec: ModelSpec) -> None:
    import onnx

    with no_telemetry():
        import openvino

    onnx.checker.check_model(proto, full_check=True)
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(proto.SerializeToString()), "CPU", options)
    for batch in (1, 3):
        pictures = check_pictures(batch, spec.height, spec.width, seed=batch)
        with torch.no_grad():
            eager = dict(zip(graph.outputs, (t.numpy() for t in graph.module(torch.from_numpy(pictures))), strict=True))
        answer = compiled([pictures])
        found = {name: answer[name] for name in graph.outputs}
        listed = {spec.outputs[role] for role in ("boxes", "scores", "labels") if role in spec.outputs}
        apart = {spec.outputs.get("confidence")} | (listed if len(listed) > 1 else set())
        faults = [
            fault
            for name, expected in eager.items()
            if name not in apart and (fault := _difference(name, found[name], expected))
        ]
        if len(listed) > 1 and (fault := _difference_of_lists(spec, found, eager, _candidates(graph, spec, pictures))):
            faults.append(fault)
        if faults:
            raise CheckFailed(
                f"the exported graph of {spec.name} is not the model: at batch {batch} {' and '.join(faults)}; "
                "nothing was written"
            )


_LISTED: tuple[OutputRole, ...] = ("boxes", "scores", "labels")


def _candidates(graph: Graph, spec: ModelSpec, pictures: UInt8) -> Arrays | None:
    """More objects than the model lists, by name of output; None where its graph gives no more."""
    if graph.candidates is None:
        return None
    with torch.no_grad():
        found = graph.candidates(torch.from_numpy(pictures))
    return {spec.outputs[role]: values.numpy() for role, values in found.items() if role in spec.outputs}


def _difference_of_lists(spec: ModelSpec, found: Arrays, expected: Arrays, candidates: Arrays | None) -> str | None:
    """What of the objects that should be listed is not, in whichever order, as a clause; None where all is well.

    What is listed must be among the candidates, where there are any, and what is likelier than the last one listed must
    be listed: which of several that are as good as equal come last, rounding decides.
    """
    names = [spec.outputs[role] for role in _LISTED if role in spec.outputs]
    for name in names:
        if found[name].shape != expected[name].shape:
            return f"its output `{name}` has the shape {found[name].shape} in place of {expected[name].shape}"
    scores = expected[spec.outputs["scores"]] if "scores" in spec.outputs else None
    if scores is not None:  # which are in falling order, whatever they are the scores of
        name = spec.outputs["scores"]
        if fault := _difference(name, np.sort(found[name]), np.sort(scores)):
            return fault
    right: list[NDArray[np.bool_]] = []
    for place, listed in enumerate(_objects(names, found)):
        wanted = _objects(names, expected)[place]
        if candidates is not None:
            right.append(_are_in(listed, _objects(names, candidates)[place]))
        sure = slice(None) if scores is None else scores[place] > scores[place].min(initial=1) + MAX_FLOAT_ERROR
        right.append(_are_in(wanted[sure], listed))
    shares = [float(are.mean()) for are in right if are.size]
    if not (share := min(shares, default=1.0)) >= MIN_FOUND:
        return (
            f"{share:.1%} of the objects in its outputs {' and '.join(f'`{name}`' for name in names)} are the model's"
        )
    return None


def _objects(names: list[str], outputs: Arrays) -> NDArray[np.float64]:
    """(N, K, 4 and a number for each further output): what is said of each object."""
    boxes, *others = names
    return np.concatenate([outputs[boxes], *(outputs[name][..., None] for name in others)], -1, dtype=np.float64)


def _are_in(objects: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(K,) whether each of (K, D) objects is among (M, D) others; NaN is near nothing."""
    apart = np.abs(objects[:, None] - others).max(-1, initial=0).min(-1, initial=np.inf)
    near: NDArray[np.bool_] = apart <= MAX_FLOAT_ERROR
    return near


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
