"""What a clip is known by: its content, of which its size and both ends are read."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.archive.inputs.footage import Candidate
from pipeline.archive.inputs.stores import is_store

_ID_DIGITS = 20


def id_of(clip: Candidate) -> tuple[str, bool]:
    """The id of a clip, and whether it is of its content: where that cannot be read it is of what its folder says. Of
    what is in a store it is always of what the list says.
    """
    said = hashlib.sha256(f"{clip.name}\n{clip.bytes}\n{clip.version}".encode()).hexdigest()
    if is_store(clip.path):
        return said[:_ID_DIGITS], True
    found = _content(Path(clip.path))
    return (found or said)[:_ID_DIGITS], bool(found)


def is_there(path: Path, clip: str, size: int, version: str) -> bool:
    """Whether a file of this machine is the clip with an id, which had so many bytes and a version when it was found.
    One that may not be read is.
    """
    try:
        stands = path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    if stands.st_size != size:
        return False
    return str(stands.st_mtime_ns) == version or (_content(path)[:_ID_DIGITS] or clip) == clip


def _content(path: Path) -> str:
    from pipeline.session.fingerprint import fingerprint  # brings half of the package: only where a clip is new

    return fingerprint(path)
