"""The slot between a decoder and the engine: a file loses nothing, a live stream never waits, and all is counted."""

from __future__ import annotations

import threading
from fractions import Fraction
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.analysis.carrying.cadence import FARTHEST
from pipeline.contracts import AudioPacket
from pipeline.frame import Frame
from pipeline.runtime.slots import Sample, Slot

CAPACITY = 3


def sample(index: int, sounds: int = 0, looks: tuple[str, ...] = ("m",), *, yields: bool = False) -> Sample:
    frame = Frame("drive", index, index, Fraction(1, 25), 0.0, 0.0, SimpleNamespace())
    beside = [AudioPacket(index, SimpleNamespace()) for _ in range(sounds)]
    return Sample(frame, {}, beside, looks=looks, yields=yields)


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
        self.heard += [item.track for item in got.beside]

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


@given(st.lists(st.sampled_from(["take", "skip", "leave"]), max_size=40))
def test_a_live_stream_hands_on_its_newest_frame_and_all_its_sound(acts):
    ready = threading.Condition()
    slot = Slot("live", CAPACITY, ready)
    heard: list[int] = []
    for index, act in enumerate(acts):
        slot.put(sample(index, sounds=1))
        if act == "skip":
            with ready:
                skipped = slot.skip()
            assert skipped is not None
            assert (skipped.frame.index, len(slot)) == (index, 0)
        elif act == "take":
            got = take(slot, ready)
            assert got is not None
            assert got.frame.index == index
            heard += [item.track for item in got.beside]
    slot.put(sample(len(acts)))
    rest = take(slot, ready)
    assert rest is not None
    assert heard + [item.track for item in rest.beside] == list(range(len(acts)))


ACTS = st.tuples(st.sampled_from(["", "wants", "cut"]), st.sampled_from(["take", "skip", "leave", "leave"]))


@given(st.lists(ACTS, max_size=80))
@example([("", "leave")] * 9)  # more wait than may: the sound of the oldest goes on with the next one
def test_a_look_that_is_put_off_is_had_by_a_newer_frame_and_no_frame_has_too_old_a_one(acts):
    ready = threading.Condition()
    slot = Slot("live", CAPACITY, ready)
    taken: list[Sample] = []
    skipped = 0
    acts = [*acts, ("", "leave")]  # a last frame, which is taken: it has what is owed
    for index, (why, act) in enumerate(acts):
        slot.put(sample(index, 1, ("m",) if why else (), yields=why != "cut"))
        with ready:
            got = {"take": slot.take, "skip": slot.skip, "leave": lambda: None}[act]()
        skipped += got is not None and act == "skip"
        taken += [got] if got is not None and act == "take" else []
    while (got := take(slot, ready)) is not None:
        taken.append(got)
    assert len(acts) == len(taken) + skipped + slot.superseded
    indices = [each.frame.index for each in taken]
    assert indices == sorted(indices)
    heard = [item.track for each in taken for item in each.beside]
    assert heard == list(range(len(heard)))
    looked = [each.frame.index for each in taken if each.looks]
    for index, (why, _) in enumerate(acts):
        behind = next((each for each in taken if each.frame.index >= index), None)
        if behind is None or not why:
            continue
        if why == "cut":
            assert behind.looks, "what is behind a cut is looked at"
        elif not behind.looks:
            assert max(each for each in looked if each < index) >= behind.frame.index - FARTHEST
            assert looked[-1] > index, "put off, and not forgotten"


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


def test_whoever_waits_on_the_condition_is_woken_by_a_first_sample_and_by_the_end():
    ready = threading.Condition()
    slot = Slot("file", CAPACITY, ready)
    for change in (lambda: slot.put(sample(0)), slot.end, slot.close):
        with ready:
            thread = threading.Thread(target=change)
            thread.start()  # it cannot notify before `wait` lets go of the condition
            assert ready.wait(30)
        thread.join()
