"""A model of the house out of a foreign graph: what is around it, any number of pictures, the spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from engines.foreign.around import Tensors, write_boxes, write_peaks, write_picture, write_pixels
from engines.foreign.forms import BoxForm, Form, PixelForm, is_batched
from engines.foreign.picture import PictureInput
from engines.foreign.writer import FLOAT, INT32, INT64, UINT8, Writer
from engines.spec import ModelSpec, OutputRole, embed_spec

if TYPE_CHECKING:
    import onnx

Way = Literal["as it is", "opened", "one by one"]
"""How a graph takes several pictures: it does by itself; its fixed batch of one was opened; a loop runs it on each."""

_KINDS: dict[OutputRole, int] = {
    "class_map": UINT8,
    "confidence": UINT8,
    "boxes": FLOAT,
    "scores": FLOAT,
    "labels": INT32,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built.

    Attributes:
        picture: how the graph takes its picture.
        form: what it gives.
        ids: class ids of channels, columns or labels; see `around`.
        confidence: whether a segmenter gives it.
        most: most boxes.
    """

    picture: PictureInput
    form: Form
    ids: tuple[int, ...]
    confidence: bool
    most: int


def ways(plan: Plan) -> list[Way]:
    """How several pictures could be taken, best first."""
    if not plan.picture.batched or not is_batched(plan.form):
        return ["one by one"]
    return ["as it is" if plan.picture.open_batch else "opened", "one by one"]


