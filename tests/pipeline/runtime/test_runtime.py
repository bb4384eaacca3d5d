from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import pytest

from engines.engine import Prediction
from engines.errors import OutputError, SourceError
from pipeline.contracts import AudioPacket
from pipeline.frame import Analysis
from pipeline.metrics import Metrics
from pipeline.runtime import LoadedModel, RunResult, Runtime, StreamPlan
from pipeline.runtime.stream import CREDITS, FILE_BURST, FILE_SLOT
from pipeline.sources.clips import ClipSource
from tests.footage import write_clip
from tests.pipeline.scripted_engine import ScriptedEngine
from tests.pipeline.scripted_source import ScriptedSource

LONG = 20.0
"""Seconds that nothing here takes; only a hang does."""


class Collect:
    """A sink that remembers, and does what the test wants before it does."""

    def __init__(self, before: Callable[[Analysis], None] = lambda _analysis: None) -> None:
        self.analyses: list[Analysis] = []
        self.finished = 0
        self.ended: list[tuple[str, str, int | None]] = []
        self._before = before

    def consume(self, analysis: Analysis) -> None:
        self._before(analysis)
        self.analyses.append(analysis)

    def finish(self) -> None:
        self.finished += 1

    def end(self, stream: str, reason: str = "complete", dropped: int | None = None) -> None:
        self.ended.append((stream, reason, dropped))

    @property
    def indices(self) -> list[int]:
        return [a.frame.index for a in self.analyses]


@contextmanager
def engine(**options: object) -> Iterator[ScriptedEngine]:
    made = ScriptedEngine(**options)
    yield made
    made.close()


def run(
    sources: Sequence[ScriptedSource], sinks: Sequence[Collect], model: ScriptedEngine, **options: object
) -> RunResult:
    plans = [StreamPlan(s, s.open(), (), [k]) for s, k in zip(sources, sinks, strict=True)]
    runtime = Runtime(plans, [LoadedModel(model)], **options)
    runtime.start()
    assert runtime.wait(LONG), f"hangs: {runtime.result().not_stopped}"
    result = runtime.result()
    for stream in result.streams:
        counts = stream.counts
        assert counts.decoded == counts.emitted + sum(counts.dropped.values())
    return result


@pytest.mark.parametrize("metrics", [None, Metrics()])
def test_a_run_that_is_over_lets_go_of_its_outputs_without_the_garbage_collector(metrics: Metrics | None) -> None:
    sink = Collect()
    gone = weakref.ref(sink)
    gc.disable()
    try:
        with engine() as model:
            run([ScriptedSource("s", 3)], [sink], model, metrics=metrics)
        del sink
        assert gone() is None, "an encoder would keep its threads and memory"
    finally:
        gc.enable()


@pytest.mark.parametrize("frames", [0, 1, 2, 57])
@pytest.mark.parametrize("streams", [1, 3])
def test_every_frame_of_every_file_comes_out_once_and_in_order(frames: int, streams: int) -> None:
    sources = [ScriptedSource(f"s{i}", frames) for i in range(streams)]
    sinks = [Collect() for _ in sources]
    with engine() as model:
        result = run(sources, sinks, model)
    for source, sink in zip(sources, sinks, strict=True):
        assert sink.indices == list(range(frames))
        assert sink.finished == 1
        assert sink.ended == [(source.id, "complete", 0)]
        assert source.closed >= 1
    assert [s.reason for s in result.streams] == ["complete"] * streams
    assert all(not s.counts.dropped for s in result.streams)


def test_frames_of_several_streams_share_batches() -> None:
    gate = threading.Event()
    sources = [ScriptedSource(f"s{i}", 30) for i in range(4)]
    sinks = [Collect() for _ in sources]

    def hold(_images: object) -> None:
        gate.wait(LONG)

    with engine(in_flight=1, before=hold) as model:
        plans = [StreamPlan(s, s.open(), (), [k]) for s, k in zip(sources, sinks, strict=True)]
        runtime = Runtime(plans, [LoadedModel(model)])
        runtime.start()
        _until(lambda: all(c.decoded >= FILE_SLOT for c in runtime.counts().values()))
        gate.set()
        assert runtime.wait(LONG)
        assert max(model.batches) == 4
        assert sum(model.batches) == 120


