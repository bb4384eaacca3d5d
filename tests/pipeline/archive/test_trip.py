"""The page of a trip: it says what the tables say, cuts clips as `find` does, and asks nobody for anything."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import av
import msgspec
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")
pytest.importorskip("jinja2")

from engines.errors import OutputError, UsageError
from pipeline.archive.reading import Archive
from pipeline.archive.rows import EventRow, FrameRow, ObjectRow
from pipeline.archive.trip import track
from pipeline.archive.trip.choosing import choose
from pipeline.archive.trip.page import render, tell, write
from pipeline.archive.trip.story import Story, story_of
from tests.footage import read_number, write_clip
from tests.pipeline.archive.made_up import BEGUN, EVERY, RATE, TERMS, clip, put

STEP = EVERY / RATE
TRIP = "2023-11-14T22-13-20Z"  # of BEGUN


def frames(count: int, at: float | None, **count_of: list[int]) -> list[FrameRow]:
    """Looks at a clip; `count_of` has the boxes of a label in each."""
    return [
        FrameRow(
            k * EVERY, k * STEP, None if at is None else at + k * STEP, {"road": 0.6, "car": 0.1},
            {label: numbers[k] for label, numbers in count_of.items() if numbers[k]},
        )
        for k in range(count)
    ]  # fmt: skip


def followed(track_: int, label: str, looks: range) -> list[ObjectRow]:
    return [ObjectRow(k * EVERY, label, 0.9, 1, 1, 5, 5, track_, "m") for k in looks]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds with a key frame every half a second and each picture's number in it."""
    path = tmp_path_factory.mktemp("card") / "front.mp4"
    write_clip(path, frames=120, fps=30, numbered=True, gop=15, size=(320, 180), audio=True)
    return path


@pytest.fixture
def archive(recording: Path, tmp_path: Path) -> Archive:
    """Two cameras and a pause: three cars and a person, of whom two are glimpsed; an event; a clip without a clock."""
    first = clip(
        1, BEGUN, frames(8, BEGUN, car=[0, 1, 2, 1, 0, 0, 0, 0], person=[0, 0, 0, 0, 0, 1, 0, 0]), path=recording,
        objects=[
            *followed(1, "car", range(1, 4)), *followed(2, "car", range(2, 3)), *followed(3, "person", range(5, 6)),
        ],
        events=[EventRow("cut_in", 3.5, 3.9, 3.6, 0.8, (1,), "ahead", "cut in", '{"distance_m":9.5}')],
    )  # fmt: skip
    gone = clip(
        2, BEGUN + 60, frames(4, BEGUN + 60, car=[1, 1, 1, 1]), objects=followed(1, "car", range(4)),
        events=[EventRow("approach", 0.5, 1.0, None, 0.9)],
    )  # fmt: skip
    rear = clip(3, BEGUN + 1, frames(4, BEGUN + 1), camera="rear", novelty=2.4)
    other = clip(4, BEGUN + 90_000, frames(2, BEGUN + 90_000))
    timeless = clip(5, None, frames(2, None))
    return put(tmp_path / "archive", [first, gone, rear, other, timeless])


def page_of(archive: Archive, wanted: str | None = None, most_bytes: int = 1 << 30) -> str:
    return render(archive, tell(archive, choose(archive, wanted), most_bytes))


def videos(page: str) -> list[bytes]:
    return [base64.b64decode(each) for each in re.findall(r'src="data:video/mp4;base64,([^"]+)"', page)]


# What is told ---------------------------------------------------------------------------------------------------------
@pytest.mark.seconds
def test_road_users_are_told_by_track_and_those_that_were_glimpsed_apart(archive: Archive) -> None:
    story = story_of(archive, TRIP)
    told = {met.label: (met.tracks, met.glimpsed, met.most, met.longest, met.first) for met in story.met}
    assert told == {"car": (2, 1, 2, 3 * STEP, STEP), "person": (0, 1, 1, 0.0, None)}
    assert [(each.clip, each.at) for each in story.clips] == [("0001", 0.0), ("0003", 1.0), ("0002", 60.0)]
    assert (story.seconds, story.footage(), story.cameras, story.looks) == (62.0, 8.0, ("front", "rear"), 16)


