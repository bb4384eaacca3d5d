"""How a foreign model wants its picture: where it goes in, in which layout and type, and how pixels are scaled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelError, UsageError
from engines.foreign.opening import Foreign
from engines.foreign.told import SCALING, Ledger

if TYPE_CHECKING:
    import onnx

UInt8 = NDArray[np.uint8]
Three = tuple[float, float, float]

KINDS = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}
"""Types that a picture may be wanted in, by ONNX's number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureInput:
    """The picture as the foreign graph takes it.

    Attributes:
        name: of the graph's input.
        kind: numpy's name of its type.
        channels_last: N×H×W×3 and not N×3×H×W.
        batched: whether there is an axis of pictures at all.
        open_batch: whether its length is open.
        height, width: that the graph computes at.
        inner_height, inner_width: of the picture in it; the rest is filled up, half on either side.
        fill: with this, 0 to 255.
        scale, mean, std: value = (pixel · scale − mean) / std, in the model's order of colours.
        bgr: whether that is blue, green, red.
        others: values of inputs that are no picture, by name.
    """

    name: str
    kind: str
    channels_last: bool
    batched: bool
    open_batch: bool
    height: int
    width: int
    inner_height: int
    inner_width: int
    fill: float
    scale: float
    mean: Three
    std: Three
    bgr: bool
    others: Mapping[str, NDArray[Any]]

    @property
    def top(self) -> int:
        return (self.height - self.inner_height) // 2

    @property
    def left(self) -> int:
        return (self.width - self.inner_width) // 2

    def prepared(self, picture: UInt8) -> NDArray[Any]:
        """(inner_height, inner_width, 3) uint8 RGB → what the original graph takes, a batch of one where it has one."""
        values: NDArray[Any] = np.full((self.height, self.width, 3), self.fill, np.float32)
        values[self.top : self.top + self.inner_height, self.left : self.left + self.inner_width] = picture
        if self.bgr:
            values = values[..., ::-1]
        values = (values * np.float32(self.scale) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        if not self.channels_last:
            values = values.transpose(2, 0, 1)
        array: NDArray[Any] = np.ascontiguousarray(values[None] if self.batched else values).astype(self.kind)
        return array


def find_picture(foreign: Foreign, ledger: Ledger) -> PictureInput | None:
    """Find the input of pictures; None where a question is open.

    Raises:
        ModelError: there is none, there are several, or one that a picture of three colours does not fit.
        UsageError: what was told does not fit.
    """
    graph, told = foreign.model.graph, ledger.told
    pictures = [value for value in graph.input if value.name not in told.inputs and len(_sizes(value)) in {3, 4}]
    if len(pictures) != 1:
        names = ", ".join(f"`{value.name}` ({described(value)})" for value in graph.input) or "none"
        raise ModelError(f"{foreign.path} must take one picture; its inputs are {names}.")
    value = pictures[0]
    kind = KINDS.get(value.type.tensor_type.elem_type)
    if kind is None:
        raise ModelError(f"The input `{value.name}` of {foreign.path} is {described(value)}, which no picture is.")
    others = _others(graph, value.name, ledger)
    channels_last = _channels_last(foreign, value, ledger)
    sizes = _sizes(value)
    batched = len(sizes) == 4
    if batched and sizes[0] not in {None, 1}:
        raise ModelError(f"{foreign.path} takes {sizes[0]} pictures at a time; export it for one, or for any number.")
    height, width = sizes[-3:-1] if channels_last else sizes[-2:]
    size = _size(foreign, (height, width), ledger)
    scaling = _scaling(foreign, value, kind, ledger)
    ledger.find("colours", told.order or "rgb", "told" if told.order else "assumed")
    if size is None or scaling is None:
        return None
    (height, width), (inner_height, inner_width) = size
    scale, mean, std = scaling
    return PictureInput(
        name=value.name, kind=kind, channels_last=channels_last, batched=batched,
        open_batch=batched and sizes[0] is None, height=height, width=width, inner_height=inner_height,
        inner_width=inner_width, fill=told.fill, scale=scale, mean=mean, std=std, bgr=told.order == "bgr",
        others=others,
    )  # fmt: skip


def described(value: onnx.ValueInfoProto) -> str:
    """`float 1×3×?×?`."""
    kind = KINDS.get(value.type.tensor_type.elem_type, f"type {value.type.tensor_type.elem_type}")
    return f"{kind} {'×'.join('?' if size is None else str(size) for size in _sizes(value)) or 'of open rank'}"


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    sizes = value.type.tensor_type.shape.dim
    return [size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None for size in sizes]


def _others(graph: onnx.GraphProto, picture: str, ledger: Ledger) -> dict[str, NDArray[Any]]:
    """What inputs beside the picture are given, the same for every picture."""
    known = {value.name: value for value in graph.input}
    if strange := next((name for name in ledger.told.inputs if name not in known or name == picture), None):
        raise UsageError(f"There is no input `{strange}` to set; the inputs are {', '.join(known)}.")
    found = {}
    for name, value in known.items():
        if name == picture:
            continue
        if name not in ledger.told.inputs:
            ledger.ask(f"what its input `{name}` ({described(value)}) is given (--set {name}=NUMBERS)")
            continue
        numbers = ledger.told.inputs[name]
        kind = KINDS.get(value.type.tensor_type.elem_type, "float32")
        sizes = [1 if size is None and place == 0 else size for place, size in enumerate(_sizes(value))]
        open_sizes = [place for place, size in enumerate(sizes) if size is None]
        shape = [len(numbers) if place in open_sizes else size or 1 for place, size in enumerate(sizes)]
        if int(np.prod(shape)) != len(numbers):
            raise UsageError(f"The input `{name}` is {described(value)} and cannot be set to {len(numbers)} numbers.")
        found[name] = np.array(numbers, kind).reshape(shape)
        ledger.find("input", f"`{name}` is {', '.join(f'{number:g}' for number in numbers)}", "told")
    return found


def _channels_last(foreign: Foreign, value: onnx.ValueInfoProto, ledger: Ledger) -> bool:
    sizes, told = _sizes(value)[-3:], ledger.told.layout
    first, last = sizes[0], sizes[2]
    if told is not None:
        last_told = told == "nhwc"
        if (last if last_told else first) not in {None, 3}:
            raise UsageError(f"The input `{value.name}` is {described(value)}, and in {told} that is no picture.")
        ledger.find("layout", told, "told")
        return last_told
    if (first == 3) != (last == 3):
        ledger.find("layout", "nhwc" if last == 3 else "nchw", "graph")
        return last == 3
    if first is None and last is None:
        turned = [node for node in foreign.model.graph.node if node.op_type == "Transpose" and value.name in node.input]
        channels_last = any(list(node.attribute[0].ints)[-3:] == [3, 1, 2] for node in turned if node.attribute)
        ledger.find("layout", "nhwc" if channels_last else "nchw", "assumed")
        return channels_last
    if first == last == 3:
        ledger.ask("how its input lies (--layout nchw|nhwc)")
        return False
    raise ModelError(
        f"The input `{value.name}` of {foreign.path} is {described(value)}, and pictures have three colours."
    )


def _size(
    foreign: Foreign, fixed: tuple[int | None, int | None], ledger: Ledger
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Sizes, height first, that the graph computes at, and of the picture in it."""
    told = None if ledger.told.size is None else ledger.told.size[::-1]
    if told is None:
        if fixed[0] is None or fixed[1] is None:
            ledger.ask("the size it is to run at (--size WIDTHxHEIGHT)")
            return None
        ledger.find("size", f"{fixed[1]}×{fixed[0]}", "graph")
        return (fixed[0], fixed[1]), (fixed[0], fixed[1])
    whole = (fixed[0] or told[0], fixed[1] or told[1])
    if told[0] > whole[0] or told[1] > whole[1]:
        raise UsageError(
            f"{foreign.path} computes at {whole[1]}×{whole[0]}, and a picture of {told[1]}×{told[0]} is larger; "
            "give that size, or a smaller one, which is padded."
        )
    padding = "" if told == whole else f" in {whole[1]}×{whole[0]}, the rest filled with {ledger.told.fill:g}"
    ledger.find("size", f"{told[1]}×{told[0]}{padding}", "told")
    return whole, told


def _scaling(
    foreign: Foreign, value: onnx.ValueInfoProto, kind: str, ledger: Ledger
) -> tuple[float, Three, Three] | None:
    told = ledger.told
    own = _own_scaling(foreign.model.graph, value.name)
    if told.pixels is not None and (told.mean or told.std or told.scale is not None):
        raise UsageError("Give --pixels, or --mean, --std and --scale, and not both.")
    if told.pixels is not None:
        ledger.find("pixels", _in_words(*SCALING[told.pixels]), "told")
        return SCALING[told.pixels]
    if told.mean is not None or told.std is not None or told.scale is not None:
        mean, std = _three(told.mean or (0.0,), "--mean"), _three(told.std or (1.0,), "--std")
        if 0 in std:
            raise UsageError("A deviation of 0 (--std) divides by nothing; give numbers above 0.")
        # Means above 2 can only be of pixels from 0 to 255.
        scale = told.scale if told.scale is not None else (1.0 if max(mean) > 2 or max(std) > 2 else 1 / 255)
        ledger.find("pixels", _in_words(scale, mean, std), "told" if told.scale is not None else "convention")
        return scale, mean, std
    if kind in {"uint8", "int32", "int64"}:
        ledger.find("pixels", f"0 to 255, as its input is {kind}", "graph")
        return SCALING["bytes"]
    if own is not None:
        ledger.find("pixels", f"0 to {255 if own == 'bytes' else 1}: its graph scales by itself", "graph")
        return SCALING["bytes" if own == "bytes" else "unit"]
    if "stride" in foreign.notes and "names" in foreign.notes:
        ledger.find("pixels", "0 to 1, as Ultralytics exports want them", "convention")
        return SCALING["unit"]
    ledger.ask("how it wants pixels (--pixels imagenet|unit|signed|bytes, or --mean, --std and --scale)")
    return None


def _own_scaling(graph: onnx.GraphProto, name: str) -> str | None:
    """`bytes` or `unit` where the graph begins by scaling its input, by what it takes off and divides by."""
    from onnx import numpy_helper

    constants = {weight.name: weight for weight in graph.initializer}
    constants |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant" and n.attribute}
    found = []
    for _ in range(12):
        readers = [node for node in graph.node if name in node.input and node.op_type != "Shape"]
        if len(readers) != 1:
            break
        (node,) = readers
        if node.op_type in {"Add", "Sub", "Mul", "Div"} and len(node.input) == 2:
            other = constants.get(next((each for each in node.input if each != name), ""))
            if other is None:
                break
            found.append((node.op_type, float(np.abs(numpy_helper.to_array(other)).max(initial=0))))
        elif node.op_type == "BatchNormalization":
            mean = constants.get(node.input[3])
            found.append(("Sub", 0.0 if mean is None else float(np.abs(numpy_helper.to_array(mean)).max(initial=0))))
        elif node.op_type not in {
            "Cast",
            "Identity",
            "Transpose",
            "Squeeze",
            "Unsqueeze",
            "Gather",
            "Slice",
            "Reshape",
        }:
            break
        name = node.output[0]
    if not found:
        return None
    of_bytes = any(
        (kind in {"Add", "Sub", "Div"} and value > 2) or (kind == "Mul" and value < 0.1) for kind, value in found
    )
    return "bytes" if of_bytes else "unit"


def _three(numbers: tuple[float, ...], option: str) -> Three:
    if len(numbers) not in {1, 3}:
        raise UsageError(f"{option} takes one number or three, and not {len(numbers)}.")
    first, *others = numbers
    return (first, *others) if len(others) == 2 else (first, first, first)  # type: ignore[return-value]


def _in_words(scale: float, mean: Three, std: Three) -> str:
    factor = f"1/{1 / scale:g}" if 0 < scale < 1 else f"{scale:g}"
    taken = "" if not any(mean) else f" − ({', '.join(f'{value:g}' for value in mean)})"
    divided = "" if set(std) == {1} else f", divided by ({', '.join(f'{value:g}' for value in std)})"
    return f"pixel · {factor}{taken}{divided}"
