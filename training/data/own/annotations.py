"""Files of drawn truth in a folder: which form they are in, and which picture each is of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgspec

from engines.errors import SourceError
from training.data.own.classes import NAMES, Entry, Legend, make_legend
from training.data.own.cvat import read_cvat
from training.data.own.layout import Layout, Part, Place, match, part_of
from training.data.own.shapes import (
    Drawn,
    kind_of_json,
    parse_xml,
    read_coco,
    read_labelme,
    read_voc,
    read_yolo,
)

Found = tuple[Drawn | None, str | None, Path | None]


@dataclass
class Annotations:
    """What is drawn on the pictures of a folder.

    Attributes:
        form: who writes such files.
        drawn: by picture; None where the file of a picture cannot be read.
        faults: why not, by picture.
        files: of each picture.
        single: files of one picture each.
        entries: classes that the files themselves list.
        named: pictures that a file of several lists, by the name there.
    """

    form: str = "none"
    drawn: dict[Path, Drawn | None] = field(default_factory=dict)
    faults: dict[Path, str] = field(default_factory=dict)
    files: dict[Path, Path] = field(default_factory=dict)
    single: list[Path] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    named: dict[str, Path] = field(default_factory=dict)

    @property
    def polygons(self) -> bool:
        """Whether anything is drawn with an outline, not as a box alone."""
        return any(not shape.plain for drawn in self.drawn.values() if drawn is not None for shape in drawn.shapes)

    def of(self, place: Place) -> Found:
        """What is drawn on a picture, or why that cannot be said; and in which file."""
        return self.drawn.get(place.path), self.faults.get(place.path), self.files.get(place.path)

    def part_of_file(self, file: Path) -> Part | None:
        """The part that a file of several pictures is of, by its name or its folder's."""
        return None if file in self.single else part_of(file.stem) or part_of(file.parent.name)

    def legend(self) -> Legend | None:
        """The classes that the files list, or that occur in them; None without any."""
        if self.entries:
            return make_legend(self.entries, f"the list in {self.form}'s file")
        shapes = [shape for drawn in self.drawn.values() if drawn is not None for shape in drawn.shapes]
        if numbers := sorted({shape.number for shape in shapes if shape.number is not None}):
            entries = [Entry(f"class {number}", number) for number in numbers]
            return make_legend(entries, "no file such as classes.txt says the classes; they are the numbers found")
        if names := sorted({shape.name.strip().casefold(): shape.name for shape in shapes}.values()):
            return make_legend([Entry(name) for name in names], "no file says the classes; they are the names found")
        return None

    def missing(self, pictures: Sequence[Place]) -> list[str]:
        """Pictures that files list and that are not there."""
        have = {place.path for place in pictures}
        return [name for name, path in self.named.items() if path not in have]


def read_annotations(layout: Layout) -> Annotations:
    """Read all files of drawn truth in a folder: those of the form that most pictures have.

    Raises:
        SourceError: a file of many pictures cannot be read.
    """
    jsons = [place for place in layout.files if place.path.suffix.lower() == ".json"]
    kinds = {place.path: _kind(place.path) for place in jsons}
    if cocos := [place for place in jsons if kinds[place.path] == "coco"]:
        return _of_many(layout, [(place.path, *read_coco(place.path)) for place in cocos], "COCO")
    xmls = [place for place in layout.files if place.path.suffix.lower() == ".xml"]
    if found := _cvat(layout, xmls):
        return found
    texts = [p for p in layout.files if p.path.suffix == ".txt" and p.path.stem.casefold() not in _NO_LABELS]
    labelmes = [place for place in jsons if kinds[place.path] == "labelme"]
    singles: list[tuple[str, list[Place], Callable[[Path], Drawn]]] = [
        ("Labelme", labelmes, read_labelme), ("Pascal VOC", xmls, read_voc), ("YOLO", texts, read_yolo),
    ]  # fmt: skip
    counted = [(len(match(layout.pictures, places)[0]), name, places, read) for name, places, read in singles]
    number, form, places, read = max(counted, key=lambda entry: entry[0])
    return _of_one(layout, places, read, form) if number else Annotations()


_NO_LABELS = frozenset({*NAMES, "train", "val", "valid", "test", "trainval", "readme", "licence", "license", "notes"})


def _kind(path: Path) -> str | None:
    """The form of a JSON file, by its keys; a broken one beside pictures is most likely Labelme's."""
    try:
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return "labelme" if path.stem.casefold() not in _NO_LABELS else None
    return kind_of_json(content)


def _cvat(layout: Layout, xmls: Sequence[Place]) -> Annotations | None:
    found = []
    for place in xmls if len(xmls) < 200 else ():
        try:
            root = parse_xml(place.path)
        except SourceError:
            continue
        if root.tag == "annotations":
            found.append((place.path, *read_cvat(place.path, root)))
    return _of_many(layout, found, "CVAT") if found else None


def _of_many(layout: Layout, files: Iterable[tuple[Path, dict[str, Drawn], list[Entry]]], form: str) -> Annotations:
    made = Annotations(form)
    by_name: dict[str, list[Path]] = {}
    for place in layout.pictures:
        by_name.setdefault(place.path.name, []).append(place.path)
    for file, drawn, entries in files:
        known = {entry.name for entry in made.entries}
        numbers = {entry.id for entry in made.entries}
        fresh = [entry for entry in entries if entry.name not in known]
        made.entries += [Entry(e.name, None if e.id in numbers else e.id, e.color, e.thing) for e in fresh]
        for name, found in drawn.items():
            path = _picture(PurePosixPath(name.replace("\\", "/")), file, layout, by_name)
            made.named[name] = path or file.parent / name
            if path is not None:
                made.drawn[path], made.files[path] = found, file
    return made


def _picture(name: PurePosixPath, file: Path, layout: Layout, by_name: dict[str, list[Path]]) -> Path | None:
    """The picture that an annotation file calls so: below the folder, below the file's own, or the only one."""
    candidates = by_name.get(name.name, [])
    for start in (file.parent, layout.root, file.parent.parent):
        if (start / name) in candidates:
            return start / name
    ends = [path for path in candidates if path.as_posix().endswith(f"/{name}")]
    part = part_of(file.stem) or part_of(file.parent.name)
    same = [
        p for p in ends or candidates if part is None or part in map(part_of, p.relative_to(layout.root).parts[:-1])
    ]
    for found in (ends, same, candidates):
        if len(found) == 1:
            return found[0]
    return None


def _of_one(layout: Layout, places: Sequence[Place], read: Callable[[Path], Drawn], form: str) -> Annotations:
    made = Annotations(form, single=[place.path for place in places])
    for picture, file in match(layout.pictures, places)[0].items():
        made.files[picture] = file
        try:
            made.drawn[picture] = read(file)
        except SourceError as error:
            made.drawn[picture], made.faults[picture] = None, str(error)
    return made