@pytest.mark.seconds
def test_nobody_is_said_to_be_absent_where_nobody_looked(archive: Archive) -> None:
    story = story_of(archive, TRIP)
    (car,) = (met for met in story.met if met.label == "car")
    looked = {int((start + k * STEP) / story.step) for start, n in ((0, 8), (1, 4), (60, 4)) for k in range(n)}
    assert {place for place, most in enumerate(car.seen) if most is not None} == looked
    assert len(looked) < story.stretches
    front, rear = story.areas
    assert (front.names, front.means) == (("road", "car"), (pytest.approx(0.6), pytest.approx(0.1)))
    assert {place for place, shares in enumerate(rear.shares) if shares is not None} <= looked


def test_clips_without_a_clock_stand_behind_each_other(tmp_path: Path) -> None:
    made = put(tmp_path / "archive", [clip(k, None, frames(4, None)) for k in range(3)])
    story = story_of(made, None)
    assert [each.at for each in story.clips] == [0.0, 2.0, 4.0]
    page = page_of(made)
    assert "Clips without a clock" in page
    assert "UTC" not in re.sub(r"<footer>.*", "", page, flags=re.DOTALL)


@pytest.mark.seconds
def test_what_is_not_known_is_said(archive: Archive) -> None:
    page = page_of(archive, TRIP)
    for sentence in (
        "One frame in 15 was looked at (16 pictures)", "counts twice and once for each camera",
        "of the camera front there is a gap of 56 s", "says when it was recorded by its file&#39;s name only",
        "Where the car was is not known", "Nobody looked for events",
        "One clip of 3 is unlike what the model was trained on (novelty above 2)",
    ):  # fmt: skip
        assert sentence in page


# Clips of events ------------------------------------------------------------------------------------------------------
@pytest.mark.seconds
def test_the_clip_of_an_event_begins_at_most_a_key_frame_before_what_is_asked_and_keeps_sound(archive: Archive) -> None:
    (video,) = videos(page_of(archive, TRIP))
    with av.open(io.BytesIO(video)) as container:
        numbers = [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        assert len(container.streams.audio) == 1
    asked = (3.5 - 3.0) * 30
    assert asked - 15 < numbers[0] <= asked
    assert numbers == list(range(numbers[0], 120))


def test_what_is_left_out_is_said_and_what_is_surest_goes_in_first(archive: Archive) -> None:
    page = page_of(archive, TRIP)
    assert "/card/2.mp4 is not there any more" in page  # the surer one, whose clip nobody has
    size = len(videos(page)[0])
    assert len(videos(page_of(archive, TRIP, size))) == 1
    short = page_of(archive, TRIP, size - 1)
    assert videos(short) == []
    assert "this page has no room left for its clip" in short
    assert short.count('src="data:image/jpeg') == 1  # its picture stays


def test_of_an_archive_that_hides_faces_no_clip_is_shown(recording: Path, tmp_path: Path) -> None:
    terms = msgspec.structs.replace(TERMS, options={"anonymize": {"classes": ["person"]}})
    seen = clip(1, BEGUN, frames(8, BEGUN), path=recording, events=[EventRow("cut_in", 1.0, 2.0)])
    page = page_of(put(tmp_path / "archive", [seen], terms))
    assert videos(page) == []
    assert "data:image" not in page
    assert "made with --anonymize" in page


# The page -------------------------------------------------------------------------------------------------------------
def test_the_page_asks_nobody_for_anything_and_runs_nothing(archive: Archive) -> None:
    page = page_of(archive, TRIP)
    addresses = re.findall(r'(?:src|href|poster|action)="([^"]{0,40})', page)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "<script" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_names_from_a_card_are_texts_and_no_markup(tmp_path: Path) -> None:
    seen = clip(1, BEGUN, frames(4, BEGUN), events=[EventRow("<b>x", 0.0, 1.0, text="<script>alert(1)</script>")])
    page = page_of(put(tmp_path / "archive", [seen]))
    assert "<script" not in page
    assert "<b>x" not in page


def test_a_page_that_cannot_be_written_is_said(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write(page_of(archive, TRIP, 0), tmp_path / "gone" / "trip.html")


# Which trip -----------------------------------------------------------------------------------------------------------
@pytest.mark.seconds
@pytest.mark.parametrize(
    ("wanted", "name", "trips"),
    [
        (None, "2023-11-15T23-13-20Z", ("2023-11-15T23-13-20Z",)),
        ("2023-11-14", "2023-11-14", (TRIP,)),
        (TRIP, TRIP, (TRIP,)),
        ("2023-11-15T", "2023-11-15T23-13-20Z", ("2023-11-15T23-13-20Z",)),
        ("unknown", "unknown", (None,)),
    ],
)
def test_a_day_a_trip_or_what_has_no_clock_is_chosen(
    wanted: str | None, name: str, trips: tuple[str | None, ...], archive: Archive
) -> None:
    chosen = choose(archive, wanted)
    assert (chosen.name, chosen.trips) == (name, trips)
    assert set(chosen.others).isdisjoint(trips)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("2023-12-14", "did you mean '2023-11-14'"),
        ("2023", "begins the names of 2 trips"),
        ("xyz", "there are 2023-11-14, 2023-11-15, unknown"),
        ("", "has no day or trip ''"),
    ],
)
def test_what_is_no_trip_is_refused_with_the_nearest_one(wanted: str, sentence: str, archive: Archive) -> None:
    with pytest.raises(UsageError, match=sentence):
        choose(archive, wanted)


