"""Models that do not look at every frame: every frame comes out, what is said of it was seen or carried, and a file is
looked at alike in every run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.analysis.carrying.cadence import FARTHEST, LONGEST, CarryingOptions, Every
from pipeline.frame import Frame
from pipeline.metrics import Metrics
from pipeline.pictures.planes import plane
from pipeline.runtime import LoadedModel, RunResult, Runtime, StreamPlan
from pipeline.runtime.result import StreamCounts
from tests.pipeline.runtime.test_runtime import LONG, Collect, engine
from tests.pipeline.scripted_engine import ScriptedEngine
from tests.pipeline.scripted_source import ScriptedSource, gray_image

RUN = 80


class Drive(ScriptedSource):
    """A white square of the picture that moves on by two pixels a frame; the picture is its negative from `cut` on."""

    def __init__(self, frames: int = RUN, cut: int = -1, **more: object) -> None:
        super().__init__("a", frames, **more)  # type: ignore[arg-type]  # a table of values
        self._cut = cut

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            assert isinstance(frame, Frame)
            frame.image = self._drawn(frame.index)
            yield frame

    def _drawn(self, index: int) -> av.VideoFrame:
        image = gray_image(40, 320, 180)
        left = 2 * index % 240
        plane(image, 0)[60:140, left : left + 80] = 220
        if 0 <= self._cut <= index:
            plane(image, 0)[:] = 255 - plane(image, 0)
        return image


def run(model: ScriptedEngine, every: Every, source: ScriptedSource | None = None, **more: object) -> Collect:
    sink = Collect()
    ran(Runtime([of(source or Drive(), sink)], [LoadedModel(model, every)], **more))
    return sink


def of(source: ScriptedSource, sink: Collect) -> StreamPlan:
    return StreamPlan(source, source.open(), (), [sink])


def ran(runtime: Runtime) -> RunResult:
    runtime.start()
    assert runtime.wait(LONG), f"hangs: {runtime.result().not_stopped}"
    result = runtime.result()
    for stream in result.streams:
        counts = stream.counts
        assert counts.decoded == counts.emitted + sum(counts.dropped.values())
        assert counts.emitted == counts.looked["scripted"] + counts.carried["scripted"]
    return result


def looks(sink: Collect) -> list[int]:
    return [a.frame.index for a in sink.analyses if a.models]


@pytest.mark.parametrize("every", [1, 3, LONGEST, LONGEST + 5, "auto"])
def test_every_frame_comes_out_and_was_looked_at_or_carried_to(every: Every) -> None:
    with engine() as model:
        sink, metrics = Collect(), Metrics()
        result = ran(Runtime([of(Drive(), sink)], [LoadedModel(model, every)], metrics=metrics))
    assert sink.indices == list(range(RUN))
    assert all(bool(a.models) != bool(a.carried_from) for a in sink.analyses)
    counts = result.streams[0].counts
    assert counts.looked["scripted"] == sum(model.batches) == len(looks(sink))
    for name, count in (("inferred", counts.looked), ("carried", counts.carried)):
        value = metrics.registry.get_sample_value(f"roadlens_frames_{name}_total", {"stream": "a", "model": "scripted"})
        assert (value or 0) == count["scripted"]


def test_auto_looks_seldom_at_what_is_easily_carried_and_never_further_apart_than_the_longest() -> None:
    with engine() as model:
        sink = run(model, "auto")
    gaps = np.diff(looks(sink))
    assert len(looks(sink)) < RUN / 3
    assert gaps.max() <= LONGEST


def test_auto_looks_at_every_frame_where_answers_have_nothing_to_do_with_each_other() -> None:
    """The picture is turned into its negative again and again by the engine's own whim."""

    class Wavering(ScriptedEngine):
        def _run(self, images: list[NDArray[np.uint8]]) -> list[object]:
            self.asked = getattr(self, "asked", 0) + 1
            return super()._run([255 - image if self.asked % 2 else image for image in images])

    model = Wavering()
    sink = run(model, "auto")
    model.close()
    assert looks(sink) == list(range(RUN))


@pytest.mark.parametrize("every", ["auto", 4])
def test_what_is_carried_is_where_the_picture_went(every: Every) -> None:
    with engine(size=(128, 128)) as model:
        sink, all_seen = run(model, every), run(model, 1)
        stale = run(model, every, carrying=CarryingOptions(by="repeat")) if every == 4 else None
    wrong = sum(int((a.class_map != b.class_map).sum()) for a, b in zip(sink.analyses, all_seen.analyses, strict=True))
    pixels = RUN * 128 * 128
    assert wrong / pixels < 0.01
    if stale is not None:
        late = sum(
            int((a.class_map != b.class_map).sum()) for a, b in zip(stale.analyses, all_seen.analyses, strict=True)
        )
        assert wrong < late / 2


