"""Stages that are shown the frames of a file ahead of their turn."""

from __future__ import annotations

import pytest

from pipeline.frame import Analysis
from pipeline.runtime import LoadedModel, Runtime, StreamPlan
from pipeline.runtime.result import StreamResult
from tests.pipeline.runtime.test_runtime import LONG, Collect, engine
from tests.pipeline.scripted_source import ScriptedSource


class Foreseeing:
    """Remembers in which order it is called."""

    def __init__(self, ahead: int, fails_at: int = -1) -> None:
        self.ahead, self._fails_at = ahead, fails_at
        self.calls: list[tuple[str, int]] = []

    def foresee(self, analysis: Analysis) -> None:
        if analysis.frame.index == self._fails_at:
            raise RuntimeError("it cannot be foreseen")
        self.calls.append(("foresee", analysis.frame.index))

    def remember(self, analysis: Analysis) -> None:
        self.calls.append(("remember", analysis.frame.index))

    def process(self, analysis: Analysis) -> Analysis:
        self.calls.append(("process", analysis.frame.index))
        return analysis


def run(source: ScriptedSource, *stages: Foreseeing, first: int = 0, warm_up: int = 0) -> tuple[StreamResult, Collect]:
    sink = Collect()
    with engine() as model:
        plan = StreamPlan(source, source.open(), stages, [sink], first_frame=first, warm_up=warm_up)
        runtime = Runtime([plan], [LoadedModel(model)])
        runtime.start()
        assert runtime.wait(LONG), f"hangs: {runtime.result().not_stopped}"
    result = runtime.result().streams[0]
    assert result.counts.decoded == result.counts.emitted + sum(result.counts.dropped.values())
    return result, sink


@pytest.mark.parametrize("ahead", [0, 1, 7, 64])
def test_every_frame_is_shown_so_many_frames_before_its_turn(ahead: int) -> None:
    """More of them than frames may be between a batch and the sinks otherwise: nothing waits for ever."""
    stage = Foreseeing(ahead)
    result, sink = run(ScriptedSource("a", 80), stage)
    assert sink.indices == list(range(80))
    assert result.error is None
    assert [index for call, index in stage.calls if call == "process"] == list(range(80))
    shown = -1
    for call, index in stage.calls:
        if call == "foresee":
            assert index == shown + 1
            shown = index
        else:
            assert shown == min(index + ahead, 79)


def test_of_several_stages_all_see_as_far_as_the_farthest() -> None:
    near, far, none = Foreseeing(2), Foreseeing(9), Foreseeing(0)
    _, sink = run(ScriptedSource("a", 20), near, far, none)
    assert sink.indices == list(range(20))
    assert near.calls == far.calls == none.calls


def test_frames_of_a_live_stream_do_not_wait() -> None:
    stage = Foreseeing(30)
    _, sink = run(ScriptedSource("a", 20, mode="live"), stage)
    assert sink.indices
    for index in sink.indices:
        assert stage.calls.index(("process", index)) == stage.calls.index(("foresee", index)) + 1


def test_a_resumed_run_is_shown_what_it_looks_at_again() -> None:
    stage = Foreseeing(3)
    _, sink = run(ScriptedSource("a", 10), stage, first=6, warm_up=4)
    assert sink.indices == [6, 7, 8, 9]
    assert [index for call, index in stage.calls if call == "foresee"] == list(range(2, 10))
    assert [index for call, index in stage.calls if call == "remember"] == list(range(2, 6))


def test_a_stage_that_fails_ahead_ends_its_stream_and_every_frame_is_accounted_for() -> None:
    result, sink = run(ScriptedSource("a", 40), Foreseeing(5, fails_at=20))
    assert "foreseen" in str(result.error)
    assert sink.indices == list(range(len(sink.indices)))
    assert len(sink.indices) <= 15
