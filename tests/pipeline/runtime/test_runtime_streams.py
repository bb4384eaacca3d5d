"""Streams that come, rest and go while others run."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from engines.errors import OutputError, SourceError, UsageError
from pipeline.contracts import AudioPacket
from pipeline.frame import Analysis, Frame
from pipeline.metrics import Metrics
from pipeline.runtime import LoadedModel, Runtime, StreamPlan, StreamResult
from pipeline.runtime import runtime as runtime_module
from pipeline.state import SourceState, StateChange
from tests.pipeline.runtime.test_runtime import LONG, Collect, _until, engine
from tests.pipeline.scripted_engine import ScriptedEngine
from tests.pipeline.scripted_source import ScriptedSource

ENDLESS = 1_000_000


def plan(source: ScriptedSource, *sinks: Collect) -> StreamPlan:
    return StreamPlan(source, source.open(), (), list(sinks))


def paced(_index: int) -> None:
    time.sleep(0.001)


def adds_up(result: StreamResult) -> bool:
    counts = result.counts
    return counts.decoded == counts.emitted + sum(counts.dropped.values())


@pytest.fixture
def model() -> Iterator[ScriptedEngine]:
    with engine() as made:
        yield made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not stop is given up after 0.3 s rather than 3."""
    monkeypatch.setattr(runtime_module, "STOP_SECONDS", runtime_module.REMOVE_SECONDS + 0.3)


def test_an_idle_runtime_waits_for_streams_and_ends_when_it_is_stopped(model: ScriptedEngine) -> None:
    runtime, sink = Runtime([], [LoadedModel(model)], idle=True), Collect()
    runtime.start()
    assert not runtime.wait(0.05)
    runtime.add(plan(ScriptedSource("a", 10), sink))
    _until(lambda: bool(sink.ended))
    assert sink.indices == list(range(10))
    assert not runtime.wait(0.05), "it waits for the next one"
    runtime.stop()
    assert runtime.wait(LONG)
    assert [(s.stream, s.reason) for s in runtime.result().streams] == [("a", "complete")]


def test_a_stream_that_is_added_runs_beside_the_others(model: ScriptedEngine) -> None:
    first, second = Collect(), Collect()
    runtime = Runtime([plan(ScriptedSource("a", 300, before=paced), first)], [LoadedModel(model)])
    runtime.start()
    _until(lambda: len(first.analyses) > 3)
    runtime.add(plan(ScriptedSource("b", 20), second))
    assert runtime.wait(LONG)
    assert first.indices == list(range(300))
    assert second.indices == list(range(20))
    assert {s.stream: s.reason for s in runtime.result().streams} == {"a": "complete", "b": "complete"}


def test_a_stream_that_is_removed_is_finished_and_stays_in_the_accounts(model: ScriptedEngine) -> None:
    stays, goes = Collect(), Collect()
    going = ScriptedSource("goes", ENDLESS, before=paced)
    runtime = Runtime(
        [plan(ScriptedSource("stays", 200, before=paced), stays), plan(going, goes)], [LoadedModel(model)]
    )
    runtime.start()
    _until(lambda: len(goes.analyses) > 3)
    result = runtime.remove("goes")
    assert (result.reason, result.error) == ("stopped", None)
    assert result.counts.decoded == result.counts.emitted == len(goes.analyses)
    assert goes.finished == 1
    assert goes.ended == [("goes", "stopped", 0)]
    assert going.closed == 1
    assert list(runtime.counts()) == ["stays"]
    assert runtime.wait(LONG)
    assert stays.indices == list(range(200))
    over = runtime.result()
    assert {s.stream: s.counts.emitted for s in over.streams} == {"stays": 200}
    assert (over.removed.decoded, over.removed.emitted) == (len(goes.analyses), len(goes.analyses))
    assert over.stages["fuse"].calls == 200 + len(goes.analyses)
    assert over.not_stopped == []


def test_an_id_is_free_again_once_its_stream_is_removed(model: ScriptedEngine) -> None:
    runtime = Runtime([], [LoadedModel(model)], idle=True)
    runtime.start()
    sinks = [Collect(), Collect()]
    for sink in sinks:
        runtime.add(plan(ScriptedSource("a", ENDLESS, before=paced), sink))
        with pytest.raises(UsageError, match="'a' is in use"):
            runtime.add(plan(ScriptedSource("a"), Collect()))
        _until(lambda sink=sink: len(sink.analyses) > 2)
        runtime.remove("a")
    assert all(sink.indices == list(range(len(sink.indices))) for sink in sinks)
    assert runtime.result().removed.emitted == sum(len(sink.analyses) for sink in sinks)
    runtime.close()


