"""Files that hold a stream's past: recordings and clips of events, found by the names that they are written under."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Literal

import msgspec

from pipeline.config import Config
from pipeline.outputs.event_clip import clip_names
from pipeline.outputs.naming import TimedNames

MOST_FILES = 2000
"""Files of an answer, the newest."""

_PARTIAL = ".partial.mp4"


class StoredFile(msgspec.Struct, frozen=True):
    """A video of a stream's past.

    Attributes:
        name: of the file, MP4.
        kind: `recording` (with the overlay) or `clip` (of an event, as the camera sent it).
        reason: what the clip was saved for; empty of a recording.
        begins, ends: Unix seconds by this machine's clock.
        bytes: its size.
        complete: whether nothing is added to it any more.
    """

    name: str
    kind: Literal["recording", "clip"]
    reason: str
    begins: float
    ends: float
    bytes: int
    complete: bool


def stored_files(config: Config, stream: str, since: float = 0.0) -> list[StoredFile]:
    """The files of a stream that end after a time, oldest first."""
    found = [file for kind, folder, names in _places(config, stream) for file in _files(kind, folder, names, stream)]
    return sorted((f for f in found if f.ends >= since), key=lambda f: (f.begins, f.name))[-MOST_FILES:]


def stored_file(config: Config, stream: str, name: str) -> Path | None:
    """The file of that name, one that may be whole by now; None where the stream has none.

    A name is one that this program gives, which holds no separator, and what is there is a file and no link: nothing
    outside of the stream's own folder is ever opened.
    """
    for _, folder, names in _places(config, stream):
        if names.ours(name):
            for path in (folder / name, folder / name.replace(_PARTIAL, ".mp4")):
                if _regular(path) is not None:
                    return path
    return None


def _places(config: Config, stream: str) -> Iterator[tuple[Literal["recording", "clip"], Path, TimedNames]]:
    if config.outputs.record is not None:
        yield "recording", config.outputs.record.folder / stream, TimedNames(stream)
    if config.event_clips is not None:
        yield "clip", config.event_clips.folder / stream, clip_names(stream)


def _files(kind: Literal["recording", "clip"], folder: Path, names: TimedNames, stream: str) -> Iterator[StoredFile]:
    try:
        found = [path.name for path in folder.iterdir()]
    except OSError:  # not made yet
        return
    for name in found:
        begins = names.begins(name)
        complete = not name.endswith(_PARTIAL)
        status = _regular(folder / name) if begins is not None else None
        if begins is None or status is None or (kind == "clip" and not complete):  # a clip plays when it is whole
            continue
        after = re.fullmatch(r"[^_]+(?:_(.+))?", name[len(stream) + 1 :].removesuffix(".mp4"))
        reason = (after[1] or "") if kind == "clip" and after is not None else ""
        yield StoredFile(name, kind, reason, begins, max(status.st_mtime, begins), status.st_size, complete)


def _regular(path: Path) -> os.stat_result | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status if S_ISREG(status.st_mode) else None
