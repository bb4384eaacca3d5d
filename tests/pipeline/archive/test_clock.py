"""When a recording was made where its camera's clock and its receiver's say different things."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.archive.positions import gpmf
from pipeline.archive.positions.clock import beginning, believed
from pipeline.archive.positions.fixes import Fix
from pipeline.archive.positions.reading import GOPRO as TELEMETRY
from pipeline.archive.positions.reading import _tracks, whereabouts
from pipeline.contracts import Recorded
from pipeline.frame import CapturedFrom
from tests.footage import write_clip
from tests.pipeline.archive.test_positions import BEGUN, GOPRO, gpx, rmc, with_novatek

NOW = BEGUN + 86_400 * 365
WEEKS = 1024 * 7 * 86_400


# What is believed -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("off", "by", "utc", "whose"),
    [
        (0.0, "metadata", True, "metadata"),
        (119.0, "metadata", True, "metadata"),  # its own clock, a little off
        (-119.0, "name", True, "name"),
        (121.0, "metadata", True, "gps"),
        (-420.0, "metadata", True, "gps"),  # it has run down
        (3600.0, "metadata", True, "gps"),  # local time where UTC belongs
        (-28_782.0, "metadata", True, "gps"),
        (20_700.0, "name", True, "gps"),  # Nepal
        (-8 * 365 * 86_400.0, "metadata", True, "gps"),  # 2016
        (30.0, "modified", True, "gps"),  # copying changes it
        (0.0, "modified", True, "modified"),
        (3600.0, "name", False, "name"),  # the receiver's time may be that of the camera's zone
        (14 * 3600.0 + 119, "metadata", False, "metadata"),
        (14 * 3600.0 + 121, "metadata", False, "gps"),
        (-8 * 365 * 86_400.0, "name", False, "gps"),
    ],
)
def test_a_receiver_is_believed_where_the_camera_must_be_wrong(
    off: float, by: CapturedFrom, utc: bool, whose: str
) -> None:
    at, said = believed(Recorded("clip", BEGUN + off, by), BEGUN, NOW, utc=utc)
    assert (at, said) == (BEGUN if whose == "gps" else BEGUN + off, whose)


@pytest.mark.parametrize("weeks", [1, 2, -1])
@pytest.mark.parametrize("zone", [0, 5.5, -8])
def test_a_receiver_that_counts_weeks_wrong_is_not_believed(weeks: int, zone: float) -> None:
    camera = Recorded("clip", BEGUN + zone * 3600, "metadata")
    assert believed(camera, BEGUN - weeks * WEEKS, NOW) == (camera.at, "metadata")


@pytest.mark.parametrize("receiver", [None, 0.0, 315_964_800.0, NOW + 3600])
def test_a_time_that_cannot_be_is_nobodys(receiver: float | None) -> None:
    assert believed(None, receiver, NOW) == (None, "")
    assert believed(Recorded("clip", BEGUN, "name"), receiver, NOW) == (BEGUN, "name")
    assert believed(None, BEGUN, NOW) == (BEGUN, "gps")


@given(
    count=st.integers(3, 90), jitter=st.lists(st.floats(-0.9, 0.9), min_size=90, max_size=90),
    late=st.floats(-1e6, 1e6),
)  # fmt: skip
def test_a_steady_receiver_tells_the_beginning_whatever_a_few_moments_say(
    count: int, jitter: list[float], late: float
) -> None:
    told = [(float(k), BEGUN + k + jitter[k]) for k in range(count)]
    for place in range(count // 11):
        told[place] = (float(place), BEGUN + late)  # what it knew before it was switched off
    found = beginning(told)
    assert found is not None
    assert found == pytest.approx(BEGUN, abs=1.0)


@pytest.mark.parametrize("speed", [2, 15, 0.25])
def test_time_lapse_and_slow_motion_tell_no_beginning(speed: float) -> None:
    assert beginning((k, BEGUN + speed * k) for k in range(60)) is None
    assert beginning([(0.0, BEGUN), (1.0, BEGUN + 1)]) is None


# GoPro ----------------------------------------------------------------------------------------------------------------
def entry(key: bytes, kind: str, size: int, payload: bytes) -> bytes:
    count = len(payload) // size
    return key + struct.pack(">cBH", kind.encode() or b"\0", size, count) + payload + bytes(-len(payload) % 4)


def nested(key: bytes, payload: bytes) -> bytes:
    return key + struct.pack(">BBH", 0, 1, len(payload)) + payload + bytes(-len(payload) % 4)


def gps5(at: datetime, fix: int, dilution: int, count: int = 18) -> bytes:
    rows = b"".join(struct.pack(">5i", 480_000_000 + k, 115_000_000, 500_000, 11_000, 1_100) for k in range(count))
    stream = (
        entry(b"GPSF", "L", 4, struct.pack(">I", fix))
        + entry(b"GPSU", "U", 16, f"{at:%y%m%d%H%M%S}.{at.microsecond // 1000:03d}".encode())
        + entry(b"GPSP", "S", 2, struct.pack(">H", dilution))
        + entry(b"SCAL", "l", 4, struct.pack(">5i", 10_000_000, 10_000_000, 1000, 1000, 100))
        + entry(b"GPS5", "l", 20, rows)
    )
    return nested(b"DEVC", entry(b"DVID", "L", 4, struct.pack(">I", 1)) + nested(b"STRM", stream))


def gps9(at: datetime, fix: int, dilution: int, count: int = 10) -> bytes:
    rows = b""
    for k in range(count):
        moment = at + timedelta(seconds=k / count) - datetime(2000, 1, 1, tzinfo=UTC)
        seconds = round((moment.seconds + moment.microseconds / 1e6) * 1000)
        rows += struct.pack(
            ">7i2H", 480_000_000 + k, 115_000_000, 500_000, 11_000, 1_100, moment.days, seconds, dilution, fix
        )
    stream = entry(b"TYPE", "c", 1, b"lllllllSS") + entry(
        b"SCAL", "l", 4, struct.pack(">9i", 10_000_000, 10_000_000, 1000, 1000, 100, 1, 1000, 100, 1)
    )
    return nested(b"DEVC", nested(b"STRM", stream + entry(b"GPS9", "?", 32, rows)))


@pytest.mark.parametrize("made", [gps5, gps9])
@pytest.mark.parametrize(
    ("fix", "dilution", "known"), [(3, 154, True), (3, 1000, True), (3, 1001, False), (2, 154, False), (0, 9999, False)]
)
def test_the_time_of_a_gopro_is_had_where_its_receiver_knew_where_it_was(
    made: object, fix: int, dilution: int, known: bool
) -> None:
    assert callable(made)
    begun = datetime(2026, 11, 29, 23, 59, 56, 250_000, tzinfo=UTC)  # and over midnight
    samples = [(float(k), 1.0, made(begun + timedelta(seconds=k), fix, dilution)) for k in range(8)]
    found = beginning(gpmf.clock_of(samples))
    assert found == (pytest.approx(begun.timestamp(), abs=2e-3) if known else None)
    assert bool(list(gpmf.fixes_of(samples))) == (dilution <= 1000 and fix >= 2)


def test_damaged_telemetry_tells_no_time() -> None:
    begun = datetime(2026, 11, 29, tzinfo=UTC)
    for at in range(0, 200, 3):
        samples = [(float(k), 1.0, gps5(begun + timedelta(seconds=k), 3, 154)[:at]) for k in range(8)]
        found = beginning(gpmf.clock_of(samples))
        assert found is None or found == pytest.approx(begun.timestamp(), abs=1e-3)
    odd = [(float(k), 1.0, gps5(begun, 3, 154).replace(b"261129", b"26xx29")) for k in range(8)]
    assert beginning(gpmf.clock_of(odd)) is None


@pytest.mark.realdata
@pytest.mark.skipif(not GOPRO.is_file(), reason="the development data is not beside the checkout")
def test_the_real_gopro_whose_clock_is_that_of_california_is_told_by_its_receiver() -> None:
    with av.open(str(GOPRO)) as container:
        said = datetime.fromisoformat(container.metadata["creation_time"]).timestamp()
    found = whereabouts(GOPRO, said, 10.5).began
    assert found is not None
    at, by = believed(Recorded(GOPRO.name, said, "metadata"), found, NOW)
    (track,) = (each for each in _tracks(GOPRO) if TELEMETRY in each.name)
    first = track.samples[1]  # the second `GPSU` that stands in the file
    assert b"191118234516.470" in first[2]
    expected = datetime(2019, 11, 18, 23, 45, 16, 470_000, tzinfo=UTC).timestamp() - first[0]
    assert (at, by) == (pytest.approx(expected, abs=0.1), "gps")
    assert said - found == pytest.approx(-8 * 3600, abs=30)


# Others ---------------------------------------------------------------------------------------------------------------
@pytest.mark.seconds
@pytest.mark.parametrize("off", [0.0, 40.0, 3600.0, 3600.0 - 90, -8 * 365 * 86_400.0])
def test_the_places_of_a_novatek_whose_clock_was_never_set_are_those_of_its_list(off: float, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=75)
    with_novatek(clip, [Fix(BEGUN + k, 48.0 + k * 1e-4, 11.5) for k in range(5)], 48)
    found = whereabouts(clip, BEGUN + off, 3.0)
    assert found.positions is not None
    assert [fix.at for fix in found.positions.fixes] == [0, 1, 2, 3, 4]
    assert (found.began, found.utc) == (BEGUN, False)


@pytest.mark.seconds
def test_what_a_receiver_says_a_little_late_is_placed_by_a_clock_that_is_right(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=75)
    with_novatek(clip, [Fix(BEGUN - 2 + k, 48.0 + k * 1e-4, 11.5) for k in range(5)], 48)
    found = whereabouts(clip, BEGUN, 3.0).positions
    assert found is not None
    assert [fix.at for fix in found.fixes] == [-2, -1, 0, 1, 2]


@pytest.mark.parametrize(
    ("name", "suffix", "seconds", "count", "own"),
    [
        ("20160101_000312.mp4", "NMEA", 20.0, 21, True),
        ("2016_0101_000312_0002F.MP4", "gpx", 20.0, 20, True),
        ("20160101_000312.mp4", "gpx", 20.0, 2000, False),  # of the whole day
        ("20160101_000312.mp4", "nmea", 20.0, 4, False),  # where it begins nobody knows
        ("clip_0001.mp4", "nmea", 20.0, 21, False),  # there may have been another clip of that name
    ],
)
def test_a_side_car_tells_the_time_of_a_clip_that_it_surely_belongs_to(
    name: str, suffix: str, seconds: float, count: int, own: bool, tmp_path: Path
) -> None:
    clip = tmp_path / name
    write_clip(clip, frames=5)
    track = [(BEGUN + k, 48.0 + k * 1e-4) for k in range(count)]
    begun = (BEGUN + 86_400 * 1000) % 86_400
    nmea = "\n".join(rmc(begun + k, latitude) for k, (_, latitude) in enumerate(track))
    clip.with_suffix(f".{suffix}").write_text(gpx(track) if suffix == "gpx" else nmea)
    found = whereabouts(clip, BEGUN - 8 * 365 * 86_400, seconds)
    assert found.began == (BEGUN if own else None)
    assert (found.positions is not None) == own
    assert bool(found.unused) != own


def test_a_side_car_in_another_zone_says_which_zone_and_keeps_the_cameras_seconds(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=5)
    clip.with_suffix(".gpx").write_text(gpx([(BEGUN + 7 + k, 48.0 + k * 1e-4) for k in range(20)]))
    found = whereabouts(clip, BEGUN + 5.75 * 3600, 20.0)
    assert found.began == BEGUN
    assert found.utc


def test_nothing_is_told_of_a_clip_without_any(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=5, fps=Fraction(25))
    assert whereabouts(clip, math.pi, 0.2).began is None
