"""Streams on devices: evenly by cost, stable, and complete whatever comes and goes."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.placement import Placement, Placer

RATES = st.lists(st.floats(1, 120), max_size=24)


def spread(rates: list[float], devices: int) -> Placement:
    placement = Placement(devices)
    for key, rate in enumerate(rates):
        placement = placement.placed(key, rate)
    return placement


def counts(placement: Placement) -> list[int]:
    return [sum(b.device == d for b in placement.streams.values()) for d in range(placement.devices)]


def test_equal_streams_are_shared_evenly_the_first_device_first() -> None:
    placement = spread([30.0] * 5, 2)
    assert [placement.streams[key].device for key in range(5)] == [0, 1, 0, 1, 0]


@given(RATES, st.integers(1, 8))
def test_no_device_is_ahead_by_more_than_one_stream(rates: list[float], devices: int) -> None:
    """Greedy placing: the fullest device was the emptiest before its last stream came."""
    placement = spread(rates, devices)
    loads = [placement.load(device) for device in range(devices)]
    assert max(loads) - min(loads) <= max(rates, default=0) + 1e-6
    assert sum(loads) == pytest.approx(sum(rates))


def test_a_device_measured_to_be_twice_as_fast_gets_twice_as_much() -> None:
    placement = Placement(2).measured(0, 0.002).measured(1, 0.004)
    for key in range(12):
        placement = placement.placed(key, 30)
    assert counts(placement) == [8, 4]
    assert placement.load(0) == pytest.approx(8 * 30 * 0.002)


def test_a_device_not_measured_yet_is_taken_to_be_like_the_others() -> None:
    placement = Placement(3).measured(0, 0.002).measured(1, 0.004)
    assert placement.cost(2) == pytest.approx(0.003)
    assert Placement(2).cost(1) == 1


@given(RATES.filter(bool), st.integers(1, 6), st.data())
def test_a_stream_that_goes_gives_its_share_back_and_moves_nobody(
    rates: list[float], devices: int, data: st.DataObject
) -> None:
    before = spread(rates, devices)
    gone = data.draw(st.sampled_from(range(len(rates))))
    after = before.without(gone)
    assert after.streams == {key: bound for key, bound in before.streams.items() if key != gone}
    assert after.load(before.streams[gone].device) == pytest.approx(
        before.load(before.streams[gone].device) - rates[gone], abs=1e-6
    )
    assert after.without(gone) == after


@given(RATES, st.integers(2, 6), st.data())
def test_what_a_lost_device_had_goes_to_the_others_and_nothing_else_moves(
    rates: list[float], devices: int, data: st.DataObject
) -> None:
    placement = spread(rates, devices)
    for lost in data.draw(st.permutations(range(devices)))[1:]:
        after = placement.losing(lost)
        assert after.streams.keys() == placement.streams.keys()
        assert lost not in {bound.device for bound in after.streams.values()}
        for key, bound in placement.streams.items():
            if bound.device != lost:
                assert after.streams[key] == bound
            assert after.streams[key].rate == bound.rate
        assert after.placed(99, 30).streams[99].device in after.left
        placement = after
    with pytest.raises(ValueError, match="the last one"):
        placement.losing(placement.left[0])


def test_a_rate_that_becomes_known_counts_and_moves_nobody() -> None:
    placement = spread([30.0, 30.0], 2).paced(0, 5)
    assert placement.streams[0].device == 0
    assert placement.placed(2, 30).streams[2].device == 0
    assert placement.paced(7, 5) == placement


def test_the_placer_is_for_all_threads() -> None:
    placer = Placer(["cuda:0", "cuda:1"])
    kept = []

    def come_and_go() -> None:
        for _ in range(50):
            placer.place().leave()
        kept.append(placer.place())

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(placer.placement.streams) == 8
    assert len({berth.key for berth in kept}) == 8
    assert placer.lose(0)
    assert not placer.lose(0)
    assert not placer.lose(1)
    assert {placer.device(berth) for berth in kept} == {1}
    for berth in kept:
        berth.leave()
        berth.leave()
    assert placer.placement.streams == {}
