"""fp32 model files → half-precision ones, checked against fp32 before they are written.

What is checked is the very graph, operator by operator in its own types on the CPU (PyTorch); fp32 is OpenVINO's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.engine import Engine, Prediction
from engines.errors import CheckFailed, SourceError, UsageError
from engines.graphs.lowered import Half, lowered
from engines.openvino import OpenVINOEngine
from engines.spec import read_spec
from engines.squash import squash
from engines.tools.quantize import require_place, write_model

UInt8 = NDArray[np.uint8]

MIN_AGREEMENT = 0.995
MAX_BOX_ERROR = 0.01
"""The most by which a box's edge, as a fraction of the frame, or a score may differ."""


class Conversion(msgspec.Struct, frozen=True):
    """What came out.

    `agreement` is the share of pixels on which fp32 and half precision give the same class (None for a localizer);
    `box_error` the most by which an edge or a score differs (None for a segmenter).
    """

    output: str
    precision: str
    frames: int
    agreement: float | None
    box_error: float | None
    bytes_before: int
    bytes_after: int


def convert(
    path: Path, precision: Half, frames: Iterable[UInt8], output: Path, *, min_agreement: float = MIN_AGREEMENT,
    count: int = 16,
) -> Conversion:  # fmt: skip
    """Write a half-precision file of an fp32 one, with its spec; its figures are not taken over.

    Args:
        path: the fp32 ONNX file.
        precision: `fp16` or `bf16`.
        frames: pictures to check with, (h, w, 3) uint8 RGB of any size, from where the model will run.
        output: the file to write.
        min_agreement: share of pixels, 0 to 1, that must agree with fp32.
        count: most frames to check with.

    Raises:
        UsageError: PyTorch is not installed.
        ModelError: the file is no model of the house, or cannot be had in that precision.
        SourceError: there are no frames.
        CheckFailed: the half-precision graph does not say what fp32 says; nothing is written.
        OutputError: the file cannot be written.
    """
    if find_spec("torch") is None:
        raise UsageError("Checking a conversion needs PyTorch, not installed here; `pip install '.[gpu]'`.")
    import onnx

    from engines.pytorch.engine import TorchEngine

    model = lowered(path, precision)
    require_place(output)  # before minutes of computing
    spec = read_spec(path)
    pictures = [squash(frame, spec.height, spec.width) for frame in islice(frames, count)]
    if not pictures:
        raise SourceError("There are no frames to check with; give footage or a folder of images.")
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / "half.onnx"
        onnx.save(model, half)
        with OpenVINOEngine(path, precision="fp32", max_batch=1) as engine:
            expected = _predictions(engine, pictures)
        with TorchEngine(half, device="cpu", precision=precision, max_batch=1) as engine:
            found = _predictions(engine, pictures)
    agreement = box_error = None
    if "class_map" in spec.outputs:
        agreement = float((_class_maps(expected) == _class_maps(found)).mean())
        if not agreement >= min_agreement:
            raise CheckFailed(
                f"{precision} of {path} agrees with fp32 on {agreement:.2%} of {len(pictures)} frames' pixels, wanted "
                f"are {min_agreement:.2%}; nothing was written: take {_other(precision)}, or ask for less."
            )
    else:
        box_error = max(_box_error(one, other) for one, other in zip(expected, found, strict=True))
        if not box_error <= MAX_BOX_ERROR:
            raise CheckFailed(
                f"{precision} of {path} moves boxes or scores of {len(pictures)} frames by up to {box_error:.3g} "
                f"against fp32, allowed are {MAX_BOX_ERROR:g}; nothing was written: take {_other(precision)}."
            )
    write_model(model, output)
    return Conversion(
        output=str(output), precision=precision, frames=len(pictures), agreement=agreement, box_error=box_error,
        bytes_before=path.stat().st_size, bytes_after=output.stat().st_size,
    )  # fmt: skip


def _predictions(engine: Engine, pictures: list[UInt8]) -> list[Prediction]:
    return [engine.submit([picture]).result()[0] for picture in pictures]


def _class_maps(predictions: list[Prediction]) -> UInt8:
    return np.stack([prediction.class_map for prediction in predictions if prediction.class_map is not None])


def _box_error(one: Prediction, other: Prediction) -> float:
    assert one.boxes is not None
    assert other.boxes is not None
    assert one.scores is not None
    assert other.scores is not None
    return float(max(np.abs(one.boxes - other.boxes).max(initial=0), np.abs(one.scores - other.scores).max(initial=0)))


def _other(precision: Half) -> Half:
    return "fp16" if precision == "bf16" else "bf16"
