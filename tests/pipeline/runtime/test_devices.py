"""Several devices in one run: streams shared among them, and what becomes of those of a device that fails."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from engines.errors import DeviceError, UsageError
from engines.loading import Degraded
from engines.settings import decode
from pipeline.commands.options import MODELS, merged
from pipeline.config import Config, ModelConfig, StreamConfig, check, devices_of
from pipeline.runtime import LoadedModel, RunResult, Runtime, StreamPlan
from pipeline.runtime.placement import Placer
from pipeline.session import Session
from pipeline.session.summary import summary
from tests.engines.tiny_models import SEGMENTER, bits_model, save
from tests.pipeline.runtime.test_runtime import LONG, Collect, _until, engine
from tests.pipeline.scripted_engine import ScriptedEngine
from tests.pipeline.scripted_source import ScriptedSource


@contextmanager
def devices(count: int = 2, every: int = 1, **options: object) -> Iterator[tuple[LoadedModel, list[ScriptedEngine]]]:
    with ExitStack() as stack:
        made = [stack.enter_context(engine(**options)) for _ in range(count)]
        yield LoadedModel(made[0], every, tuple(made[1:])), made


def finished(runtime: Runtime) -> RunResult:
    assert runtime.wait(LONG), f"hangs: {runtime.result().not_stopped}"
    result = runtime.result()
    for stream in result.streams:
        assert stream.counts.decoded == stream.counts.emitted + sum(stream.counts.dropped.values())
    return result


def plans(sources: Sequence[ScriptedSource], sinks: Sequence[Collect]) -> list[StreamPlan]:
    return [StreamPlan(s, s.open(), (), [k]) for s, k in zip(sources, sinks, strict=True)]


def test_streams_are_shared_and_each_device_has_batches_of_its_own() -> None:
    sources = [ScriptedSource(f"s{i}", 30) for i in range(4)]
    sinks = [Collect() for _ in sources]
    with devices() as (model, made):
        runtime = Runtime(plans(sources, sinks), [model])
        runtime.start()
        result = finished(runtime)
        assert [sum(each.batches) for each in made] == [60, 60]
        assert all(max(each.batches) <= 2 for each in made)
    assert [sink.indices for sink in sinks] == [list(range(30))] * 4
    assert [s.reason for s in result.streams] == ["complete"] * 4


def test_a_device_that_hangs_holds_up_its_own_streams_only() -> None:
    gate, sinks = threading.Event(), [Collect(), Collect()]
    with engine(before=lambda _images: gate.wait(LONG)) as slow, engine() as quick:
        runtime = Runtime(
            plans([ScriptedSource("a", 40), ScriptedSource("b", 40)], sinks), [LoadedModel(slow, 1, (quick,))]
        )
        runtime.start()
        _until(lambda: bool(sinks[1].ended))
        assert sinks[1].indices == list(range(40))
        assert not sinks[0].analyses
        gate.set()
        finished(runtime)
    assert sinks[0].indices == list(range(40))


class Breaking:
    """Computes some batches, then fails for ever, as a GPU does that has fallen off the bus."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, _images: object) -> None:
        self.left -= 1
        if self.left < 0:
            raise DeviceError("CUDA failed: an illegal memory access (cudaErrorIllegalAddress).", "cuda")


@pytest.mark.seconds
@pytest.mark.parametrize("after", [0, 1, 7])
@pytest.mark.parametrize("every", [1, 3])
def test_streams_of_a_device_that_fails_go_on_on_the_others_and_lose_nothing(after: int, every: int) -> None:
    told = list[Degraded]()
    sources = [ScriptedSource(f"s{i}", 40) for i in range(4)]
    sinks = [Collect() for _ in sources]
    placer = Placer(["cuda:0", "cuda:1"])
    with engine(before=Breaking(after)) as breaks, engine() as stays:
        runtime = Runtime(
            plans(sources, sinks), [LoadedModel(breaks, every, (stays,))], degraded=told.append, placer=placer
        )
        runtime.start()
        result = finished(runtime)
    assert [sink.indices for sink in sinks] == [list(range(40))] * 4
    assert [s.reason for s in result.streams] == ["complete"] * 4
    assert all(a.class_map is not None for sink in sinks for a in sink.analyses if a.frame.index % every == 0)
    (what,) = told
    assert (what.wanted, what.instead, what.lacking) == ("cuda:0", "cuda:1", "device")
    assert what.sentence.startswith("cuda:0 failed and is done without (CUDA failed: an illegal memory access")
    assert what.sentence.endswith("go on on cuda:1.")
    assert placer.placement.streams.keys() <= {0, 1, 2, 3}
    assert placer.placement.left == [1]


