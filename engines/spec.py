"""`ModelSpec`: what a model file says about itself, carried inside the ONNX as one metadata property."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from engines.classes import IGNORE, ClassInfo
from engines.errors import ModelError

if TYPE_CHECKING:
    import onnx

SPEC_KEY = "roadlens.spec"
"""The key in the ONNX file's `metadata_props` whose value is the `ModelSpec` as JSON."""

SCHEMA = 1
"""The newest form of `ModelSpec` that this version reads, and the one it writes."""

Task = Literal["segmentation", "localization"]
OutputRole = Literal["class_map", "confidence", "boxes", "scores", "labels"]
GraphPrecision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
Size = Annotated[int, msgspec.Meta(ge=1)]


REQUIRED_OUTPUTS: dict[Task, tuple[OutputRole, ...]] = {
    "segmentation": ("class_map",),
    "localization": ("boxes", "scores"),
}
OPTIONAL_OUTPUTS: dict[Task, tuple[OutputRole, ...]] = {
    "segmentation": ("confidence",),
    "localization": ("labels",),
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
    - `segmentation` outputs `class_map`, uint8 N×H×W, and optionally `confidence`, uint8 N×H×W (255 = certain).
    - `localization` outputs `boxes`, float32 N×K×4, xyxy as fractions of the frame (0 to 1, right and bottom
      exclusive), `scores`, float32 N×K in 0 to 1, and `labels`, int32 N×K class ids (left out: all of class 0).

    `outputs` maps each role to the graph's output name.
    """

    name: str
    version: str
    task: Task
    height: Size
    width: Size
    classes: tuple[ClassInfo, ...]
    outputs: dict[OutputRole, str]
    geometry: Literal["squash"] = "squash"
    precision: GraphPrecision = "fp32"
    training_data: str = ""
    licence: str = ""
    metrics: tuple[Metric, ...] = ()
    schema: int = SCHEMA


def read_spec(path: Path | str) -> ModelSpec:
    """Read the `ModelSpec` of an ONNX file and check that the graph is what it says.

    Raises:
        ModelError: there is no such file, it is not ONNX, it carries no spec or one of a newer roadlens, or its inputs
            and outputs are not those of the spec.
    """
    import onnx  # 0.1 s: only when a model is read
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no stubs

    path = Path(path)
    try:
        # Weights beside the file are not needed to read what the file says about itself.
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except FileNotFoundError:
        raise ModelError(f"There is no model file {path}; give the path of an ONNX file.") from None
    except OSError as error:
        raise ModelError(
            f"The model {path} cannot be read ({error.strerror}); give the path of an ONNX file."
        ) from None
    except DecodeError:
        model = None
    if model is None or not model.ir_version or not model.graph.node:
        raise ModelError(f"{path} is not an ONNX file; give a model exported by roadlens.")
    text = next((prop.value for prop in model.metadata_props if prop.key == SPEC_KEY), None)
    if text is None:
        raise ModelError(
            f"{path} is ONNX without a roadlens spec (metadata property `{SPEC_KEY}`); "
            "export it with roadlens, or add a spec with `engines.spec.embed_spec`."
        )
    try:
        # The number first: a newer form may have keys that this one does not know.
        schema = msgspec.json.decode(text, type=_Numbered).schema
        if schema > SCHEMA:
            raise ModelError(f"{path} has a spec of schema {schema}, this roadlens reads up to {SCHEMA}; upgrade it.")
        spec = msgspec.json.decode(text, type=ModelSpec)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"The roadlens spec in {path} cannot be read ({error}); export the model again.") from None
    if fault := _fault(model, spec):
        raise ModelError(f"The roadlens spec in {path} does not match its graph: {fault}; export the model again.")
    return spec


def embed_spec(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Write a spec into a model, in the place of one that is there.

    Raises:
        ModelError: the graph's inputs and outputs are not those of the spec.
    """
    if fault := _fault(model, spec):
        raise ModelError(f"The spec of {spec.name} does not match the graph: {fault}; mend the one that is wrong.")
    kept = [prop for prop in model.metadata_props if prop.key != SPEC_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=SPEC_KEY, value=msgspec.json.encode(spec).decode())


class _Numbered(msgspec.Struct):
    schema: int = SCHEMA


def _fault(model: onnx.ModelProto, spec: ModelSpec) -> str | None:
    """What is wrong between graph and spec, as a clause; None where they fit."""
    ids = [info.id for info in spec.classes]
    if len(set(ids)) != len(ids) or any(not 0 <= number < IGNORE for number in ids):
        return f"its class ids are not distinct numbers from 0 to {IGNORE - 1}"
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
    picture = (spec.height, spec.width)
    forms: dict[OutputRole, tuple[str, tuple[int | None, ...]]] = {
        "class_map": ("uint8", picture),
        "confidence": ("uint8", picture),
        "boxes": ("float", (None, 4)),
        "scores": ("float", (None,)),
        "labels": ("int32", (None,)),
    }
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
