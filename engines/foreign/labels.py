"""The classes of a foreign model: from a file, by the name of a known set, or from the model's own metadata."""

from __future__ import annotations

import ast
import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from engines.classes import CITYSCAPES_CLASSES, IGNORE, ClassInfo
from engines.errors import UsageError

COCO_NAMES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, "
    "mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
    "teddy bear, hair drier, toothbrush"
)
"""The 80 classes of COCO's boxes, in their usual order from 0."""

FORM = "a file with a line for each class (`road #804080`, `car #00008e thing`), or YAML or JSON: a list of them"


def known_classes(given: str | None, notes: Mapping[str, str], things: bool) -> tuple[ClassInfo, ...] | None:
    """The classes that the user gave, or those in the model's metadata.

    Args:
        given: `cityscapes`, `coco`, or the path of a file; None for neither.
        notes: the model's metadata; Ultralytics writes `names`, a mapping of numbers to names.
        things: whether classes of which nothing is said are countable, as those of boxes are.

    Raises:
        UsageError: there is no such file, or it is not one of classes.
    """
    if given is None:
        names = _literal(notes.get("names", ""))
        if isinstance(names, Mapping) and names and all(isinstance(key, int) for key in names):
            return _classes([{"id": key, "name": str(name)} for key, name in names.items()], things, "its metadata")
        return None
    if given == "cityscapes":
        return CITYSCAPES_CLASSES
    if given == "coco":
        return _classes([name.strip() for name in COCO_NAMES.split(",")], True, given)
    return read_classes(Path(given), things)


def read_classes(path: Path, things: bool = False) -> tuple[ClassInfo, ...]:
    """Read a file of classes; ids count from 0 where none are given, colours are made up where there are none.

    Raises:
        UsageError: there is no such file, it is not one of classes, or two are of one name or one id.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"The classes {path} cannot be read ({reason}); give {FORM}.") from None
    if path.suffix.lower() in {".yaml", ".yml", ".json"}:
        try:
            entries = yaml.safe_load(text)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"The classes {path} cannot be read ({reason}); give {FORM}.") from None
        if isinstance(entries, Mapping):
            entries = entries.get("classes", entries.get("names", entries))
        if isinstance(entries, Mapping):
            entries = [{"id": key, "name": name} for key, name in entries.items()]
    else:
        entries = [_line(line) for line in text.splitlines() if line.strip()]
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise UsageError(f"{path} names no classes; give {FORM}.")
    return _classes(entries, things, str(path))


def _line(line: str) -> dict[str, Any]:
    """`traffic light #faaa1e thing`: the name, and behind it what else is said."""
    words, entry = line.split(), dict[str, Any]()
    while len(words) > 1:
        if words[-1] in {"thing", "stuff"}:
            entry["thing"] = words.pop() == "thing"
        elif words[-1].startswith("#") and len(words[-1]) == 7:
            entry["color"] = words.pop()
        else:
            break
    return entry | {"name": " ".join(words)}


def _classes(entries: Sequence[Any], things: bool, place: str) -> tuple[ClassInfo, ...]:
    found = []
    for number, entry in enumerate(entries):
        wanted = entry if isinstance(entry, Mapping) else {"name": entry}
        values = {"id": number, "color": _made_up(number), "thing": things} | dict(wanted)
        values["name"] = str(values.get("name", ""))
        try:
            values["color"] = _colour(values["color"])
            info = msgspec.convert(values, ClassInfo)
        except (msgspec.ValidationError, ValueError) as error:
            raise UsageError(f"Class {number + 1} of {place} is none ({error}); give {FORM}.") from None
        if not info.name or not 0 <= info.id < IGNORE:
            raise UsageError(f"Class {number + 1} of {place} needs a name, and an id from 0 to {IGNORE - 1}.")
        found.append(info)
    for what in ("name", "id"):
        values_of = [getattr(info, what) for info in found]
        twice = next((value for value in values_of if values_of.count(value) > 1), None)
        if twice is not None:
            raise UsageError(f"Two classes of {place} have the {what} `{twice}`; give each one of its own.")
    return tuple(found)


def _colour(value: Any) -> tuple[int, ...]:
    """`#804080` or three numbers."""
    if isinstance(value, str):
        return tuple(bytes.fromhex(value.removeprefix("#")))
    numbers = tuple(value) if isinstance(value, Sequence) else ()
    if len(numbers) != 3 or any(not isinstance(each, int) or not 0 <= each <= 255 for each in numbers):
        raise ValueError("a colour is `#804080` or three numbers from 0 to 255")
    return numbers


def _made_up(number: int) -> tuple[int, ...]:
    """A colour of its own for each class: hues a golden section apart."""
    rgb = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.75, 0.95 if number % 2 else 0.7)
    return tuple(round(255 * value) for value in rgb)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