@pytest.mark.parametrize("frames", [20, 1_000_000])
def test_a_run_on_two_devices_lets_go_of_its_outputs_without_the_garbage_collector(frames: int) -> None:
    sinks = [Collect(), Collect()]
    gone = [weakref.ref(sink) for sink in sinks]
    gc.disable()
    try:
        with devices() as (model, _):
            runtime = Runtime(plans([ScriptedSource("a", frames), ScriptedSource("b", frames)], sinks), [model])
            runtime.start()
            if frames > 20:
                _until(lambda: all(sink.analyses for sink in sinks))
                runtime.abort()
            finished(runtime)
        sinks.clear()
        del runtime
        assert [sink() for sink in gone] == [None, None]
    finally:
        gc.enable()


def test_of_three_devices_two_may_fail() -> None:
    sources = [ScriptedSource(f"s{i}", 60) for i in range(6)]
    sinks, told = [Collect() for _ in sources], list[Degraded]()
    with engine(before=Breaking(3)) as one, engine(before=Breaking(9)) as two, engine() as three:
        runtime = Runtime(plans(sources, sinks), [LoadedModel(one, 1, (two, three))], degraded=told.append)
        runtime.start()
        finished(runtime)
    assert [sink.indices for sink in sinks] == [list(range(60))] * 6
    assert len(told) == 2


def test_a_picture_that_no_device_takes_fails_its_own_stream_and_no_device() -> None:
    def before(images: Sequence[np.ndarray]) -> None:
        if images[0].shape and (np.stack(list(images)) > 80).any():
            raise RuntimeError("a picture that cannot be computed")

    dark, bright = ScriptedSource("dark", 20), ScriptedSource("bright", 90)
    sinks, told = [Collect(), Collect()], list[Degraded]()
    with devices(before=before) as (model, _):
        runtime = Runtime(plans([dark, bright], sinks), [model], degraded=told.append)
        runtime.start()
        assert runtime.wait(LONG)
        reasons = {s.stream: s.reason for s in runtime.result().streams}
    assert reasons == {"dark": "complete", "bright": "failed"}
    assert sinks[0].indices == list(range(20))
    assert told == []


@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_without_room_is_computed_one_by_one_and_the_next_are_smaller(count: int) -> None:
    def before(images: Sequence[np.ndarray]) -> None:
        if len(images) > 2:
            raise DeviceError("CUDA failed: out of memory (cudaErrorMemoryAllocation).", "memory")

    sources = [ScriptedSource(f"s{i}", 40) for i in range(8)]
    sinks, told = [Collect() for _ in sources], list[Degraded]()
    with devices(count, before=before) as (model, made):
        runtime = Runtime(plans(sources, sinks), [model], degraded=told.append)
        runtime.start()
        result = finished(runtime)
        assert all(each.batches[-1] <= 2 for each in made)
    assert [sink.indices for sink in sinks] == [list(range(40))] * 8
    assert [s.reason for s in result.streams] == ["complete"] * 8
    assert told
    assert {what.lacking for what in told} == {"memory"}
    assert all(what.instead in {"batch 1", "batch 2", "batch 3", "batch 4"} for what in told)


def test_a_picture_without_room_by_itself_fails_its_stream() -> None:
    def before(_images: object) -> None:
        raise MemoryError

    sink = Collect()
    with engine(before=before) as alone:
        runtime = Runtime(plans([ScriptedSource("a", 3)], [sink]), [LoadedModel(alone)])
        runtime.start()
        assert [s.reason for s in finished(runtime).streams] == ["failed"]


