"""Places that dash-cams write into their recordings, read as they were written and as ExifTool reads them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.archive.positions import texts
from pipeline.archive.positions.fixes import Fix, metres
from pipeline.archive.positions.freegps import fix_of
from pipeline.archive.positions.reading import whereabouts
from tests.footage import write_clip
from tests.pipeline.archive import mp4_places as made
from tests.pipeline.archive.test_positions import BEGUN

LONG = 6
KMH = 1 / 3.6


def drive(latitude: float = -33.8651, longitude: float = -151.2099, begin: float = BEGUN) -> list[Fix]:
    """To the north east at 72 km/h; the south and the west are negative."""
    return [
        Fix(begin + k, latitude + k * 1.5e-4, longitude + k * 1e-4, 20.0, 30.25) for k in range(LONG)
    ]  # fmt: skip


PLACES = [(-33.8651, -151.2099), (48.1371, 11.5753), (0.2, -0.1)]
"""South west, north east, and where degrees are none."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "clip.mp4"
    write_clip(path, frames=25 * LONG, size=(128, 72))
    return path


@pytest.fixture
def clip(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(plain, tmp_path / "clip.mp4"))


def check(
    clip: Path, true: Sequence[Fix], source: str, *, speed: float | None = 0.0, heading: bool = True, near: float = 0.5
) -> None:
    """The fixes are the true ones, to `near` metres; their speed to `speed`, or there is none."""
    found = whereabouts(clip, true[0].at, float(LONG)).positions
    assert found is not None
    assert (found.source, len(found.fixes)) == (source, len(true))
    for ours, each in zip(found.fixes, true, strict=True):
        assert ours.at == pytest.approx(each.at - true[0].at, abs=1e-6)
        assert metres(ours, each) < near
        assert ours.speed == (None if speed is None else pytest.approx(each.speed, abs=speed + 1e-3))
        assert ours.heading == (pytest.approx(each.heading, abs=0.01) if heading else None)


def by_exiftool(clip: Path) -> list[dict[str, Any]]:
    """What ExifTool reads, one a fix."""
    command = ["exiftool", "-ee", "-n", "-j", "-G3", "-api", "QuickTimeUTC", str(clip)]
    (said,) = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    documents: dict[str, dict[str, Any]] = {}
    for key, value in said.items():
        document, _, name = key.partition(":")
        if name in ("GPSLatitude", "GPSLongitude", "GPSSpeed", "GPSTrack", "GPSDateTime"):
            documents.setdefault(document, {})[name] = value
    return [each for each in documents.values() if "GPSLatitude" in each]


def check_with_exiftool(clip: Path, *, speed: bool = True) -> None:
    """Where ExifTool is installed, it reads the same places, and the same speeds where it knows their unit."""
    if shutil.which("exiftool") is None:
        return
    theirs = by_exiftool(clip)[-LONG:]  # of a ring it gives what was before the recording, too
    found = whereabouts(clip, BEGUN, float(LONG)).positions
    assert found is not None
    assert len(theirs) == len(found.fixes)
    for ours, each in zip(found.fixes, theirs, strict=True):
        assert metres(ours, Fix(0, each["GPSLatitude"], each["GPSLongitude"])) < 0.1
        if speed:
            assert ours.speed == pytest.approx(each["GPSSpeed"] * KMH, rel=1e-4)


# Tracks of text -------------------------------------------------------------------------------------------------------
TEXTS: list[tuple[Callable[[Fix], bytes], dict[str, Any]]] = [
    (made.plain, {}),
    (made.thinkware, {}),
    (made.next_base_322, {}),
    (made.roadhawk, {}),
    (made.e_prance, {}),
    (made.ambarella, {"speed": KMH, "heading": False}),
    (made.blue_sky_sea, {"speed": KMH, "heading": False}),
    (made.garmin, {"speed": None, "heading": False}),
    (made.garmin_behind_a_length, {"speed": None, "heading": False}),
    (made.mini, {"speed": None, "heading": False}),
    (made.drone, {"speed": None, "heading": False}),
]


@pytest.mark.seconds
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("sample", "expected"), TEXTS, ids=[sample.__name__ for sample, _ in TEXTS])
def test_the_places_of_a_track_of_text_are_read(
    sample: Callable[[Fix], bytes], expected: dict[str, Any], place: tuple[float, float], clip: Path
) -> None:
    true = drive(*place)
    made.with_text(clip, [sample(fix) for fix in true])
    expected = dict(expected)
    if not expected.pop("heading", True):  # no receiver says it: that of the move
        found = whereabouts(clip, BEGUN, float(LONG)).positions
        assert found is not None
        assert found.fixes[2].heading is None
        expected["heading"] = False
    check(clip, true, "text", **expected)
    check_with_exiftool(clip, speed=expected["speed"] is not None if "speed" in expected else True)


