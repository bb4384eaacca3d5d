"""Where the car was: fixes by independent readings, wrong zones, gaps, a day's change, jumps; nothing is invented."""

from __future__ import annotations

import json
import math
import struct
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.archive.positions.fixes import GAP, Fix, Positions, bearing, metres
from pipeline.archive.positions.reading import on_clip, whereabouts
from pipeline.archive.positions.sidecars import fixes_in
from tests.footage import write_clip

BEGUN = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC
GOPRO = Path(__file__).parents[4] / "shared" / "data" / "telemetry" / "gopro_max_gps5.mp4"


def drive(count: int = 10, begin: float = 0.0, step: float = 1.0) -> list[Fix]:
    """To the north at about 11 m/s."""
    return [Fix(begin + k * step, 48.0 + k * step * 1e-4, 11.5, 11.1, 0.0) for k in range(count)]


def sentence(body: str) -> str:
    return f"${body}*{reduce(xor, body.encode()):02X}"


def rmc(second: float, latitude: float = 48.0, day: str = "141123", knots: str = "21.6") -> str:
    hours, rest = divmod(second % 86_400, 3600)
    minutes, seconds = divmod(rest, 60)
    degrees = int(latitude)
    angle = f"{degrees:02d}{(latitude - degrees) * 60:07.4f}"
    return sentence(
        f"GPRMC,{int(hours):02d}{int(minutes):02d}{seconds:05.2f},A,{angle},N,01130.0000,E,{knots},90.5,{day},,,A"
    )


def gpx(points: list[tuple[float, float]]) -> str:
    rows = "".join(
        f'<trkpt lat="{latitude}" lon="11.5"><time>{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}Z</time>'
        "<extensions><speed>9.5</speed></extensions></trkpt>"
        for at, latitude in points
    )
    return (
        f'<?xml version="1.0"?><gpx xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>{rows}</trkseg></trk></gpx>'
    )


# Between fixes --------------------------------------------------------------------------------------------------------
def test_between_two_fixes_the_car_is_between_them_and_beyond_them_nowhere() -> None:
    positions = Positions(drive(), "gpx")
    at = positions.at(2.5)
    assert at is not None
    assert (round(at.latitude, 6), at.longitude, at.speed, at.heading) == (48.00025, 11.5, 11.1, 0.0)
    assert positions.at(-0.1) is None
    assert positions.at(9.1) is None


def test_in_a_gap_nothing_is_known() -> None:
    positions = Positions([*drive(3), *drive(3, 3 + GAP)], "gpx")
    assert positions.at(2.0) is not None
    assert positions.at(3.0) is None
    assert positions.at(3 + GAP) is not None


def test_speed_that_no_receiver_told_is_not_known_and_a_heading_is_had_from_moving_only() -> None:
    moving = Positions([Fix(k / 10, 48.0, 11.5 + k * 2e-5) for k in range(30)], "gpmf").at(1.0)
    standing = Positions([Fix(k / 10, 48.0, 11.5 + k % 2 * 1e-6) for k in range(30)], "gpmf").at(1.0)
    assert moving is not None
    assert standing is not None
    assert (moving.speed, standing.speed, standing.heading) == (None, None, None)
    assert moving.heading == pytest.approx(90, abs=0.1)


def test_over_the_date_line_the_car_stays_where_it_is() -> None:
    at = Positions([Fix(0, 0.0, 179.9999), Fix(1, 0.0, -179.9999)], "gpx").at(0.25)
    assert at is not None
    assert at.longitude == pytest.approx(179.99995)


@given(
    jumps=st.dictionaries(st.integers(0, 29), st.tuples(st.floats(-80, 40), st.floats(-170, -1)), max_size=9),
    broken=st.lists(st.sampled_from([(0.0, 0.0), (math.nan, 1.0), (95.0, 0.0), (1.0, 190.0)]), max_size=3),
)
def test_fixes_that_jump_are_left_out_and_all_others_stay(
    jumps: dict[int, tuple[float, float]], broken: list[tuple[float, float]]
) -> None:
    track = drive(30)
    for place, (latitude, longitude) in jumps.items():
        track[place] = Fix(float(place), latitude, longitude)
    extra = [Fix(0.5 + k, *where) for k, where in enumerate(broken)]
    positions = Positions([*track, *extra], "nmea")
    assert [fix.at for fix in positions.fixes] == [float(k) for k in range(30) if k not in jumps]
    assert positions.jumps == len(jumps)


