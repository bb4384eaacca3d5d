"""Where clips are: folders of this machine, and object stores through fsspec (`s3://`, `gs://` …)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from engines.errors import RoadlensError, SourceError
from pipeline.addresses import strip_credentials


class OutOfReachError(SourceError):
    """A clip that was found cannot be had, which is no fault of its content."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of a store, as its list says.

    Attributes:
        address: of it.
        bytes: its size; 0 where the store does not say.
        version: changes when the file does.
    """

    address: str
    bytes: int
    version: str


def is_store(address: str) -> bool:
    """Whether an address is one of a store rather than of a file."""
    return "://" in address


def stored_files(address: str) -> list[Stored]:
    """All files below an address of a store.

    Raises:
        SourceError: it cannot be listed, or there is nothing.
    """
    system, path = _opened(address)
    scheme = address.partition("://")[0]
    try:
        found: dict[str, dict[str, Any]] = system.find(path, detail=True)
    except Exception as error:  # noqa: BLE001  # whatever the store's library raises
        raise _refusal(address, error) from None
    if not found:
        raise SourceError(f"{strip_credentials(address)} holds nothing; check the name, and whether it may be listed")
    return [
        Stored(
            f"{scheme}://{name.lstrip('/') if scheme != 'file' else name}", int(said.get("size") or 0), _version(said)
        )
        for name, said in sorted(found.items())
    ]


def _version(said: dict[str, Any]) -> str:
    for key in ("ETag", "etag", "md5Hash", "mtime", "created", "LastModified"):
        if said.get(key):
            return str(said[key])
    return ""


def check_reach(path: Path, size: int | None) -> None:
    """See that a file of this machine can be read, and has the size that it was found with, where one is given.

    Raises:
        OutOfReachError: it cannot, or is of another size.
    """
    try:
        with path.open("rb") as file:
            now = os.fstat(file.fileno()).st_size
    except PermissionError:
        raise OutOfReachError(f"{path} may not be read by this user; change its permissions") from None
    except OSError as error:
        raise OutOfReachError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if size not in (None, now):
        raise OutOfReachError(
            f"{path} had {size} bytes when it was found and has {now} now; let it be written to its end"
        )


@contextmanager
def local_copy(address: str, size: int | None = None) -> Iterator[Path]:
    """The file of an address: itself, or a copy of what is in a store, which goes behind the block. The copy has the
    name that the file has there, for names say when and by whom a clip was recorded.

    Args:
        address: a path, or an address of a store.
        size: bytes that a file must have; None for whatever it has.

    Raises:
        OutOfReachError: it cannot be had.
    """
    if not is_store(address):
        check_reach(Path(address), size)
        yield Path(address)
        return
    try:
        system, path = _opened(address)
    except SourceError as error:
        raise OutOfReachError(str(error)) from None
    with tempfile.TemporaryDirectory(prefix="roadlens-") as folder:
        copy = Path(folder) / PurePosixPath(path).name
        try:
            system.get_file(path, str(copy))
        except Exception as error:  # noqa: BLE001  # the same
            raise OutOfReachError(str(_refusal(address, error))) from None
        os.utime(copy, (0, 0))  # when it was copied is not when it was made
        yield copy


def _opened(address: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ModuleNotFoundError:
        raise SourceError(
            f"{strip_credentials(address)} is in a store, which needs the package fsspec; install it with: "
            "pip install '.[archive]'"
        ) from None
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:  # a store has a package of its own
        raise SourceError(f"{strip_credentials(address)} cannot be read: {error}") from None
    except Exception as error:  # noqa: BLE001  # the same
        raise _refusal(address, error) from None
    return system, path


def _refusal(address: str, error: Exception) -> RoadlensError:
    shown = strip_credentials(address)
    if isinstance(error, PermissionError):
        return SourceError(f"{shown} may not be read with these credentials; give ones that may list and read it")
    if isinstance(error, FileNotFoundError):
        return SourceError(f"{shown} is not there; check the name")
    said = strip_credentials(" ".join(str(error).split()))[:200] or type(error).__name__
    return SourceError(f"{shown} cannot be read: {said}")
