"""Messages as Foxglove shows them: pictures, boxes over them, logs, and headers as JSON that can be plotted.

Schemas are JSON Schema, messages JSON, for both of which MCAP has names of its own. Foxglove reads only plain schemas:
an object of fields with one type each, no references, no alternatives. Its own types are those of its published schemas
(foxglove.CompressedImage, ImageAnnotations, Log).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engines.classes import ClassInfo
from pipeline.messages.headers import (
    AnalysisMessage,
    BoxMessage,
    EndMessage,
    EventMessage,
    Header,
    HeartbeatMessage,
    Label,
    PictureMessage,
    StatusMessage,
    kind_of,
)
from pipeline.messages.masks import decode_runs, encode_png
from pipeline.state import SourceState

_MOST_FIELDS = 64
"""Fields of notes that are shown of a stream: each new one is a new schema in the file."""

_NUMBER, _WHOLE, _TEXT = {"type": "number"}, {"type": "integer"}, {"type": "string"}
_BYTES = {"type": "string", "contentEncoding": "base64"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TIME = {**_object(sec=_WHOLE, nsec=_WHOLE), "title": "time"}
_COLOR = _object(r=_NUMBER, g=_NUMBER, b=_NUMBER, a=_NUMBER)
_POINT = _object(x=_NUMBER, y=_NUMBER)

FOXGLOVE_SCHEMAS: dict[str, dict[str, Any]] = {
    "foxglove.CompressedImage": _object(timestamp=_TIME, frame_id=_TEXT, data=_BYTES, format=_TEXT),
    "foxglove.Log": _object(timestamp=_TIME, level=_WHOLE, message=_TEXT, name=_TEXT, file=_TEXT, line=_WHOLE),
    "foxglove.ImageAnnotations": _object(
        circles=_list(
            _object(
                timestamp=_TIME, position=_POINT, diameter=_NUMBER, thickness=_NUMBER,
                fill_color=_COLOR, outline_color=_COLOR,
            )
        ),
        points=_list(
            _object(
                timestamp=_TIME, type=_WHOLE, points=_list(_POINT), outline_color=_COLOR,
                outline_colors=_list(_COLOR), fill_color=_COLOR, thickness=_NUMBER,
            )
        ),
        texts=_list(
            _object(
                timestamp=_TIME, position=_POINT, text=_TEXT, font_size=_NUMBER,
                text_color=_COLOR, background_color=_COLOR,
            )
        ),
    ),
}  # fmt: skip
"""The fields of Foxglove's own types that are used here or expected by it."""

_LINE_LOOP = 2
_INFO, _WARNING, _ERROR = 2, 3, 4
_LEVELS = {
    SourceState.BLIND: _WARNING, SourceState.STALLED: _WARNING, SourceState.BACKING_OFF: _WARNING,
    SourceState.FAILED: _ERROR,
}  # fmt: skip
_YELLOW = (255, 220, 0)


@dataclass(frozen=True, slots=True)
class View:
    """One message for Foxglove.

    Attributes:
        topic: where it is shown, such as `/front/mask`.
        schema_name, schema: what it is.
        content: the message, JSON-ready.
    """

    topic: str
    schema_name: str
    schema: Mapping[str, Any]
    content: Mapping[str, Any]


@dataclass(slots=True, eq=False)
class _Seen:
    """What has been seen of a stream: its label set, the size of its pictures, the schema of its headers."""

    labels: tuple[Label, ...] = ()
    picture: tuple[int, int] | None = None
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=lambda: _object())