def test_metres_and_bearings_are_those_of_the_sphere() -> None:
    paris, berlin = Fix(0, 48.8566, 2.3522), Fix(0, 52.52, 13.405)
    assert metres(paris, berlin) == pytest.approx(877_500, rel=0.002)  # a known distance
    assert bearing(paris, berlin) == pytest.approx(58.4, abs=0.3)


# Clocks ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("zone", [0, 1, -5, 5.75, 9.5, 13, -11])
@pytest.mark.parametrize("drift", [0, 40, -40])
def test_a_camera_in_a_zone_that_nobody_told_gets_its_track(zone: float, drift: float) -> None:
    placed = on_clip(Positions(drive(60, BEGUN + drift), "gpx"), BEGUN + zone * 3600, 60.0)
    assert placed is not None
    # A clock that is off by seconds within a zone cannot be told from a late first fix.
    assert placed.fixes[0].at == pytest.approx(drift, abs=1e-3)


@pytest.mark.parametrize("off", [86_400, 1000, -1000, 16 * 3600])
def test_a_track_of_another_time_is_not_of_this_clip(off: float) -> None:
    assert on_clip(Positions(drive(60, BEGUN + off), "gpx"), BEGUN, 60.0) is None
    assert on_clip(Positions(drive(60, BEGUN), "gpx"), None, 60.0) is None


# Side-cars ------------------------------------------------------------------------------------------------------------
def test_nmea_goes_on_over_midnight_and_passes_over_what_is_damaged(tmp_path: Path) -> None:
    lines = [
        rmc(86_398, 48.0), rmc(86_399, 48.0001), rmc(86_400, 48.0002, day="151123"),
        rmc(86_401, 48.0003, day="151123").replace("48", "47"),  # its checksum is wrong now
        sentence("GPRMC,000002.00,V,,,,,,,151123,,,N"), "noise \x00\xff", rmc(86_403, 48.0005, day="151123"),
    ]  # fmt: skip
    (tmp_path / "clip.nmea").write_text("\r\n".join(lines))
    fixes, dated = fixes_in(tmp_path / "clip.nmea")
    assert dated
    first = 1_699_920_000.0 + 86_398  # 2023-11-14 00:00 UTC
    assert [fix.at - first for fix in fixes] == [0, 1, 2, 5]
    assert [round(fix.latitude, 6) for fix in fixes] == [48.0, 48.0001, 48.0002, 48.0005]
    assert fixes[0].speed == pytest.approx(11.112, abs=1e-3)
    assert (fixes[0].longitude, fixes[0].heading) == (11.5, 90.5)


def test_gga_has_the_day_of_the_rmc_before_it_and_of_the_next_one_behind_midnight(tmp_path: Path) -> None:
    gga = sentence("GPGGA,000001.00,3351.0000,S,15112.0000,W,1,08,1.0,10.0,M,,M,,")
    (tmp_path / "clip.nmea").write_text("\n".join([rmc(86_399), gga]))
    fixes, _ = fixes_in(tmp_path / "clip.nmea")
    assert fixes[1].at - fixes[0].at == 2
    assert (fixes[1].latitude, fixes[1].longitude, fixes[1].speed) == (-33.85, -151.2, None)