def test_a_cut_is_looked_at_at_once() -> None:
    with engine() as model:
        sink = run(model, "auto", Drive(cut=41))
    assert 41 in looks(sink)
    assert all(a.carried_from.get("scripted", 0) < 41 for a in sink.analyses[:41])
    assert all(a.carried_from.get("scripted", 41) >= 41 for a in sink.analyses[41:])


def test_a_file_is_looked_at_alike_in_every_run() -> None:
    """However long the network takes: the decoder waits for what decides."""
    slow = threading.Event()

    def dawdle(_images: Sequence[NDArray[np.uint8]]) -> None:
        slow.wait(0.002)

    with engine() as quick, engine(before=dawdle) as late:
        first, second = run(quick, "auto"), run(late, "auto")
    assert looks(first) == looks(second)


def test_a_live_stream_waits_for_nothing_and_looks_instead_at_the_frame_that_came_for_another() -> None:
    with engine() as model:
        sink = Collect()
        result = ran(Runtime([of(Drive(400, mode="live"), sink)], [LoadedModel(model, 3)]))
    assert result.streams[0].reason == "complete"
    carried = [(a.frame.index, a.carried_from["scripted"]) for a in sink.analyses if not a.models]
    assert all(source < index for index, source in carried)


def overloaded(frames: int, cut: int = -1) -> tuple[Collect, StreamCounts, float | None]:
    """A camera that gives all of its pictures while the engine has the first one."""
    asked, gate, sink, metrics = threading.Event(), threading.Event(), Collect(), Metrics()

    def hold(_images: Sequence[NDArray[np.uint8]]) -> None:
        asked.set()
        gate.wait(LONG)

    def pace(index: int) -> None:
        if index == 1:
            assert asked.wait(LONG)

    class Camera(Drive):
        def __iter__(self) -> Iterator[Frame]:
            yield from super().__iter__()
            gate.set()

    with engine(in_flight=1, before=hold) as model:
        source = Camera(frames, cut, mode="live", before=pace)
        result = ran(Runtime([of(source, sink)], [LoadedModel(model, "auto")], metrics=metrics))
    value = metrics.registry.get_sample_value("roadlens_looks_put_off_total", {"stream": "a"})
    return sink, result.streams[0].counts, value


def test_of_a_camera_a_look_is_put_off_and_no_frame_lost_where_the_engine_does_not_keep_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink, counts, counted = overloaded(LONGEST + 2)
    assert sink.indices == list(range(LONGEST + 2))
    assert looks(sink) == [0, LONGEST + 1], "the newest is looked at"
    assert all(a.carried_from == {"scripted": 0} for a in sink.analyses[1:-1])
    assert not counts.dropped
    assert counts.put_off == counted == LONGEST
    assert sum("do not keep up" in record.message for record in caplog.records) == 1


def test_no_look_is_carried_too_far_and_what_is_behind_is_dropped_and_counted() -> None:
    sink, counts, _ = overloaded(60)
    assert looks(sink) == [0, 59]
    assert all(a.frame.index <= FARTHEST for a in sink.analyses[:-1])
    assert len(sink.indices) > LONGEST
    assert set(counts.dropped) == {("slot", "superseded")}


def test_nothing_is_carried_over_a_cut_however_busy_the_engine_is() -> None:
    sink, counts, _ = overloaded(12, cut=5)
    assert sink.indices == [0, 1, 2, 3, 4, 11]
    assert looks(sink) == [0, 11]
    assert counts.dropped == {("slot", "superseded"): 6}


def test_pictures_that_have_nothing_to_do_with_each_other_are_all_looked_at() -> None:
    with engine() as model:
        source, sink = Drive(), Collect()
        info = source.open()
        info.moving = False
        ran(Runtime([StreamPlan(source, info, (), [sink])], [LoadedModel(model, "auto")]))
    assert looks(sink) == list(range(RUN))


def test_a_failing_engine_ends_the_stream_and_all_frames_are_counted() -> None:
    asked = 0

    def fails(_images: Sequence[NDArray[np.uint8]]) -> None:
        nonlocal asked
        asked += 1
        if asked == 9:
            raise RuntimeError("no more")

    with engine(before=fails) as model:
        result = ran(Runtime([of(Drive(), Collect())], [LoadedModel(model, "auto")]))
    assert result.streams[0].reason == "failed"


def test_a_run_is_stopped_while_the_decoder_waits_for_what_decides() -> None:
    gate, asked = threading.Event(), threading.Event()

    def held(_images: Sequence[NDArray[np.uint8]]) -> None:
        asked.set()
        gate.wait(LONG)

    with engine(before=held) as model:
        sink = Collect()
        runtime = Runtime([of(Drive(), sink)], [LoadedModel(model, "auto")])
        runtime.start()
        assert asked.wait(LONG)
        runtime.stop()
        gate.set()
        assert runtime.wait(LONG), f"hangs: {runtime.result().not_stopped}"
        counts = runtime.result().streams[0].counts
    assert counts.decoded == counts.emitted + sum(counts.dropped.values())
    assert sink.indices == list(range(counts.emitted))