@pytest.mark.seconds
def test_samples_behind_their_length_are_read_as_those_without(clip: Path) -> None:
    true = drive()
    made.with_text(clip, [made.counted(made.thinkware(fix)) for fix in true], b"sbtl", b"tx3g")
    check(clip, true, "text")


def test_the_examples_of_those_who_found_the_layouts_out_are_read() -> None:
    """As they stand in ExifTool's QuickTimeStream.pl, by its reading."""
    thinkware = (
        b"gsensori,4,512,-67,-12,100;GNRMC,161313.00,A,4529.87489,N,07337.01215,W,6.225,35.34,310819,,,A*52..;"
        b"CAR,0,0,0,0.0,0,0,0,0,0,0,0,0"
    )
    roadhawk = (
        rb".;;;;D?JL;6+;;;D;R?;4;;;;DBB;;O;;;=D;L;;HO71G>F;-?=J-F:FNJJ;"
        rb"DPP-JF3F;;PL=DBRLBF0F;=?DNF-RD-PF;N;?=JF;;?D=F:*6F~"
    )
    mini = b"A,270519,201555.000,3356.8925,N,08420.2071,W,000.0,331.0M,+01.84,-09.80,-00.61;\n"
    drone = b"F/3.5, SS 1000, ISO 100, EV 0, GPS (8.6499, 53.1665, 18), D 24.26m, H 6.00m, H.S 2.10m/s, V.S 0.00m/s \n"
    a12 = bytes.fromhex(
        "0000f2e1f0ee5454989a9b939b9b9b9c9b9a9a939a9ba69a9b9b939b9a9b9c9a9d9a929f93a9e49f9f9e9f9b9b9c9def"
        "9a999d9e999a9a9e9b819a9b9f9d9a9a9a879a9a9a879a9899879a9a99879a9a"
    ).ljust(311, b"\xaa")
    found = [texts.read([(0.0, each)])[0][0] for each in (thinkware, roadhawk, mini, drone, a12)]
    true = [(45.4979148, -73.6168692), (53.5111383, -6.6995817), (33.9482083, -84.3367850), (53.1665, 8.6499)]
    for fix, place in zip(found, [*true, (55.7519450, 37.7167350)], strict=True):
        assert (fix.latitude, fix.longitude) == pytest.approx(place, abs=1e-7)
    assert found[0].speed == pytest.approx(6.225 * 1852 / 3600)
    assert (found[0].heading, found[1].heading, found[4].speed) == (35.34, 87.86, 0.0)


@pytest.mark.parametrize("sample", [made.plain, made.thinkware, made.e_prance, made.roadhawk])
def test_sentences_tell_the_time_of_a_recording(sample: Callable[[Fix], bytes], clip: Path) -> None:
    made.with_text(clip, [sample(fix) for fix in drive()])
    found = whereabouts(clip, BEGUN - 8 * 365 * 86_400, float(LONG))
    assert (found.began, found.utc) == (BEGUN, True)


@pytest.mark.parametrize(
    "sample",
    [
        b"", b"\0", b"Chapter 1", b"hello, A latitude of 4", b"$GPRMC,000125,V,,,,,000.0,,280908,002.1,N*71",
        made.plain(drive()[0]).replace(b",A,", b",V,").replace(b",1,08,", b",0,00,"),
        b"PNDM" + bytes(3), b"PNDM" + bytes(24),
        made.ambarella(drive()[0])[:200], made.ambarella(Fix(BEGUN, 0.0, 0.0)),
        b"\0\0" + bytes(each ^ 0xAA for each in b"XKZD\xfe\xfe" + b"x" * 300), b"A,,,,,,,\n", b"*6F~", b"\0\n\n\n\n*\n",
    ],
)  # fmt: skip
def test_text_without_a_place_gives_none(sample: bytes, clip: Path) -> None:
    made.with_text(clip, [sample] * LONG)
    found = whereabouts(clip, BEGUN, float(LONG))
    assert (found.positions, found.began, found.unused) == (None, None, ())


