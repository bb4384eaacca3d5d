"""Which boxes count as right, wrong or neither beside road users that were drawn by hand."""

from __future__ import annotations

from collections import Counter

from pipeline.frame import Box
from tests.benchmarks.weather import CLIPS, LEAST_HEIGHT, Drawn, judged

CAR: Drawn = ("car", 100, 100, 140, 120)
WALKER: Drawn = ("person", 200, 100, 210, 130)


def box(label: str, x1: float, y1: float, x2: float, y2: float, score: float = 0.5) -> Box:
    return Box(x1, y1, x2, y2, 0, label, score, "model")


def test_a_box_of_the_family_is_right_and_its_class_counted() -> None:
    assert judged([box("car", *CAR[1:])], [CAR]) == Counter(users=1, found=1, right=1, **{"class": 1})
    assert judged([box("truck", *CAR[1:])], [CAR]) == Counter(users=1, found=1, right=1)
    assert judged([box("person", *CAR[1:])], [CAR]) == Counter(users=1, wrong=1)


def test_each_road_user_is_found_once_by_the_surest_box() -> None:
    counts = judged([box("truck", *CAR[1:], 0.4), box("car", *CAR[1:], 0.9)], [CAR])
    assert counts == Counter(users=1, found=1, right=1, wrong=1, **{"class": 1})


def test_people_may_be_off_further() -> None:
    beside = [box("car", 117, 100, 157, 120), box("person", 200, 113, 210, 143)]  # both overlap by 0.4
    assert judged(beside, [CAR, WALKER]) == Counter(users=2, found=1, right=1, wrong=1, **{"class": 1})


def test_what_is_ignored_or_too_small_counts_neither_way() -> None:
    region: Drawn = ("?", 0, 0, 50, 50)
    low = box("car", 300, 100, 310, 100 + LEAST_HEIGHT - 1)
    assert judged([box("car", 10, 10, 40, 40), low], [region]) == Counter()
    assert judged([box("car", 30, 30, 90, 90)], [region]) == Counter(wrong=1)


def test_what_was_drawn_is_high_enough_and_has_an_area() -> None:
    for frames in CLIPS.values():
        for drawn in frames.values():
            assert all(x1 < x2 and y1 < y2 for _, x1, y1, x2, y2 in drawn)
            assert all(y2 - y1 >= LEAST_HEIGHT for label, _, y1, _, y2 in drawn if label != "?")
