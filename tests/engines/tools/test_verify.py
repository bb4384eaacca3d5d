"""Comparing precisions: figures that can be worked out by hand, and bounds that hold."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from engines.errors import CheckFailed, ModelError, SourceError
from engines.tools.verify import ClassAgreement, Verification, check, verify
from tests.engines.tiny_models import HEIGHT, SEGMENTER, WIDTH, bits_model, save


@pytest.fixture
def colour_blind(segmenter: Path) -> Path:
    """Beside `bits.onnx` its "quantised" twin, which does not see blue: class 4 + x comes out as x."""
    model = bits_model()
    weight = next(w for w in model.graph.initializer if w.name == "powers")
    weight.CopyFrom(numpy_helper.from_array(np.array([1, 2, 0], np.float32), "powers"))
    return save(model, msgspec.structs.replace(SEGMENTER, precision="int8"), segmenter.with_suffix(".int8.onnx"))


def half_blue() -> NDArray[np.uint8]:
    """Left half black (class 0), right half blue (class 4)."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:, WIDTH // 2 :, 2] = 255
    return picture


def test_fp32_agrees_with_itself(segmenter: Path) -> None:
    result = verify(segmenter, "fp32", [half_blue()] * 3)
    assert (result.frames, result.agreement, result.mean_iou) == (3, 1.0, 1.0)
    assert result.miou_drop is result.fp32_mean_iou is None
    check(result, min_agreement=1.0)


@pytest.mark.parametrize("by_path", [False, True])
def test_disagreement_is_counted(segmenter: Path, colour_blind: Path, by_path: bool) -> None:
    model = colour_blind if by_path else segmenter
    result = verify(model, "int8", [half_blue(), np.zeros((100, 50, 3), np.uint8)])
    # Of 4 half pictures, fp32 says 0 on three and 4 on one; int8 says 0 on all: IoU 3/4 and 0.
    assert result.agreement == 0.75
    assert result.mean_iou == pytest.approx((0.75 + 0) / 2)
    assert result.classes[0] == ClassAgreement("class 0", 0.75, 0.75)
    assert result.classes[4] == ClassAgreement("class 4", 0.25, 0.0)
    assert result.classes[1].iou is None
    assert (result.model, result.precision, result.frames) == ("bits", "int8", 2)
    with pytest.raises(CheckFailed, match=re.escape("agrees with fp32 on 75.00% of 2 frames' pixels")) as raised:
        check(result, min_agreement=0.76)
    assert "they differ most on class 4 (IoU 0.000)" in str(raised.value)
    check(result, min_agreement=0.75)


def test_both_are_measured_against_the_truth(segmenter: Path, colour_blind: Path) -> None:
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    truth[:, WIDTH // 2 :] = 4
    truth[:, -4:] = 255  # of the 16 columns that are class 4, 12 count
    result = verify(segmenter, "int8", labelled=[(half_blue(), truth)])
    assert result.fp32_mean_iou == 1.0
    # int8 says 0 everywhere: 16 columns right of 28 that count, and nothing of class 4.
    assert result.precision_mean_iou == pytest.approx((16 / 28 + 0) / 2)
    assert result.miou_drop == pytest.approx(100 * (1 - 8 / 28))
    assert result.classes[0].share == pytest.approx(16 / 28)
    assert result.classes[0].precision_iou == pytest.approx(16 / 28)
    assert result.classes[0].fp32_iou == 1.0
    with pytest.raises(CheckFailed, match=r"71\.43 points below fp32 on 1 labelled pictures, allowed are 1\.00"):
        check(result, max_miou_drop=1.0)
    check(result, max_miou_drop=71.5)


def test_labels_of_another_size_are_compared_at_theirs(segmenter: Path) -> None:
    truth = np.zeros((4 * HEIGHT, 2 * WIDTH), np.uint8)
    truth[:, WIDTH:] = 4
    picture = half_blue().repeat(2, axis=0).repeat(2, axis=1)
    assert verify(segmenter, "fp32", labelled=[(picture, truth)]).fp32_mean_iou == 1.0


def test_a_gain_passes_every_bound() -> None:
    result = Verification(
        model="m", precision="bf16", device="d", frames=1, agreement=0.99, mean_iou=0.9,
        fp32_mean_iou=0.4, precision_mean_iou=0.41, miou_drop=-1.0, classes=(),
    )  # fmt: skip
    check(result, max_miou_drop=0.0)


def test_the_count_is_limited(segmenter: Path) -> None:
    assert verify(segmenter, "auto", (half_blue() for _ in range(50)), limit=7).frames == 7


def test_what_cannot_be_verified(segmenter: Path, localizer: Path, colour_blind: Path) -> None:
    with pytest.raises(SourceError, match="no picture"):
        verify(segmenter, "fp32", [])
    with pytest.raises(ModelError, match="corners is for localization; verify compares class maps"):
        verify(localizer, "fp32", [half_blue()])
    with pytest.raises(ValueError, match="either"):
        verify(segmenter, "fp32")
    segmenter.unlink()
    with pytest.raises(ModelError, match=r"is verified against .*bits\.onnx, which is missing"):
        verify(colour_blind, "int8", [half_blue()])


def test_twins_of_another_size_are_refused(segmenter: Path) -> None:
    model = bits_model()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2 * HEIGHT
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_value = 2 * HEIGHT
    onnx.checker.check_model(model)
    spec = msgspec.structs.replace(SEGMENTER, precision="int8", height=2 * HEIGHT)
    save(model, spec, segmenter.with_suffix(".int8.onnx"))
    with pytest.raises(ModelError, match="take pictures of other sizes"):
        verify(segmenter, "int8", [half_blue()])
