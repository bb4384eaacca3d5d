"""Tiny models as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.engines.tiny_models import (
    CONV,
    HEIGHT,
    LOCALIZER,
    SEGMENTER,
    WIDTH,
    bits_model,
    conv_model,
    corners_model,
    save,
)


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    return save(bits_model(), SEGMENTER, tmp_path / "bits.onnx")


@pytest.fixture
def localizer(tmp_path: Path) -> Path:
    return save(corners_model(), LOCALIZER, tmp_path / "corners.onnx")


@pytest.fixture
def conv(tmp_path: Path) -> Path:
    return save(conv_model(), CONV, tmp_path / "conv.onnx")


@pytest.fixture
def pictures() -> Callable[[int], list[NDArray[np.uint8]]]:
    """A function that makes so many random pictures of the tiny models' size."""
    rng = np.random.default_rng(7)
    return lambda count: list(rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8))
