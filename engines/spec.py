"""`ModelSpec`: what a model file says about itself, carried inside the ONNX as one metadata property."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from engines.classes import IGNORE, ClassInfo
from engines.errors import ModelError
from engines.novelty.familiar import CONFIDENCE, Familiar, fault, place_of, read_beside
from engines.onnxfile import read_onnx, strange_name

if TYPE_CHECKING:
    import onnx

SPEC_KEY = "roadlens.spec"
"""The key in the ONNX file's `metadata_props` whose value is the `ModelSpec` as JSON."""

SCHEMA = 3
"""The newest form of `ModelSpec` that this version reads, and the one it writes."""

Task = Literal["segmentation", "localization", "road-users"]
OutputRole = Literal["class_map", "confidence", "boxes", "scores", "labels"]
GraphPrecision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
Size = Annotated[int, msgspec.Meta(ge=1)]


REQUIRED_OUTPUTS: dict[Task, tuple[OutputRole, ...]] = {
    "segmentation": ("class_map",),
    "localization": ("boxes", "scores"),
    "road-users": ("class_map", "boxes", "scores", "labels"),
}
OPTIONAL_OUTPUTS: dict[Task, tuple[OutputRole, ...]] = {
    "segmentation": ("confidence",),
    "localization": ("labels",),
    "road-users": ("confidence",),
}


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A measured figure and how it was measured: `mean_iou`, 0.47, split `val`, protocol in one sentence."""

    name: str
    value: float
    split: str
    protocol: str


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model is, takes and gives. Same for every model of the house:

    - input: one tensor, uint8, N×H×W×3, RGB; normalisation is inside the graph. H×W is static, N dynamic.
    - a whole frame is squashed to H×W (`geometry`), so a point at (x, y) of an input of width W is at
      (x·frame width / W, …) of the frame.
    - `segmentation` outputs `class_map`, uint8 N×H×W, 255 where a pixel is none of the classes, and optionally
      `confidence`, uint8 N×H×W (255 = certain).
    - `localization` outputs `boxes`, float32 N×K×4, xyxy as fractions of the frame (0 to 1, right and bottom
      exclusive), `scores`, float32 N×K in 0 to 1, and `labels`, int32 N×K class ids (left out: all of class 0).
    - `road-users` outputs all of these, `confidence` being optional; its boxes are raw: they may tell of one object
      twice, and those who read them suppress what overlaps (`engines.boxes.distinct`).

    `outputs` maps each role to the graph's output name. `min_score` is the smallest score at which a box is worth
    telling of, chosen where the model was scored; whoever runs it may ask for another. `familiar` is by what the
    novelty of a picture is told; a model that gives no class map has none, nor has one of which nobody made it.
    """

    name: str
    version: str
    task: Task
    height: Size
    width: Size
    classes: tuple[ClassInfo, ...]
    outputs: dict[OutputRole, str]
    geometry: Literal["squash"] = "squash"
    min_score: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    precision: GraphPrecision = "fp32"
    training_data: str = ""
    licence: str = ""
    metrics: tuple[Metric, ...] = ()
    familiar: Familiar | None = None
    schema: int = SCHEMA


def read_spec(path: Path | str) -> ModelSpec:
    """Read the `ModelSpec` of an ONNX file and check that the graph is what it says.

    Raises:
        ModelError: there is no such file, it is not ONNX, its weights are in another file that is missing, it carries
            no spec or one of a newer roadlens, its inputs and outputs are not those of the spec, or what lies beside it
            as familiar to it cannot be read or is of another model.
    """
    model = read_onnx(path)
    text = next((prop.value for prop in model.metadata_props if prop.key == SPEC_KEY), None)
    if text is None:
        raise ModelError(
            f"{path} is ONNX without a roadlens spec (metadata property `{SPEC_KEY}`); "
            f"make one with a spec of it with `roadlens models import {path} -o NAME.onnx`."
        )
    if (strange := strange_name(model)) is not None:
        raise ModelError(
            f"{path} has names that are not UTF-8 (`{strange}`), which runtimes cannot read; "
            "export the model again with plain names."
        )
    try:
        # The number first: a newer form may have keys that this one does not know.
        schema = msgspec.json.decode(text, type=_Numbered).schema
        if schema > SCHEMA:
            raise ModelError(f"{path} has a spec of schema {schema}, this roadlens reads up to {SCHEMA}; upgrade it.")
        spec = msgspec.json.decode(text, type=ModelSpec)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"The roadlens spec in {path} cannot be read ({error}); export the model again.") from None
    if wrong := _fault(model, spec):
        raise ModelError(f"The roadlens spec in {path} does not match its graph: {wrong}; export the model again.")
    return _with_familiar(spec, Path(path))