@pytest.mark.parametrize("act", ["remove", "pause", "resume"])
def test_a_stream_that_is_not_there_is_named(model: ScriptedEngine, act: str) -> None:
    runtime = Runtime([plan(ScriptedSource("a"), Collect())], [LoadedModel(model)])
    with pytest.raises(UsageError, match="no stream 'b'; the streams are: a"):
        getattr(runtime, act)("b")


def test_nothing_is_added_to_a_run_that_stops(model: ScriptedEngine) -> None:
    runtime = Runtime([], [LoadedModel(model)], idle=True)
    runtime.start()
    runtime.stop()
    with pytest.raises(UsageError, match="is being stopped"):
        runtime.add(plan(ScriptedSource("a"), Collect()))
    assert runtime.wait(LONG)


def test_a_paused_stream_rests_and_the_others_go_on(model: ScriptedEngine) -> None:
    rests, other, said = Collect(), Collect(), []
    runtime = Runtime([plan(ScriptedSource("rests", ENDLESS), rests)], [LoadedModel(model)], observe=said.append)
    runtime.start()
    _until(lambda: len(rests.analyses) > 3)
    runtime.pause("rests")
    _until(lambda: said[-1].state is SourceState.PAUSED)
    counts = runtime.counts()["rests"]
    _until(lambda: counts.decoded == counts.emitted)
    before = counts.emitted
    runtime.add(plan(ScriptedSource("other", 50), other))
    _until(lambda: len(other.analyses) == 50)
    assert runtime.counts()["rests"].emitted == before
    runtime.resume("rests")
    _until(lambda: len(rests.analyses) > before + 3)
    runtime.remove("rests")
    assert rests.indices == list(range(len(rests.indices))), "a file goes on where it rested"
    runtime.close()


@pytest.mark.parametrize("paused", [False, True])
def test_a_paused_stream_can_be_removed_and_stopped(model: ScriptedEngine, paused: bool) -> None:
    sinks = [Collect(), Collect()]
    plans = [plan(ScriptedSource(f"s{i}", ENDLESS, before=paced), s) for i, s in enumerate(sinks)]
    runtime = Runtime(plans, [LoadedModel(model)])
    runtime.start()
    _until(lambda: all(len(s.analyses) > 1 for s in sinks))
    for name in ("s0", "s1") if paused else ():
        runtime.pause(name)
    assert runtime.remove("s0").reason == "stopped"
    runtime.stop()
    assert runtime.wait(LONG)
    assert all(s.finished == 1 for s in sinks)
    assert all(map(adds_up, runtime.result().streams))


@pytest.mark.usefixtures("hasty")
def test_a_reader_that_never_returns_is_abandoned_and_the_counts_still_add_up(model: ScriptedEngine) -> None:
    gate, other = threading.Event(), Collect()

    def stuck(index: int) -> None:
        if index == 5:
            gate.wait(LONG)

    sink = Collect()
    runtime = Runtime([plan(ScriptedSource("stuck", 9, before=stuck), sink)], [LoadedModel(model)], idle=True)
    runtime.start()
    _until(lambda: len(sink.analyses) == 5)
    result = runtime.remove("stuck", timeout=0.05)
    assert sink.ended == [("stuck", "stopped", 0)]
    assert "decode stuck" in runtime.result().not_stopped
    runtime.add(plan(ScriptedSource("stuck", 5), other))
    _until(lambda: len(other.analyses) == 5)
    gate.set()
    _until(lambda: not runtime.result().not_stopped or "decode stuck" not in runtime.result().not_stopped)
    assert adds_up(result)
    assert result.counts.decoded == 6, "the frame that came after all is counted, and dropped"
    runtime.close()


@pytest.mark.usefixtures("hasty")
def test_an_output_that_never_returns_does_not_hold_up_the_removal_for_ever(model: ScriptedEngine) -> None:
    gate, reached = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        reached.set()
        gate.wait(LONG)

    sink, other = Collect(hold), Collect()
    runtime = Runtime([plan(ScriptedSource("held", ENDLESS), sink)], [LoadedModel(model)], idle=True)
    runtime.start()
    assert reached.wait(LONG)
    runtime.add(plan(ScriptedSource("other", 50), other))
    result = runtime.remove("held", timeout=0.05)
    _until(lambda: len(other.analyses) == 50)
    gate.set()
    _until(lambda: adds_up(result) and not any("held" in name for name in runtime.result().not_stopped))
    assert sink.finished == 0
    runtime.close()


