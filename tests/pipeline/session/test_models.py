"""How many pictures an engine is to take at once."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import engines
from pipeline.config import Config, ModelConfig
from pipeline.metrics import Metrics
from pipeline.session.degradations import Degradations
from pipeline.session.models import load_models
from tests.engines.tiny_models import SEGMENTER, bits_model, save


@pytest.mark.parametrize(
    ("streams", "batches"), [(1, (1, 1)), (5, (5, 5)), (20, (8, 20)), (120, (8, 32)), (None, (8, 32))]
)
def test_a_batch_has_a_picture_of_each_stream_as_far_as_it_pays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streams: int | None, batches: tuple[int, int]
) -> None:
    asked, real = list[tuple[int, int]](), engines.load

    def load(*arguments: Any, **options: Any) -> Any:
        asked.append((options["max_batch"], options["gpu_batch"]))
        return real(*arguments, **options)

    monkeypatch.setattr(engines, "load", load)
    model = ModelConfig(str(save(bits_model(), SEGMENTER, tmp_path / "bits.onnx")), device="cpu")
    with ExitStack() as stack:
        metrics = Metrics()
        (loaded,) = load_models(
            Config(models=(model,)), "latency", streams, metrics, Degradations(metrics), lambda _what: None, stack
        )
        assert loaded.engine.max_batch == batches[0]
    assert asked == [batches]
