"""Which picture goes with which label in somebody's folder, and which part of the data it is in."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from engines.errors import SourceError
from engines.tools.pictures import IMAGE_SUFFIXES

Part = Literal["train", "val", "test"]
Role = Literal["picture", "truth"]

PICTURE_FOLDERS = frozenset({
    "images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "rgb", "frames", "input", "inputs",
})  # fmt: skip
TRUTH_FOLDERS = frozenset({
    "masks", "mask", "labels", "label", "annotations", "annotation", "ann", "anns", "annot", "gt", "truth", "targets",
    "segmentationclass", "segmentationclassraw", "segmentations", "xmls", "polygons", "json", "jsons", "boxes",
})  # fmt: skip
_NEUTRAL = frozenset({"data", "dataset", "default", "obj_train_data"})
_PARTS: dict[str, Part] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_PART = re.compile(rf"({'|'.join(_PARTS)})[_-]?(annot|labels?|masks?|gt|images?|imgs?)?")
_TRUTH_ENDING = re.compile(r"[_-](mask|masks|label|labels|gt|l|seg|segmentation|labelids|annotation)$", re.IGNORECASE)
_PICTURE_ENDING = re.compile(r"[_-](image|img|rgb|photo)$", re.IGNORECASE)
_TRUTH_FILES = frozenset({".json", ".xml", ".txt"})


@dataclass(frozen=True)
class Place:
    """What the path of a file says: the part of the data, what the file is, folders that are a trip, and its name."""

    path: Path
    part: Part | None
    role: Role | None
    trip: tuple[str, ...]
    stem: str

    @property
    def names(self) -> tuple[str, ...]:
        """What another file of the same picture may be called: as this one, or without its ending such as `_mask`."""
        return tuple(dict.fromkeys((self.path.stem, self.stem)))


def part_of(word: str) -> Part | None:
    """The part of the data that a word in the name of a file means: `instances_val2017` → val."""
    found = [_PARTS[piece] for piece in re.findall(r"[a-z]+", word.casefold()) if piece in _PARTS]
    return found[0] if found else None


def walk(root: Path) -> Iterator[Path]:
    """Files under a folder, in order, without what is hidden (`.DS_Store`, `._photo.jpg`) or a system's (`__MACOSX`).

    Raises:
        SourceError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise SourceError(f"the folder {error.filename} cannot be read ({error.strerror}); give rights to read it")

    for folder, inner, files in os.walk(root, onerror=refuse, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__")))
        for name in sorted(files):
            if not name.startswith(".") and name not in ("Thumbs.db", "desktop.ini"):
                yield Path(folder) / name


def place_of(path: Path, root: Path) -> Place:
    """What the path of a file below `root` says."""
    part: Part | None = None
    role: Role | None = None
    trip: list[str] = []
    for folder in path.relative_to(root).parts[:-1]:
        word = folder.casefold()
        if found := _PART.fullmatch(word):
            part = _PARTS[found[1]]
            kind = found[2] or ""
            role = ("picture" if kind.startswith("im") else "truth") if kind else role
        elif word in PICTURE_FOLDERS:
            role = "picture"
        elif word in TRUTH_FOLDERS or word.endswith(("_masks", "_labels", "_annotations")):
            role = "truth"
        elif word not in _NEUTRAL:
            trip.append(folder)
    stem = path.stem
    ending = _TRUTH_ENDING if role == "truth" else _PICTURE_ENDING
    return Place(path, part, role, tuple(trip), ending.sub("", stem))


@dataclass(frozen=True)
class Layout:
    """The files of a folder.

    Attributes:
        root: the folder.
        pictures: photos, in order.
        masks: pictures that are labels.
        files: JSON, XML and text files.
        listed: parts by what a list says (`ImageSets/…/train.txt`, `train.txt`): by stem.
    """

    root: Path
    pictures: tuple[Place, ...]
    masks: tuple[Place, ...]
    files: tuple[Place, ...]
    listed: dict[str, Part]

    def part(self, place: Place) -> Part | None:
        return place.part or self.listed.get(place.stem)


def lay_out(root: Path) -> Layout:
    """Look at the names of all files below a folder.

    Raises:
        SourceError: there is no such folder, or a folder in it cannot be read.
    """
    if not root.is_dir():
        raise SourceError(f"there is no folder {root}; give the folder with your pictures and labels")
    places = [place_of(path, root) for path in walk(root)]
    images = [place for place in places if place.path.suffix.lower() in IMAGE_SUFFIXES]
    photos = {(p.path.parent, p.path.stem) for p in images if p.path.suffix.lower() != ".png"}
    stems = {place.path.stem for place in images}
    masks, pictures = list[Place](), list[Place]()
    for place in images:
        if place.role is None and _belongs_to_another(place, stems, photos):
            place = replace(place, role="truth", stem=_TRUTH_ENDING.sub("", place.path.stem))
        (masks if place.role == "truth" else pictures).append(place)
    files = [place for place in places if place.path.suffix.lower() in _TRUTH_FILES]
    return Layout(root, tuple(pictures), tuple(masks), tuple(files), _lists(files, root))


def _belongs_to_another(place: Place, stems: set[str], photos: set[tuple[Path, str]]) -> bool:
    """Whether a picture is the label of another: x_mask.png where there is an x.png or x.jpg, x.png beside x.jpg."""
    stem = place.path.stem
    if _TRUTH_ENDING.search(stem):
        plain = _TRUTH_ENDING.sub("", stem)
        return any(plain + ending in stems for ending in ("", "_image", "_img"))
    return place.path.suffix.lower() == ".png" and (place.path.parent, stem) in photos


def _lists(files: Iterable[Place], root: Path) -> dict[str, Part]:
    found: dict[str, Part] = {}
    for place in files:
        part = _PARTS.get(place.path.stem.casefold())
        inside = place.path.parent == root or "ImageSets" in place.path.relative_to(root).parts
        if part is None or place.path.suffix != ".txt" or not inside:
            continue
        for line in place.path.read_text(encoding="utf-8", errors="replace").splitlines():
            if words := line.split():
                found.setdefault(PurePosixPath(words[0].replace("\\", "/")).stem, part)
    return found


def match(pictures: Sequence[Place], truths: Sequence[Place]) -> tuple[dict[Path, Path], list[Path]]:
    """Which label belongs to which picture: that of the same part, trip and stem, else the only one of its stem.

    Returns:
        Labels by picture, and the labels that belong to none.
    """
    exact: dict[tuple[Part | None, tuple[str, ...], str], Path] = {}
    by_name: dict[str, list[Path]] = defaultdict(list)
    wanted: dict[str, int] = defaultdict(int)
    for place in truths:
        for name in place.names:
            exact.setdefault((place.part, place.trip, name), place.path)
            by_name[name].append(place.path)
    for place in pictures:
        for name in place.names:
            wanted[name] += 1
    found: dict[Path, Path] = {}
    for place in pictures:
        sure = [exact[key] for name in place.names if (key := (place.part, place.trip, name)) in exact]
        only = [by_name[name][0] for name in place.names if len(by_name[name]) == 1 and wanted[name] == 1]
        if sure or only:
            found[place.path] = (sure or only)[0]
    used = set(found.values())
    return found, [place.path for place in truths if place.path not in used]
