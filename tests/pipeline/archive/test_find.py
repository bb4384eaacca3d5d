"""What is found is what looking at every row finds; what cannot be asked is refused with the way out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

from engines.errors import UsageError
from pipeline.archive.find.grammar import Call, Comparison, Joined, Name, Not, Number, Text, Tree, parse
from pipeline.archive.find.query import query_of
from pipeline.archive.rows import EventRow, FrameRow, Indexed, ObjectRow
from tests.pipeline.archive.made_up import BEGUN, EVERY, RATE, TERMS, clip, put


# Brute force ----------------------------------------------------------------------------------------------------------
@dataclass
class Seen:
    """A frame with all that can be asked of it."""

    indexed: Indexed
    frame: FrameRow
    tracks: dict[int, float] = field(default_factory=dict)

    @property
    def boxes(self) -> list[ObjectRow]:
        return [box for box in self.indexed.objects if box.frame == self.frame.frame]

    @property
    def happening(self) -> list[EventRow]:
        until = self.frame.seconds + EVERY / RATE
        return [e for e in self.indexed.events if e.start < until and e.end >= self.frame.seconds]


def value(tree: Tree, seen: Seen) -> Any:
    """What an expression is in a frame: None where that is not known (Kleene's logic)."""
    match tree:
        case Number(each, _) | Text(each, _):
            return each
        case Joined(word, parts, _):
            values = [value(part, seen) for part in parts]
            decisive = word == "or"
            return decisive if decisive in values else None if None in values else not decisive
        case Not(inner, _):
            found = value(inner, seen)
            return None if found is None else not found
        case Comparison(left, sign, right, _):
            return compared(value(left, seen), sign, value(right, seen))
        case Call("track", (Number(number, _),), _):
            return any(box.track == number for box in seen.boxes)
        case Call("near", (Number(lat, _), Number(lon, _), Number(metres, _)), _):
            row = seen.indexed.clip if seen.frame.latitude is None else seen.frame
            if row.latitude is None or row.longitude is None:
                return None
            a, b = math.radians(lat), math.radians(row.latitude)
            along = math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(math.radians(lon - row.longitude))
            return 6_371_008.8 * math.acos(max(-1.0, min(1.0, along))) <= metres
        case Name(parts, _):
            return named(parts, seen)
    raise AssertionError(tree)


def compared(left: Any, sign: str, right: Any) -> bool | None:
    if left is None or right is None:
        return None
    return {
        "==": left == right, "!=": left != right, "<": left < right, "<=": left <= right, ">": left > right,
        ">=": left >= right,
    }[sign]  # fmt: skip


def named(parts: tuple[str, ...], seen: Seen) -> Any:
    classes = {"road": "road", "traffic_light": "traffic light", "car": "car", "person": "person"}
    frame, row = seen.frame, seen.indexed.clip
    match parts:
        case ("seconds",):
            return frame.seconds
        case ("speed",):
            return frame.speed
        case ("latitude",):
            return row.latitude if frame.latitude is None else frame.latitude
        case ("novelty" | "camera" as name,):
            return getattr(row, name)
        case ("event",):
            return bool(seen.happening)
        case ("car" | "person" as label,):
            return frame.count.get(label, 0) > 0
        case (name,):
            return frame.area.get(classes[name], 0) > 0
        case ("area", name):
            return frame.area.get(classes[name], 0.0)
        case ("count", name):
            return frame.count.get(name, 0)
        case ("score", name):
            return max((box.score for box in seen.boxes if box.label == name), default=None)
        case ("seen", name):
            begun = {
                box.track: min(b.frame for b in seen.indexed.objects if b.track == box.track) for box in seen.boxes
            }
            times = {f.frame: f.seconds for f in seen.indexed.frames}
            spans = [
                frame.seconds - times[begun[b.track]] for b in seen.boxes if b.label == name and b.track is not None
            ]
            return max(spans, default=None)
        case ("event", kind):
            return any(e.kind == kind for e in seen.happening)
        case ("confidence", kind):
            known = [e.confidence for e in seen.happening if e.kind == kind and e.confidence is not None]
            return max(known, default=None)
    raise AssertionError(parts)


SHARE = st.integers(0, 10).map(lambda tenths: tenths / 10)
LABELS = ("car", "person")


@st.composite
def clips(draw: st.DrawFn) -> list[Indexed]:
    made = []
    for number in range(draw(st.integers(1, 3))):
        frames, objects = [], []
        for index in range(draw(st.integers(1, 4))):
            boxes = draw(st.lists(st.tuples(st.sampled_from(LABELS), SHARE, st.none() | st.integers(1, 3)), max_size=3))
            count = {label: sum(box[0] == label for box in boxes) for label in LABELS}
            area = draw(st.fixed_dictionaries({}, optional={"road": SHARE, "traffic light": SHARE, "car": SHARE}))
            at = round(index * EVERY / RATE, 6)
            where = draw(st.sampled_from([(None, None, None), (48.0015, 11.0, None), (-33.9, 151.2, 0.5)]))
            frames.append(FrameRow(index * EVERY, at, None, area, count, "", *where))
            objects += [ObjectRow(index * EVERY, label, score, 0, 0, 1, 1, track, "m") for label, score, track in boxes]
        events = [
            EventRow(kind, start / 4, (start + length) / 4, None, confidence, (), "n")
            for kind, start, length, confidence in draw(
                st.lists(
                    st.tuples(
                        st.sampled_from(("cut_in", "approach")), st.integers(0, 8), st.integers(0, 8), st.none() | SHARE
                    ),
                    max_size=2,
                )
            )
        ]  # fmt: skip
        place = draw(st.sampled_from([(None, None), (48.0, 11.0), (48.001, 11.0), (-33.9, 151.2)]))
        at_ = draw(st.none() | st.integers(0, 10).map(lambda hours: BEGUN + 3600 * hours))
        camera = draw(st.sampled_from(["front", "rear"]))
        novelty = draw(st.none() | SHARE)
        made.append(
            clip(number, at_, frames, objects=objects, events=events, place=place, camera=camera, novelty=novelty)
        )
    return made


NAMES = [
    "area.road",
    "area.traffic_light",
    "count.car",
    "count.person",
    "score.car",
    "seen.car",
    "seconds",
    "speed",
    "latitude",
    "novelty",
]
SIGNS = ["==", "!=", "<", "<=", ">", ">="]


def expressions() -> st.SearchStrategy[str]:
    numbers = st.sampled_from(["0", "0.3", "0.5", "1", "2", "-1"])
    plain = st.sampled_from(
        ["car", "person", "road", "traffic_light", "event", "track(1)", "near(48, 11, 200)", "camera == 'front'"]
    )
    compare = st.tuples(st.sampled_from(NAMES), st.sampled_from(SIGNS), numbers).map(" ".join)
    both = st.tuples(st.sampled_from(NAMES), st.sampled_from(SIGNS), st.sampled_from(NAMES)).map(" ".join)
    return st.recursive(
        plain | compare | both,
        lambda inner: (
            st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda each: f"({' '.join(each)})")
            | inner.map(lambda each: f"not ({each})")
            | st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join)
        ),
        max_leaves=6,
    )