def build(foreign: onnx.ModelProto, plan: Plan, spec: ModelSpec, way: Way) -> onnx.ModelProto:
    """The model file.

    Args:
        foreign: the graph in an opset of the house.
        plan: what is to be built.
        spec: its `outputs` are filled in.
        way: how several pictures are taken.

    Raises:
        ModelError: the graph and the spec do not go together.
    """
    import onnx
    from onnx import helper

    model = onnx.ModelProto()
    model.CopyFrom(foreign)
    graph = model.graph
    w = Writer(graph)
    images = w.name("images")
    _fix_sizes(graph, plan.picture, way)
    if way == "opened":
        _open_reshapes(model)
    pixels = w.cast(images, FLOAT)
    if way == "one by one":
        nodes, constants, tensors = _looped(w, graph, plan, pixels)
    else:
        nodes, constants, tensors = _straight(w, graph, plan, pixels)
    w.nodes.clear()
    outputs = {}
    for role, tensor in tensors.items():
        outputs[role] = w.name(role)
        w.cast(tensor, _KINDS[role], to=outputs[role])
    spec = _with_outputs(spec, outputs)
    sizes = {
        "class_map": [spec.height, spec.width], "confidence": [spec.height, spec.width], "boxes": [plan.most, 4],
        "scores": [plan.most], "labels": [plan.most],
    }  # fmt: skip
    built = helper.make_graph(
        [*nodes, *w.nodes],
        "roadlens",
        [helper.make_tensor_value_info(images, UINT8, ["N", spec.height, spec.width, 3])],
        [helper.make_tensor_value_info(outputs[r], _KINDS[r], ["N", *_open(sizes[r], plan)]) for r in outputs],
        constants,
    )
    made = helper.make_model(built, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    made.metadata_props.extend(foreign.metadata_props)
    embed_spec(made, spec)
    return made


def _open(sizes: Sequence[int], plan: Plan) -> list[int | str]:
    """Sizes of an output; the number of boxes may come out smaller than was asked for."""
    return [*sizes] if isinstance(plan.form, PixelForm) else ["K", *sizes[1:]]


def _with_outputs(spec: ModelSpec, outputs: dict[OutputRole, str]) -> ModelSpec:
    import msgspec

    return msgspec.structs.replace(spec, outputs=outputs)


Written = tuple["list[onnx.NodeProto]", "list[onnx.TensorProto]", Tensors]


def _answers(w: Writer, plan: Plan) -> Tensors:
    if isinstance(plan.form, PixelForm):
        return write_pixels(w, plan.form, plan.picture, plan.ids, plan.confidence)
    if isinstance(plan.form, BoxForm):
        return write_boxes(w, plan.form, plan.picture, plan.ids, plan.most)
    return write_peaks(w, plan.form, plan.picture, plan.ids, plan.most)


def _straight(w: Writer, graph: onnx.GraphProto, plan: Plan, pixels: str) -> Written:
    write_picture(w, pixels, plan.picture)
    before = list(w.nodes)
    w.nodes.clear()
    tensors = _answers(w, plan)
    return [*before, *graph.node, *w.nodes], [*graph.initializer, *w.constants], tensors


def _looped(w: Writer, graph: onnx.GraphProto, plan: Plan, pixels: str) -> Written:
    """A `Scan` over the pictures, in whose body all is of one."""
    from onnx import helper

    (cast,) = w.nodes
    w.nodes.clear()
    picture = w.name("roadlens/picture")
    write_picture(w, w.unsqueeze(picture, 0), plan.picture)
    before = list(w.nodes)
    w.nodes.clear()
    found = _answers(w, plan)
    inside = {role: w.squeeze(w.cast(tensor, _inner(role)), 0) for role, tensor in found.items()}
    height, width = plan.picture.inner_height, plan.picture.inner_width
    sizes = {"class_map": 2, "confidence": 2, "boxes": 2, "scores": 1, "labels": 1}
    body = helper.make_graph(
        [*before, *graph.node, *w.nodes],
        "of_one_picture",
        [helper.make_tensor_value_info(picture, FLOAT, [height, width, 3])],
        [
            helper.make_tensor_value_info(name, _inner(role), _inner_sizes(role, plan) or [None] * sizes[role])
            for role, name in inside.items()
        ],
        [*graph.initializer, *w.constants],
    )
    outside: Tensors = {role: w.name(f"roadlens/{role}") for role in inside}
    scan = helper.make_node("Scan", [pixels], list(outside.values()), name=w.name("roadlens/each"))
    scan.attribute.extend([helper.make_attribute("num_scan_inputs", 1), helper.make_attribute("body", body)])
    return [cast, scan], [], outside


def _inner(role: OutputRole) -> int:
    """The type of an output of one picture; casts to uint8 stand at the very end, where TensorRT wants them."""
    return INT64 if role == "labels" else FLOAT


def _inner_sizes(role: OutputRole, plan: Plan) -> list[int] | None:
    if role in {"class_map", "confidence"}:
        return [plan.picture.inner_height, plan.picture.inner_width]
    return None


def _fix_sizes(graph: onnx.GraphProto, picture: PictureInput, way: Way) -> None:
    """Write the picture's sizes into the graph's input, and forget what was noted of the tensors between."""
    (value,) = [value for value in graph.input if value.name == picture.name]
    sizes = (picture.height, picture.width, 3) if picture.channels_last else (3, picture.height, picture.width)
    dims = value.type.tensor_type.shape.dim
    for dim, size in zip(list(dims)[-3:], sizes, strict=True):
        dim.Clear()
        dim.dim_value = size
    if picture.batched and way != "opened":
        dims[0].Clear()
        if way == "one by one":
            dims[0].dim_value = 1
        else:
            dims[0].dim_param = "N"
    del graph.value_info[:]


def _open_reshapes(model: onnx.ModelProto) -> None:
    """Let a graph of one picture take any number: constant shapes that begin with that one are opened.

    Whether that was right is seen when two pictures at once give what they give alone.
    """
    import onnx
    from onnx import helper, numpy_helper

    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output)
    }
    constants = {weight.name: weight for weight in graph.initializer}
    constants |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant" and n.attribute}
    added: dict[str, onnx.TensorProto] = {}

    def opened(node: onnx.NodeProto, place: int, sizes: list[int]) -> None:
        name = f"{node.input[place]}/open/{'x'.join(str(size) for size in sizes)}"
        added[name] = numpy_helper.from_array(np.array(sizes, np.int64), name)
        node.input[place] = name

    for node in graph.node:
        place = {"Reshape": 1, "Resize": 3}.get(node.op_type, 0)
        if not 0 < place < len(node.input) or node.input[place] not in constants:
            continue
        wanted = [int(size) for size in numpy_helper.to_array(constants[node.input[place]]).ravel()]
        if not wanted or wanted[0] != 1:
            continue
        if node.op_type == "Resize":  # to the same height and width, of however many pictures
            if len(wanted) == 4 and not any(entry.name == "axes" for entry in node.attribute):
                opened(node, place, wanted[2:])
                node.attribute.append(helper.make_attribute("axes", [2, 3]))
            continue
        known = shapes.get(node.output[0], [])
        if -1 in wanted[1:]:
            if len(known) != len(wanted) or any(size <= 0 for size in known[1:]):
                continue
            wanted = known
        opened(node, place, [-1, *wanted[1:]])
        for attribute in [entry for entry in node.attribute if entry.name == "allowzero"]:
            node.attribute.remove(attribute)
    graph.initializer.extend(added.values())
    for value in (*graph.input, *graph.output):
        if dims := value.type.tensor_type.shape.dim:
            dims[0].Clear()
            dims[0].dim_param = "N"
