from __future__ import annotations

from pipeline.capabilities import AttachedSource
from pipeline.config import StreamConfig
from pipeline.metrics import Metrics
from pipeline.session.states import States
from pipeline.session.stream import RunningStream, Streams
from pipeline.state import SourceState, StateChange


def test_a_camera_that_is_away_is_not_blind_and_one_that_sees_again_is_as_it_was() -> None:
    streams, metrics = Streams(), Metrics()
    streaming = StateChange("cam", SourceState.STREAMING, at=1.0, reconnects=3)
    stream = RunningStream("cam", StreamConfig(source="rtsp://host/"), None, streaming)
    stream.attached = AttachedSource(waits=True)
    streams.put(stream)
    states = States(streams, metrics)
    blind = StateChange("cam", SourceState.BLIND, "too old", "blind", at=2.0)
    sees = StateChange("cam", SourceState.STREAMING, at=3.0)

    states.tell_of_runtime(blind)
    assert stream.change == StateChange("cam", SourceState.BLIND, "too old", "blind", at=2.0, reconnects=3)
    assert metrics.registry.get_sample_value("roadlens_stream_state", {"stream": "cam", "state": "blind"}) == 1
    states.tell_of_runtime(StateChange("cam", SourceState.BLIND, "too old still", "blind", at=2.5))
    assert stream.change.reason == "too old"
    states.tell_of_runtime(sees)
    assert stream.change == StateChange("cam", SourceState.STREAMING, at=3.0, reconnects=3)

    away = StateChange("cam", SourceState.BACKING_OFF, "refused", "refused", at=4.0)
    states.tell(away)
    states.tell_of_runtime(blind)
    states.tell_of_runtime(sees)
    assert stream.change is away
