"""How the makers of cameras name their recordings: one table, and what a name says by it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import PurePath

_LETTERS = {"": "front", "F": "front", "R": "rear", "I": "interior", "T": "tele", "O": "optional"}
"""Cameras of a car by the letter that most makers use; what has none is the front one's."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """How one maker names recordings. A name without its ending matches as a whole, in either case.

    Attributes:
        maker: who names them so; several patterns may be one maker's.
        name: the expression. Its groups: `date` and `time`, digits with anything between; `camera`; `number`, `chapter`
            and `kind`; `proxy`, which is there where the file is a small copy of another one, and `copy`, where it may
            be one.
        order: the groups by which recordings of one camera follow each other.
        source: where the rule is written down.
        cameras: what the values of `camera` stand for, in upper case; others stand for themselves.
    """

    maker: str
    name: str
    order: tuple[str, ...]
    source: str
    cameras: Mapping[str, str] = field(default_factory=dict)


PATTERNS = (
    # GoPro puts the chapter before the number of the recording: GX020001 goes on from GX010001. GL is the proxy.
    Pattern(
        "GoPro", r"(?:G[HXSG]|(?P<proxy>GL))(?P<chapter>\d\d)(?P<number>\d{4})", ("number", "chapter"),
        "GoPro, Camera File Naming Convention (HERO6 to HERO11, MAX)",
    ),
    Pattern("GoPro", r"GOPR(?P<number>\d{4})", ("number", "chapter"), "the same (HD HERO2 to HERO5)"),
    Pattern("GoPro", r"GP(?P<chapter>\d\d)(?P<number>\d{4})", ("number", "chapter"), "the same (HD HERO2 to HERO5)"),
    Pattern("GoPro", r"G[HX](?P<chapter>[A-Z]{2})(?P<number>\d{4})", ("chapter", "number"), "the same (looping)"),
    Pattern(
        "GoPro", r"GP(?P<camera>FR|BK)(?P<number>\d{4})", ("number", "chapter"), "the same (Fusion)",
        {"FR": "front", "BK": "rear"},
    ),
    Pattern(
        "GoPro", r"G(?P<camera>[FB])(?P<chapter>\d\d)(?P<number>\d{4})", ("number", "chapter"), "the same (Fusion)",
        {"F": "front", "B": "rear"},
    ),
    # Since firmware 2019.24 with seconds. `event` is a small picture of four cameras, written beside the clips.
    Pattern(
        "Tesla",
        r"(?P<date>\d{4}-\d\d-\d\d)_(?P<time>\d\d-\d\d(?:-\d\d)?)-"
        r"(?P<camera>front|back|cabin|(?:left|right)_[a-z]+)",
        ("date", "time"), "https://github.com/ehendrix23/tesla_dashcam",
    ),
    Pattern("Tesla", r"(?P<proxy>event)", ("date", "time"), "seen beside clips of firmware 2024 and later"),
    # Kind and camera: N normal, E event, P parking, M manual, and more. L or S behind them is what its cloud gets. The
    # first models had one camera, and no letter for it.
    Pattern(
        "BlackVue",
        r"(?P<date>\d{8})_(?P<time>\d{6})_"
        r"(?:(?P<kind>[NEPMIOATBRXGDLYF])(?P<camera>[FRIO])(?P<copy>[LS]?)|[NEPM])",
        ("date", "time", "kind"), "https://github.com/acolomba/blackvuesync", _LETTERS,
    ),
    # The last letter is the quality: high, or a low copy for the telephone. Older models write neither.
    Pattern(
        "Nextbase", r"(?P<date>\d{6})_(?P<time>\d{6})_(?P<number>\d{3})(?:_(?P<camera>[FRCI])(?:H|(?P<proxy>L)))?",
        ("date", "time", "number"), "https://support.nextbase.com/hc/en-nz/articles/21362518328349-File-Names",
        _LETTERS,
    ),
    # REC, EVT, MOT, MAN, PAK … by the kind of recording.
    Pattern(
        "Thinkware", r"[A-Z]{2,6}_(?P<date>\d{4}_\d\d_\d\d)_(?P<time>\d\d_\d\d_\d\d)_(?P<camera>[FRI])",
        ("date", "time"), "names of the F and U series, as owners show them (REC_2019_04_12_10_04_29_F)", _LETTERS,
    ),
    # NO normal, EV event, PA parking, LA or TL lapse.
    Pattern(
        "70mai", r"[A-Z]{2}(?P<date>\d{8})-(?P<time>\d{6})-(?P<number>\d{6})(?P<camera>[FBRIC]?)",
        ("date", "time", "number"), "names of the A and X series, as owners show them",
        {**_LETTERS, "B": "rear", "C": "interior"},
    ),
    # The firmware of Novatek's chips: Viofo (P is parking), Vantrue (_N_A), Rexing, Redtiger and many more. The front
    # and rear files of one moment may have the same number or the next one: the time comes first. Of A,
    # B and C the second is the rear camera in one model and the interior one in another: the letters stay.
    Pattern(
        "Viofo",
        r"(?P<date>\d{4}_?\d{4})_?(?P<time>\d{6})_(?P<number>\d{3,7})(?:_?[NEP])??(?:_?(?P<camera>[FRIABCT]))?",
        ("date", "time", "number"), "Vantrue, User Manual, 4.4 Loop Recording; Viofo's names, as owners show them",
        _LETTERS,
    ),
    Pattern("Garmin", r"GRMN(?P<number>\d{4,})", ("number",), "names of the Dash Cam series, as owners show them"),
    # Cameras of one drone film at the same time; D is what has no other.
    Pattern(
        "DJI",
        r"DJI_(?:(?P<date>\d{8})(?P<time>\d{6})_)?(?P<number>\d{4})(?:_(?P<chapter>\d{3}))?(?:_(?P<camera>[DWZTVS]))?",
        ("date", "time", "number", "chapter"), "names of the Mini, Osmo and Enterprise series, as owners show them",
        {"": "main", "D": "main", "W": "wide", "Z": "zoom", "T": "thermal", "V": "visible", "S": "screen"},
    ),
    Pattern(
        "Insta360", r"(?:VID|(?P<proxy>LRV))_(?P<date>\d{8})_(?P<time>\d{6})_(?P<camera>[01]\d)_(?P<number>\d{3})",
        ("date", "time", "number"), "https://insta.pk360.de/insta360_tech_fileTypes",
        {"00": "inner", "01": "inner", "10": "outer", "11": "outer"},
    ),
)  # fmt: skip
"""The makers whose names are known."""

_COMPILED = tuple((pattern, re.compile(pattern.name, re.IGNORECASE)) for pattern in PATTERNS)

PROXY_SUFFIXES = frozenset({".lrv", ".lrf", ".thm"})
"""Endings of small copies of recordings: GoPro's and Insta360's videos, DJI's videos, and GoPro's pictures."""

MOMENT = re.compile(
    r"(?<!\d)(20\d\d)[-_. ]?(\d\d)[-_. ]?(\d\d)(?:[-_. T]| at )?(\d\d)[-_.:h]?(\d\d)[-_.:m]?(\d\d)(?:\d{3})?(?!\d)"
)
"""A date and a time in whatever name: those of telephones and of people."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What the name of a recording says.

    Attributes:
        maker: who names recordings so.
        camera: which of its cameras took it; empty where it has one.
        order: by which recordings of one camera follow each other.
        proxy: whether it is a small copy of another one.
        copy: whether it is one where the recording itself is there, too.
        at: when it began, by the clock of the camera; None where the name does not say.
    """

    maker: str
    camera: str
    order: tuple[str, ...]
    proxy: bool
    copy: bool
    at: datetime | None


@lru_cache(maxsize=1 << 15)
def recording(name: str) -> Recording | None:
    """What a file's name, with or without its ending, says by the table; None where no maker names recordings so.

    >>> recording("GX020001.MP4").order > recording("GX010001.MP4").order, recording("230101_120000_001_RL.MP4").camera
    (True, 'rear')
    """
    stem = PurePath(name).stem
    for pattern, expression in _COMPILED:
        match = expression.fullmatch(stem)
        if match is None:
            continue
        found = {group: value or "" for group, value in match.groupdict().items()}
        at = _moment(found.get("date", ""), found.get("time", ""))
        if found.get("date") and at is None:
            continue  # the digits are no date
        letter = found.get("camera", "").upper()
        camera = pattern.cameras.get(letter, letter.lower())
        order = tuple(_digits(found.get(group, "")) for group in pattern.order)
        return Recording(pattern.maker, camera, order, bool(found.get("proxy")), bool(found.get("copy")), at)
    return None


def recorded_at(name: str) -> datetime | None:
    """When a recording began by its file's name: a date and a time without a zone, as the camera's clock showed them.
    None where the name does not say.

    >>> recorded_at("2023_0101_120005_0001F.MP4"), recorded_at("PXL_20230101_120005123.mp4")
    (datetime.datetime(2023, 1, 1, 12, 0, 5), datetime.datetime(2023, 1, 1, 12, 0, 5))
    """
    known = recording(name)
    if known is not None:
        return known.at
    match = MOMENT.search(PurePath(name).stem)
    return None if match is None else _moment("".join(match.groups()[:3]), "".join(match.groups()[3:]))


def _digits(text: str) -> str:
    """A part of a name that sorts as its number does, letters as they are."""
    return re.sub(r"[-_]", "", text).upper().zfill(8) if text else ""


def _moment(date: str, time: str) -> datetime | None:
    numbers = re.sub(r"\D", "", date + time)
    if len(re.sub(r"\D", "", date)) == 6:
        numbers = "20" + numbers
    try:
        return datetime.strptime(numbers.ljust(14, "0"), "%Y%m%d%H%M%S")  # noqa: DTZ007  # the camera's zone is not known
    except ValueError:
        return None
