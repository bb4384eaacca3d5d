"""Nodes written before and behind a foreign graph, one call each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

FLOAT, UINT8, INT32, INT64, BOOL = 1, 2, 6, 7, 9
"""ONNX's numbers of types."""


class Writer:
    """Collects nodes and constants, all in opset 18 or newer; each tensor has a name that the graph does not use.

    Args:
        graph: that is written around.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._taken = _names(graph)

    def name(self, wanted: str) -> str:
        """A name that nothing has yet."""
        name, number = wanted, 1
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name

    def constant(self, values: Any, kind: Any = np.float32) -> str:
        from onnx import numpy_helper

        array: NDArray[Any] = np.asarray(values, dtype=kind)
        name = self.name("roadlens/constant")
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        """A node of one output, whose name is returned."""
        return self.several(operator, *inputs, count=1, to=to, **attributes)[0]

    def several(
        self, operator: str, *inputs: str, count: int, to: str | None = None, **attributes: Any
    ) -> tuple[str, ...]:
        from onnx import helper

        outputs = tuple(to or self.name(f"roadlens/{operator.lower()}") for _ in range(count))
        node = helper.make_node(operator, list(inputs), list(outputs), name=self.name(f"roadlens/{operator}"))
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return outputs

    # What is written more than once ---------------------------------------------------------------------------------

    def cast(self, tensor: str, kind: int, to: str | None = None) -> str:
        """As `add`, whose own `to` is in the way of the attribute."""
        from onnx import helper

        output = to or self.name("roadlens/cast")
        node = helper.make_node("Cast", [tensor], [output], name=self.name("roadlens/Cast"))
        node.attribute.append(helper.make_attribute("to", kind))
        self.nodes.append(node)
        return output

    def slice(self, tensor: str, axis: int, begin: int, end: int) -> str:
        bounds = [self.constant([number], np.int64) for number in (begin, end, axis)]
        return self.add("Slice", tensor, *bounds)

    def columns(self, tensor: str, begin: int, end: int, count: int) -> str:
        """Columns of N×rows×count. By `Split`, as OpenVINO 2026.4 leaves out a `Slice` from 0 on that stands before
        `GatherElements`, whatever its axis."""
        sizes = [begin, end - begin, count - end]
        there = [place for place, size in enumerate(sizes) if size]
        if there == [1]:
            return tensor
        lengths = self.constant([sizes[place] for place in there], np.int64)
        return self.several("Split", tensor, lengths, count=len(there), axis=2)[there.index(1)]

    def squeeze(self, tensor: str, axis: int) -> str:
        return self.add("Squeeze", tensor, self.constant([axis], np.int64))

    def unsqueeze(self, tensor: str, axis: int) -> str:
        return self.add("Unsqueeze", tensor, self.constant([axis], np.int64))

    def top(self, scores: str, count: int) -> tuple[str, str]:
        """The `count` greatest of N×rows, falling: values and places."""
        values, places = self.several("TopK", scores, self.constant([count], np.int64), count=2, axis=1)
        return values, places

    def rows(self, tensor: str, places: str, columns: int) -> str:
        """Rows of N×rows×columns by places N×k: N×k×columns."""
        shape = self.constant([1, 1, columns], np.int64)
        wide = self.add("Expand", self.unsqueeze(places, 2), shape)
        return self.add("GatherElements", tensor, wide, axis=1)


def _names(graph: onnx.GraphProto) -> set[str]:
    """All names of tensors and nodes, of graphs within it, too."""
    found = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        found |= {node.name, *node.input, *node.output}
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= _names(attribute.g)
    return found
