"""Which files a run reads and which it writes: no file may be both, and no two outputs may be one file.

Files are told apart by device and inode, never by how their names are spelt: a symbolic link, a hard link, another
case on a file system that does not tell cases apart, and a second mount of a folder are the same file. An output that
is not there yet is known by its folder's inode and its name. An output is claimed with every name that it passes
through on its way, for a file may be lost by its partial name as well as by its final one.
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from engines.errors import UsageError

Identity = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a name that may not be there yet leads to: the nearest folder that is there, and the names below it."""

    folder: Identity
    below: tuple[str, ...]
    path: Path = field(compare=False)


@dataclass(frozen=True, slots=True)
class _Read:
    holder: str
    path: Path
    identity: Identity


@dataclass(frozen=True, slots=True)
class _Written:
    """One name that an output passes through.

    Attributes:
        output: its final name.
        name: the name in question.
    """

    holder: str
    output: Path
    name: Path
    place: _Place | None


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder in which files of certain names are written, replaced and removed."""

    holder: str
    path: Path
    place: _Place | None
    ours: Callable[[str], bool]
    what: str


class Claims:
    """What a run reads and writes. Safe to be called from several threads.

    Every input is named by `read`, and every output by `write` or `write_in` before it is opened; whichever comes
    second of an input and an output that are one file is refused, and nothing has been touched by then. A holder is
    one part of the run, such as a stream, and lets go of what it named by `release`.

    >>> claims = Claims()
    >>> claims.read(Path(__file__))
    >>> try:
    ...     claims.write(Path(__file__))
    ... except UsageError as error:
    ...     print("is an input of this run" in str(error))
    True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: list[_Read] = []
        self._written: list[_Written] = []
        self._folders: list[_Folder] = []

    # Inputs ---------------------------------------------------------------------------------------------------------
    def read(self, path: Path, holder: str = "") -> None:
        """Name an input. One that is not there is no file that could be lost.

        Raises:
            UsageError: an output of the run is this file.
        """
        identity = _identity(path)
        if identity is not None:
            self._add_read(_Read(holder, path, identity))

    def read_descriptor(self, descriptor: int, name: str, holder: str = "") -> None:
        """Name an input that is open already, such as standard input; pipes and terminals are no files.

        Raises:
            UsageError: an output of the run is this file.
        """
        identity = _identity_of_open(descriptor)
        if identity is not None:
            self._add_read(_Read(holder, Path(name), identity))

    def _add_read(self, entry: _Read) -> None:
        with self._lock:
            for written in self._written:
                if _identity(written.name) == entry.identity:
                    raise UsageError(_overwrites(written.output, written.name, entry.path))
            for folder in self._folders:
                self._check_folder(folder, [entry])
            self._read.append(entry)

    # Outputs --------------------------------------------------------------------------------------------------------
    def write(self, output: Path, passing: Iterable[Path] = (), holder: str = "") -> None:
        """Claim an output, with the names that it passes through until it has its own.

        Raises:
            UsageError: one of the names is an input of the run, or another output's.
        """
        names = [output, *passing]
        with self._lock:
            for name in names:
                self._check_name(output, name, holder)
            self._written += [_Written(holder, output, name, _place(name)) for name in names]

    def write_descriptor(self, descriptor: int, name: str) -> None:
        """Claim an output that is open already, such as standard output.

        Raises:
            UsageError: it is an input of the run.
        """
        identity = _identity_of_open(descriptor)
        with self._lock:
            for entry in self._read:
                if identity is not None and entry.identity == identity:
                    raise UsageError(_overwrites(Path(name), Path(name), entry.path))

    def write_in(self, folder: Path, ours: Callable[[str], bool], what: str, holder: str = "") -> None:
        """Claim the names of a folder for which `ours` is true: such files come, are replaced and go.

        Args:
            folder: where.
            ours: whether a file's name is one of those.
            what: what is written there, for the sentence, such as `HLS`.
            holder: whose.

        Raises:
            UsageError: an input of the run, or another output, is one of those files.
        """
        entry = _Folder(holder, folder, _place(folder), ours, what)
        with self._lock:
            self._check_folder(entry, self._read)
            for other in self._folders:
                if other.holder != holder and other.what == what and _same_place(entry.place, other.place):
                    raise UsageError(
                        f"{what} of {_who(holder)} and of {_who(other.holder)} would both go to {folder}; give one of "
                        "them another id or folder"
                    )
            for written in self._written:
                if ours(written.name.name) and _same_place(entry.place, _place(written.name.parent)):
                    raise UsageError(_twice(written.output, written.name, f"a file of {what} in {folder}"))
            self._folders.append(entry)

    def release(self, holder: str) -> None:
        """Let go of everything that a holder has named."""
        with self._lock:
            self._read = [entry for entry in self._read if entry.holder != holder]
            self._written = [entry for entry in self._written if entry.holder != holder]
            self._folders = [entry for entry in self._folders if entry.holder != holder]

    # Checks; the lock is held ---------------------------------------------------------------------------------------
    def _check_name(self, output: Path, name: Path, holder: str) -> None:
        identity, place = _identity(name), _place(name)
        for entry in self._read:
            if identity is not None and entry.identity == identity:
                raise UsageError(_overwrites(output, name, entry.path))
        for other in self._written:
            if holder and other.holder == holder and other.output == output:
                continue  # the same output, claimed again
            same_file = identity is not None and _is_file(name) and _identity(other.name) == identity
            if same_file or _same_place(place, other.place):
                raise UsageError(_twice(output, name, f"the output {other.output}"))
        for folder in self._folders:
            if folder.ours(name.name) and _same_place(folder.place, _place(name.parent)):
                raise UsageError(_twice(output, name, f"a file of {folder.what} in {folder.path}"))

    def _check_folder(self, folder: _Folder, read: Iterable[_Read]) -> None:
        """That no file in the folder that may be replaced or removed is one of the inputs."""
        inputs = {entry.identity: entry.path for entry in read}
        if not inputs:
            return
        try:
            present = [entry for entry in folder.path.iterdir() if folder.ours(entry.name)]
        except OSError:
            return  # it is not there, or nobody may look into it: nothing in it can be lost
        for path in present:
            identity = _identity(path)
            if identity is not None and identity in inputs:
                raise UsageError(
                    f"{folder.what} in {folder.path} would replace or remove {inputs[identity]}, an input of this run; "
                    "give the output another folder"
                )


