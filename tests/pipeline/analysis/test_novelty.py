"""Novelty of a stream's pictures: about once a second, by the models that can tell; in analyses and in the metric."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

import pipeline
from engines.engine import Prediction
from engines.novelty.distance import Distance, figures, fit
from engines.novelty.familiar import Familiar, write_beside
from engines.spec import ModelSpec, figure_names
from pipeline.analysis.novelty import NoveltyWatch
from pipeline.config import Config, ModelConfig
from pipeline.metrics import Metrics
from pipeline.runtime.counter import FrameCounter
from tests.engines.tiny_models import HEIGHT, SEGMENTER, WIDTH, bits_of
from tests.footage import write_clip
from tests.pipeline.fake_analysis import analysis

IDS = [info.id for info in SEGMENTER.classes]


def patches(seed: int, low: int = 0, high: int = 256) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8 RGB: smooth patches of colours from `low` to `high`."""
    few = np.random.default_rng(seed).integers(low, high, (3, 6, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(few, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)


def told(picture: np.ndarray) -> Prediction:
    return Prediction(class_map=bits_of(picture), confidence=picture[..., 0])


def of_patches() -> Familiar:
    """What is familiar to the tiny model: patches of all colours."""
    answers = [told(patches(seed)) for seed in range(200)]
    rows = [figures(a.class_map, a.confidence, IDS) for a in answers if a.class_map is not None]
    return fit(np.array(rows), figure_names(SEGMENTER), "patches")


FAMILIAR = of_patches()
SPEC: ModelSpec = msgspec.structs.replace(SEGMENTER, familiar=FAMILIAR)


def test_one_picture_a_second_is_looked_at_and_a_clock_that_jumps_back_holds_up_nothing() -> None:
    watch, answer = NoveltyWatch([SPEC]), {SPEC.name: told(patches(1))}
    times = [0.0, 0.5, 0.96, 1.0, 1.04, 2.1, 3.05, 3.2, 0.0, 0.9, 1.0]
    looked = [time for time in times if watch.look(time, answer)]
    assert looked == [0.0, 1.0, 2.1, 3.2, 0.0, 1.0]


def test_it_is_the_distance_of_what_the_model_said() -> None:
    answer = told(patches(1))
    assert answer.class_map is not None
    expected = Distance(FAMILIAR).of(figures(answer.class_map, answer.confidence, IDS))
    assert NoveltyWatch([SPEC]).look(0.0, {SPEC.name: answer}) == {SPEC.name: expected}
    assert expected < FAMILIAR.limit
    dark = NoveltyWatch([SPEC]).look(0.0, {SPEC.name: told(patches(1, 0, 60))})
    assert dark[SPEC.name] > FAMILIAR.limit


def test_nothing_is_said_by_a_model_that_cannot_tell_or_has_not_looked() -> None:
    answer = told(patches(1))
    assert NoveltyWatch([SEGMENTER]).look(0.0, {SEGMENTER.name: answer}) == {}
    watch = NoveltyWatch([SPEC])
    assert watch.look(0.0, {}) == watch.look(0.0, {"another": answer}) == {}
    assert set(watch.look(0.1, {SPEC.name: answer})) == {SPEC.name}  # the first one that is looked at


@pytest.mark.parametrize("every", [1, 5])
def test_a_run_tells_it_once_a_second_of_what_was_looked_at(tmp_path: Path, segmenter: Path, every: int) -> None:
    model = Path(shutil.copy(segmenter, tmp_path))
    write_beside(model, FAMILIAR)
    pictures = [cv2.resize(patches(k), (64, 32), interpolation=cv2.INTER_NEAREST) for k in range(50)]
    write_clip(tmp_path / "a.mp4", frames=50, fps=20, size=(64, 32), pictures=pictures)
    config = Config(models=(ModelConfig(str(model), device="cpu", every=every),))
    found = {a.frame.index: a.novelty for a in pipeline.analyse(str(tmp_path / "a.mp4"), config=config)}
    assert [index for index, novelty in found.items() if novelty] == [0, 20, 40]
    assert all(0 < found[index]["bits"] < 2 * FAMILIAR.limit for index in (0, 20, 40))


def test_a_run_with_a_model_that_cannot_tell_says_nothing(tmp_path: Path, segmenter: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=5)
    assert not any(a.novelty for a in pipeline.analyse(str(tmp_path / "a.mp4"), model=str(segmenter)))


def test_the_metric_has_the_newest_and_goes_with_the_stream() -> None:
    metrics = Metrics()
    counter = FrameCounter("a", metrics)

    def scraped() -> float | None:
        return metrics.registry.get_sample_value("roadlens_novelty", {"stream": "a", "model": "bits"})

    counter.emitted(analysis(stream="a"))
    assert scraped() is None
    for novelty in (0.8, 2.5):
        counter.emitted(analysis(stream="a", novelty={"bits": novelty}))
        counter.emitted(analysis(stream="a"))
        assert scraped() == novelty
    metrics.forget("a")
    assert scraped() is None