class Views:
    """Turns the messages of a publisher into what Foxglove shows."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def of(self, header: Header, payload: bytes | None) -> Iterator[View]:
        """The views of a message.

        Args:
            header: of the message.
            payload: its mask or picture.
        """
        seen = self._seen.setdefault(header.stream, _Seen())
        if isinstance(header, AnalysisMessage) and header.mask is not None:
            seen.labels = header.mask.labels
        kind = kind_of(header)
        notes = seen.notes
        content = _content(header, seen)
        # Each event has the figures of its kind.
        known = f"{kind}.{header.what}" if isinstance(header, EventMessage) else kind
        if known not in seen.schemas or seen.notes is not notes:
            seen.schemas[known] = _schema(header, content, seen)
        yield View(f"/{header.stream}/{kind}", f"roadlens.{kind.capitalize()}", seen.schemas[known], content)
        match header:
            case AnalysisMessage():
                if header.mask is not None and payload is not None:
                    yield _image(header, "mask", _mask_png(header, payload), "png")
                yield _boxes(header, seen)
            case PictureMessage():
                seen.picture = (header.width, header.height)
                if payload is not None:
                    yield _image(header, "camera", payload, "jpeg")
            case StatusMessage():
                text = f"{header.stream}: {header.state}{': ' if header.reason else ''}{header.reason}"
                yield _log(header.stream, header.at, _LEVELS.get(header.state, _INFO), text)
            case EventMessage():
                text = f"{header.stream}: {header.what}{' is over' if header.end_s is not None else ''}: {header.text}"
                yield _log(header.stream, header.captured_at, _WARNING if header.end_s is None else _INFO, text)
            case EndMessage() | HeartbeatMessage():
                return


def plain_schema(kind: type[Header]) -> dict[str, Any]:
    """The JSON Schema of a header in Foxglove's subset: what may be null, and tuples, lose that."""
    (_,), definitions = msgspec.json.schema_components([kind], ref_template="{name}")

    def plain(node: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in node:
            return plain(definitions[node["$ref"]])
        if "anyOf" in node:
            return plain(next(option for option in node["anyOf"] if option.get("type") != "null"))
        values = node.get("enum", [node["const"]] if "const" in node else [])
        if values:
            return _TEXT if isinstance(values[0], str) else _WHOLE
        if node["type"] == "array":
            return _list(plain(node["prefixItems"][0] if "prefixItems" in node else node["items"]))
        if node["type"] == "object":
            return _object(**{name: plain(each) for name, each in node.get("properties", {}).items()})
        return {"type": node["type"]}

    return plain(definitions[kind.__name__])


def _schema(header: Header, content: Mapping[str, Any], seen: _Seen) -> dict[str, Any]:
    schema = plain_schema(type(header))
    for name in ("area", "timings_ms", "figures"):  # maps: their keys are this stream's classes, stages and figures
        if name in content:
            schema["properties"][name] = _object(**dict.fromkeys(content[name], _NUMBER))
    if "notes" in content:
        schema["properties"]["notes"] = seen.notes
    return schema


def _grown(schema: dict[str, Any] | None, note: Any) -> dict[str, Any] | None:
    """The plain schema of what has come of a note, `note` included; a value of another type than before leaves it as it
    is. None where nothing has come that has a type."""
    kind = _kind(note)
    if kind is None or (schema is not None and schema["type"] != kind):
        return schema
    if kind == "object":
        known = {} if schema is None else schema["properties"]
        new = {name: each for name, value in note.items() if (each := _grown(known.get(name), value)) is not None}
        return schema if schema is not None and known | new == known else _object(**(known | new))
    if kind == "array":
        items = None if schema is None else schema["items"]
        for each in note:
            items = _grown(items, each)
        return schema if items is None else _list(items)
    return {"type": kind}


def _shown(schema: dict[str, Any], note: Any) -> Any:
    """What of a note its schema has."""
    if schema["type"] == "object":
        properties = schema["properties"]
        return {
            name: _shown(properties[name], value)
            for name, value in note.items()
            if name in properties and _kind(value) == properties[name]["type"]
        }
    if schema["type"] == "array":
        return [_shown(schema["items"], each) for each in note if _kind(each) == schema["items"]["type"]]
    return note


def _kind(note: Any) -> str | None:
    match note:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case dict():
            return "object"
        case list():
            return "array"
    return None


def _fields(schema: dict[str, Any]) -> int:
    inner = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    return 1 + sum(map(_fields, inner))


def _content(header: Header, seen: _Seen) -> dict[str, Any]:
    content: dict[str, Any] = {k: v for k, v in msgspec.to_builtins(header).items() if v is not None}
    if isinstance(header, AnalysisMessage):
        content["boxes"] = [{k: v for k, v in box.items() if v is not None} for box in content["boxes"]]
        # A class that is absent has no area rather than none that could be plotted.
        content["area"] = {label.name: 0.0 for label in seen.labels} | content["area"]
        grown = _grown(seen.notes, header.notes)
        if grown is not None and grown != seen.notes and _fields(grown) <= _MOST_FIELDS:
            seen.notes = grown
        content["notes"] = _shown(seen.notes, header.notes)
        content.pop("mask", None)  # it is shown as a picture
    return content


def _time(seconds: float) -> dict[str, int]:
    nanoseconds = max(0, round(seconds * 1e9))
    return {"sec": nanoseconds // 1_000_000_000, "nsec": nanoseconds % 1_000_000_000}


def _image(header: AnalysisMessage | PictureMessage, name: str, data: bytes, written: str) -> View:
    schema = "foxglove.CompressedImage"
    content = {
        "timestamp": _time(header.captured_at),
        "frame_id": header.stream,
        "data": base64.b64encode(data).decode("ascii"),
        "format": written,
    }
    return View(f"/{header.stream}/{name}", schema, FOXGLOVE_SCHEMAS[schema], content)


def _mask_png(header: AnalysisMessage, payload: bytes) -> bytes:
    assert header.mask is not None
    if header.mask.encoding == "png":
        return payload
    classes = tuple(ClassInfo(label.id, label.name, label.color, label.thing) for label in header.mask.labels)
    return encode_png(decode_runs(payload, header.mask.width, header.mask.height), classes)


def _boxes(header: AnalysisMessage, seen: _Seen) -> View:
    """Boxes in pixels of the stream's pictures, where it has any, else of the full-size frame."""
    width, height = seen.picture or (header.width, header.height)
    scale = (width / header.width, height / header.height)
    colors = {label.name: label.color for label in seen.labels}
    at = _time(header.captured_at)
    outlined = [(box, _corners(box, scale), _rgba(colors.get(box.label, _YELLOW))) for box in header.boxes]
    schema = "foxglove.ImageAnnotations"
    content = {
        "circles": [],
        "points": [
            {
                "timestamp": at, "type": _LINE_LOOP, "points": corners, "outline_color": color, "outline_colors": [],
                "fill_color": _rgba((0, 0, 0), 0.0), "thickness": max(1.0, height / 360),
            }
            for _, corners, color in outlined
        ],
        "texts": [
            {
                "timestamp": at, "position": corners[0],
                "text": f"{box.label}{'' if box.track is None else f' {box.track}'} {box.score:.2f}",
                "font_size": max(8.0, height / 45), "text_color": _rgba((255, 255, 255)), "background_color": color,
            }
            for box, corners, color in outlined
        ],
    }  # fmt: skip
    return View(f"/{header.stream}/boxes", schema, FOXGLOVE_SCHEMAS[schema], content)


def _corners(box: BoxMessage, scale: tuple[float, float]) -> Sequence[dict[str, float]]:
    x1, x2, y1, y2 = box.x1 * scale[0], box.x2 * scale[0], box.y1 * scale[1], box.y2 * scale[1]
    return [{"x": x, "y": y} for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]


def _rgba(color: tuple[int, int, int], opacity: float = 1.0) -> dict[str, float]:
    red, green, blue = (channel / 255 for channel in color)
    return {"r": red, "g": green, "b": blue, "a": opacity}


def _log(name: str, at: float, level: int, text: str) -> View:
    schema = "foxglove.Log"
    content = {"timestamp": _time(at), "level": level, "message": text, "name": name, "file": "", "line": 0}
    return View("/log", schema, FOXGLOVE_SCHEMAS[schema], content)
