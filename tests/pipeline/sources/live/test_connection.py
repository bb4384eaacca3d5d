from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.live.connection import (
    Action,
    Came,
    Connection,
    Due,
    Event,
    Lost,
    Over,
    Pause,
    Reconnect,
    Released,
    Resume,
    Silent,
    Stop,
    back_off,
    step,
)
from pipeline.state import SourceState

WAIT = Reconnect(at_start="wait", jitter=0)


def after(*events: Event, policy: Reconnect = WAIT, seconds: float = 1.0) -> tuple[Connection, list[Action]]:
    connection, actions, now = Connection(), [], 0.0
    for event in events:
        connection, wanted = step(connection, event, now, policy)
        actions += wanted
        now += seconds
    return connection, actions


REFUSED, SILENT = Lost("refused", "nobody listens"), Silent("silent", "no picture for 5 s")


@pytest.mark.parametrize(
    ("events", "state", "cause"),
    [
        ([Due()], SourceState.CONNECTING, ""),
        ([Due(), Came()], SourceState.STREAMING, ""),
        ([Due(), REFUSED], SourceState.BACKING_OFF, "refused"),
        ([Due(), SILENT], SourceState.BACKING_OFF, "silent"),
        ([Due(), Came(), SILENT], SourceState.STALLED, "silent"),
        ([Due(), Came(), SILENT, Released()], SourceState.BACKING_OFF, "silent"),
        ([Due(), Came(), REFUSED, Due(), Came()], SourceState.STREAMING, "refused"),
        ([Due(), Came(), Over("end of the pipe")], SourceState.ENDED, "ended"),
        ([Due(), Pause()], SourceState.PAUSED, ""),
        ([Due(), Came(), Pause(), REFUSED, Due(), Came(), Resume()], SourceState.CONNECTING, ""),
        ([Due(), REFUSED, Stop(), Due(), Came()], SourceState.ENDED, "stopped"),
        ([Due(), REFUSED, Came()], SourceState.BACKING_OFF, "refused"),
    ],
)
def test_events_lead_to_states(events: list[Event], state: SourceState, cause: str) -> None:
    connection, _ = after(*events)
    assert (connection.state, connection.cause) == (state, cause)


def test_a_source_that_was_never_seen_fails_at_once_when_the_run_shall_not_wait_for_it() -> None:
    connection, _ = after(Due(), REFUSED, policy=Reconnect())
    assert (connection.state, connection.reason) == (SourceState.FAILED, "nobody listens")
    assert after(Due(), Came(), REFUSED, policy=Reconnect())[0].state is SourceState.BACKING_OFF


def test_it_gives_up_after_as_many_failures_as_configured_and_says_so() -> None:
    policy = Reconnect(at_start="wait", give_up_after=3, give_up_within=60)
    flapping: list[Event] = [Due(), REFUSED] * 3
    connection, _ = after(*flapping, policy=policy)
    assert connection.state is SourceState.FAILED
    assert connection.reason == "nobody listens; given up after 3 failures within 60 s"
    assert after(*flapping, policy=policy, seconds=40)[0].state is SourceState.BACKING_OFF


def test_the_wait_grows_until_pictures_have_come_for_long_enough() -> None:
    waits = []
    connection, now = Connection(), 0.0
    for streamed in (0.1, 0.1, 0.1, 0.1, 6.0):
        for event in (Due(), Came()):
            connection, _ = step(connection, event, now, WAIT)
        now += streamed
        connection, _ = step(connection, REFUSED, now, WAIT)
        assert connection.retry_at is not None
        waits.append(round(connection.retry_at - now, 6))
        now = connection.retry_at
    assert waits == [0.25, 0.5, 1.0, 1.0, 0.25]


def test_what_others_see_of_a_wait() -> None:
    change = after(Due(), Came(), REFUSED)[0].change("cam", 1_700_000_000.0)
    assert (change.stream, change.state, change.reason, change.cause) == (
        "cam", SourceState.BACKING_OFF, "nobody listens", "refused",
    )  # fmt: skip
    assert (change.at, change.retry_in, change.reconnects) == (1_700_000_000.0, 0.25, 0)


@given(
    failures=st.integers(0, 100_000),
    chance=st.floats(0, 1, exclude_max=True),
    cause=st.sampled_from(["refused", "silent", "unauthorized", "not_found", "unsupported", "runaway"]),
)
def test_a_wait_is_never_longer_than_its_cap_nor_shorter_than_jitter_allows(
    failures: int, chance: float, cause: str
) -> None:
    policy = Reconnect()
    wait = back_off(policy, cause, failures, chance)
    cap = policy.refused if cause in {"unauthorized", "unsupported"} else policy.longest
    assert policy.first * (1 - policy.jitter) <= wait <= cap


EVENTS = st.sampled_from(
    [Due(), Came(), REFUSED, Lost("unauthorized", "no"), SILENT, Released(), Over(), Pause(), Resume(), Stop()]
)
POLICIES = st.builds(
    Reconnect,
    at_start=st.sampled_from(["fail", "wait"]),
    give_up_after=st.none() | st.integers(1, 5),
    settled=st.sampled_from([0.0, 5.0]),
)


@given(
    policy=POLICIES,
    happened=st.lists(st.tuples(EVENTS, st.floats(0, 100), st.floats(0, 1, exclude_max=True)), max_size=60),
)
def test_whatever_happens_there_is_at_most_one_reader_and_always_a_way_on(
    policy: Reconnect, happened: list[tuple[Event, float, float]]
) -> None:
    connection, readers, now, seen = Connection(), 0, 0.0, 0
    for event, passed, chance in happened:
        now += passed
        before = connection
        connection, actions = step(connection, event, now, policy, chance)
        if isinstance(event, Lost) and before.reading:
            readers -= 1  # it has ended by itself
        for action in actions:
            readers += 1 if action is Action.CONNECT else -1
        assert readers == connection.reading
        assert readers in (0, 1)
        assert (connection.retry_at is not None) == (connection.state is SourceState.BACKING_OFF)
        if connection.retry_at is not None:
            assert 0 <= connection.retry_at - connection.since <= max(policy.longest, policy.refused) + 1e-9  # rounding
        if before.state.final:
            assert (connection, actions) == (before, ())
        if connection.state is SourceState.STREAMING:
            assert connection.reading
            assert connection.attempt == 0
        assert connection.reconnects >= seen
        seen = connection.reconnects
        assert len(connection.failed_at) <= (policy.give_up_after or 1)