NUMBERS = iter(range(10**9))


def brute(made: list[Indexed], expression: str) -> Iterator[tuple[str, int]]:
    tree = parse(expression)
    for indexed in made:
        for frame in indexed.frames:
            if value(tree, Seen(indexed, frame)) is True:
                yield indexed.clip.clip, frame.frame


@pytest.mark.seconds
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(made=clips(), asked=st.lists(expressions(), min_size=4, max_size=4))
def test_what_is_found_is_what_looking_at_every_row_finds(
    made: list[Indexed], asked: list[str], tmp_path: Path
) -> None:
    archive = put(tmp_path / f"archive-{next(NUMBERS)}", made)
    for expression in asked:
        found = [(moment.clip, frame) for moment in archive.find(expression) for frame in moment.frames]
        assert len(set(found)) == len(found)
        assert set(found) == set(brute(made, expression)), expression


def frames(*counts: int) -> list[FrameRow]:
    return [
        FrameRow(i * EVERY, i * EVERY / RATE, BEGUN + i * EVERY / RATE, {"road": 0.4}, {"car": n})
        for i, n in enumerate(counts)
    ]


def test_frames_that_follow_each_other_are_one_moment(tmp_path: Path) -> None:
    archive = put(tmp_path / "a", [clip(1, BEGUN, frames(1, 1, 0, 2)), clip(2, BEGUN + 2, frames(1))])
    found = archive.find("car")
    assert [(m.clip, m.start, m.end, m.frames) for m in found] == [
        ("0001", 0.0, 1.0, (0, 15)), ("0001", 1.5, 2.0, (45,)), ("0002", 0.0, 0.5, (0,)),
    ]  # fmt: skip
    assert found[1].time is not None
    assert found[1].time.timestamp() == BEGUN + 1.5
    assert [m.clip for m in archive.find("time >= '2023-11-14T23:13:21+01:00'")] == ["0001"]
    assert [m.clip for m in archive.find("day == '2023-11-14' and hour == 22 and trip != 'x'")] == ["0001", "0002"]


