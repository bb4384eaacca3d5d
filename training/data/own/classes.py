"""Classes of somebody's data: from a file beside the pictures, in the forms that labelling tools write, or found."""

from __future__ import annotations

import colorsys
import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.classes import CITYSCAPES_CLASSES, IGNORE, ClassInfo
from engines.errors import SourceError, UsageError
from engines.settings import parse_scalar

Color = tuple[int, int, int]

NAMES = (
    "classes", "_classes", "class_dict", "class_names", "labels", "labelmap", "label_map", "label_colors", "legend",
    "palette", "obj", "data", "dataset",
)  # fmt: skip
"""Files that may say the classes, without their ending; the first one found is read."""

ENDINGS = (".yaml", ".yml", ".json", ".csv", ".txt", ".names")

_SAME = {
    "pavement": "sidewalk", "footpath": "sidewalk", "footway": "sidewalk", "tree": "vegetation", "trees": "vegetation",
    "plant": "vegetation", "grass": "terrain", "pedestrian": "person", "human": "person", "people": "person",
    "bicyclist": "rider", "cyclist": "rider", "signsymbol": "traffic sign", "sign": "traffic sign",
    "road sign": "traffic sign", "trafficsign": "traffic sign", "trafficlight": "traffic light",
    "column pole": "pole", "roadway": "road", "street": "road", "drivable": "road", "buildings": "building",
    "motorbike": "motorcycle", "bike": "bicycle",
}  # fmt: skip
"""Names that other data sets use, and what Cityscapes calls the same thing."""

_NO_CLASS = frozenset({
    "void", "ignore", "ignored", "unlabeled", "unlabelled", "unknown", "dont care", "don't care", "__ignore__",
})  # fmt: skip
_ALSO_THINGS = frozenset({"vehicle", "van", "animal", "scooter", "cone", "traffic cone", "trailer", "caravan"})
_KNOWN = {info.name: info for info in CITYSCAPES_CLASSES}


@dataclass(frozen=True)
class Legend:
    """What the numbers, colours and names in labels stand for.

    Attributes:
        classes: id = place.
        ids: number in a label → class id, or `IGNORE`.
        colors: colour in a label, RGB → class id, or `IGNORE`; empty where no file says any.
        names: name in a label → class id, or `IGNORE`.
        source: what says so, in a clause.
    """

    classes: tuple[ClassInfo, ...]
    ids: dict[int, int]
    colors: dict[Color, int]
    names: dict[str, int]
    source: str

    def described(self) -> str:
        """The classes with their numbers in labels, for a sentence."""
        by_class = {place: number for number, place in self.ids.items() if place != IGNORE}
        return ", ".join(f"{by_class.get(info.id, info.id)} {info.name}" for info in self.classes)


@dataclass(frozen=True)
class Entry:
    """A line of a class file: what is left out is None."""

    name: str
    id: int | None = None
    color: Color | None = None
    thing: bool | None = None


@dataclass
class _Places:
    """Ids, colours and names on their way to classes that are numbered from 0."""

    classes: list[ClassInfo] = field(default_factory=list)
    ids: dict[int, int] = field(default_factory=dict)
    colors: dict[Color, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)


def canonical(name: str) -> str:
    """The name by which classes of two data sets are known for the same: lower case, Cityscapes' word where it has one.

    >>> canonical("Sign_Symbol"), canonical("Pedestrian"), canonical("rail track")
    ('traffic sign', 'person', 'rail track')
    """
    plain = re.sub(r"[\s_-]+", " ", name.strip().casefold())
    return _SAME.get(plain) or _SAME.get(plain.replace(" ", "")) or plain


_STARTS_AS = {"vehicle": "car", "van": "car", "lane": "road", "lane marking": "road", "road marking": "road"}
"""What classes that a model does not know look most like; only their first weights are taken from there."""


def alike(classes: Sequence[ClassInfo], known: Sequence[ClassInfo]) -> list[int | None]:
    """For each class the place, among those that a model knows, of the one that it is or looks like; None for none."""
    places = {canonical(info.name): place for place, info in enumerate(known)}
    names = [canonical(info.name) for info in classes]
    return [places.get(name, places.get(_STARTS_AS.get(name, ""))) for name in names]


