"""The slot between a decoder and the engine: a file loses nothing, a live stream never waits, and all is counted."""

from __future__ import annotations

import threading
from fractions import Fraction
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.frame import Frame
from pipeline.slots import Sample, Slot
from pipeline.sources import AudioPacket

CAPACITY = 3


def sample(index: int, sounds: int = 0) -> Sample:
    frame = Frame("drive", index, index, Fraction(1, 25), 0.0, 0.0, SimpleNamespace())
    return Sample(frame, {}, [AudioPacket(index, SimpleNamespace()) for _ in range(sounds)])


def take(slot: Slot, ready: threading.Condition) -> Sample | None:
    with ready:
        return slot.take()


class SlotMachine(RuleBasedStateMachine):
    """Any order of putting, taking, ending and closing, against a list."""

    mode = "live"

    def __init__(self) -> None:
        super().__init__()
        self.ready = threading.Condition()
        self.slot = Slot(self.mode, CAPACITY, self.ready)
        self.expected: list[int] = []
        self.offered = self.taken = self.refused = 0
        self.heard: list[int] = []

    def can_put(self) -> bool:
        return self.mode == "live" or self.slot.closed or len(self.slot) < CAPACITY

    @precondition(can_put)
    @rule(sounds=st.integers(0, 2))
    def put(self, sounds: int) -> None:
        accepted = self.slot.put(sample(self.offered, sounds))
        assert accepted is not self.slot.closed
        if accepted:
            if self.mode == "live" and self.expected:
                self.expected.clear()
            self.expected.append(self.offered)
        else:
            self.refused += 1
        self.offered += 1

    @rule()
    def take(self) -> None:
        got = take(self.slot, self.ready)
        if not self.expected:
            assert got is None
            return
        assert got is not None
        assert got.frame.index == self.expected.pop(0)
        self.taken += 1
        self.heard += [item.track for item in got.audio]

    @rule()
    def end(self) -> None:
        self.slot.end()
        assert self.slot.ended

    @precondition(lambda self: self.offered > 5)
    @rule()
    def close(self) -> None:
        self.slot.close()
        self.expected.clear()

    @invariant()
    def everything_is_accounted_for(self) -> None:
        slot = self.slot
        assert self.offered == self.taken + slot.superseded + slot.discarded + self.refused + len(slot)
        assert len(slot) == len(self.expected) <= (1 if self.mode == "live" else CAPACITY)
        if self.mode == "file":
            assert slot.superseded == 0
        assert self.heard == sorted(self.heard)


class FileSlotMachine(SlotMachine):
    mode = "file"


TestLiveSlot = SlotMachine.TestCase
TestFileSlot = FileSlotMachine.TestCase


@given(st.lists(st.booleans(), max_size=40))
def test_a_live_stream_hands_on_its_newest_frame_and_all_its_sound(taking):
    ready = threading.Condition()
    slot = Slot("live", CAPACITY, ready)
    heard: list[int] = []
    for index, takes in enumerate(taking):
        slot.put(sample(index, sounds=1))
        if takes:
            got = take(slot, ready)
            assert got is not None
            assert got.frame.index == index
            heard += [item.track for item in got.audio]
    rest = take(slot, ready)
    heard += [item.track for item in rest.audio] if rest else []
    assert heard == list(range(len(taking)))


@pytest.mark.parametrize("count", [1, 200])
def test_a_file_waits_for_room_and_loses_nothing(count):
    ready, most = threading.Condition(), 0
    slot = Slot("file", CAPACITY, ready)

    def produce() -> None:
        for index in range(count):
            assert slot.put(sample(index))
        slot.end()

    producer, got = threading.Thread(target=produce), []
    producer.start()
    with ready:
        while True:
            most = max(most, len(slot))
            one = slot.take()
            if one is not None:
                got.append(one.frame.index)
            elif slot.ended:
                break
            else:
                ready.wait()
    producer.join()
    assert got == list(range(count))
    assert most <= CAPACITY
    assert (slot.superseded, slot.discarded) == (0, 0)


def full_file_slot() -> tuple[Slot, threading.Condition, threading.Thread, list[bool]]:
    """A slot that is full, and a thread that wants to put one more."""
    ready = threading.Condition()
    slot, answers = Slot("file", CAPACITY, ready), []
    for index in range(CAPACITY):
        slot.put(sample(index))
    waiting = threading.Thread(target=lambda: answers.append(slot.put(sample(CAPACITY))))
    waiting.start()
    return slot, ready, waiting, answers


def test_a_full_file_slot_lets_its_decoder_go_on_when_it_is_half_empty():
    slot, ready, waiting, answers = full_file_slot()
    for index in range(CAPACITY - CAPACITY // 2):
        assert waiting.is_alive()
        assert not answers
        taken = take(slot, ready)
        assert taken is not None
        assert taken.frame.index == index
    waiting.join()
    assert answers == [True]
    assert len(slot) == CAPACITY // 2 + 1


def test_closing_wakes_a_decoder_that_waits_and_counts_what_waited():
    slot, ready, waiting, answers = full_file_slot()
    slot.close()
    waiting.join()
    assert answers == [False]
    assert (len(slot), slot.discarded) == (0, CAPACITY)
    assert take(slot, ready) is None


def test_whoever_waits_on_the_condition_is_woken_by_every_change():
    ready = threading.Condition()
    slot = Slot("file", CAPACITY, ready)
    for change in (lambda: slot.put(sample(0)), lambda: take(slot, ready), slot.end, slot.close):
        with ready:
            thread = threading.Thread(target=change)
            thread.start()  # it cannot notify before `wait` lets go of the condition
            assert ready.wait(30)
        thread.join()
