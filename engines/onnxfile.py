"""ONNX files as people have them: cut short, with weights beside that were not copied, with names in other codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import ModelError

if TYPE_CHECKING:
    import onnx


def read_onnx(path: Path | str) -> onnx.ModelProto:
    """The graph of an ONNX file, without weights that lie beside it, which are seen to be there.

    Raises:
        ModelError: there is no such file, it is not ONNX, or weights that it keeps in another file are missing.
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
    _find_weights(model, path)
    return model


def external_files(model: onnx.ModelProto) -> list[str]:
    """Files that the weights of a graph are kept in, relative to the graph's own, each once."""
    found: dict[str, None] = {}
    for weight in _weights(model.graph):
        if weight.data_location == weight.EXTERNAL:
            for entry in weight.external_data:
                if entry.key == "location":
                    found[_text(entry.value)] = None
    return list(found)


def strange_name(model: onnx.ModelProto) -> str | None:
    """The first name in a graph that is not UTF-8, as near as it can be written; None where all are."""
    named = (model.graph.input, model.graph.output, model.graph.initializer)
    names: Iterable[Any] = (
        name
        for each in (
            *([value.name for value in values] for values in named),
            *([node.name, *node.input, *node.output] for node in model.graph.node),
        )
        for name in each
    )
    # What is no UTF-8 comes as bytes.
    return next((_text(name) for name in names if isinstance(name, bytes)), None)


def _find_weights(model: onnx.ModelProto, path: Path) -> None:
    for name in external_files(model):
        if not (path.parent / name).is_file():
            raise ModelError(
                f"{path} keeps its weights in the file {name}, which is not beside it; copy that file there, too "
                "(or export the model into one file)."
            )


def _weights(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _weights(attribute.g)


def _text(name: str | bytes) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else name