def embed_spec(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Write a spec into a model, in the place of one that is there.

    Raises:
        ModelError: the graph's inputs and outputs are not those of the spec.
    """
    if wrong := _fault(model, spec):
        raise ModelError(f"The spec of {spec.name} does not match the graph: {wrong}; mend the one that is wrong.")
    spec = msgspec.structs.replace(spec, schema=SCHEMA)
    kept = [prop for prop in model.metadata_props if prop.key != SPEC_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=SPEC_KEY, value=msgspec.json.encode(spec).decode())


def output_forms(spec: ModelSpec) -> dict[OutputRole, tuple[str, tuple[int | None, ...]]]:
    """What each output of a model is, by its role: ONNX's name of the element type, and the sizes behind the batch's,
    None where it is the model's own business."""
    picture = (spec.height, spec.width)
    return {
        "class_map": ("uint8", picture),
        "confidence": ("uint8", picture),
        "boxes": ("float", (None, 4)),
        "scores": ("float", (None,)),
        "labels": ("int32", (None,)),
    }


def figure_names(spec: ModelSpec) -> tuple[str, ...]:
    """The figures by which a model's novelty is told, see `engines.novelty`; none where it gives no class map."""
    if "class_map" not in spec.outputs:
        return ()
    return (*(info.name for info in spec.classes), *((CONFIDENCE,) if "confidence" in spec.outputs else ()))


def _with_familiar(spec: ModelSpec, path: Path) -> ModelSpec:
    """With what lies beside the file; what is familiar is seen to be the model's."""
    beside = read_beside(path)
    if beside is not None:
        spec = msgspec.structs.replace(spec, familiar=beside)
    if spec.familiar is not None and (wrong := fault(spec.familiar, figure_names(spec))):
        where, mend = (path, "export the model again") if beside is None else (place_of(path), "take it away")
        raise ModelError(f"{where} does not tell what is familiar to {spec.name}: {wrong}; {mend}.")
    return spec


class _Numbered(msgspec.Struct):
    schema: int = SCHEMA


def _fault(model: onnx.ModelProto, spec: ModelSpec) -> str | None:
    """What is wrong between graph and spec, as a clause; None where they fit."""
    ids = [info.id for info in spec.classes]
    if len(set(ids)) != len(ids) or any(not 0 <= number < IGNORE for number in ids):
        return f"its class ids are not distinct numbers from 0 to {IGNORE - 1}"
    names = [info.name.strip() for info in spec.classes]
    if double := next((name for place, name in enumerate(names) if name in names[:place]), None):
        return f"two of its classes are called {double!r}: what is said of one would be taken for the other"
    if "" in names:
        return "one of its classes has no name"
    return _input_fault(model.graph, spec) or _output_fault(model.graph, spec)


def _input_fault(graph: onnx.GraphProto, spec: ModelSpec) -> str | None:
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    wanted = f"uint8 N×{spec.height}×{spec.width}×3 with N dynamic"
    if len(inputs) != 1:
        return f"it has {len(inputs)} inputs where one, {wanted}, is wanted"
    batch, *picture = _shape(inputs[0]) or [None]
    if _kind(inputs[0]) != "uint8" or picture != [spec.height, spec.width, 3] or batch is not None:
        return f"its input is {_described(inputs[0])} where {wanted} is wanted"
    return None


def _output_fault(graph: onnx.GraphProto, spec: ModelSpec) -> str | None:
    required, optional = REQUIRED_OUTPUTS[spec.task], OPTIONAL_OUTPUTS[spec.task]
    if missing := [role for role in required if role not in spec.outputs]:
        return f"a model for {spec.task} must have the output `{missing[0]}`"
    if strange := [role for role in spec.outputs if role not in required + optional]:
        return f"a model for {spec.task} has no output `{strange[0]}`"
    forms = output_forms(spec)
    outputs = {value.name: value for value in graph.output}
    for role, name in spec.outputs.items():
        if name not in outputs:
            return f"it has no output `{name}` for `{role}` (its outputs are {', '.join(outputs)})"
        kind, wanted = forms[role]
        shape = _shape(outputs[name])
        # A size the exporter left open is no contradiction; the engine sees the real one.
        fits = shape is None or (
            len(shape) == len(wanted) + 1
            and all(None in pair or pair[0] == pair[1] for pair in zip(shape[1:], wanted, strict=True))
        )
        if _kind(outputs[name]) != kind or not fits:
            sizes = "×".join("K" if size is None else str(size) for size in wanted)
            return f"its output `{name}` is {_described(outputs[name])} where {kind} N×{sizes} is wanted for `{role}`"
    return None


def _kind(value: onnx.ValueInfoProto) -> str:
    """ONNX's own name of the element type: `uint8`, `float` (32 bit), `int32`."""
    from onnx import TensorProto

    return str(TensorProto.DataType.Name(value.type.tensor_type.elem_type)).lower()


def _shape(value: onnx.ValueInfoProto) -> list[int | None] | None:
    """Sizes of a tensor, None for a size that is open; None for a rank that is."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim]


def _described(value: onnx.ValueInfoProto) -> str:
    shape = _shape(value)
    sizes = "of open rank" if shape is None else "×".join("?" if size is None else str(size) for size in shape)
    return f"{_kind(value)} {sizes}"
