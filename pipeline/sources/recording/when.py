"""When a recording was made: what its container says, else its maker's file name, else the file system.

The times of containers are UTC (ISO/IEC 14496-12 §8.2.2, Matroska DateUTC), or have their zone with them. Cameras that
write their local time there are believed: nothing tells them from others. A `date` without a zone, as in an AVI, and a
file name are the camera's local time, taken for that of this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pipeline.contracts import Recorded
from pipeline.frame import CapturedFrom

_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC).timestamp()
"""Before that there was no digital video: a clock that was never set begins in 1904, 1970 or 1980."""

_FAST = 600
"""Seconds by which a camera's clock may be ahead of this machine's."""

_SAID = {
    "metadata": "as it says itself",
    "name": "by its file's name",
    "modified": "by when its file was last changed",
}


def beginning(
    path: Path,
    tags: Iterable[Mapping[str, str]],
    duration: float,
    named: Callable[[str], datetime | None],
    clock: Callable[[], float] = time.time,
) -> Recorded:
    """When a recording begins. A time that cannot be, of a clock that was never set or set wrong, is passed over.

    Args:
        path: its file.
        tags: those of its container, then those of its tracks.
        duration: how long it is, seconds; 0 where that is unknown.
        named: what a maker's file name says, local time unless it has a zone.
        clock: Unix time in seconds.
    """
    found: list[tuple[CapturedFrom, datetime | None]] = [("metadata", moment) for moment in moments(tags)]
    for by, moment in (*found, ("name", named(path.name))):
        at = _unix(moment)
        if at is not None and _EARLIEST <= at <= clock() + _FAST:
            return Recorded(path.name, at, by)
    try:
        return Recorded(path.name, path.stat().st_mtime - duration, "modified")
    except OSError:
        return Recorded(path.name, clock(), "")


def moments(tags: Iterable[Mapping[str, str]]) -> Iterator[datetime]:
    """The times that tags give, the most exact first; local time where one has no zone.

    >>> [str(moment) for moment in moments([{"creation_time": "2024-01-15T13:30:05Z", "date": "2024"}])]
    ['2024-01-15 13:30:05+00:00']
    """
    every = [{key.lower(): value for key, value in each.items()} for each in tags]
    for key in ("com.apple.quicktime.creationdate", "creation_time", "date"):
        for each in every:
            text = each.get(key, "").strip()
            if ":" not in text:  # a day, or a year, is no time
                continue
            try:
                moment = datetime.fromisoformat(text.replace(":", "-", 2) if text[4:5] == ":" else text)
            except ValueError:
                continue
            yield moment.replace(tzinfo=UTC) if key == "creation_time" and moment.tzinfo is None else moment


def said(recorded: Recorded) -> str:
    """When a recording begins, in words."""
    return f"{datetime.fromtimestamp(recorded.at, UTC):%Y-%m-%d %H:%M:%S} UTC, {_SAID.get(recorded.by, 'as read')}"


def _unix(moment: datetime | None) -> float | None:
    try:
        return None if moment is None else moment.timestamp()
    except (OverflowError, ValueError, OSError):  # a year that the machine's clock does not have
        return None
