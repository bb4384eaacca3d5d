from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts import SourceCounts
from pipeline.metrics import Metrics
from pipeline.runtime.counter import BLIND_SECONDS, FrameCounter, Sight, Tally
from tests.pipeline.fake_analysis import analysis


def scraped(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"roadlens_{name}_total", {"stream": "a", **labels})


@given(
    looks=st.lists(
        st.tuples(st.sampled_from(["superseded", "old", "stopped"]), st.integers(0, 9), st.integers(0, 3)), max_size=20
    )
)
def test_what_a_source_drops_by_itself_is_decoded_and_dropped_once_however_often_it_is_looked_at(
    looks: list[tuple[str, int, int]],
) -> None:
    counter, source = FrameCounter("a", None), SourceCounts()
    for reason, more, again in looks:
        source.dropped[reason] += more
        for _ in range(again):
            counter.follow(source)
    counter.follow(source)
    assert counter.counts.decoded == sum(more for _, more, _ in looks)
    wanted = Counter[str]()
    for reason, more, _ in looks:
        wanted[reason] += more
    assert counter.counts.dropped == Counter({("decode", reason): count for reason, count in wanted.items() if count})


def test_the_metrics_say_the_same_until_the_stream_is_forgotten() -> None:
    metrics = Metrics()
    counter = FrameCounter("a", metrics)
    for _ in range(2):
        counter.decoded(5)
        counter.dropped(2, "slot", "old")
        counter.dropped(0, "slot", "never")
        counter.emitted(analysis(stream="a"))
        counter.inferred(["one"])
        counter.follow(SourceCounts(decode_errors=3, dropped=Counter(superseded=4)))
        counter.forget()
    counts = counter.counts
    assert (counts.decoded, counts.emitted) == (14, 2)
    assert counts.dropped == {("slot", "old"): 4, ("decode", "superseded"): 4}
    assert scraped(metrics, "frames_decoded") == 9
    assert scraped(metrics, "frames_emitted") == 1
    assert scraped(metrics, "frames_dropped", stage="slot", reason="old") == 2
    assert scraped(metrics, "frames_dropped", stage="slot", reason="never") is None
    assert scraped(metrics, "frames_dropped", stage="decode", reason="superseded") == 4


@pytest.mark.parametrize("threads", [4])
def test_several_threads_may_count_one_reason(threads: int) -> None:
    counter = FrameCounter("a", None)
    begin = threading.Barrier(threads)

    def count() -> None:
        begin.wait()
        for _ in range(5000):
            counter.dropped(1, "emit", "stopped")

    started = [threading.Thread(target=count) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert counter.counts.dropped["emit", "stopped"] == threads * 5000


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ({"slot/old": 30, "slot/superseded": 20}, "live.latency_bound"),
        ({"fuse/old": 30}, "live.latency_bound"),
        ({"slot/superseded": 30, "emit/old": 20}, "fewer streams"),
        ({"start": 50}, "key frame"),
    ],
)
def test_the_greatest_loss_says_what_mends_it(gone: dict[str, int], said: str) -> None:
    sight = Sight()
    assert sight.look(0.0, Tally()) is None
    reason = sight.look(BLIND_SECONDS, Tally(came=50, out=0, gone=Counter(gone)))
    assert reason is not None
    assert said in reason
    assert sight.look(2 * BLIND_SECONDS, Tally(came=100, out=50, gone=Counter(gone))) == ""