def keep_apart(outputs: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """See that a command writes over nothing that it reads; None is left out.

    Args:
        outputs: files to be written.
        inputs: files, or folders whose files are read.

    Raises:
        UsageError: an output is an input, or a file that is there in an input's folder.
    """
    claims = Claims()
    read = [path for path in inputs if path is not None]
    for path in read:
        claims.read(path)
    for output in outputs:
        if output is None:
            continue
        claims.write(output)
        above = {_identity(folder) for folder in Path(os.path.realpath(output)).parents}
        if output.exists() and any(path.is_dir() and _identity(path) in above for path in read):
            raise UsageError(f"the output {output} is a file of a folder that is read; give it another name or folder")


def _who(holder: str) -> str:
    return f"the stream {holder!r}" if holder else "the run"


def _overwrites(output: Path, name: Path, read: Path) -> str:
    if name == output:
        other = "" if read == output else f" ({read}, the same file)"
        return f"the output {output} is an input of this run{other}; give the output another name or folder"
    same = "" if read == name else f" ({read}, the same file)"
    return (
        f"the output {output} passes through the name {name} on its way, which is an input of this run{same}; give the "
        "output another name or folder"
    )


def _twice(output: Path, name: Path, other: str) -> str:
    way = "" if name == output else f", by way of {name},"
    return f"the output {output}{way} is the same file as {other}; give every output a name of its own"


def _identity(path: Path) -> Identity | None:
    """Of the file that a name leads to, links followed; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _is_file(path: Path) -> bool:
    """Whether it can be written over: /dev/null may be the output of two."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _identity_of_open(descriptor: int) -> Identity | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _place(path: Path) -> _Place | None:
    """Where a name leads to, whether or not it is there; None for what is there and is no file or folder."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        return None
    below: list[str] = []
    # A link to a file that is not there yet leads to that file, so that it is followed first.
    path = Path(os.path.realpath(path))
    folder = path
    while True:
        if below or folder.is_dir():
            identity = _identity(folder)
            if identity is not None:
                return _Place(identity, tuple(reversed(below)), folder)
        if folder.parent == folder:
            return None
        below.append(folder.name)
        folder = folder.parent


def _same_place(one: _Place | None, other: _Place | None) -> bool:
    """Whether two names lead to one file, once it is there."""
    if one is None or other is None or one.folder != other.folder:
        return False
    if one.below == other.below:
        return True
    if [name.casefold() for name in one.below] != [name.casefold() for name in other.below]:
        return False
    return _folds_case(one.path)


def _folds_case(folder: Path) -> bool:
    """Whether a folder takes two names that differ in their case for one; found by trying, for a mount decides it."""
    probe = folder / f".roadlens-{secrets.token_hex(4)}.probe"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError:
        return False  # nothing can be written there anyway
    try:
        return probe.with_name(probe.name.upper()).exists()
    finally:
        probe.unlink()
