"""Half-precision files, checked before they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from engines.errors import CheckFailed, SourceError
from engines.spec import read_spec
from engines.tools.convert import convert
from tests.engines.commands.test_models import run
from tests.engines.graphs.test_lowered import smooth_pictures


@pytest.mark.slow
@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_converting_checks_and_writes(conv: Path, tmp_path: Path, half: Any) -> None:
    pytest.importorskip("torch")
    target = tmp_path / "out" / "half.onnx"
    result = convert(conv, half, smooth_pictures(4), target, min_agreement=0.98)
    assert (result.frames, result.precision, result.box_error) == (4, half, None)
    assert result.agreement is not None
    assert result.agreement >= 0.98
    assert result.bytes_after < result.bytes_before
    assert read_spec(target).precision == half
    with pytest.raises(CheckFailed, match=r"agrees with fp32 on .* nothing was written: take"):
        convert(conv, half, smooth_pictures(4), tmp_path / "none.onnx", min_agreement=1.1)
    assert not (tmp_path / "none.onnx").exists()
    with pytest.raises(SourceError, match="no frames to check with"):
        convert(conv, half, [], tmp_path / "none.onnx")


@pytest.mark.slow
def test_the_command_converts(conv: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    images = tmp_path / "images"
    images.mkdir()
    for number, picture in enumerate(smooth_pictures(3)):
        cv2.imwrite(str(images / f"{number}.png"), picture)
    target = tmp_path / "conv.fp16.onnx"
    printed = run("convert", conv, "--frames", images, "--precision", "fp16", "-o", target, "--json")
    assert json.loads(printed)["frames"] == 3
    assert read_spec(target).precision == "fp16"
