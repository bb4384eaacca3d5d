from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.lifecycle import (
    Action,
    Came,
    Demand,
    Drained,
    Drop,
    Event,
    Failed,
    Finished,
    Leave,
    Lifecycle,
    Pause,
    ReadOut,
    Rested,
    Resume,
    Retire,
    step,
)
from pipeline.state import SourceState

ORDERLY, GIVEN_UP, WRITE_FAILED = Finished(given_up=False), Finished(given_up=True), Failed(writing=True)
TO_ITS_END, CUT = ReadOut(cut=False), ReadOut(cut=True)


def after(*events: Event) -> tuple[Lifecycle, list[Action]]:
    life, actions = Lifecycle(), []
    for event in events:
        life, wanted = step(life, event)
        actions += wanted
    return life, actions


@pytest.mark.parametrize(
    ("events", "demand", "ending", "state"),
    [
        ([], Demand.RUN, "complete", SourceState.CONNECTING),
        ([Came(), TO_ITS_END, Drained(), ORDERLY], Demand.RUN, "complete", SourceState.ENDED),
        ([Came(), Leave(), CUT, Drained(), ORDERLY], Demand.LEAVE, "stopped", SourceState.ENDED),
        ([Came(), Leave(), Drop(), GIVEN_UP, Retire()], Demand.GONE, "stopped", SourceState.ENDED),
        ([Came(), CUT, ORDERLY], Demand.RUN, "stopped", SourceState.ENDED),
        ([Came(), TO_ITS_END, GIVEN_UP], Demand.RUN, "stopped", SourceState.ENDED),
        ([Came(), Pause(), Rested()], Demand.REST, "complete", SourceState.PAUSED),
        ([Came(), Pause(), Rested(), Resume(), Came()], Demand.RUN, "complete", SourceState.STREAMING),
        ([Pause(), Leave(), Resume(), Pause()], Demand.LEAVE, "complete", SourceState.CONNECTING),
        ([Came(), Failed(), CUT, GIVEN_UP], Demand.RUN, "failed", SourceState.FAILED),
        ([Came(), Failed(), Came(), Rested()], Demand.RUN, "failed", SourceState.FAILED),
        ([Came(), ORDERLY, Came(), Rested()], Demand.RUN, "complete", SourceState.ENDED),
        ([Came(), ORDERLY, Failed()], Demand.RUN, "failed", SourceState.FAILED),
        ([Came(), Drop(), Retire(), Failed(), GIVEN_UP], Demand.GONE, "failed", SourceState.STREAMING),
        ([Drop(), Leave(), Pause()], Demand.DROP, "complete", SourceState.CONNECTING),
    ],
)
def test_events_lead_to_where_a_stream_stands(
    events: list[Event], demand: Demand, ending: str, state: SourceState
) -> None:
    life, _ = after(*events)
    assert (life.demand, life.ending, life.state) == (demand, ending, state)


@pytest.mark.parametrize(
    ("before", "event", "actions"),
    [
        ([], Pause(), [Action.PAUSE_SOURCE]),
        ([Pause()], Pause(), [Action.PAUSE_SOURCE]),
        ([Pause()], Resume(), [Action.RESUME_SOURCE]),
        ([], Leave(), [Action.STOP_SOURCE]),
        ([Leave()], Leave(), []),
        ([Leave()], Drop(), [Action.STOP_SOURCE, Action.CLOSE_SLOT]),
        ([Retire()], Drop(), []),
        ([], Came(), [Action.SAY]),
        ([Came()], Came(), []),
        ([Came(), Rested()], Rested(), []),
        ([], Failed(), [Action.SAY, Action.CLOSE_SLOT, Action.STOP_SOURCE]),
        ([Failed()], WRITE_FAILED, [Action.CLOSE_SLOT, Action.STOP_SOURCE]),
        ([Retire()], Failed(), [Action.CLOSE_SLOT, Action.STOP_SOURCE]),
        ([], Drained(), [Action.END_HANDOVER]),
        ([Drained()], Drained(), []),
        ([], TO_ITS_END, []),
        ([], ORDERLY, [Action.SAY]),
        ([Failed()], ORDERLY, []),
        ([Retire()], ORDERLY, []),
    ],
)
def test_what_is_to_be_done_after_an_event(before: list[Event], event: Event, actions: list[Action]) -> None:
    life, _ = after(*before)
    assert list(step(life, event)[1]) == actions


@pytest.mark.parametrize(
    ("events", "writing"),
    [([Failed()], True), ([WRITE_FAILED], False), ([Failed(), WRITE_FAILED], False), ([WRITE_FAILED, Failed()], False)],
)
def test_only_an_output_that_failed_keeps_what_was_fused_before_from_being_written(
    events: list[Event], writing: bool
) -> None:
    assert after(*events)[0].writing is writing


EVENTS = st.lists(
    st.sampled_from(
        [
            Pause(), Resume(), Leave(), Drop(), Retire(), Came(), Rested(), TO_ITS_END, CUT, Drained(), Failed(),
            WRITE_FAILED, ORDERLY, GIVEN_UP,
        ]
    ),
    max_size=40,
)  # fmt: skip
FORWARD = [{Demand.RUN, Demand.REST}, {Demand.LEAVE}, {Demand.DROP}, {Demand.GONE}]
ENDINGS = ["complete", "stopped", "failed"]


def place(demand: Demand) -> int:
    return next(i for i, group in enumerate(FORWARD) if demand in group)


@given(happened=EVENTS)
def test_whatever_happens_a_stream_goes_forward_and_ends_once(happened: list[Event]) -> None:
    life, handed_over = Lifecycle(), 0
    for event in happened:
        before = life
        life, actions = step(life, event)
        assert place(life.demand) >= place(before.demand)
        assert ENDINGS.index(life.ending) >= ENDINGS.index(before.ending)
        assert life.writing <= before.writing
        assert life.drained >= before.drained
        handed_over += actions.count(Action.END_HANDOVER)
        assert handed_over == life.drained
        assert life.writing or life.failed
        assert len(set(actions)) == len(actions)


@pytest.mark.seconds
@given(happened=EVENTS)
def test_whatever_happens_observers_are_told_a_change_once_and_nothing_of_a_stream_that_is_gone(
    happened: list[Event],
) -> None:
    life, told = Lifecycle(), list[SourceState]()
    for event in happened:
        gone = life.gone
        life, actions = step(life, event)
        if Action.SAY in actions:
            assert not gone
            told.append(life.state)
        assert life.state is (told[-1] if told else SourceState.CONNECTING)
    assert all(one is not other for one, other in itertools.pairwise(told))
    if SourceState.FAILED in told:
        assert told[-1] is SourceState.FAILED, "nothing is said after it failed"
    if SourceState.ENDED in told:
        rest = told[told.index(SourceState.ENDED) + 1 :]
        assert rest in ([], [SourceState.FAILED]), "nothing comes back after it ended"


@given(happened=EVENTS)
def test_a_source_is_neither_paused_nor_resumed_once_it_was_told_to_stop(happened: list[Event]) -> None:
    life, stopped = Lifecycle(), False
    for event in happened:
        life, actions = step(life, event)
        if stopped:
            assert not {Action.PAUSE_SOURCE, Action.RESUME_SOURCE} & set(actions)
        stopped = stopped or not life.reads
        assert life.rests <= life.reads
        assert life.drops <= (not life.reads)
        assert life.gone <= life.drops
