"""Metrics of several processes as one's, held to what one process would have counted."""

from __future__ import annotations

import threading

from prometheus_client import CollectorRegistry, generate_latest

from pipeline.metrics import Metrics
from pipeline.state import SourceState, StateChange
from pipeline.workers.sums import Families, Sum, summed


def counted(*streams: str) -> Metrics:
    metrics = Metrics()
    count(metrics, *streams)
    return metrics


def count(metrics: Metrics, *streams: str) -> None:
    for number, stream in enumerate(streams, 1):
        metrics.decoded(stream, 10 * number)
        metrics.emitted(stream, 9 * number)
        metrics.dropped(stream, "slot", "old", number)
        metrics.age(stream, 0.03 * number)
        metrics.stage("fuse", 0.002)
        metrics.queue_depth(stream, "slot", number)
        metrics.state(StateChange(stream, SourceState.STREAMING))
    metrics.engine("unet", "openvino", "bf16", "cpu", "ready")


def samples(families: Families) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def of(metrics: Metrics) -> Families:
    return list(metrics.registry.collect())


def test_two_processes_count_as_one_does() -> None:
    one = Metrics()
    count(one, "a", "b")
    count(one, "c")
    assert samples(summed([of(counted("a", "b")), of(counted("c"))])) == samples(of(one))


def test_what_a_dead_worker_counted_goes_on_counting_until_its_stream_is_removed() -> None:
    living: list[Families] = [of(counted("a")), of(counted("b"))]
    total = Sum(threading.RLock(), lambda: None, lambda: living)
    registry = CollectorRegistry()
    registry.register(total)
    total.up(0, True)
    total.up(1, True)
    before = registry.get_sample_value("roadlens_frames_decoded_total", {"stream": "a"})
    total.died(0, living[0])
    living[0] = []
    assert registry.get_sample_value("roadlens_frames_decoded_total", {"stream": "a"}) == before == 10
    assert registry.get_sample_value("roadlens_stream_state", {"stream": "a", "state": "streaming"}) is None
    assert registry.get_sample_value("roadlens_worker_up", {"worker": "0"}) == 0
    living[0] = of(counted("a"))
    total.up(0, True)
    assert registry.get_sample_value("roadlens_frames_decoded_total", {"stream": "a"}) == 20
    assert registry.get_sample_value("roadlens_frame_age_seconds_count", {"stream": "a"}) == 2
    assert registry.get_sample_value("roadlens_worker_restarts_total", {"worker": "0"}) == 1
    assert registry.get_sample_value("roadlens_worker_restarts_total", {"worker": "1"}) == 0
    text = generate_latest(registry).decode()
    assert text.count("# TYPE roadlens_frames_decoded_total counter") == 1
    total.forget("a")
    living[0] = []
    assert registry.get_sample_value("roadlens_frames_decoded_total", {"stream": "a"}) is None
    assert registry.get_sample_value("roadlens_frames_decoded_total", {"stream": "b"}) == 10
