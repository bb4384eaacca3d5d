"""The benchmark measures what it says it measures; how fast anything is, no test asserts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import ModelError, UsageError
from engines.tools.benchmark import OnnxRuntime, benchmark
from tests.engines.tiny_models import LOCALIZER, SEGMENTER, bits_of


def test_every_side_at_every_batch_size(segmenter: Path) -> None:
    result = benchmark(segmenter, ["fp32"], [1, 3], against="onnxruntime", seconds=0.1, threads=1)
    assert [(row.side, row.batch) for row in result.rows] == [
        ("onnxruntime fp32", 1),
        ("openvino fp32", 1),
        ("onnxruntime fp32", 3),
        ("openvino fp32", 3),
    ]
    for row in result.rows:
        assert 0 < row.latency_ms <= row.latency_p95_ms
        assert row.throughput > 0
        assert row.cpu_ms > 0
    for start in (0, 2):
        first, second = result.rows[start : start + 2]
        assert first.speedup == 1.0
        assert second.speedup == pytest.approx(second.throughput / first.throughput)
    assert {"openvino", "onnxruntime", "python"} <= set(result.versions)
    assert (result.model, result.threads, result.in_flight) == ("bits", 1, 2)


def test_all_precisions_there_are_and_given_frames(segmenter: Path) -> None:
    frame = np.zeros((50, 70, 3), np.uint8)
    sides = [row.side for row in benchmark(segmenter, frames=[frame], seconds=0.05).rows]
    assert sides[0] == "openvino fp32"
    assert "openvino int8" not in sides


def test_the_rival_gives_the_same_answers(
    segmenter: Path, localizer: Path, pictures: Callable[[int], list[NDArray[np.uint8]]]
) -> None:
    images = pictures(3)
    with closing(OnnxRuntime(segmenter, SEGMENTER, in_flight=2, threads=None)) as rival:
        for image, prediction in zip(images, rival.submit(images).result(), strict=True):
            np.testing.assert_array_equal(prediction.class_map, bits_of(image))
    with closing(OnnxRuntime(localizer, LOCALIZER, in_flight=1, threads=1)) as rival:
        assert [p.boxes.shape for p in rival.submit(images).result() if p.boxes is not None] == [(2, 4)] * 3


def test_what_cannot_be_measured(segmenter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no precision `fp4`"):
        benchmark(segmenter, ["fp4"], seconds=0.1)  # type: ignore[list-item]  # as the command line passes it
    monkeypatch.setattr("engines.tools.benchmark.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="onnxruntime is not installed here"):
        benchmark(segmenter, against="onnxruntime")
