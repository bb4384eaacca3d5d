"""Stage times add up, by stage and over threads, whatever happens inside a stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pipeline.runtime.stageclock import StageClock, StageTime, merged


def script(*times: float) -> Callable[[], float]:
    return iter(times).__next__


def test_wall_and_cpu_time_of_a_stage_are_summed_over_its_calls():
    clock = StageClock(wall=script(1.0, 1.5, 10.0, 10.25), cpu=script(0.0, 0.25, 7.0, 7.125))
    timings: dict[str, float] = {}
    with clock.measure("decode", timings):
        pass
    assert timings == {"decode": 500.0}
    with clock.measure("decode", timings):
        pass
    assert clock.times == {"decode": StageTime(calls=2, wall=0.75, cpu=0.375)}
    assert timings == {"decode": 750.0}


def test_stages_inside_each_other_are_told_apart():
    clock = StageClock(wall=script(0, 1, 3, 7), cpu=script(0, 0, 0, 0))
    with clock.measure("outer"), clock.measure("inner"):
        pass
    assert {stage: t.wall for stage, t in clock.times.items()} == {"outer": 7, "inner": 2}


def test_every_measurement_is_told():
    told: list[tuple[str, float]] = []
    clock = StageClock(lambda stage, seconds: told.append((stage, seconds)), script(0, 2, 5, 6), script(0, 0, 0, 0))
    for stage in ("decode", "encode"):
        with clock.measure(stage):
            pass
    assert told == [("decode", 2), ("encode", 1)]


def test_a_stage_that_fails_is_timed_too_and_its_error_goes_on():
    clock = StageClock(wall=script(0, 2), cpu=script(0, 1))
    with pytest.raises(ZeroDivisionError), clock.measure("fuse"):
        raise ZeroDivisionError
    assert clock.times == {"fuse": StageTime(1, 2, 1)}


def test_clocks_of_several_threads_are_merged_and_left_as_they_are():
    first, second = StageClock(), StageClock()
    first.times = {"decode": StageTime(2, 1.0, 0.5), "encode": StageTime(1, 4.0, 3.0)}
    second.times = {"decode": StageTime(1, 0.5, 0.25)}
    assert merged([first, second]) == {"decode": StageTime(3, 1.5, 0.75), "encode": StageTime(1, 4.0, 3.0)}
    assert first.times["decode"] == StageTime(2, 1.0, 0.5)
    assert merged([]) == {}


def test_cpu_time_is_that_of_the_calling_thread():
    clock, stop = StageClock(), threading.Event()

    def busy() -> None:
        while not stop.is_set():
            sum(range(1000))

    other = threading.Thread(target=busy)
    other.start()
    try:
        with clock.measure("idle"):
            own = time.thread_time()
            end = time.perf_counter() + 0.02
            while time.perf_counter() < end:
                stop.wait(0.005)
            own = time.thread_time() - own
    finally:
        stop.set()
        other.join()
    assert clock.times["idle"].cpu == pytest.approx(own, abs=0.004)


def test_clocks_are_added_up_while_a_thread_meets_a_stage_for_the_first_time() -> None:
    clock = StageClock()

    class Meanwhile(StageTime):
        @property
        def calls(self) -> int:
            clock.times.setdefault("finish", StageTime())
            return 1

        @calls.setter
        def calls(self, _value: int) -> None:
            pass

    clock.times["decode"] = Meanwhile()
    clock.times["fuse"] = StageTime(2)
    assert merged([clock])["fuse"].calls == 2
