"""The foreign graph as its own exporter meant it: run by ONNX Runtime, picture by picture."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelError, UsageError
from engines.foreign.opening import Foreign
from engines.foreign.picture import PictureInput, UInt8

if TYPE_CHECKING:
    import onnx

Answers = dict[str, NDArray[Any]]
"""What a graph gives for one picture, by the names of its outputs."""


def require_onnxruntime() -> None:
    """See that ONNX Runtime is there.

    Raises:
        UsageError: it is not.
    """
    if find_spec("onnxruntime") is None:
        raise UsageError("Importing a model needs onnxruntime, not installed here; `pip install '.[import]'`.")


def session_of(model: onnx.ModelProto) -> Any:
    """A graph in ONNX Runtime on the CPU, silent."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True, slots=True)
class Output:
    """An output of the foreign graph, and what it was on the pictures that it was tried on.

    Attributes:
        sizes: as the graph states them, None where open; empty where it states none.
        answers: an array a picture, of a batch of one.
    """

    name: str
    sizes: tuple[int | None, ...]
    answers: tuple[NDArray[Any], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first answer."""
        return self.answers[0].shape

    @property
    def is_float(self) -> bool:
        return self.answers[0].dtype.kind == "f"

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are integers, in whichever type."""
        return all(array.dtype.kind != "f" or bool((array == np.round(array)).all()) for array in self.answers)

    @property
    def values(self) -> NDArray[Any]:
        """All its numbers on all pictures."""
        return np.concatenate([array.ravel() for array in self.answers])


class Original:
    """The original graph.

    Args:
        foreign: the model.
        picture: how it wants its picture.

    Raises:
        ModelError: ONNX Runtime does not take it.
    """

    def __init__(self, foreign: Foreign, picture: PictureInput) -> None:
        self.foreign, self.picture = foreign, picture
        try:
            self._session = session_of(foreign.original)
        except Exception as error:  # noqa: BLE001  # its exceptions have no common class but that
            raise ModelError(
                f"{foreign.path} cannot be checked: ONNX Runtime does not take it ({reason(error)}); "
                "export it with operators of ONNX alone."
            ) from None
        self.names = [output.name for output in self._session.get_outputs()]

    def __call__(self, picture: UInt8) -> Answers:
        """What it says of (inner_height, inner_width, 3) uint8 RGB.

        Raises:
            ModelError: it does not compute at that size.
        """
        inputs = {self.picture.name: self.picture.prepared(picture), **self.picture.others}
        try:
            answers = self._session.run(None, inputs)
        except Exception as error:  # noqa: BLE001
            size = f"{self.picture.width}×{self.picture.height}"
            raise ModelError(
                f"{self.foreign.path} does not compute at {size} ({reason(error)}); give another --size, as a rule "
                "multiples of 32."
            ) from None
        named = zip(self.names, answers, strict=True)
        return {name: array for name, array in named if isinstance(array, np.ndarray)}

    def outputs(self, pictures: list[UInt8]) -> list[Output]:
        """What its outputs are on some pictures."""
        answers = [self(picture) for picture in pictures]
        found = []
        for value in self.foreign.model.graph.output:
            if all(value.name in each for each in answers):
                dims = value.type.tensor_type.shape.dim
                sizes = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)
                found.append(Output(value.name, sizes, tuple(each[value.name] for each in answers)))
        return found


def reason(error: Exception) -> str:
    """ONNX Runtime's reason without the codes before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    for mark in ("Status Message: ", " : "):
        text = text.rpartition(mark)[2] or text
    return text.rstrip(". ")[:200]