def test_a_slow_output_holds_up_its_own_stream_only() -> None:
    gate = threading.Event()
    slow, fast = Collect(lambda _analysis: gate.wait(LONG)), Collect()
    with engine() as model:
        plans = [
            StreamPlan(source, source.open(), (), [sink])
            for source, sink in ((ScriptedSource("slow", 50), slow), (ScriptedSource("fast", 50), fast))
        ]
        runtime = Runtime(plans, [LoadedModel(model)])
        runtime.start()
        _until(lambda: len(fast.analyses) == 50)
        assert len(slow.analyses) == 0
        # One more may be waiting to be put into the full slot.
        assert runtime.counts()["slow"].decoded <= FILE_SLOT + CREDITS + 2 * FILE_BURST + 1
        gate.set()
        assert runtime.wait(LONG)
    assert slow.indices == list(range(50))


def test_no_stream_starves_when_the_engine_is_the_bottleneck() -> None:
    seen: list[str] = []
    sinks = [Collect(lambda a: seen.append(a.frame.stream)) for _ in range(5)]
    with engine(max_batch=2, in_flight=1, before=lambda _images: time.sleep(0.001)) as model:
        run([ScriptedSource(f"s{i}", 40) for i in range(5)], sinks, model)
    half = seen[: len(seen) // 2]
    assert all(half.count(f"s{i}") >= 0.5 * len(half) / 5 for i in range(5))


def test_a_live_stream_drops_old_frames_and_counts_them() -> None:
    gate = threading.Event()
    decoded = threading.Event()

    def pace(index: int) -> None:
        if index == 40:
            decoded.set()

    def hold(_images: object) -> None:
        gate.wait(LONG)

    source, sink, metrics = ScriptedSource("cam", 41, "live", pace), Collect(), Metrics()
    with engine(in_flight=1, before=hold) as model:
        runtime = Runtime([StreamPlan(source, source.open(), (), [sink])], [LoadedModel(model)], metrics=metrics)
        runtime.start()
        assert decoded.wait(LONG), "a live source must never be held up"
        gate.set()
        assert runtime.wait(LONG)
        counts = runtime.result().streams[0].counts
    assert sink.indices == sorted(sink.indices)
    assert sink.indices[-1] == 40, "the newest frame wins"
    assert counts.decoded == 41
    assert counts.emitted == len(sink.indices) < 41
    assert counts.dropped == {("slot", "superseded"): 41 - counts.emitted}
    assert sum(a.dropped_since_last for a in sink.analyses) == 41 - counts.emitted
    assert sink.ended == [("cam", "complete", 41 - counts.emitted)]
    scraped = metrics.registry.get_sample_value(
        "roadlens_frames_dropped_total", {"stream": "cam", "stage": "slot", "reason": "superseded"}
    )
    assert scraped == 41 - counts.emitted


@pytest.mark.seconds
def test_frames_that_would_be_too_old_are_not_looked_at_and_come_again_once_the_engine_is_quick() -> None:
    quick, out = threading.Event(), threading.Event()

    def slow(_images: object) -> None:
        if not quick.wait(0.5):
            passed_over = runtime.result().streams[0].counts.dropped.get(("slot", "old"), 0)
            if passed_over > 5:  # before, some were looked at in vain and said how long that takes
                quick.set()

    source = ScriptedSource("cam", 100_000, "live", lambda _index: time.sleep(0.01))
    sink = Collect(lambda _analysis: out.set())
    with engine(in_flight=1, before=slow) as model:
        info = source.open()
        info.latency_bound = 0.25
        runtime = Runtime([StreamPlan(source, info, (), [sink])], [LoadedModel(model)])
        runtime.start()
        assert out.wait(2 * LONG)
        runtime.stop()
        assert runtime.wait(LONG)
        counts = runtime.result().streams[0].counts
    assert quick.is_set(), "nothing comes out while it is slow"
    assert counts.decoded == counts.emitted + sum(counts.dropped.values())


def test_a_source_that_breaks_ends_its_own_stream_only() -> None:
    def breaks(index: int) -> None:
        if index == 7:
            raise SourceError("cable pulled")

    good, bad = Collect(), Collect()
    with engine() as model:
        result = run([ScriptedSource("good", 30), ScriptedSource("bad", 30, before=breaks)], [good, bad], model)
    assert good.indices == list(range(30))
    assert result.streams[0].reason == "complete"
    assert result.streams[1].reason == "failed"
    assert str(result.streams[1].error) == "cable pulled"
    assert bad.finished == 0, "a failed stream's files are not given their final names"
    assert bad.ended[0][1] == "failed"


def test_a_sink_that_breaks_ends_its_own_stream_only() -> None:
    def full(analysis: Analysis) -> None:
        if analysis.frame.index == 5:
            raise OutputError("no space is left")

    good, bad = Collect(), Collect(full)
    with engine() as model:
        result = run([ScriptedSource("good", 30), ScriptedSource("bad", 300)], [good, bad], model)
    assert good.indices == list(range(30))
    assert bad.indices == [0, 1, 2, 3, 4]
    assert result.streams[1].counts.dropped["emit", "failed"] >= 1
    assert isinstance(result.error, OutputError)


def test_an_engine_that_breaks_ends_the_run_with_its_error() -> None:
    def breaks(_images: object) -> None:
        raise RuntimeError("device lost")

    with engine(before=breaks) as model:
        result = run([ScriptedSource("a", 30), ScriptedSource("b", 30)], [Collect(), Collect()], model)
    assert [str(s.error) for s in result.streams] == ["device lost"] * 2


def test_an_engine_that_refuses_a_batch_ends_the_run() -> None:
    class Refusing(ScriptedEngine):
        def submit(self, images: object) -> object:
            raise ValueError("wrong shape")

    model = Refusing()
    result = run([ScriptedSource("a", 30)], [Collect()], model)
    model.close()
    assert str(result.streams[0].error) == "wrong shape"


@pytest.mark.parametrize("after", [0, 1, 13])
def test_stop_finishes_what_has_been_read(after: int) -> None:
    source = ScriptedSource("a", 10_000)
    with engine() as model:
        runtime: Runtime

        def stop(analysis: Analysis) -> None:
            if analysis.frame.index == after:
                runtime.stop()

        sink = Collect(stop)
        runtime = Runtime([StreamPlan(source, source.open(), (), [sink])], [LoadedModel(model)])
        runtime.start()
        assert runtime.wait(LONG)
        result = runtime.result().streams[0]
    assert result.reason == "stopped"
    assert result.counts.decoded == result.counts.emitted
    assert sink.indices == list(range(result.counts.emitted))
    assert after < result.counts.emitted < after + 50
    assert sink.finished == 1
    assert sink.ended == [("a", "stopped", 0)]


@pytest.mark.parametrize("where", ["source", "engine", "sink"])
def test_abort_drops_and_counts_what_is_under_way(where: str) -> None:
    gate, reached = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        reached.set()
        gate.wait(LONG)

    def hold_at_9(index: int) -> None:
        if index == 9:
            hold()

    source = ScriptedSource("a", 200, before=hold_at_9 if where == "source" else lambda _index: None)
    sink = Collect(hold if where == "sink" else lambda _analysis: None)
    with engine(before=hold if where == "engine" else lambda _images: None) as model:
        runtime = Runtime([StreamPlan(source, source.open(), (), [sink])], [LoadedModel(model)])
        runtime.start()
        assert reached.wait(LONG)
        runtime.abort()
        gate.set()
        assert runtime.wait(LONG)
        counts = runtime.result().streams[0].counts
    assert counts.decoded == counts.emitted + sum(counts.dropped.values())
    assert sink.finished == 0


def test_a_reader_that_never_returns_is_named_and_does_not_hold_up_the_stop() -> None:
    gate = threading.Event()
    source, sink = ScriptedSource("stuck", 5, before=lambda i: gate.wait(LONG) if i == 2 else None), Collect()
    with engine() as model:
        runtime = Runtime([StreamPlan(source, source.open(), (), [sink])], [LoadedModel(model)])
        runtime.start()
        _until(lambda: len(sink.analyses) == 2)
        runtime.abort()
        assert not runtime.wait(0.2)
        assert "decode stuck" in runtime.result().not_stopped
        gate.set()
        assert runtime.wait(LONG)


def test_a_model_looks_at_every_nth_frame_and_the_class_map_is_held() -> None:
    source, sink = ScriptedSource("a", 10), Collect()
    with engine() as model:
        runtime = Runtime([StreamPlan(source, source.open(), (), [sink])], [LoadedModel(model, every=3)])
        runtime.start()
        assert runtime.wait(LONG)
    assert [bool(a.models) for a in sink.analyses] == [i % 3 == 0 for i in range(10)]
    assert all(a.class_map is not None for a in sink.analyses)
    assert sum(model.batches) == 4


def test_own_stages_run_in_order_between_fusing_and_the_sinks() -> None:
    class Tag:
        def __init__(self, name: str) -> None:
            self.name = name

        def process(self, analysis: Analysis) -> Analysis:
            analysis.area[self.name] = float(len(analysis.area))
            return analysis

    source, sink = ScriptedSource("a", 3), Collect()
    with engine() as model:
        stages = [Tag("first"), Tag("second")]
        runtime = Runtime([StreamPlan(source, source.open(), stages, [sink])], [LoadedModel(model)])
        runtime.start()
        assert runtime.wait(LONG)
    assert [list(a.area)[-2:] for a in sink.analyses] == [["first", "second"]] * 3
    assert [runtime.result().stages[name].calls for name in ("first", "second")] == [3, 3]


def test_a_resumed_stream_skips_the_frames_it_has() -> None:
    source, sink = ScriptedSource("a", 10), Collect()
    with engine() as model:
        runtime = Runtime([StreamPlan(source, source.open(), (), [sink], first_frame=6)], [LoadedModel(model)])
        runtime.start()
        assert runtime.wait(LONG)
    assert sink.indices == [6, 7, 8, 9]
    assert runtime.result().streams[0].counts.decoded == 4


@pytest.mark.seconds
@pytest.mark.parametrize("warm_up", [0, 3])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_resumed_stream_has_all_of_its_sound(tmp_path: Path, threads: int, warm_up: int) -> None:
    """Sound comes ahead of the pictures, the more so where the decoder works at several: what belongs behind the last
    frame skipped has been read by then."""

    class Sound(Collect):
        def __init__(self) -> None:
            super().__init__()
            self.times: list[Fraction] = []

        def consume_audio(self, item: AudioPacket) -> None:
            assert item.packet.pts is not None
            self.times.append(item.packet.pts * item.packet.time_base)

    def run(first: int) -> list[Fraction]:
        source, sink = ClipSource("a", [tmp_path / "a.mp4"], threads), Sound()
        with engine() as model:
            plan = StreamPlan(source, source.open(), (), [sink], first_frame=first, warm_up=warm_up if first else 0)
            runtime = Runtime([plan], [LoadedModel(model)])
            runtime.start()
            assert runtime.wait(LONG)
        assert sink.indices[0] == first
        return sink.times

    write_clip(tmp_path / "a.mp4", frames=60, size=(160, 90), audio=True, bframes=2)
    wanted = [time for time in run(0) if time >= 1]
    assert [time for time in run(25) if time >= 1] == wanted


@pytest.mark.parametrize("warm_up", [0, 2, 4, 6, 9])
def test_frames_looked_at_again_are_neither_given_out_nor_counted(warm_up: int) -> None:
    class Count:
        calls = 0

        def __init__(self) -> None:
            self.remembered: list[int] = []

        def process(self, analysis: Analysis) -> Analysis:
            self.calls += 1
            return analysis

        def remember(self, analysis: Analysis) -> None:
            self.remembered.append(analysis.frame.index)

    source, sink, stage = ScriptedSource("a", 10), Collect(), Count()
    with engine() as model:
        plan = StreamPlan(source, source.open(), [stage], [sink], first_frame=6, warm_up=warm_up)
        runtime = Runtime([plan], [LoadedModel(model)])
        runtime.start()
        assert runtime.wait(LONG)
        assert sum(model.batches) == 4 + min(warm_up, 6)
    assert sink.indices == [6, 7, 8, 9]
    assert [analysis.dropped_since_last for analysis in sink.analyses] == [0] * 4
    counts = runtime.result().streams[0].counts
    assert (counts.decoded, counts.emitted, counts.dropped, stage.calls) == (4, 4, {}, 4)
    assert stage.remembered == list(range(max(6 - warm_up, 0), 6))


def test_that_a_stream_was_stopped_is_said_before_its_outputs_are_finished() -> None:
    said: list[str] = []

    class Finishing(Collect):
        def finish(self) -> None:
            said.append("finished")

    source, sink = ScriptedSource("a", 1_000_000), Finishing()
    with engine() as model:
        plan = StreamPlan(source, source.open(), (), [sink], stopped=lambda frames: said.append(f"stopped at {frames}"))
        runtime = Runtime([plan], [LoadedModel(model)])
        runtime.start()
        _until(lambda: len(sink.analyses) > 2)
        runtime.stop()
        assert runtime.wait(LONG)
    assert said == [f"stopped at {len(sink.analyses)}", "finished"]
    said.clear()
    source = ScriptedSource("a", 3)
    with engine() as model:
        plan = StreamPlan(source, source.open(), (), [Finishing()], stopped=lambda frames: said.append(f"at {frames}"))
        runtime = Runtime([plan], [LoadedModel(model)])
        runtime.start()
        assert runtime.wait(LONG)
    assert said == ["finished"]


@pytest.mark.parametrize("fails_at", [3, 5, 7])
def test_a_run_that_fails_while_it_looks_again_adds_up(fails_at: int) -> None:
    def before(index: int) -> None:
        if index == fails_at:
            raise RuntimeError("cut off")

    source, sink = ScriptedSource("a", 10, before=before), Collect()
    with engine() as model:
        plan = StreamPlan(source, source.open(), (), [sink], first_frame=6, warm_up=6)
        runtime = Runtime([plan], [LoadedModel(model)])
        runtime.start()
        assert runtime.wait(LONG)
    counts = runtime.result().streams[0].counts
    assert counts.decoded == max(0, fails_at - 6) == counts.emitted + sum(counts.dropped.values())


def test_every_stage_is_timed_and_age_grows_from_decoding() -> None:
    source, sink = ScriptedSource("a", 5), Collect()
    with engine() as model:
        result = run([source], [sink], model)
    assert {"decode", "resize", "submit", "fuse", "Collect"} <= set(result.stages)
    assert result.stages["fuse"].calls == 5
    assert all(t.wall >= 0 and t.cpu >= 0 for t in result.stages.values())
    assert all(a.age > 0 for a in sink.analyses)
    assert all({"decode", "resize", "engine", "fuse"} <= set(a.timings) for a in sink.analyses)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def test_a_source_that_cannot_be_closed_fails_and_ends_its_stream() -> None:
    class Stuck(ScriptedSource):
        def close(self) -> None:
            raise OSError("the share is gone")

    sinks = [Collect(), Collect()]
    with engine() as model:
        result = run([Stuck("bad", 5), ScriptedSource("good", 5)], sinks, model)
    assert [s.reason for s in result.streams] == ["failed", "complete"]
    assert [sink.ended[0][1] for sink in sinks] == ["failed", "complete"]
    assert str(result.error) == "the share is gone"


def test_a_stream_that_failed_while_the_run_was_stopped_has_failed() -> None:
    failed, stopped = threading.Event(), threading.Event()

    def breaks(_: Analysis) -> None:
        failed.set()
        raise OutputError("the disk is full")

    def waits(index: int) -> None:
        if index == 2:
            stopped.wait(LONG)

    source, sink = ScriptedSource("a", 50, before=waits), Collect(breaks)
    with engine() as model:
        runtime = Runtime([StreamPlan(source, source.open(), (), [sink])], [LoadedModel(model)])
        runtime.start()
        assert failed.wait(LONG)
        _until(lambda: runtime.progress()["a"].error is not None)
        runtime.stop()
        stopped.set()
        assert runtime.wait(LONG)
    assert runtime.result().streams[0].reason == "failed"
    assert [reason for _, reason, _ in sink.ended] == ["failed"]


def test_an_output_that_cannot_end_does_not_keep_the_others_from_ending() -> None:
    class Stubborn(Collect):
        def end(self, stream: str, reason: str = "complete", dropped: int | None = None) -> None:
            raise OutputError("the disk is full")

    stubborn, other, source = Stubborn(), Collect(), ScriptedSource("a", 5)
    with engine() as model:
        runtime = Runtime([StreamPlan(source, source.open(), (), [stubborn, other])], [LoadedModel(model)])
        runtime.start()
        assert runtime.wait(LONG)
    assert [stream for stream, _, _ in other.ended] == ["a"]
    assert str(runtime.result().error) == "the disk is full"


def test_a_batch_that_its_engine_takes_back_fails_its_stream_and_holds_up_nobody() -> None:
    class TakesBack(ScriptedEngine):
        def submit(self, images: Sequence[object]) -> Future[list[Prediction]]:
            future: Future[list[Prediction]] = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    model, sink = TakesBack(), Collect()
    result = run([ScriptedSource("a", 5)], [sink], model)
    assert result.streams[0].reason == "failed"
    assert len(sink.ended) == 1
    model.close()