def test_subtitles_of_drones_have_the_times_of_the_clip(tmp_path: Path) -> None:
    (tmp_path / "clip.srt").write_text(
        "1\r\n00:00:01,500 --> 00:00:02,000\r\n[iso: 100] [latitude: 48.1] [longtitude: 11.5]\r\n\r\n"
        "2\r\n00:00:02,000 --> 00:00:03,000\r\nGPS(11.6,48.2,20)\r\n\r\n3\r\n00:00:03,000 --> 00:00:04,000\r\nhello\r\n"
    )
    fixes, dated = fixes_in(tmp_path / "clip.srt")
    assert not dated
    assert [(fix.at, fix.latitude, fix.longitude) for fix in fixes] == [(1.5, 48.1, 11.5), (2.0, 48.2, 11.6)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("clip.gpx", "<gpx><trk>", "cannot be read as GPX: no element found"),
        ("clip.gpx", '<!DOCTYPE x [<!ENTITY a "b">]><gpx>&a;</gpx>', "declares entities"),
        ("clip.gpx", gpx([(BEGUN, 48.0)]).replace("11.5", "east"), "cannot be read as GPX: could not convert"),
        ("clip.gpx", '<gpx><trkpt lat="48" lon="11"/></gpx>', "holds no fix with a time"),
        ("clip.gpx", gpx([(BEGUN + 86_400, 48.0), (BEGUN + 86_401, 48.0)]), "is of another time than its clip"),
        ("clip.gpx", gpx([(BEGUN + 1000, 48.0), (BEGUN + 1001, 48.0)]), "is of another time than its clip"),
        ("clip.nmea", "nothing", "holds no fix with a time"),
        ("clip.nmea", rmc(80_000).replace(",A,", ",V,"), "holds no fix with a time"),
        ("clip.GPS", rmc(80_000, day="310101"), "is of another time than its clip"),
        ("clip.srt", "1\n00:00:01,000 --> 00:00:02,000\nhello\n", ""),
        ("clip.srt", "1\n00:00:01,000 --> 00:00:02,000\nGPS(n/a,n/a,0)\n", "holds no fix with a time"),
        ("clip.srt", "1\n00:00:01,000 --> 00:00:02,000\n[latitude: 0.0] [longitude: 0.0]\n", "holds no fix"),
        ("clip.srt", "[latitude: 48.1] [longitude: 11.5]\n", "holds no fix with a time"),
    ],
)
def test_a_side_car_that_is_of_no_use_is_said_and_invents_nothing(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=5)
    (tmp_path / name).write_text(text)
    found = whereabouts(clip, BEGUN, 0.2)
    assert (found.positions, found.began) == (None, None)
    assert len(found.unused) == bool(said)
    for each in found.unused:
        assert each.path == str(tmp_path / name)
        assert said in f"{each.reason}: {each.detail}"


def test_a_side_car_that_may_not_be_read_or_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=5)
    (tmp_path / "clip.gpx").mkdir()
    (tmp_path / "clip.nmea").write_text("\n".join([rmc(80_000), rmc(80_001, 48.0001)]))
    (said,) = whereabouts(clip, BEGUN, 0.2).unused  # one that is of no use does not hide another one
    assert (said.reason, said.detail) == ("cannot be read", "is a directory")
    assert whereabouts(clip, BEGUN, 0.2).positions is not None
    (tmp_path / "clip.gpx").rmdir()

    def refuses(_self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuses)
    (said,) = whereabouts(clip, BEGUN, 0.2).unused
    assert (said.path, said.reason) == (str(tmp_path / "clip.nmea"), "may not be read by this user")


def test_a_summary_says_each_reason_once_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")
    from rich.console import Console

    from pipeline.archive.indexing import Summary
    from pipeline.archive.positions.sidecars import Unused
    from pipeline.commands.archive import _conclude

    unused = [
        Unused("/card/2.gpx", "cannot be read as GPX", "line 2"), Unused("/card/3.nmea", "holds no fix with a time"),
        Unused("/card/1.gpx", "cannot be read as GPX", "line 1"),
    ]  # fmt: skip
    summary = Summary(found=3, indexed=3, replaced=2, unused=unused)
    _conclude(Console(stderr=True, width=200), summary, Path("a"), dropped=True)
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == [
        "places not used of 2 files, such as /card/1.gpx, which cannot be read as GPX (line 1)",
        "places not used of 1 file /card/3.nmea, which holds no fix with a time",
    ]
    assert said[2:] == ["a: 3 of 3 clips indexed in 0.0 CPU seconds, 2 that others have replaced taken out"]


def test_a_side_car_is_that_which_has_the_clips_own_name(tmp_path: Path) -> None:
    clip = tmp_path / "Clip.mp4"
    write_clip(clip, frames=5)
    (tmp_path / "other.gpx").write_text(gpx([(BEGUN, 10.0), (BEGUN + 1, 10.0)]))
    assert whereabouts(clip, BEGUN, 0.2).positions is None
    (tmp_path / "clip.GPX").write_text(gpx([(BEGUN, 48.0), (BEGUN + 1, 48.0001)]))
    positions = whereabouts(clip, BEGUN + 3600, 0.2).positions
    assert positions is not None
    at = positions.at(0.1)
    assert at is not None
    assert (positions.source, round(at.latitude, 6), at.speed) == ("gpx", 48.00001, 9.5)