# BlackVue -------------------------------------------------------------------------------------------------------------
def blackvue_lines(fixes: Sequence[Fix], clock: float = 0.0) -> list[tuple[int, str]]:
    """RMC, GGA and others of each second, by a clock that is so many seconds ahead."""
    lines = []
    for fix in fixes:
        stamp = round((fix.at + clock) * 1000)
        other = made.sentence("GNVTG,,T,,M,0.078,N,0.144,K,D")
        lines += [(stamp, made.rmc(fix)), (stamp + 1, other), (stamp + 2, made.gga(fix))]
    return lines


@pytest.mark.parametrize("begun", [None, 0, -500])
def test_the_places_of_a_blackvue_are_read_with_the_milliseconds_of_its_clock(begun: int | None, clip: Path) -> None:
    true = drive()
    ahead = 9 * 3600.0  # the zone it is set to
    start = begun if not begun else round((BEGUN + ahead) * 1000) + begun
    made.with_blackvue(clip, blackvue_lines(true, ahead), start)
    found = whereabouts(clip, BEGUN + ahead, float(LONG))
    assert found.positions is not None
    late = 0.5 if begun else 0.0
    assert [fix.at for fix in found.positions.fixes] == [late + k for k in range(LONG)]
    assert all(metres(ours, each) < 0.05 for ours, each in zip(found.positions.fixes, true, strict=True))
    assert found.positions.fixes[1].speed == pytest.approx(20.0, abs=1e-3)
    assert (found.began, found.positions.source) == (BEGUN - late, "blackvue")
    check_with_exiftool(clip)


def test_a_blackvue_that_finds_itself_late_is_nowhere_before(clip: Path) -> None:
    void = [(round((BEGUN + k) * 1000), made.sentence("GNRMC,,V,,,,,,,,,,N")) for k in range(3)]
    made.with_blackvue(clip, [*void, *blackvue_lines(drive()[3:])])
    found = whereabouts(clip, BEGUN, float(LONG)).positions
    assert found is not None
    assert [fix.at for fix in found.fixes] == [3, 4, 5]


def test_the_places_of_a_blackvue_are_those_that_mapillary_reads(clip: Path) -> None:
    parser = pytest.importorskip("mapillary_tools.blackvue_parser")
    made.with_blackvue(clip, blackvue_lines(drive()))
    with clip.open("rb") as file:
        theirs = parser.extract_blackvue_info(file).gps
    found = whereabouts(clip, BEGUN, float(LONG)).positions
    assert found is not None
    assert [(round(p.lat, 7), round(p.lon, 7), p.time) for p in theirs] == [
        (round(fix.latitude, 7), round(fix.longitude, 7), fix.at) for fix in found.fixes
    ]


@pytest.mark.parametrize("text", ["", "nothing", "[1623057074211]", "[1623057074211]$GPRMC,,V,,,,,,,,,,N*53"])
def test_a_blackvue_without_a_receiver_gives_nothing(text: str, clip: Path) -> None:
    clip.write_bytes(clip.read_bytes() + made.box(b"free", made.box(b"gps ", text.encode())))
    assert whereabouts(clip, BEGUN, float(LONG)).positions is None


# 70mai ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("place", PLACES)
def test_the_places_of_a_70mai_are_read(place: tuple[float, float], clip: Path) -> None:
    true = drive(*place)
    made.with_70mai(clip, [made.seventymai(fix, second) for second, fix in enumerate(true)])
    check(clip, true, "70mai", speed=1e-3, heading=False, near=2.0)  # minutes of three decimals
    check_with_exiftool(clip)
    assert whereabouts(clip, None, float(LONG)).began is None


def test_the_70mai_that_its_owner_told_of_is_where_it_showed(clip: Path) -> None:
    """dashcamtalk.com, thread 41856: the camera showed 59.7466 30.1012."""
    told = bytes.fromhex("01000000 01000000 01000000 00000000 4EDCB55A00 457ADE2D00 00000000000000000000")
    nowhere = bytes.fromhex("01000000 01000000 02000000 00000000") + bytes(20)
    made.with_70mai(clip, [told, nowhere])
    found = whereabouts(clip, BEGUN, float(LONG)).positions
    assert found is not None
    ((at, latitude, longitude),) = [(fix.at, round(fix.latitude, 4), round(fix.longitude, 4)) for fix in found.fixes]
    assert (at, latitude, longitude) == (1.0, 59.7466, 30.1012)


