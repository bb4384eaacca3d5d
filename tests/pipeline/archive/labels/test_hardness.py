"""What the tables say of how hard a frame is, against the same said row by row."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

from engines.errors import SourceError, UsageError
from pipeline.archive.labels.hardness import ranked
from pipeline.archive.rows import FrameRow, Indexed, ObjectRow
from tests.pipeline.archive.made_up import BEGUN, EVERY, RATE, TERMS, clip, put

ALL = 1 << 30


def look(number: int, area: dict[str, float], count: dict[str, int] | None = None) -> FrameRow:
    return FrameRow(number * EVERY, number * EVERY / RATE, BEGUN + number * EVERY / RATE, area, count or {})


def box(number: int, label: str, score: float, track: int | None) -> ObjectRow:
    return ObjectRow(number * EVERY, label, score, 1, 1, 5, 5, track, "m")


def told(clips: list[Indexed], at: Path) -> dict[tuple[str, int], tuple[float, float, float]]:
    found, _ = ranked(put(at, clips), None, ALL)
    return {(c.clip, c.frame // EVERY): (c.rare, c.flicker, c.doubt) for c in found}


def test_each_figure_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    looks = [
        look(0, {"road": 0.5}), look(1, {"road": 0.5, "traffic light": 0.0009}, {"car": 1}),
        look(2, {"road": 0.1, "traffic light": 0.4}, {"car": 2}), look(3, {"road": 0.5}, {"car": 1, "person": 1}),
        look(4, {"road": 0.5}),
    ]  # fmt: skip
    objects = [
        box(1, "car", 0.9, 1), box(2, "car", 0.9, 1), box(2, "car", 0.5, 2), box(3, "car", 0.8, 1),
        box(3, "person", 0.6, None),
    ]  # fmt: skip
    assert told([clip(1, BEGUN, looks, objects=objects)], tmp_path / "a") == {
        # The share of frames with the rarest class: road 5, car 3, person and traffic light (0.0009 is specks) 1 of 5.
        ("0001", 0): (0.0, 0.0, 0.0),  # the first and the last look have nothing before or behind them
        ("0001", 1): (0.4, pytest.approx((0.2 + 0.1991) / 2), pytest.approx(0.1)),
        ("0001", 2): (0.8, 0.5, pytest.approx(0.3)),  # one of two boxes was glimpsed; areas: (0.4 + 0.4) / 2
        ("0001", 3): (0.8, 0.2, pytest.approx(0.3)),
        ("0001", 4): (0.0, 0.0, 0.0),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_as_counted_row_by_row(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    clips = [_random_clip(chance, number) for number in range(1, 6)]
    found, asked = ranked(put(tmp_path / "a", clips), None, ALL)
    expected = _by_rows(clips)
    assert asked == len(expected) == len(found)
    got = {(c.clip, c.frame): (c.rare, c.flicker, c.doubt) for c in found}
    assert got.keys() == expected.keys()
    for key, figures in expected.items():
        assert got[key] == pytest.approx(figures, abs=2e-6), key
    scores = [sum(_rank([c_[i] for c_ in got.values()], got[c.clip, c.frame][i]) for i in range(3)) for c in found]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 3
    several = [(c.clip, c.frame) for c, s in zip(found, scores, strict=True) if s == scores[-1]]
    assert several == sorted(several)


def _rank(values: list[float], value: float) -> int:
    return sum(each < value for each in values)


def _random_clip(chance: random.Random, number: int) -> Indexed:
    looks, objects = [], []
    for k in range(chance.randint(1, 7)):
        area = {
            name: round(chance.random() / 3, 4) for name in ("road", "traffic light", "car") if chance.random() < 0.6
        }
        labels = [chance.choice(("car", "person")) for _ in range(chance.randint(0, 3))]
        looks.append(look(k, area, dict(Counter(labels))))
        tracks = [chance.choice((1, 2, 3, None)) for _ in labels]
        objects += [
            box(k, label, round(chance.random(), 3), track) for label, track in zip(labels, tracks, strict=True)
        ]
    return clip(number, BEGUN + 60 * number, looks, objects=objects)


def _by_rows(clips: list[Indexed]) -> dict[tuple[str, int], tuple[float, float, float]]:
    def seen(row: FrameRow) -> set[str]:
        things = {name for name in TERMS.things if row.count.get(name)}
        return things | {name for name in TERMS.areas if name not in TERMS.things and row.area.get(name, 0) >= 0.001}

    frames = [row for each in clips for row in each.frames]
    shares = {name: sum(name in seen(row) for row in frames) / len(frames) for name in (*TERMS.areas, *TERMS.things)}
    made = {}
    for each in clips:
        looks = Counter(o.track for o in each.objects if o.track is not None)
        for place, row in enumerate(each.frames):
            boxes = [o for o in each.objects if o.frame == row.frame]
            rare = 1 - min((shares[name] for name in seen(row)), default=1)
            doubt = 1 - sum(o.score for o in boxes) / len(boxes) if boxes else 0
            flicker = 0.0
            if 0 < place < len(each.frames) - 1:
                before, behind = each.frames[place - 1].area, each.frames[place + 1].area
                jump = sum(
                    abs(row.area.get(n, 0) - (before.get(n, 0) + behind.get(n, 0)) / 2) for n in TERMS.areas
                ) / 2  # fmt: skip
                glimpses = sum(looks.get(o.track) == 1 for o in boxes) / len(boxes) if boxes else 0
                flicker = max(jump, glimpses)
            made[each.clip.clip, row.frame] = (rare, flicker, doubt)
    return made


def test_a_clip_has_no_more_than_its_hardest(tmp_path: Path) -> None:
    looks = [look(k, {"road": 0.5}, {"car": 1}) for k in range(5)]
    objects = [box(k, "car", score, 1) for k, score in enumerate((0.9, 0.2, 0.8, 0.1, 0.7))]
    archive = put(tmp_path / "a", [clip(n, BEGUN + 60 * n, looks, objects=objects) for n in (1, 2)])
    found, asked = ranked(archive, None, 2)
    assert [(c.clip, c.frame // EVERY) for c in found] == [("0001", 3), ("0002", 3), ("0001", 1), ("0002", 1)]
    assert asked == 10


def test_only_what_an_expression_is_true_of_is_ranked_and_shares_are_of_all(tmp_path: Path) -> None:
    looks = [look(0, {"road": 0.5}, {"car": 1}), look(1, {"road": 0.5}), look(2, {"road": 0.5}), look(3, {"road": 0.2})]
    archive = put(tmp_path / "a", [clip(1, BEGUN, looks)])
    found, asked = ranked(archive, "car or area.road < 0.3", ALL)
    assert [(c.frame // EVERY, c.rare) for c in found] == [(0, 0.75), (3, 0.0)]
    assert asked == 2
    assert (found[0].seconds, found[0].camera, found[0].path) == (0.0, "front", "/card/1.mp4")
    assert found[0].trip == "2023-11-14T22-13-20Z"
    assert found[1].time is not None
    assert found[1].time.timestamp() == BEGUN + 1.5
    with pytest.raises(SourceError, match="has no frame of which 'person' is true; nothing is written"):
        ranked(archive, "person", ALL)
    with pytest.raises(UsageError, match="the nearest is person"):
        ranked(archive, "persn", ALL)


def test_models_without_boxes_or_without_areas_are_ranked_too(tmp_path: Path) -> None:
    looks = [look(k, {}, {}) for k in range(3)]
    (model,) = TERMS.models
    for name, changed in (("areas", {"things": ()}), ("boxes", {"areas": ()})):
        terms = msgspec.structs.replace(TERMS, models=(msgspec.structs.replace(model, **changed),))
        found, _ = ranked(put(tmp_path / name, [clip(1, BEGUN, looks)], terms), None, ALL)
        assert [(c.rare, c.flicker, c.doubt) for c in found] == [(0, 0, 0)] * 3
