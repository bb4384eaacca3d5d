"""One node of an ONNX graph, as its translator sees it: inputs, attributes, and a sentence for what is not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx

from engines.errors import DeviceError

if TYPE_CHECKING:
    import onnx


class UnsupportedError(DeviceError):
    """A node that is not known here."""


class Translation(Protocol):
    """The graph that is being written. A tensor is a constant or a node of the new graph."""

    @property
    def constants(self) -> Mapping[str, Tensor]:
        """Tensors that do not hang on the picture, by name."""
        ...

    def value(self, name: str) -> fx.Node:
        """A tensor as a node."""
        ...

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A call in the new graph, or its result where nothing in it is left to know."""
        ...


class Call:
    """One ONNX node, as those who translate it see it."""

    def __init__(self, translation: Translation, node: onnx.NodeProto, number: int) -> None:
        from onnx.helper import get_attribute_value

        self._translation = translation
        self._label = node.name or f"number {number}"
        self.op_type = node.op_type
        self.inputs = list(node.input)
        self.outputs = len(node.output)
        self._attributes = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}

    def has(self, place: int) -> bool:
        """Whether an optional input is given."""
        return place < len(self.inputs) and self.inputs[place] != ""

    def input(self, place: int) -> Any:
        """A tensor: a node, or where all inputs are constant the tensor itself."""
        name = self.inputs[place]
        if all(each in self._translation.constants for each in self.inputs if each):
            return self._translation.constants[name]
        return self._translation.value(name)

    def all(self) -> list[Any]:
        return [self.input(place) for place in range(len(self.inputs))]

    def constant(self, place: int) -> Tensor:
        """An input that must not hang on the picture."""
        try:
            return self._translation.constants[self.inputs[place]]
        except KeyError:
            raise self.unsupported(f"needs a constant input {place + 1}") from None

    def numbers(self, place: int) -> list[int]:
        return [int(number) for number in self.constant(place).flatten().tolist()]

    def attribute(self, name: str, default: Any) -> Any:
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def require(self, name: str, default: Any, *allowed: Any) -> Any:
        """An attribute of which only some values are known."""
        value = self.attribute(name, default)
        if value not in allowed:
            raise self.unsupported(f"is not known with {name} {value}")
        return value

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._translation.call(function, *arguments)

    def unsupported(self, why: str) -> UnsupportedError:
        return UnsupportedError(
            f"PyTorch cannot run node `{self._label}`: operator {self.op_type} {why} here; "
            "export the model without it, or use another backend.",
            "operator",
        )


def tensor_of(weight: onnx.TensorProto) -> Tensor:
    """An initializer, with memory of its own."""
    from onnx import TensorProto, numpy_helper

    array = np.array(numpy_helper.to_array(weight))
    if weight.data_type == TensorProto.BFLOAT16:  # numpy has no such type; the bits are the same
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    if weight.data_type == TensorProto.FLOAT8E4M3FN:
        return torch.from_numpy(array.view(np.uint8)).view(torch.float8_e4m3fn)
    return torch.from_numpy(array)
