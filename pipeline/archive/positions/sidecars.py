"""Tracks that stand in a file beside a clip: GPX 1.0 and 1.1, NMEA 0183, and subtitles (SRT) as drones write them.

GPX and NMEA have times of day, UTC; of subtitles the times are those of the clip.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec

from engines.errors import SourceError
from pipeline.archive.positions.fixes import Fix
from pipeline.archive.positions.nmea import dated, degrees, number, sentences

MOST_BYTES = 256 << 20

SUFFIXES = {".gpx": "gpx", ".nmea": "nmea", ".gps": "nmea", ".nme": "nmea", ".srt": "srt"}
"""Of a file with the clip's own name, and what is in it."""


class Unused(msgspec.Struct, frozen=True):
    """A file beside a clip of which something could not be used.

    Attributes:
        path: of it.
        reason: why, in words that are the same for all files that this is true of.
        detail: what is said of this one alone; may be empty.
    """

    path: str
    reason: str
    detail: str = ""


class UnusableError(SourceError):
    """A side-car cannot be used.

    Attributes:
        unused: which, and why.
    """

    def __init__(self, path: Path, reason: str, detail: str = "") -> None:
        super().__init__(f"{path} {reason}" + (f": {detail}" if detail else ""))
        self.unused = Unused(str(path), reason, detail)


def fixes_in(path: Path) -> tuple[list[Fix], bool]:
    """The fixes of a side-car, and whether their times are Unix seconds (else seconds of the clip). Subtitles without
    any are of something else.

    Raises:
        UnusableError: it cannot be read, or holds none.
    """
    kind = SUFFIXES[path.suffix.lower()]
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UnusableError(path, f"has more than {MOST_BYTES >> 20} MB, which no track of a clip has")
        text = path.read_bytes().decode("utf-8-sig", "replace")
        fixes = [fix for fix in _READERS[kind](text) if fix.possible]
    except PermissionError:
        raise UnusableError(path, "may not be read by this user") from None
    except OSError as error:
        raise UnusableError(path, "cannot be read", (error.strerror or str(error)).lower()) from None
    except (ValueError, OverflowError, ET.ParseError) as error:
        raise UnusableError(path, f"cannot be read as {kind.upper()}", str(error)) from None
    if not fixes and (kind != "srt" or _ABOUT_PLACES.search(text)):
        raise UnusableError(path, "holds no fix with a time")
    return fixes, kind != "srt"


_LEVELS = 4
"""Below a point: its time, extensions, those of one maker, and what stands in them."""


# GPX ------------------------------------------------------------------------------------------------------------------
def _gpx(text: str) -> Iterator[Fix]:
    """Points of tracks; speed (metres a second) and course (degrees) as GPX 1.0 and extensions have them."""
    if "<!DOCTYPE" in text[:4096] or "<!ENTITY" in text:
        raise ValueError("it declares entities, which no GPX does")
    for point in ET.fromstring(text.encode()).iter():  # noqa: S314  # entities are refused above
        if _tag(point) != "trkpt":
            continue
        said = {_tag(each): (each.text or "").strip() for each in _below(point, _LEVELS)}
        at, latitude, longitude = _when(said.get("time", "")), point.get("lat"), point.get("lon")
        if at is None or latitude is None or longitude is None:
            continue
        yield Fix(at, float(latitude), float(longitude), number(said.get("speed")), degrees(said.get("course")))


def _below(element: ET.Element, levels: int) -> Iterator[ET.Element]:
    """What an element says of itself: points in points say it of themselves alone, however deep they lie."""
    for each in element:
        if _tag(each) != "trkpt":
            yield each
            if levels > 1:
                yield from _below(each, levels - 1)


def _tag(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2].lower()


def _when(text: str) -> float | None:
    """Unix seconds of a time of ISO 8601; GPX means UTC where no zone stands."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


# Subtitles ------------------------------------------------------------------------------------------------------------
_CUE = re.compile(r"(?<!\d)(\d{1,3}):(\d{2}):(\d{2})[,.](\d{1,3})\s*-->[^\n]*\n(.*?)(?=\n\s*\n|\Z)", re.DOTALL)
_NAMED = {
    name: re.compile(rf"\b{name}\s*[:=]\s*([-+]?\d+(?:\.\d+)?)", re.IGNORECASE) for name in ("latitude", r"longt?itude")
}
_ABOUT_PLACES = re.compile(r"\blatitude\s*[:=]|\bGPS\s*\(", re.IGNORECASE)
_GPS = re.compile(r"\bGPS\s*\(\s*([-+]?\d+\.\d+)\s*,\s*([-+]?\d+\.\d+)")
"""DJI's: longitude, then latitude."""


def _srt(text: str) -> Iterator[Fix]:
    for match in _CUE.finditer(text.replace("\r\n", "\n")):
        hours, minutes, seconds, thousandths, cue = match.groups()
        at = int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(thousandths.ljust(3, "0")) / 1000
        if (place := place_in(cue)) is not None:
            yield Fix(at, *place)


def place_in(cue: str) -> tuple[float, float] | None:
    """Latitude and longitude of a subtitle, as drones write them; None where it has none."""
    latitude, longitude = (pattern.search(cue) for pattern in _NAMED.values())
    if latitude and longitude:
        return float(latitude[1]), float(longitude[1])
    old = _GPS.search(cue)
    return None if old is None else (float(old[2]), float(old[1]))


def _nmea(text: str) -> Iterator[Fix]:
    return dated(sentences(text, sealed=True))


_READERS: dict[str, Callable[[str], Iterator[Fix]]] = {"gpx": _gpx, "nmea": _nmea, "srt": _srt}