def make_legend(entries: Sequence[Entry], source: str) -> Legend:
    """The legend of a class file's entries; classes that are none (void, ignore) are left out of the classes.

    Raises:
        SourceError: no class, two of one name, number or colour, or more than there may be.
    """
    made = _Places(ids={IGNORE: IGNORE})
    for place, entry in enumerate(entries):
        number = place if entry.id is None else entry.id
        key = entry.name.strip().casefold()
        if key in made.names:
            raise SourceError(f"{source} has two classes called {entry.name!r}; give each class a name of its own")
        if number in made.ids and number != IGNORE:
            raise SourceError(f"{source} gives the number {number} to two classes; give each class one of its own")
        if entry.color is not None and entry.color in made.colors:
            raise SourceError(f"{source} gives the colour {entry.color} to two classes; give each class one of its own")
        known = canonical(entry.name)
        if known in _NO_CLASS:
            own = IGNORE
        else:
            own = len(made.classes)
            thing = _KNOWN[known].thing if known in _KNOWN else known in _ALSO_THINGS
            made.classes.append(
                ClassInfo(
                    own,
                    entry.name.strip(),
                    entry.color or _color(known, own),
                    entry.thing or (entry.thing is None and thing),
                )
            )
        made.ids[number] = made.names[key] = own
        if entry.color is not None:
            made.colors[entry.color] = own
    if not 0 < len(made.classes) < IGNORE:
        raise SourceError(f"{source} names {len(made.classes)} classes; wanted are 1 to {IGNORE - 1}")
    return Legend(tuple(made.classes), made.ids, made.colors, made.names, source)


def _color(name: str, place: int) -> Color:
    """Cityscapes' colour of the class, or one of a row that differ well: hues by the golden angle."""
    if name in _KNOWN:
        return _KNOWN[name].color
    if name == "background":
        return 0, 0, 0
    red, green, blue = colorsys.hsv_to_rgb((0.08 + place * 0.381966) % 1, 0.75, 0.95 if place % 2 else 0.7)
    return round(red * 255), round(green * 255), round(blue * 255)


# Files --------------------------------------------------------------------------------------------------------------


def find_class_file(folders: Iterable[Path]) -> Path | None:
    """The file that says the classes, in the first of some folders that has one."""
    for folder in folders:
        if folder.is_dir():
            there = {path.name.casefold(): path for path in sorted(folder.iterdir()) if path.is_file()}
            for name in (f"{stem}{ending}" for stem in NAMES for ending in ENDINGS):
                if name in there and _may_say_classes(there[name]):
                    return there[name]
    return None


def _may_say_classes(path: Path) -> bool:
    """COCO's `labels.json` says its classes itself, and `data.yaml` may say other things."""
    if path.stem.casefold() in ("data", "dataset"):
        return b"names" in path.read_bytes()[:200_000] and path.suffix in (".yaml", ".yml")
    return path.suffix != ".json" or (path.stat().st_size < 200_000 and b'"annotations"' not in path.read_bytes())


def read_class_file(path: Path) -> list[Entry]:
    """The entries of a class file: names, one a line; with numbers or colours (R G B, #RRGGBB) before or behind them;
    CSV with a head; YAML or JSON: a list of names or of mappings (`name`, `id`, `color`, `thing`), a mapping of numbers
    or names, and whatever stands under `names`, `classes`, `categories` or `labels`.

    Raises:
        SourceError: the file cannot be read, or a line cannot be understood.
    """
    if path.suffix in (".yaml", ".yml", ".json"):
        try:
            return _entries_of(parse_scalar(path.read_text(encoding="utf-8-sig")), path)
        except (OSError, UnicodeDecodeError, UsageError):
            raise SourceError(f"{path} is not YAML or JSON that can be read; write a list of names into it") from None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read as text ({error}); save it as UTF-8, a class a line") from None
    if path.suffix == ".csv" and lines and re.fullmatch(r"(?i)[^\d]*(name|class|label)[^\d]*", lines[0]):
        return _entries_of(_rows_of(lines), path)
    rows = [
        (number, _tokens(line))
        for number, line in enumerate(lines, 1)
        if line.strip() and not re.match(r"#(?![0-9a-fA-F]{6}\b)", line)
    ]
    numbered = all(sum(1 for _ in _leading(tokens)) in (1, 4) for _, tokens in rows)
    return [_entry(tokens, numbered, path, number) for number, tokens in rows]