def test_the_last_device_fails_as_a_single_one_does() -> None:
    sinks = [Collect(), Collect()]
    with engine(before=Breaking(4)) as one, engine(before=Breaking(4)) as two:
        runtime = Runtime(
            plans([ScriptedSource("a", 50), ScriptedSource("b", 50)], sinks), [LoadedModel(one, 1, (two,))]
        )
        runtime.start()
        result = finished(runtime)
    assert [s.reason for s in result.streams] == ["failed", "failed"]
    assert all(isinstance(s.error, DeviceError) for s in result.streams)


def test_streams_that_come_and_go_take_and_give_back_their_share() -> None:
    with devices() as (model, _):
        placer = Placer(["cuda:0", "cuda:1"])
        runtime = Runtime([], [model], idle=True, placer=placer)
        runtime.start()
        endless = [ScriptedSource(f"s{i}", 1_000_000) for i in range(3)]
        for source in endless:
            runtime.add(StreamPlan(source, source.open(), (), [Collect()]))
        assert [bound.device for bound in placer.placement.streams.values()] == [0, 1, 0]
        runtime.remove("s0")
        assert [placer.placement.load(device) > 0 for device in (0, 1)] == [True, True]
        late = ScriptedSource("late", 1_000_000)
        runtime.add(StreamPlan(late, late.open(), (), [Collect()]))
        _until(lambda: all(c.emitted > 3 for c in runtime.counts().values()))
        assert len(placer.placement.streams) == 3
        assert set(placer.placement.frame_seconds) == {0, 1}, "each has been measured"
        runtime.stop()
        finished(runtime)


def test_a_session_has_an_engine_on_each_device(tmp_path: Path) -> None:
    model = save(bits_model(), SEGMENTER, tmp_path / "bits.onnx")
    source = "synthetic:?seconds=0.4&width=64&height=48"
    config = Config(
        streams=tuple(StreamConfig(source, f"s{i}") for i in range(3)),
        models=(ModelConfig(str(model), device="cpu,cpu"),),
        jsonl=str(tmp_path / "lines"),
    )
    with Session(config) as session:
        assert [plan.berth.first for plan in session.plans if plan.berth is not None] == [0, 1, 0]
        (loaded,) = session.models
        assert len(loaded.engines) == 2
        result = session.run()
        assert summary(session, result)["models"][0]["device"] == loaded.device
    assert [s.reason for s in result.streams] == ["complete"] * 3
    assert all(s.counts.emitted == s.counts.decoded > 0 for s in result.streams)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:3", "cuda:0,cuda:1", "cpu,cpu"])
def test_devices_that_may_be_given(device: str) -> None:
    config = decode({"models": [{"model": "m", "device": device}]}, Config, "a test")
    check(config, "a test")
    assert devices_of(config) == device.split(",")


@pytest.mark.parametrize("device", ["", "gpu", "auto,cpu", "cuda:0,", "cuda:0;cuda:1", "cuda:x"])
def test_devices_that_may_not(device: str) -> None:
    with pytest.raises(UsageError, match="device"):
        decode({"models": [{"model": "m", "device": device}]}, Config, "a test")


def test_devices_and_precisions_of_the_command_line_are_every_models() -> None:
    both = Config(models=(ModelConfig("a", every=2), ModelConfig("b", device="cuda")))
    found = merged(both, MODELS, {"precision": "fp16", "device": "cuda:0,cuda:1"})
    assert found.models == (
        ModelConfig("a", "fp16", "cuda:0,cuda:1", 2), ModelConfig("b", "fp16", "cuda:0,cuda:1"),
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"--device 'gpu' is no device; give auto, cpu, cuda or cuda:N, or several"):
        merged(both, MODELS, {"device": "gpu"})


def test_models_of_one_stream_are_on_one_device() -> None:
    config = Config(models=(ModelConfig("a", device="cuda:0,cuda:1"), ModelConfig("b", device="cuda:0")))
    with pytest.raises(UsageError, match=r"of several devices \(cuda:0,cuda:1\) a stream's models are all on one"):
        check(config, "a test")
