"""Sentences of a receiver, NMEA 0183: RMC has place, speed, course and day; GGA has a place without a day."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import xor

from pipeline.archive.positions.fixes import Fix

_KNOT = 1852 / 3600
"""Metres a second."""

_SENTENCE = re.compile(r"([A-Z]{2})(RMC|GGA),([^*\r\n$;~\0]*)(?:\*([0-9A-Fa-f]{2}))?")


@dataclass(frozen=True, slots=True)
class Sentence:
    """What a sentence with a fix says.

    Attributes:
        day: of an RMC, UTC; None of a GGA.
        second: of the day.
        latitude, longitude: degrees, WGS 84.
        speed: metres a second; None where it is not said.
        course: degrees from north, clockwise; None where it is not said.
    """

    day: datetime | None
    second: float
    latitude: float
    longitude: float
    speed: float | None
    course: float | None

    @property
    def at(self) -> float | None:
        """Unix seconds; None of a GGA."""
        return None if self.day is None else (self.day + timedelta(seconds=self.second)).timestamp()

    def fix(self, at: float) -> Fix:
        """As a fix at a moment."""
        return Fix(at, self.latitude, self.longitude, self.speed, self.course)


def sentences(text: str, *, sealed: bool = False) -> Iterator[Sentence]:
    """The sentences of a text that have a fix.

    Args:
        text: sentences, and anything else.
        sealed: whether those whose checksum is wrong, or not there, are none. In what cameras write into recordings it
            may be of something else than what stands there (NextBase 322GW, Roadhawk).
    """
    for match in _SENTENCE.finditer(text):
        talker, kind, body, checksum = match.groups()
        whole = f"{talker}{kind},{body}".encode("utf-8", "replace")
        if sealed and (checksum is None or reduce(xor, whole) != int(checksum, 16)):
            continue
        fields = body.split(",")
        day, speed, course = None, None, None
        if kind == "RMC" and len(fields) >= 9 and fields[1] == "A":
            day = _day(fields[8])
            place, speed, course = fields[2:6], number(fields[6]), degrees(fields[7])
        elif kind == "GGA" and len(fields) >= 6 and fields[5] not in ("", "0"):
            place = fields[1:5]
        else:
            continue
        second, latitude, longitude = _of_day(fields[0]), _angle(*place[:2]), _angle(*place[2:])
        if second is not None and latitude is not None and longitude is not None and (kind == "GGA" or day is not None):
            yield Sentence(day, second, latitude, longitude, None if speed is None else speed * _KNOT, course)


def dated(found: Iterable[Sentence]) -> Iterator[Fix]:
    """Fixes at Unix seconds. The day of a GGA is that of the last RMC, and the next one where its time is earlier."""
    day: datetime | None = None
    last = 0.0
    for each in found:
        day = each.day or day
        if day is None:
            continue
        at = (day + timedelta(seconds=each.second)).timestamp()
        if each.day is None and at < last - 43_200:
            day += timedelta(days=1)
            at += 86_400
        if each.day is None and at == last:
            continue  # the RMC of this moment says more
        last = at
        yield each.fix(at)


def _day(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%d%m%y").replace(tzinfo=UTC)
    except ValueError:
        return None


def _of_day(text: str) -> float | None:
    match = re.fullmatch(r"(\d{2})(\d{2})(\d{2}(?:\.\d*)?)", text)
    return None if match is None else int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])


def _angle(text: str, side: str) -> float | None:
    """Degrees of `ddmm.mmmm` or `dddmm.mmmm` and N, S, E or W."""
    match = re.fullmatch(r"(\d{1,3})(\d{2}(?:\.\d*)?)", text)
    if match is None or side not in ("N", "S", "E", "W"):
        return None
    return (int(match[1]) + float(match[2]) / 60) * (-1 if side in "SW" else 1)


def number(text: str | None) -> float | None:
    """A number of a text; None where it is none."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def degrees(text: str | None) -> float | None:
    """Degrees of a text, 0 to 360; None where it is none."""
    value = number(text)
    return None if value is None else value % 360
