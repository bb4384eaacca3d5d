"""Names that an output passes through until it has its own, and whether a place can be written to."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.errors import OutputError, UsageError

_LEAST_FREE = 16 << 20
"""Bytes of free disk below which no run is begun."""


def partial_name(path: Path) -> Path:
    """Where an output is while it is being written: `drive.mp4` → `drive.partial.mp4`."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def earlier_name(path: Path) -> Path:
    """Where the partial output of an interrupted run is while the resumed run copies it: `drive.earlier.mp4`."""
    return path.with_name(f"{path.stem}.earlier{path.suffix}")


def stopped_name(path: Path) -> Path:
    """The side-car beside a finished file whose run was interrupted, with which `--resume` goes on."""
    return path.with_name(f"{path.name}.stopped")


def source_name(path: Path) -> Path:
    """The side-car that says what an unfinished output is made of, so that no other footage is mixed into it."""
    return path.with_name(f"{path.name}.source")


def passing_names(path: Path) -> tuple[Path, ...]:
    """Every name but its own that a file of a run may have, or may have beside it, until it is finished."""
    return partial_name(path), earlier_name(path), stopped_name(path), source_name(path)


def unused(path: Path) -> Path:
    """The path, numbered where a file is there, be it under one of the names that it passes through."""
    number, free = 2, path
    while any(os.path.lexists(name) for name in (free, *passing_names(free))):
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def probe(folder: Path, name: str = "") -> None:
    """See that files can be written to a folder. The probe's name is nobody's: no file that is there is touched.

    Raises:
        OSError: they cannot.
    """
    path = folder / f".{name}.{secrets.token_hex(4)}.probe"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    path.unlink()


def file_for(path: Path, stream: str, suffix: str, many: bool) -> Path:
    """The file of a stream: the path itself for one stream, `<path>/<stream><suffix>` where it is a folder.

    Raises:
        UsageError: another ending, or one file for several streams.
    """
    if path.is_dir() or not path.suffix:
        return path / f"{stream}{suffix}"
    if path.suffix.lower() != suffix:
        raise UsageError(f"{path}: this output is written as {suffix}; give a name that ends in {suffix}, or a folder")
    if many:
        raise UsageError(f"{path} is one file, but there are several streams; give a folder, such as -o {path.stem}/")
    return path


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder that is there whole or not at all: it is filled under another name, gets its own when the block ends,
    and is removed when that fails or is interrupted.

    Raises:
        OutputError: something is there, or it cannot be written.
    """
    if path.is_dir() and any(path.iterdir()):
        raise OutputError(f"{path} is there, and not empty; name another folder, or remove it")
    if os.path.lexists(path) and not path.is_dir():
        raise OutputError(f"{path} is no folder; name another one")
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        try:  # from before it is made: Ctrl-C may come between the one and the other
            partial.mkdir(parents=True)
            yield partial
            if path.is_dir():
                path.rmdir()
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from None


def check_writable(path: Path) -> None:
    """See that a file can be written; its folder is made where only that one is missing.

    Raises:
        OutputError: it cannot, or its disk is full.
    """
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give a file name")
    if not folder.exists():
        if not folder.parent.is_dir():
            raise OutputError(f"{path} cannot be written: the folder {folder} does not exist; make it first")
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"the folder {folder} cannot be made: {error.strerror}") from None
    try:
        probe(folder, path.name)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from None
    if free < _LEAST_FREE:
        raise OutputError(f"{path} cannot be written: its disk has {free >> 20} MB left; free some space first")