# The way --------------------------------------------------------------------------------------------------------------
@pytest.fixture
def driven(tmp_path: Path) -> Callable[..., Story]:
    def made(gap: int = 0, longitude: float = 11.0) -> Story:
        rows = frames(60, BEGUN)
        for k, row in enumerate(rows):
            if not 20 <= k < 20 + gap:
                east = (longitude + 180 + k * 1e-4) % 360 - 180
                row.latitude, row.longitude, row.speed = 0.0, east, 10.0 + k
        seen = clip(1, BEGUN, rows, events=[EventRow("cut_in", 15.0, 16.0)])
        return story_of(put(tmp_path / "archive", [seen]), TRIP)

    return made


@pytest.mark.parametrize("longitude", [11.0, 179.999])
def test_the_way_is_as_long_as_the_way_on_the_sphere(driven: Callable[..., Story], longitude: float) -> None:
    story = driven(longitude=longitude)
    assert track.length(story) == pytest.approx(59 * 1e-4 * 111_195, rel=1e-3)
    assert track.top_speed(story) == 69.0
    xs = [float(x) for x in re.findall(r"[ML](-?\d+\.\d) -?\d+\.\d", str(track.drawn(story)))]
    assert xs == sorted(xs)
    assert (xs[0], xs[-1]) == (28.0, 872.0)


def test_geojson_has_a_line_for_each_piece_and_a_point_for_each_event(driven: Callable[..., Story]) -> None:
    made = json.loads(track.geojson(driven(gap=24)))
    kinds = [each["geometry"]["type"] for each in made["features"]]
    assert kinds == ["LineString", "LineString"]  # the event lies in the gap: nobody knows where
    for each in made["features"]:
        assert len(each["geometry"]["coordinates"]) == len(each["properties"]["times"]) > 1
    assert made["features"][0]["properties"]["times"][0] == BEGUN


def test_geojson_says_where_an_event_was(driven: Callable[..., Story]) -> None:
    *_, point = json.loads(track.geojson(driven()))["features"]
    assert point["properties"]["kind"] == "cut_in"
    assert point["geometry"]["coordinates"] == pytest.approx([11.003, 0.0])
