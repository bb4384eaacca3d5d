from __future__ import annotations

import threading
from pathlib import Path

import pytest

import pipeline
from engines.errors import ModelError, SourceError
from pipeline.config import Config, ModelConfig
from pipeline.frame import Analysis
from tests.footage import write_clip


def test_every_frame_is_yielded_in_order(drive: Path, segmenter: Path) -> None:
    analyses = list(pipeline.analyse(str(drive), model=str(segmenter)))
    assert [a.frame.index for a in analyses] == list(range(60))
    assert all(a.class_map is not None and a.class_map.shape == (16, 32) for a in analyses)


def test_leaving_the_loop_stops_the_run(drive: Path, segmenter: Path) -> None:
    before = threading.active_count()
    for analysis in pipeline.analyse(str(drive), model=str(segmenter)):
        if analysis.frame.index == 3:
            break
    deadline = [t for t in threading.enumerate() if t.name.split()[0] in ("decode", "emit", "batch")]
    for thread in deadline:
        thread.join(10)
    assert threading.active_count() <= before + 1


def test_several_sources_are_interleaved(tmp_path: Path, segmenter: Path) -> None:
    for name in "ab":
        write_clip(tmp_path / f"{name}.mp4", frames=15)
    seen = [
        a.frame.stream for a in pipeline.analyse(str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), model=str(segmenter))
    ]
    assert sorted(seen) == ["a"] * 15 + ["b"] * 15


def test_own_stage_and_sink(drive: Path, segmenter: Path) -> None:
    class CountCars:
        def process(self, analysis: Analysis) -> Analysis:
            analysis.area["seen"] = 1.0
            return analysis

    class Remember:
        def __init__(self) -> None:
            self.indices: list[int] = []

        def consume(self, analysis: Analysis) -> None:
            self.indices.append(analysis.frame.index)

    sink = Remember()
    config = Config(models=(ModelConfig(str(segmenter)),))
    analyses = list(pipeline.analyse(str(drive), config=config, stages=[CountCars()], sinks=[sink]))
    assert all(a.area["seen"] == 1.0 for a in analyses)
    assert sink.indices == list(range(60))


def test_mistakes_are_raised_as_the_houses_errors(drive: Path, segmenter: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        next(iter(pipeline.analyse("no-such.mp4", model=str(segmenter))))
    with pytest.raises(ModelError):
        next(iter(pipeline.analyse(str(drive), model="no-such-model")))


def test_an_error_in_ones_own_code_reaches_the_caller(drive: Path, segmenter: Path) -> None:
    class Breaks:
        def process(self, analysis: Analysis) -> Analysis:
            if analysis.frame.index == 5:
                raise ZeroDivisionError("mine")
            return analysis

    analyses = pipeline.analyse(str(drive), model=str(segmenter), stages=[Breaks()])
    assert [next(analyses).frame.index for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError, match="mine"):
        next(analyses)
