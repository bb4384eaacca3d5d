"""A foreign ONNX file in a form that can be worked on: names in UTF-8, weights in it, an opset of the house."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import ModelError
from engines.foreign.told import Ledger
from engines.onnxfile import read_onnx, strange_name
from engines.spec import SPEC_KEY

if TYPE_CHECKING:
    import onnx
    from google.protobuf.message import Message  # type: ignore[import-untyped]  # has no stubs

OPSET = 18
"""The lowest opset of the house; older graphs are raised to it."""

_MOST_BYTES = 2**31 - 2**20
"""Of a graph in one file: protobuf ends at 2 GB."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A foreign model.

    Attributes:
        path: its file.
        original: as it was exported, its weights in it: what ONNX Runtime runs for comparison.
        model: the same in an opset of the house, to be built upon.
        notes: its own metadata.
    """

    path: Path
    original: onnx.ModelProto
    model: onnx.ModelProto
    notes: dict[str, str]


def open_foreign(path: Path, ledger: Ledger) -> Foreign:
    """Read a model that somebody exported.

    Raises:
        ModelError: no such file, no ONNX, weights that are missing, a model of the house already, more than 2 GB, or an
            opset that cannot be raised.
    """
    import onnx

    head = read_onnx(path)
    if any(entry.key == SPEC_KEY for entry in head.metadata_props):
        raise ModelError(f"{path} is a model of roadlens already; run it as it is.")
    original = onnx.load(path, format="protobuf")
    if (name := strange_name(original)) is not None:
        _rewrite_text(original)
        ledger.find("names", f"not UTF-8 (`{name}`): written anew", "graph")
    if original.ByteSize() > _MOST_BYTES:
        raise ModelError(f"{path} is larger than 2 GB, which one ONNX file cannot hold; export a smaller model.")
    constants = {weight.name for weight in original.graph.initializer}
    inputs = [value for value in original.graph.input if value.name not in constants]
    del original.graph.input[:]
    original.graph.input.extend(inputs)
    model = _raised(_inlined(original), path, ledger)
    notes = {str(entry.key): str(entry.value) for entry in original.metadata_props}
    return Foreign(path, original, model, notes)


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without functions of its own, which not every runtime reads."""
    import onnx
    import onnx.inliner

    if model.functions:
        inlined: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
        return inlined
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _raised(model: onnx.ModelProto, path: Path, ledger: Ledger) -> onnx.ModelProto:
    import onnx

    opset = max((int(each.version) for each in model.opset_import if each.domain in {"", "ai.onnx"}), default=0)
    if opset < OPSET:
        del model.graph.value_info[:]
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except (RuntimeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ModelError(
                f"{path} is of ONNX opset {opset}, which could not be raised to {OPSET} ({_reason(error)}); "
                f"export it again with opset {OPSET}."
            ) from None
        ledger.find("opset", f"{opset}, raised to {OPSET}", "graph")
    else:
        ledger.find("opset", str(opset), "graph")
    model.ir_version = max(model.ir_version, 8)
    return model


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _rewrite_text(message: Message) -> None:
    """Replace text that is not UTF-8, which comes as bytes, by the same bytes read as Latin-1, in place."""
    for entry, value in message.ListFields():
        if entry.type == entry.TYPE_STRING:
            if isinstance(value, str | bytes):
                setattr(message, entry.name, _readable(value))
            else:
                readable = [_readable(each) for each in value]
                del value[:]
                value.extend(readable)
        elif entry.type == entry.TYPE_MESSAGE:
            for each in value if not hasattr(value, "ListFields") else [value]:
                _rewrite_text(each)


def _readable(text: Any) -> str:
    return text.decode("latin-1") if isinstance(text, bytes) else str(text)