def test_the_roadhawk_that_its_owner_told_of_is_where_it_showed() -> None:
    """reverseengineering.stackexchange.com, question 11582: 53.99020, -1.10792 at 2.0 mph."""
    sample = (
        rb".+;;;D=;-;6;;;;D;JP;4;;;=D;P?;O;;;=D=L;-HO71G>F=;;;JJF:FNJNBDL=R?F3F;;="
        rb";PDLR;;F0F;;=DRFJJ?DRJF??;J=LF;;;D;F:*59~"
    )
    ((fix,), _) = texts.read([(0.0, sample)])
    assert metres(fix, Fix(0, 53.99020, -1.10792)) < 15
    assert fix.speed == pytest.approx(2.0 * 0.44704, abs=0.05)


# Blocks freeGPS -------------------------------------------------------------------------------------------------------
LISTED: list[tuple[Callable[[Fix], bytes], dict[str, Any]]] = [
    (made.viofo, {"near": 4.0}),  # float32
    (made.viofo_v3, {"near": 4.0}),
    (made.akaso, {"near": 4.0, "speed": None, "heading": False}),
    (made.azdome, {"speed": KMH, "heading": False}),
    (made.next_base, {}),
    (made.enciphered, {}),
]
UNLISTED: list[tuple[Callable[[Fix], bytes], dict[str, Any]]] = [
    (made.wide, {}), (made.iqs, {"heading": False}), (made.anticlock, {"near": 4.0, "speed": None, "heading": False}),
    (partial(made.viofo, offset=0x30), {"near": 4.0}),
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("write", "expected"), LISTED, ids=[write.__name__ for write, _ in LISTED])
def test_the_blocks_that_a_list_names_are_read_whatever_their_layout(
    write: Callable[[Fix], bytes], expected: dict[str, Any], place: tuple[float, float], clip: Path
) -> None:
    true = drive(*place)
    made.with_list(clip, [write(fix) for fix in true])
    check(clip, true, "novatek", **expected)
    check_with_exiftool(clip, speed=expected.get("speed", 0.0) is not None)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("write", "expected"), UNLISTED, ids=["wide", "iqs", "anticlock", "viofo"])
def test_the_blocks_that_no_list_names_are_found_in_the_media(
    write: Callable[[Fix], bytes], expected: dict[str, Any], place: tuple[float, float], clip: Path
) -> None:
    true = drive(*place)
    made.with_blocks(clip, [write(fix).ljust(0x9000, b"\x11") for fix in true])
    check(clip, true, "freegps", **expected)
    check_with_exiftool(clip, speed=expected.get("speed", 0.0) is not None)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("keys", [(0, 0), (0x5A, 0xC3), (0xFF, 1)])
def test_of_the_ring_of_an_ambarella_the_latest_record_counts(
    keys: tuple[int, int], place: tuple[float, float], clip: Path
) -> None:
    before = [Fix(BEGUN - 40 + k, *place, 5.0, 200.5) for k in range(40)]
    true = drive(*place)
    made.with_blocks(clip, [made.ring([*before, *true], 40 + k, keys) for k in range(LONG)])
    check(clip, true, "freegps")
    check_with_exiftool(clip)


def test_blocks_that_nobody_can_decipher_are_no_places(clip: Path) -> None:
    true = drive()
    kingslim = [made.block(made.clock(fix) + b"ANW1" + bytes(range(80, 112)) + b"LIGOGPSINFO") for fix in true]
    number = b"\xf1N>=\x90\xdf\xca@"
    akaso_v1 = [made.block(bytes(32) + made.clock(fix, 0) + b"ANE\0" + bytes(4) + number * 3) for fix in true]
    eachpai = [made.block(bytes(36) + b"4W`b]S<AGEEBB>@@@<Q<DBD@>HFCE<^<@HCAB>FBGH<g".ljust(80, b"\0")) for _ in true]
    for blocks in (kingslim, akaso_v1, eachpai):
        here = Path(shutil.copy(clip, clip.with_name("here.mp4")))
        made.with_list(here, blocks)
        assert whereabouts(here, BEGUN, float(LONG)).positions is None


@pytest.mark.parametrize("write", [write for write, _ in LISTED + UNLISTED])
def test_blocks_that_are_cut_off_or_damaged_harm_nothing(write: Callable[[Fix], bytes]) -> None:
    (true, *_) = drive()
    whole = write(true)[:0x200]
    for length in range(0, len(whole), 7):
        found = fix_of(whole[:length])
        assert found is None or metres(found, true) < 4
    for place in range(12, 0x90):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        fix_of(bytes(broken))  # whatever it says; `Positions` leaves out what cannot be reached


def test_a_block_far_into_the_media_is_not_looked_for(clip: Path) -> None:
    made.with_blocks(clip, [bytes(5 << 20), *(made.wide(fix) for fix in drive())])
    assert whereabouts(clip, BEGUN, float(LONG)).positions is None
