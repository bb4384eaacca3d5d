"""What is to be indexed: the clips of folders, cards and stores, each with its camera."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from engines.errors import SourceError
from pipeline.archive.inputs.stores import is_store, stored_files
from pipeline.sources.trips.folder import ANY, OTHERS, Trip, camera_words, find_trip, natural_order, sort_out
from pipeline.sources.trips.makers import recording

MAIN = "main"
"""The camera of clips whose names tell of none."""

_SYSTEM = frozenset({"system volume information", "$recycle.bin", "lost.dir", "lost+found", "found.000", "__macosx"})
"""Folders that are no person's."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A clip that was found.

    Attributes:
        path: an absolute path, or an address of a store.
        bytes: its size.
        version: changes when the file does.
        camera: by its name; `main` where that says nothing.
        maker: who names recordings so; empty where that is not known.
        folder: where it is.
        car: the folder that tells its camera from others of that name; empty where none has to.
    """

    path: str
    bytes: int
    version: str
    camera: str
    maker: str
    folder: str
    car: str = ""

    @property
    def name(self) -> str:
        """Of its file."""
        return PurePosixPath(self.path).name


@dataclass(slots=True)
class Footage:
    """What inputs hold.

    Attributes:
        clips: in natural order.
        said: sentences on what is left out and what could not be read.
        left_out: files that are no clips, by what they are.
    """

    clips: list[Candidate] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


Where = Callable[[Path], tuple[str, int, str]]
"""Of a clip's name: its path or address, its size, and what changes when the file does."""


def look_for(inputs: Sequence[str], archive: Path) -> Footage:
    """Look through inputs, folders of folders included. The archive itself, where it lies inside, is passed over.

    Raises:
        SourceError: an input is not there, or there is no clip in any of them.
    """
    found = Footage()
    for given in inputs:
        (_in_store if is_store(given) else _in_files)(given, archive.resolve(), found)
    if not found.clips:
        raise SourceError(f"there are no video clips in {', '.join(inputs)}; name folders or files of recordings")
    unique = {clip.path: clip for clip in found.clips}
    found.clips = sorted(unique.values(), key=lambda clip: natural_order(Path(clip.path)))
    return found


# Files of this machine ------------------------------------------------------------------------------------------------
def _in_files(given: str, archive: Path, found: Footage) -> None:
    path = Path(given) if Path(given).exists() else Path(given).expanduser()
    if not path.is_dir():
        if not path.exists() and not set("*?[") & set(given):
            raise SourceError(f"{given} does not exist; name folders or files of recordings")
        _take(given, str(path.resolve().parent), partial(find_trip, given), _on_disk, found)
        return
    root = path.resolve()
    if root == archive:
        raise SourceError(f"{given} is the archive itself; name what is to be indexed, then the archive")
    if not os.access(root, os.R_OK | os.X_OK):
        raise SourceError(f"{given} may not be read by this user; change its permissions")
    for folder in _folders(root, archive, found):
        _take(str(folder), str(folder), partial(find_trip, str(folder)), _on_disk, found)


def _folders(root: Path, archive: Path, found: Footage) -> Iterator[Path]:
    """A folder and all that are in it, in natural order; no link is followed."""

    def said(error: OSError) -> None:
        found.said.append(f"{error.filename} is left out: {(error.strerror or str(error)).lower()}")

    for name, inside, _ in os.walk(root, onerror=said):
        folder = Path(name)
        inside[:] = [
            each for each in sorted(inside, key=lambda each: natural_order(Path(each)))
            if not each.startswith(".") and each.lower() not in _SYSTEM and folder / each != archive
        ]  # fmt: skip
        yield folder


def _on_disk(clip: Path) -> tuple[str, int, str]:
    stands = clip.stat()
    return str(clip.resolve()), stands.st_size, str(stands.st_mtime_ns)


# Files of a store -----------------------------------------------------------------------------------------------------
def _in_store(given: str, _archive: Path, found: Footage) -> None:
    folders: dict[str, dict[Path, tuple[str, int, str]]] = defaultdict(dict)
    for file in stored_files(given):
        folder, _, name = file.address.rpartition("/")
        folders[folder][Path(folder) / name] = file.address, file.bytes, file.version
    for folder, files in folders.items():
        paths = sorted(files, key=natural_order)

        def looked_at(camera: str | None = None, folder: str = folder, paths: list[Path] = paths) -> Trip:
            return sort_out(folder, paths, whole=camera == ANY)

        _take(folder, folder, looked_at, files.__getitem__, found)


# Clips ----------------------------------------------------------------------------------------------------------------
def _take(address: str, folder: str, look: Callable[..., Trip], where: Where, found: Footage) -> None:
    """Take the clips of a folder, by the cameras that the rules of trips tell, else by those that the clips' own names
    tell."""
    try:
        trip = look()
        named = {clip: camera for camera, clips in trip.cameras.items() for clip in clips}
    except SourceError as error:
        try:
            trip = look(camera=ANY)
        except SourceError:  # neither clips nor pictures
            return
        named = {clip: known.camera if (known := recording(clip.name)) else "" for clip in trip.clips(ANY)}
        reason = str(error).removeprefix(f"{address} ").removeprefix(f"{address}: ").partition(";")[0]
        found.said.append(
            f"{address}: {reason}; each is indexed under the camera that its own name tells of, or {MAIN}"
        )
    except OSError as error:
        found.said.append(f"{address} is left out: {(error.strerror or str(error)).lower()}")
        return
    if trip.own:
        found.left_out["videos that roadlens wrote"] += len(trip.own)
    for kind, files in trip.left_out.items():
        found.left_out[kind] += len(files)
    found.left_out[OTHERS] += len(trip.pictures)
    for clip, camera in named.items():
        known = recording(clip.name)
        try:
            path, size, version = where(clip)
        except OSError as error:
            found.said.append(f"{clip} is left out: {(error.strerror or str(error)).lower()}")
            continue
        maker = "" if known is None else known.maker
        own = "" if known is None else known.camera  # a file that is named alone has no others to be told from
        name = camera.strip("_") or own or camera_words(PurePosixPath(folder).name) or MAIN
        found.clips.append(Candidate(path, size, version, _safe(name), maker, folder))


def _safe(camera: str) -> str:
    """As it stands in the name of a folder."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", camera).strip("-.")[:64] or MAIN
