"""ONNX → strongly typed network, whose inputs and outputs must be those of the model's spec.

Nothing here knows a precision: every tensor's type stands in the graph. TensorRT 11 knows no other way; 10 is told so
by a flag that 11 still takes and ignores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import tensorrt as trt

from engines.spec import ModelSpec, output_forms
from engines.tensorrt.logger import Logger, TensorRTError, logger

_NOISE = re.compile(r"\s*(\[\w+\.cpp::|IRuntime::).*$|\.?\s*In \w+ at \S+\.(cpp|h):\d+", re.DOTALL)
"""Where in NVIDIA's own source an error was found, and what the parser says of a machine without a driver."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A network, and the parser, which owns its weights and must live until the network is built."""

    network: trt.INetworkDefinition
    parser: trt.OnnxParser


def parsed(builder: trt.Builder, graph: bytes, spec: ModelSpec) -> Parsed:
    """Parse a graph.

    Args:
        builder: makes the network.
        graph: serialised ONNX with one input, N×H×W×3 with N dynamic.
        spec: what its inputs and outputs must be.

    Raises:
        TensorRTError: TensorRT cannot take the graph (the sentence names operator and node), or makes other inputs or
            outputs of it than those of the spec.
    """
    voice = logger()
    voice.clear()
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, voice)
    if not parser.parse(graph):
        raise _refused(parser, voice, spec.name)
    if fault := _fault(network, spec):
        raise TensorRTError(
            f"TensorRT {trt.__version__} makes another network of {spec.name} than its spec says: {fault}; "
            "export it again.",
            "network",
        )
    return Parsed(network, parser)


def _fault(network: trt.INetworkDefinition, spec: ModelSpec) -> str | None:
    """What is wrong between network and spec, as a clause; None where they fit."""
    inputs = [network.get_input(place) for place in range(network.num_inputs)]
    if len(inputs) != 1:
        return f"it has {len(inputs)} inputs where one is wanted"
    (image,) = inputs
    wanted = (-1, spec.height, spec.width, 3)
    if image.shape[:] != wanted or image.dtype != trt.DataType.UINT8:
        return f"its input is {_described(image)} where UINT8 {_sizes(wanted)} is wanted"
    kinds = {"uint8": trt.DataType.UINT8, "float": trt.DataType.FLOAT, "int32": trt.DataType.INT32}
    outputs = {each.name: each for each in map(network.get_output, range(network.num_outputs))}
    forms = output_forms(spec)
    for role, name in spec.outputs.items():
        if name not in outputs:
            return f"it has no output `{name}`"
        kind, sizes = forms[role]
        found = outputs[name]
        # A size that hangs on the picture is -1, too; a plan with one of those is refused when it is loaded.
        fits = len(found.shape) == len(sizes) + 1 and all(
            size is None or size == own for own, size in zip(found.shape[1:], sizes, strict=True)
        )
        if found.dtype != kinds[kind] or not fits:
            return f"its output `{name}` is {_described(found)} where {kinds[kind].name} is wanted for `{role}`"
    return None


def _described(tensor: trt.ITensor) -> str:
    return f"{tensor.dtype.name} {_sizes(tensor.shape[:])}"


def _sizes(shape: tuple[int, ...]) -> str:
    return "×".join("N" if size < 0 else str(size) for size in shape)


def _refused(parser: trt.OnnxParser, voice: Logger, model: str) -> TensorRTError:
    """The parser's first error as a sentence; it names the node, which the logger's words may not."""
    if not parser.num_errors:
        return voice.failure(f"TensorRT cannot read the graph of {model}", "export it again")
    first: trt.ParserError = parser.get_error(0)
    voice.clear()
    reason = " ".join(_NOISE.sub("", first.desc()).split()).rstrip(".")
    if first.node() < 0:  # of the file as a whole
        return TensorRTError(f"TensorRT {trt.__version__} cannot read {model}: {reason}; export it again.", "graph")
    operator, node = first.node_operator(), first.node_name() or f"number {first.node()}"
    return TensorRTError(
        f"TensorRT {trt.__version__} cannot take {model}: node `{node}` ({operator or 'no operator'}): {reason}; "
        "export the model without it, or use another backend.",
        "operator",
    )