def test_a_track_that_jumps_is_said(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=5)
    (tmp_path / "clip.gpx").write_text(gpx([(BEGUN + k, 48.0 + (10 if k == 3 else 0)) for k in range(8)]))
    found = whereabouts(clip, BEGUN, 8.0)
    (said,) = found.unused
    assert said.reason.startswith("jumps: ")
    assert said.detail == "1 of them"
    assert found.positions is not None
    assert [fix.at for fix in found.positions.fixes] == [0, 1, 2, 4, 5, 6, 7]


def test_gpx_and_nmea_are_read_as_others_read_them(tmp_path: Path) -> None:
    gpxpy = pytest.importorskip("gpxpy")
    pynmea2 = pytest.importorskip("pynmea2")
    (tmp_path / "clip.gpx").write_text(gpx([(BEGUN + k, 48 + k * 1e-4) for k in range(20)]))
    theirs: list[Any] = gpxpy.parse((tmp_path / "clip.gpx").read_text()).tracks[0].segments[0].points
    ours, _ = fixes_in(tmp_path / "clip.gpx")
    assert [(f.at, f.latitude, f.longitude) for f in ours] == [
        (p.time.timestamp(), p.latitude, p.longitude) for p in theirs
    ]
    lines = [rmc(80_000 + k, 48 + k * 1e-4) for k in range(20)]
    (tmp_path / "clip.nmea").write_text("\n".join(lines))
    ours, _ = fixes_in(tmp_path / "clip.nmea")
    read = [pynmea2.parse(line) for line in lines]
    assert [f.latitude for f in ours] == pytest.approx([each.latitude for each in read], abs=1e-9)
    assert [f.longitude for f in ours] == pytest.approx([each.longitude for each in read], abs=1e-9)
    assert [f.at for f in ours] == [each.datetime.timestamp() for each in read]