def test_what_is_not_known_is_neither_true_nor_false(tmp_path: Path) -> None:
    rows = frames(1)
    rows[0].at = None
    archive = put(tmp_path / "a", [clip(1, None, rows)])
    for expression in ("latitude > 0", "near(0, 0, 1)", "time > '2020-01-01'", "score.car > 0", "trip == 'x'"):
        assert archive.find(expression) == []
        assert archive.find(f"not {expression}") == []
    assert len(archive.find("not near(0, 0, 1) or car")) == 1


def test_notes_can_be_asked(tmp_path: Path) -> None:
    rows = frames(1, 1)
    rows[0].notes = '{"ahead":{"lead":{"contact_s":1.5,"distance_m":12.0}},"glare":{"share":0.2}}'
    archive = put(tmp_path / "a", [clip(1, BEGUN, rows)])
    for expression in ("ttc < 2", "distance < 20 and note.glare.share == 0.2", "note.ahead.lead.contact_s > 1"):
        assert [m.frames for m in archive.find(expression)] == [(0,)]
    with pytest.raises(UsageError, match=r"the notes are: ahead, glare"):
        archive.find("note.haze > 1")


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("persn", "the nearest is person"),
        ("area.rod > 1", "the nearest is area.road"),
        ("count.road > 1", "names no label of boxes; there are car, person"),
        ("cont.car > 1", "the nearest is count.car"),
        ("event.crash", "names no kind of event in this archive; there are none"),
        ("ttc < 2", "is of the note 'ahead'; the notes are: none"),
        ("area.road", "is a number; compare it"),
        ("car = 3", r"`=` \(character 5\) is no comparison; write =="),
        ("car && person", "write and"),
        ("car person", "write `and` or `or`"),
        ("(car", "its end stands where `\\)` is expected"),
        ("car > 2", "use it alone, or count.CLASS"),
        ("camera < 'front'", "use == or !="),
        ("camera == 3", "compares a text with a number"),
        ("0 < count.car < 3", "is a second comparison"),
        ("time > 'noon'", "is no time; write one as"),
        ("near(1, 2)", "near\\(latitude, longitude, metres\\)"),
        ("far(1)", "there are near and track"),
        ("area. > 1", "the rest of a name is expected"),
        ("car and", "its end stands where a condition"),
        ("", "its end stands where a condition"),
        ("camera == 'front", "begins a text that does not end"),
        ("3x > 1", "cannot be read"),
        ("(" * 500 + "car" + ")" * 500, "more than 100 parentheses"),
        ("not " * 500 + "car", "more than 100"),
        ("x" * 20_000, "may have 10000"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_way_out(expression: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        query_of(expression, TERMS, (), ())


@given(st.text(max_size=40))
def test_no_text_is_more_than_a_sentence(text: str) -> None:
    with contextlib.suppress(UsageError):
        query_of(text, TERMS, ("cut_in",), ("ahead",))
