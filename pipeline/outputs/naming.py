"""Names by time: sorted by name, the files of a stream stand in the order in which they were made."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AHEAD = 60_000
"""Milliseconds that the newest file may be named ahead of the clock until that is said."""


class TimedNames:
    """The names of a stream's files, `<stream>_<UTC time>Z<what>.mp4`, by this machine's clock, for a camera's may be
    wrong. Where this machine's is set back, or two files begin in one millisecond, a name is one millisecond behind the
    newest that is there. So each is used once, and none sorts before an older file's.

    Args:
        stream: its id.
        what: pattern of what follows the time.

    >>> front = TimedNames("front")
    >>> front.ours("front_20261121T061310.250Z.partial.mp4"), front.ours("front_2_20261121T061310.250Z.mp4")
    (True, False)
    """

    def __init__(self, stream: str, what: str = "") -> None:
        self._stream = stream
        self._pattern = re.compile(rf"{re.escape(stream)}_(\d{{8}}T\d{{6}}\.\d{{3}})Z{what}(\.partial)?\.mp4")
        self._newest: int | None = None

    def ours(self, name: str) -> bool:
        """Whether a file's name is one of these, be the file whole or not."""
        return self._pattern.fullmatch(name) is not None

    def begins(self, name: str) -> float | None:
        """When the file of a name begins, Unix seconds; None where the name is none of these."""
        found = self._pattern.fullmatch(name)
        return None if found is None else _milliseconds(found[1]) / 1000

    def next(self, folder: Path, at: float, what: str = "") -> Path:
        """The path of the next file.

        Args:
            folder: of the stream's files; nobody else puts any of these names there.
            at: when it begins, Unix seconds by this machine's clock.
            what: follows the time.
        """
        wanted = round(at * 1000)
        newest = self._found(folder) if self._newest is None else self._newest
        if self._newest is None and newest - wanted > _AHEAD:
            log.warning(
                "%s: the newest file in %s is named %s, ahead of this machine's clock; names go on behind it until the "
                "clock is there. Move it away if its time is wrong", self._stream, folder, utc(newest / 1000),
            )  # fmt: skip
        self._newest = max(wanted, newest + 1)
        time = utc(self._newest / 1000).replace("-", "").replace(":", "")
        return folder / f"{self._stream}_{time}{what}.mp4"

    def _found(self, folder: Path) -> int:
        """The time of the newest file that is there, milliseconds."""
        times = [0]
        with suppress(OSError):  # who cannot read the folder cannot write there either, and is told so then
            times += [
                _milliseconds(found[1]) for path in folder.iterdir() if (found := self._pattern.fullmatch(path.name))
            ]
        return max(times)


def _milliseconds(time: str) -> int:
    try:
        moment = datetime.strptime(f"{time}+0000", "%Y%m%dT%H%M%S.%f%z")
    except ValueError:  # digits that are no time
        return 0
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def utc(at: float) -> str:
    """A wall clock time, Unix seconds, as ISO 8601 writes it, to the millisecond.

    >>> utc(1795241590.25)
    '2026-11-21T06:13:10.250Z'
    """
    moment = _EPOCH + timedelta(milliseconds=round(at * 1000))
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def times_of(at: float, captured_at: float) -> dict[str, str]:
    """Tags of an MP4 that say when it begins.

    Args:
        at: by this machine's clock, Unix seconds.
        captured_at: by the camera's where it says, else the same.
    """
    return {"creation_time": utc(at), "description": f"captured_at {utc(captured_at)}"}