@pytest.mark.slow
def test_an_archive_knows_where_the_car_was_and_its_page_draws_the_way(
    segmenter: Path, tmp_path: Path, roadlens: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for needed in ("pyarrow", "duckdb", "jinja2"):
        pytest.importorskip(needed)
    from pipeline.archive import read_archive

    (tmp_path / "card").mkdir()
    write_clip(tmp_path / "card" / "2023_1115_001320_0001F.MP4", frames=75)  # its clock is two hours ahead of UTC
    text = gpx([(BEGUN + k, 48.0 + k * 1e-4) for k in range(3)])
    (tmp_path / "card" / "2023_1115_001320_0001F.gpx").write_text(text)
    write_clip(tmp_path / "card" / "2016_0101_000312_0002F.MP4", frames=75, seed=1)  # its clock was never set
    track = "\n".join(rmc(80_900 + k, 49.0 + k * 1e-4) for k in range(4))
    (tmp_path / "card" / "2016_0101_000312_0002F.NMEA").write_text(track)
    write_clip(tmp_path / "card" / "2016_0101_000412_0003F.MP4", frames=75, seed=2)
    (tmp_path / "card" / "2016_0101_000412_0003F.NMEA").write_text("nothing")
    made = roadlens("archive", "card", "a", "--model", str(segmenter), "--device", "cpu", "--every", "25")
    assert made.returncode == 0, made.stderr
    found = roadlens("find", "a", "near(48.0001, 11.5, 3) and speed > 9 and latitude < 49", "--json")
    assert [json.loads(line)["frames"] for line in found.stdout.splitlines()] == [[25]]
    assert "2016_0101_000412_0003F.NMEA, which holds no fix with a time" in made.stderr
    clips = {Path(row["path"]).name[:4]: row for row in read_archive(tmp_path / "a").clips.to_pylist() if row["trip"]}
    assert clips["2023"]["recorded_from"] == "gps"
    assert clips["2023"]["recorded_at"].timestamp() == BEGUN
    asked = 'time >= "2023-11-14 22:28:20" and time < "2023-11-14 22:28:21" and latitude == 49'
    (line,) = roadlens("find", "a", asked, "--json").stdout.splitlines()
    moment = json.loads(line)
    assert Path(moment["path"]).name == "2016_0101_000312_0002F.MP4"
    assert (moment["time"], moment["trip"]) == ("2023-11-14T22:28:20Z", "2023-11-14T22-28-20Z")
    told = roadlens("trip", "a", "2023-11-14T22-13-20Z", "-o", "trip.html")
    assert told.returncode == 0, told.stderr
    page = (tmp_path / "trip.html").read_text()
    assert "<b>22 m</b>" in page
    assert "at most 34 km/h" in page
    assert "by GPX" in page


# Recordings -----------------------------------------------------------------------------------------------------------
def with_novatek(clip: Path, fixes: list[Fix], offset: int) -> None:
    """Put places into a clip as a Novatek chip does: boxes at the end of the file, and their list in `moov`."""
    data = bytearray(clip.read_bytes())
    places = []
    for fix in fixes:
        at = datetime.fromtimestamp(fix.at, UTC)
        head = struct.pack("<6I", at.hour, at.minute, at.second, at.year - 2000, at.month, at.day)
        angles = [100 * int(abs(a)) + (abs(a) - int(abs(a))) * 60 for a in (fix.latitude, fix.longitude)]
        letters = b"A" + (b"S" if fix.latitude < 0 else b"N") + (b"W" if fix.longitude < 0 else b"E") + b"\0"
        body = bytes(offset - 12) + head + letters + struct.pack("<4f", *angles, 20.0, 123.0)
        box = struct.pack(">I4s4s", 12 + len(body) + 40, b"free", b"GPS ") + body + bytes(40)
        places.append((len(data), len(box)))
        data += box
    listed = struct.pack(">II", 0x101, 0) + b"".join(struct.pack(">II", *place) for place in places)
    box = struct.pack(">I4s", 8 + len(listed), b"gps ") + listed
    where = data.index(b"moov") - 4
    (length,) = struct.unpack_from(">I", data, where)
    assert data.index(b"mdat") < where  # what is behind `moov` moves by the list; the places do, too
    moved = len(box)
    box = box[:16] + b"".join(struct.pack(">II", at + moved, size) for at, size in places)
    data[where : where + 4] = struct.pack(">I", length + moved)
    data[where + length : where + length] = box
    clip.write_bytes(data)


@pytest.mark.parametrize("offset", [16, 48])
def test_the_places_of_novatek_chips_are_read_wherever_their_firmware_puts_them(offset: int, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=50)
    fixes = [Fix(BEGUN + k, -33.9 + k * 1e-4, -70.6, 20 * 1852 / 3600, 123.0) for k in range(3)]
    with_novatek(clip, fixes, offset)
    found = whereabouts(clip, BEGUN, 2.0).positions
    assert found is not None
    assert found.source == "novatek"
    for ours, true in zip(found.fixes, fixes, strict=True):
        assert ours.at == true.at - BEGUN
        assert (ours.latitude, ours.longitude) == pytest.approx((true.latitude, true.longitude), abs=1e-5)  # float32
        assert (ours.speed, ours.heading) == (pytest.approx(true.speed), 123.0)


@pytest.mark.realdata
@pytest.mark.skipif(not GOPRO.is_file(), reason="the development data is not beside the checkout")
def test_the_places_of_a_real_gopro_are_those_of_an_independent_reading() -> None:
    telemetry_parser = pytest.importorskip("telemetry_parser")
    found = whereabouts(GOPRO, None, 10.5).positions
    assert found is not None
    theirs = [
        [value / scale for value, scale in zip(row, said["Scale"], strict=True)]
        for block in telemetry_parser.Parser(str(GOPRO)).telemetry()
        if (said := block.get("GPS")) is not None
        for row in said["Data"]
    ]
    assert len(theirs) > 150
    ours = [[fix.latitude, fix.longitude, fix.speed] for fix in found.fixes]
    assert ours == [[row[0], row[1], row[3]] for row in theirs]
    assert [fix.at for fix in found.fixes] == sorted(fix.at for fix in found.fixes)
    assert 0 <= found.fixes[0].at < found.fixes[-1].at < 10.6
