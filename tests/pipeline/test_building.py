"""What a person and Prometheus see while an engine is built."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import engines
from engines.loading import Building, Degraded
from pipeline.config import Config, ModelConfig, StreamConfig
from pipeline.session import Session
from tests.engines.tiny_models import SEGMENTER, bits_model, save


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A model whose loading tells of a build, as a TensorRT plan's does."""
    real = engines.load

    def load(*arguments: Any, **options: Any) -> engines.Engine:
        for fraction in (0.25, 0.5, 1.0):
            options["observe"](Building("bits", "tensorrt", "Tactics", fraction))
        return real(*arguments, **options)

    monkeypatch.setattr(engines, "load", load)
    model = save(bits_model(), SEGMENTER, tmp_path / "bits.onnx")
    stream = StreamConfig("synthetic:?seconds=0.2&width=64&height=48", "a")
    return Config(streams=(stream,), models=(ModelConfig(str(model)),), jsonl=str(tmp_path / "a.jsonl"))


def test_whoever_shows_it_is_told(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    told: list[Building | Degraded] = []
    with caplog.at_level(logging.INFO), Session(config, building=told.append) as session:
        ready = {"model": "bits", "state": "ready"}
        assert session.metrics.registry.get_sample_value("roadlens_engine_state", ready) == 1
    assert [what.fraction for what in told if isinstance(what, Building)] == [0.25, 0.5, 1.0]
    assert not [record for record in caplog.records if "% built" in record.message]


def test_else_it_is_logged_by_tenths(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Session(config):
        pass
    lines = [record.message for record in caplog.records if "% built" in record.message]
    assert lines == [f"bits: {percent} % built (Tactics)" for percent in (20, 50, 100)]