class WaitingSource(ScriptedSource):
    """Live: yields what `offer` puts in, waits otherwise, and counts what it is told."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, ENDLESS, "live")
        self.told: list[str] = []
        self._wake = threading.Event()

    def stop(self) -> None:
        self.told.append("stop")
        self._wake.set()

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def __iter__(self) -> Iterator[Frame | AudioPacket]:
        self._wake.wait(LONG)
        return iter(())


def test_a_source_that_waits_is_told_to_stop_to_rest_and_to_go_on(model: ScriptedEngine) -> None:
    sources = [WaitingSource("a"), WaitingSource("b")]
    said: list[StateChange] = []
    runtime = Runtime([plan(s, Collect()) for s in sources], [LoadedModel(model)], observe=said.append)
    runtime.start()
    runtime.pause("a")
    runtime.resume("a")
    assert runtime.remove("a").reason == "stopped"
    assert sources[0].told == ["pause", "resume", "stop"]
    runtime.stop()
    assert runtime.wait(LONG)
    assert sources[1].told[0] == "stop"
    assert said == [], "it says its states itself"


def test_states_of_a_file_are_said(model: ScriptedEngine) -> None:
    def breaks(index: int) -> None:
        if index == 3:
            raise SourceError("rtsp://user:secret@host/ was pulled")

    said: list[StateChange] = []
    plans = [plan(ScriptedSource("good", 5), Collect()), plan(ScriptedSource("bad", 5, before=breaks), Collect())]
    runtime = Runtime(plans, [LoadedModel(model)], observe=said.append)
    runtime.start()
    assert runtime.wait(LONG)
    states = {name: [(c.state.value, c.reason) for c in said if c.stream == name] for name in ("good", "bad")}
    assert states["good"] == [("streaming", ""), ("ended", "")]
    assert states["bad"] == [("streaming", ""), ("failed", "rtsp://host/ was pulled")]


def _operate(
    runtime: Runtime, seed: int, sinks: dict[str, list[Collect]], removed: list[StreamResult], until: float
) -> None:
    """Add, remove, pause and resume streams at random, of ids of its own."""
    chance = random.Random(seed)
    mine = [f"{seed}-{i}" for i in range(3)]
    while time.monotonic() < until:
        name, act = chance.choice(mine), chance.choice(["add", "add", "remove", "pause", "resume"])
        try:
            if act == "add":
                sink = Collect(_breaks_sometimes(chance))
                mode = chance.choice(["file", "live"])
                frames = chance.choice([0, 1, 7, ENDLESS])
                runtime.add(plan(ScriptedSource(name, frames, mode, paced), sink))
                sinks.setdefault(name, []).append(sink)
            elif act == "remove":
                removed.append(runtime.remove(name))
            else:
                getattr(runtime, act)(name)
        except UsageError:
            continue  # there already, or not there


def _breaks_sometimes(chance: random.Random) -> Callable[[object], None]:
    last = chance.choice([2, 50, ENDLESS, ENDLESS])

    def before(analysis: object) -> None:
        if analysis.frame.index >= last:
            raise OutputError("the disk is full")

    return before


@pytest.mark.seconds
@pytest.mark.parametrize("how", ["stop", "abort"])
def test_frames_in_are_frames_out_and_dropped_whatever_comes_and_goes(how: str) -> None:
    steady, sinks, removed = Collect(), {}, []
    with engine(max_batch=4) as model:
        runtime = Runtime(
            [plan(ScriptedSource("steady", ENDLESS, before=paced), steady)], [LoadedModel(model)], idle=True
        )
        runtime.start()
        until = time.monotonic() + 1.5
        operators = [
            threading.Thread(target=_operate, args=(runtime, seed, sinks, removed, until)) for seed in range(3)
        ]
        for thread in operators:
            thread.start()
        for thread in operators:
            thread.join(LONG)
            assert not thread.is_alive()
        getattr(runtime, how)()
        assert runtime.wait(LONG), runtime.result().not_stopped
        result = runtime.result()
    every = [*removed, *result.streams]
    assert all(map(adds_up, every)), [s for s in every if not adds_up(s)]
    assert result.removed.decoded == sum(s.counts.decoded for s in removed)
    assert result.not_stopped == []
    assert steady.indices == list(range(len(steady.indices))), "nobody else noticed"
    assert len(steady.indices) > 10
    for name, ran in sinks.items():
        of_name = [s for s in every if s.stream == name]
        assert len(of_name) == len(ran)
        assert sum(s.counts.emitted for s in of_name) == sum(len(sink.analyses) for sink in ran)
        assert all(len(sink.ended) == 1 for sink in ran)
        assert all(sink.indices == sorted(set(sink.indices)) for sink in ran)


def test_a_stream_may_be_removed_before_the_start(model: ScriptedEngine) -> None:
    source, sink = ScriptedSource("b", 5), Collect()
    runtime = Runtime([plan(ScriptedSource("a"), Collect()), plan(source, sink)], [LoadedModel(model)])
    runtime.remove("b")
    runtime.start()
    assert runtime.wait(LONG)
    assert sink.analyses == []
    assert source.closed == 1


@pytest.mark.usefixtures("hasty")
def test_what_comes_back_after_its_stream_was_removed_reaches_nobody_and_closes_what_it_held(
    model: ScriptedEngine,
) -> None:
    gate, reached, closed = threading.Event(), threading.Event(), threading.Event()

    def hold(_: object) -> None:
        reached.set()
        gate.wait(LONG)

    metrics, holds, behind, new = Metrics(), Collect(hold), Collect(), Collect()
    runtime = Runtime([], [LoadedModel(model)], metrics=metrics, idle=True)
    runtime.start()
    runtime.add(plan(ScriptedSource("a", ENDLESS), holds, behind))
    assert reached.wait(LONG)
    result = runtime.remove("a", timeout=0.05, over=closed.set)
    assert result.not_stopped == ["emit a"]
    assert not closed.is_set(), "an output that is in use is not closed under its thread"
    metrics.forget("a")
    runtime.add(plan(ScriptedSource("a", 3), new))
    _until(lambda: bool(new.ended))
    emitted = metrics.registry.get_sample_value("roadlens_frames_emitted_total", {"stream": "a"})
    gate.set()
    assert closed.wait(LONG)
    _until(lambda: not any("emit a" in name for name in runtime.result().not_stopped))
    assert adds_up(result)
    assert behind.analyses == [], "the next output takes nothing of a stream that has been forgotten"
    assert holds.ended == [], "which would be the end of the new stream of this name"
    assert metrics.registry.get_sample_value("roadlens_frames_emitted_total", {"stream": "a"}) == emitted == 3
    assert metrics.registry.get_sample_value(
        "roadlens_frames_dropped_total", {"stream": "a", "stage": "emit", "reason": "stopped"}
    ) in (None, 0)
    runtime.close()


def test_what_a_stream_held_is_closed_before_its_removal_returns(model: ScriptedEngine) -> None:
    closed: list[bool] = []
    runtime = Runtime([plan(ScriptedSource("a", ENDLESS, before=paced), Collect())], [LoadedModel(model)], idle=True)
    runtime.start()
    runtime.remove("a", over=lambda: closed.append(True))
    assert closed == [True]
    runtime.close()


def test_a_stream_that_has_failed_streams_no_more(model: ScriptedEngine) -> None:
    said: list[StateChange] = []
    failed = threading.Event()

    def observe(change: StateChange) -> None:
        said.append(change)
        if change.state is SourceState.FAILED:
            failed.set()

    def breaks(_: object) -> None:
        raise OutputError("the disk is full")

    def waits(index: int) -> None:
        if index == 1:
            failed.wait(LONG)

    source = ScriptedSource("a", 5, before=waits)
    runtime = Runtime([plan(source, Collect(breaks))], [LoadedModel(model)], observe=observe)
    runtime.start()
    assert runtime.wait(LONG)
    assert [c.state.value for c in said] == ["streaming", "failed"]


class Inside:
    """A stage that sees how many streams are in it at a time; where `meet` is given, each waits for another one."""

    def __init__(self, *, takes_turns: bool, meet: threading.Barrier | None = None) -> None:
        self.takes_turns, self.meet = takes_turns, meet
        self.inside, self.most = 0, 0
        self._lock = threading.Lock()

    def process(self, analysis: Analysis) -> Analysis:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        if self.meet is None:
            time.sleep(0.002)
        else:
            self.meet.wait(LONG)
        with self._lock:
            self.inside -= 1
        return analysis


def test_a_stage_that_takes_turns_has_half_as_many_streams_in_it_as_there_are_cores(
    model: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "usable_cores", lambda: 4)
    stage, sources = Inside(takes_turns=True), [ScriptedSource(name, 20) for name in "abcdef"]
    runtime = Runtime([StreamPlan(s, s.open(), [stage], [Collect()]) for s in sources], [LoadedModel(model)])
    runtime.start()
    assert runtime.wait(LONG)
    assert stage.most == 2


def test_a_stage_of_ones_own_that_waits_holds_up_its_own_stream_only(
    model: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "usable_cores", lambda: 1)
    stage = Inside(takes_turns=False, meet=threading.Barrier(3))
    sinks, sources = [Collect() for _ in range(3)], [ScriptedSource(name, 5) for name in "abc"]
    plans = [StreamPlan(s, s.open(), [stage], [sink]) for s, sink in zip(sources, sinks, strict=True)]
    runtime = Runtime(plans, [LoadedModel(model)])
    runtime.start()
    assert runtime.wait(LONG)
    assert [sink.indices for sink in sinks] == [list(range(5))] * 3