def _rows_of(lines: list[str]) -> list[dict[str, Any]]:
    found = []
    for row in csv.DictReader(io.StringIO("\n".join(lines)), skipinitialspace=True):
        plain = {(key or "").strip().casefold(): (value or "").strip() for key, value in row.items()}
        name = next((plain[key] for key in ("name", "class", "class_name", "label") if plain.get(key)), "")
        color = [
            plain[key] for key in (("r", "g", "b") if "r" in plain else ("red", "green", "blue")) if plain.get(key)
        ]
        number = next(
            (plain[key] for key in ("id", "index", "class_id", "number", "pixel value") if plain.get(key)), None
        )
        found.append({"name": name, "color": color or None, "id": number})
    return found


def _tokens(line: str) -> list[str]:
    if line.count(":") >= 2:  # CVAT's labelmap.txt: name:r,g,b:parts:actions
        line = " ".join(line.split(":")[:2])
    return [token for token in re.split(r"[\s,;:]+", line.strip()) if token]


def _leading(tokens: Sequence[str]) -> Iterable[str]:
    for token in tokens:
        if not token.isdecimal():
            return
        yield token


def _entry(tokens: list[str], numbered: bool, path: Path, line: int) -> Entry:
    hexes = [token for token in tokens if re.fullmatch(r"#[0-9a-fA-F]{6}", token)]
    color = _checked([int(hexes[0][i : i + 2], 16) for i in (1, 3, 5)], path, line) if hexes else None
    tokens = [token for token in tokens if token not in hexes]
    head = list(_leading(tokens))
    number = int(head[0]) if numbered and head else None
    rest = tokens[len(head) :] if len(head) in (3, 4) else tokens[1:] if number is not None else tokens
    if len(head) in (3, 4):
        color = _checked([int(token) for token in head[-3:]], path, line)
    elif len(tail := list(_leading(rest[::-1]))) >= 3 and len(rest) > 3:
        color, rest = _checked([int(token) for token in tail[2::-1]], path, line), rest[:-3]
    if not rest:
        raise SourceError(f"{path}, line {line}: there is no name; wanted is a class a line, with its colour or number")
    return Entry(" ".join(rest), number, color)


def _checked(color: Sequence[Any], path: Path, line: int | str) -> Color:
    try:
        red, green, blue = (int(value) for value in color)
    except (TypeError, ValueError):
        raise SourceError(f"{path}, {line}: {color} is no colour; wanted are red, green and blue, 0 to 255") from None
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise SourceError(f"{path}, line {line}: {color} is no colour; wanted are red, green and blue, 0 to 255")
    return red, green, blue


def _entries_of(value: object, path: Path) -> list[Entry]:
    """Entries of plain values, as YAML and JSON hold them."""
    if isinstance(value, dict):
        for key in ("names", "classes", "categories", "labels", "items"):
            if isinstance(value.get(key), dict | list):
                return _entries_of(value[key], path)
        if all(isinstance(key, int) or str(key).isdecimal() for key in value):
            return [
                e if isinstance(item, str) else Entry(e.name, int(key), e.color, e.thing)
                for key, item in value.items()
                for e in [Entry(item, int(key)) if isinstance(item, str) else _entry_of(item, path)]
            ]
        pairs = [(str(name), item) for name, item in value.items()]
        if all(isinstance(item, int) for _, item in pairs):
            return [Entry(name, item) for name, item in pairs]
        return [
            Entry(name, color=_checked(item, path, name))
            if isinstance(item, list)
            else _entry_of({"name": name, **_mapping(item)}, path)
            for name, item in pairs
        ]  # fmt: skip
    if isinstance(value, list) and value:
        return [Entry(item) if isinstance(item, str) else _entry_of(item, path) for item in value]
    raise SourceError(f"{path} names no classes; wanted is a list of names, or of mappings with name, id and color")


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _entry_of(value: object, path: Path) -> Entry:
    plain = {str(key).casefold(): item for key, item in _mapping(value).items()}
    name = plain.get("name") or plain.get("label")
    if not name:
        raise SourceError(f"{path} has an entry without a name ({value}); wanted are name, and id or color")
    color, number = plain.get("color") or plain.get("colour"), plain.get("id")
    if isinstance(color, str):
        found = re.fullmatch(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", color.strip())
        color = [int(part, 16) for part in found.groups()] if found else [color]
    if number is not None and not str(number).isdecimal():
        raise SourceError(f"{path}: the class {name} has the id {number}; wanted is a whole number")
    thing = plain.get("thing", plain.get("isthing"))
    return Entry(
        str(name), None if number is None else int(number), None if color is None else _checked(color, path, str(name)),
        None if thing is None else bool(thing),
    )  # fmt: skip
