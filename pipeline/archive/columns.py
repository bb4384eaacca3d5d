"""The tables of an archive: what each column is, and how rows become them. Needs pyarrow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.archive.rows import Indexed
from pipeline.archive.terms import Terms

TABLES = ("frames", "objects", "events", "clips")
"""In the order in which they are written: a clip stands in `clips` last."""

THUMBNAILS = "thumbnails"
"""The folder of pictures, laid out as those of the tables are."""

UNKNOWN = "unknown"
"""The day of clips without a clock; pandas does not read folders that stand for null beside others."""

PART = "part.parquet"
"""The file of a day and camera."""

_TIME = pa.timestamp("us", "UTC")


def _list_of(kind: pa.DataType) -> pa.ListType:
    """As Parquet gives lists back: a table that was read and written again has the bytes of one that never was."""
    return pa.list_(pa.field("element", kind))


CLIPS: tuple[tuple[str, pa.DataType], ...] = (
    ("clip", pa.string()), ("trip", pa.string()), ("vehicle", pa.string()), ("path", pa.string()),
    ("bytes", pa.int64()),
    ("maker", pa.string()), ("make", pa.string()), ("model", pa.string()), ("recorded_at", _TIME),
    ("recorded_from", pa.string()), ("seconds", pa.float64()), ("width", pa.int32()), ("height", pa.int32()),
    ("rate", pa.float64()), ("frames", pa.int32()), ("analysed", pa.int32()),
    ("decode_errors", pa.int32()), ("missing", pa.int32()), ("latitude", pa.float64()), ("longitude", pa.float64()),
    ("thumbnails", _list_of(pa.string())), ("positions_from", pa.string()),
    ("novelty", pa.float64()),
)  # fmt: skip

OBJECTS: tuple[tuple[str, pa.DataType], ...] = (
    ("clip", pa.string()), ("frame", pa.int32()), ("time", _TIME), ("seconds", pa.float64()), ("label", pa.string()),
    ("score", pa.float64()), ("x1", pa.float32()), ("y1", pa.float32()), ("x2", pa.float32()), ("y2", pa.float32()),
    ("track", pa.int32()), ("origin", pa.string()),
)  # fmt: skip

EVENTS: tuple[tuple[str, pa.DataType], ...] = (
    ("clip", pa.string()), ("kind", pa.string()), ("time", _TIME), ("start", pa.float64()), ("end", pa.float64()),
    ("peak", pa.float64()), ("confidence", pa.float64()), ("tracks", _list_of(pa.int32())), ("source", pa.string()),
    ("text", pa.string()), ("figures", pa.string()),
)  # fmt: skip


def column(name: str) -> str:
    """A class's name as part of a column's.

    >>> column("traffic light")
    'traffic_light'
    """
    return re.sub(r"\W+", "_", name.casefold()).strip("_")


def schemas(terms: Terms) -> dict[str, pa.Schema]:
    """The columns of each table, day and camera left out, which stand in the folders' names."""
    frames = [
        ("clip", pa.string()), ("frame", pa.int32()), ("time", _TIME), ("seconds", pa.float64()),
        *((f"area_{column(name)}", pa.float64()) for name in terms.areas),
        *((f"count_{column(name)}", pa.int16()) for name in terms.things),
        ("notes", pa.string()),
        *((name, pa.float64()) for name in ("latitude", "longitude", "speed", "heading")),
    ]  # fmt: skip
    return {
        "frames": pa.schema(frames), "objects": pa.schema(OBJECTS), "events": pa.schema(EVENTS),
        "clips": pa.schema(CLIPS),
    }  # fmt: skip


def tables_of(indexed: Iterable[Indexed], terms: Terms) -> dict[str, pa.Table]:
    """The rows of clips as tables."""
    columns = schemas(terms)
    rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in TABLES}
    for each in indexed:
        rows["frames"] += _frames(each, terms)
        rows["objects"] += _objects(each)
        rows["events"] += _events(each)
        rows["clips"].append(_clip(each))
    return {name: _table(rows[name], columns[name]) for name in TABLES}


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    values = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table([pa.array(each, kind.type) for each, kind in zip(values, schema, strict=True)], schema=schema)


def _microseconds(at: float | None) -> int | None:
    return None if at is None else round(at * 1e6)


def _frames(each: Indexed, terms: Terms) -> list[tuple[Any, ...]]:
    clip, areas, things = each.clip.clip, terms.areas, terms.things
    return [
        (
            clip, row.frame, _microseconds(row.at), row.seconds, *(row.area.get(name, 0.0) for name in areas),
            *(row.count.get(name, 0) for name in things), row.notes or None,
            row.latitude, row.longitude, row.speed, row.heading,
        )
        for row in each.frames
    ]  # fmt: skip


def _objects(each: Indexed) -> list[tuple[Any, ...]]:
    times = {row.frame: (_microseconds(row.at), row.seconds) for row in each.frames}
    return [
        (each.clip.clip, o.frame, *times[o.frame], o.label, o.score, o.x1, o.y1, o.x2, o.y2, o.track, o.origin)
        for o in each.objects
    ]


def _events(each: Indexed) -> list[tuple[Any, ...]]:
    begun = each.clip.recorded_at
    return [
        (
            each.clip.clip, e.kind, _microseconds(None if begun is None else begun + e.start), e.start, e.end, e.peak,
            e.confidence, list(e.tracks), e.source, e.text or None, e.figures or None,
        )
        for e in each.events
    ]  # fmt: skip


def _clip(each: Indexed) -> tuple[Any, ...]:
    row = each.clip
    return (
        row.clip, None, row.car or None, row.path, row.bytes, row.maker or None, row.make or None, row.model or None,
        _microseconds(row.recorded_at), row.recorded_from or None, row.seconds, row.width, row.height, row.rate,
        row.frames, row.analysed, row.decode_errors, row.missing, row.latitude, row.longitude,
        [thumbnail_name(each, frame) for frame in each.thumbnails], row.positions_from or None, row.novelty,
    )  # fmt: skip


def day_of(recorded_at: float | None) -> str:
    """The day, UTC, in whose folder a clip stands."""
    return UNKNOWN if recorded_at is None else f"{datetime.fromtimestamp(recorded_at, UTC):%Y-%m-%d}"


def camera_of(each: Indexed) -> str:
    """The name in whose folder a clip stands."""
    return f"{each.clip.car}-{each.clip.camera}" if each.clip.car else each.clip.camera


def folder_of(day: str, camera: str) -> str:
    """Where the rows of a day and camera stand, inside the folder of each table."""
    return f"day={day}/camera={camera}"


def thumbnail_name(each: Indexed, frame: int) -> str:
    """Where a thumbnail stands in the archive."""
    place = folder_of(day_of(each.clip.recorded_at), camera_of(each))
    return f"{THUMBNAILS}/{place}/{each.clip.clip}-{frame:08d}.jpg"
