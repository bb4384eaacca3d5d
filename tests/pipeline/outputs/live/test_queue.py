from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outputs.encoded import EncodedPicture
from pipeline.outputs.live.queue import PictureQueue


def picture(index: int, key: bool, size: int = 10) -> EncodedPicture:
    return EncodedPicture(bytes(size), index * 3600, 3600, key, index / 25, index / 25)


class Watched:
    """A queue with what it said."""

    def __init__(self, seconds: float = 1.0, max_bytes: int = 1 << 20) -> None:
        self.dropped: Counter[str] = Counter()
        self.asked = 0
        self.queue = PictureQueue(seconds, max_bytes, self._drop, self._ask)

    def _drop(self, count: int, reason: str) -> None:
        self.dropped[reason] += count

    def _ask(self) -> None:
        self.asked += 1

    def taken(self) -> list[int]:
        found = []
        while (item := self.queue.get(0)) is not None:
            found.append(item.pts // 3600)
        return found


def test_what_fits_comes_out_as_it_went_in() -> None:
    watched = Watched()
    for i in range(20):
        watched.queue.put(picture(i, i == 0))
    assert watched.taken() == list(range(20))
    assert not watched.dropped


def test_the_first_to_come_out_is_a_key_frame() -> None:
    watched = Watched()
    for i in range(10):
        watched.queue.put(picture(i, i == 6))
    assert watched.taken() == [6, 7, 8, 9]
    assert watched.dropped == {"slow": 6}
    assert watched.asked == 6


def test_when_full_the_newest_group_stays() -> None:
    watched = Watched(seconds=1)  # 25 pictures
    for i in range(30):
        watched.queue.put(picture(i, i % 10 == 0))
    taken = watched.taken()
    assert taken[-1] == 29
    assert taken[0] in (10, 20)
    assert taken == list(range(taken[0], 30))


def test_without_another_key_frame_one_is_asked_for() -> None:
    watched = Watched(seconds=1)
    for i in range(40):
        watched.queue.put(picture(i, i == 0))
    assert watched.taken() == []
    assert watched.asked
    watched.queue.put(picture(40, key=True))
    assert watched.taken() == [40]


def test_bytes_are_bounded() -> None:
    watched = Watched(seconds=1000, max_bytes=1000)
    for i in range(100):
        watched.queue.put(picture(i, key=True, size=100))
    assert len(watched.taken()) <= 10


def test_resting_drops_and_resuming_asks_for_a_key_frame() -> None:
    watched = Watched()
    for i in range(5):
        watched.queue.put(picture(i, i == 0))
    watched.queue.rest()
    watched.queue.put(picture(5, key=True))
    assert watched.dropped == {"not_connected": 6}
    watched.queue.resume()
    assert watched.asked == 1
    watched.queue.put(picture(6, key=False))
    watched.queue.put(picture(7, key=True))
    assert watched.taken() == [7]


def test_one_who_waits_loses_nothing() -> None:
    watched = Watched(seconds=0.2)
    count = 200

    def fill() -> None:
        for i in range(count):
            watched.queue.put(picture(i, i == 0), wait=True)
        watched.queue.end()

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    found = []
    while (item := watched.queue.get(60)) is not None:
        found.append(item.pts // 3600)
    thread.join(60)
    assert found == list(range(count))
    assert watched.queue.over
    assert not watched.dropped


@given(st.lists(st.sampled_from(["key", "picture", "get", "rest", "resume"]), max_size=200), st.integers(1, 30))
def test_what_comes_out_can_be_decoded_and_all_is_accounted_for(steps: list[str], room: int) -> None:
    watched = Watched(seconds=room / 25)
    put, out = 0, []
    keys = set()
    for step in steps:
        if step in ("key", "picture"):
            if step == "key":
                keys.add(put)
            watched.queue.put(picture(put, step == "key"))
            put += 1
        elif step == "get":
            item = watched.queue.get(0)
            out += [] if item is None else [item.pts // 3600]
        else:
            getattr(watched.queue, step)()
    out += watched.taken()
    assert len(out) + watched.dropped.total() == put
    assert out == sorted(set(out))
    for before, index in zip([None, *out], out, strict=False):
        assert index in keys or before == index - 1, "behind a gap there is a key frame"


@pytest.mark.parametrize("waits", [False, True])
def test_the_end_lets_everybody_go(waits: bool) -> None:
    watched = Watched(seconds=0.04)
    for i in range(2):
        watched.queue.put(picture(i, i == 0))
    ender = threading.Timer(0.05, watched.queue.end)
    if waits:
        ender.start()
    else:
        watched.queue.end()
    watched.queue.put(picture(2, key=True), wait=waits)
    assert watched.taken() == [0, 1]
    assert watched.queue.over
