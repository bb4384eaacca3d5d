"""The wire format: typed, versioned headers, masks as indexed PNG or run lengths, and the multipart that carries both.

A message is `[topic, header, payload]`, the payload only where there is a mask. `MESSAGES.md` is the page for people
who read it in another language, `messages.schema.json` the schema of the headers
(`python -m pipeline.messages > pipeline/messages.schema.json` writes it anew).
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import ClassInfo
from engines.errors import SourceError
from pipeline.frame import Analysis, Mode

VERSION = 1
"""Fields may be added within a version; what a field means never changes within it."""

Encoding = Literal["png", "rle"]
MaskOption = Literal["png", "rle", "none"]
HeaderFormat = Literal["msgpack", "json"]
EndReason = Literal["complete", "stopped", "failed"]

MAX_SIDE = 16384
"""Largest height or width of a mask in pixels: what a reader will make room for at a stranger's word."""

Name = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]
ClassId = Annotated[int, msgspec.Meta(ge=0, le=255)]
Level = Annotated[int, msgspec.Meta(ge=0, le=255)]


class MessageError(SourceError):
    """Bytes that are not a message of this version of the wire format."""


class BoxMessage(msgspec.Struct, frozen=True, kw_only=True):
    """An object: xyxy in pixels of the full-size frame, x right, y down, right and bottom edges exclusive.

    `class_id` and `label` are those of the model named by `origin`; `track` stays with the object from frame to frame
    within its stream.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    class_id: int
    label: str
    score: Share
    origin: str
    track: int | None = None


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a number in the mask means and the sRGB colour it has in the PNG's palette."""

    id: ClassId
    name: str
    color: tuple[Level, Level, Level]
    thing: bool = False


class MaskMessage(msgspec.Struct, frozen=True, kw_only=True):
    """How to read the payload: the whole frame squashed into `width` × `height` class ids; 255 is unknown."""

    encoding: Encoding
    width: Side
    height: Side
    labels: tuple[Label, ...]


class AnalysisMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="analysis"):
    """What the models say of one frame.

    Attributes:
        version: of the wire format.
        stream: id of the stream.
        sequence: number of the message in its stream, from 0, without holes: one that a reader does not see is one
            that it missed.
        run: id of the publisher's run; another one means that it was started again.
        run_start: first sequence number of that run; above 0 where an interrupted run was resumed.
        frame: place of the frame in the stream, from 0, counting every decoded frame.
        pts: presentation time in units of `time_base`.
        time_base: seconds a unit, (numerator, denominator).
        time_s: the same in seconds.
        captured_at: wall clock, Unix seconds, UTC.
        width, height: size of the full-size frame in pixels.
        mode: whether the stream is a `file` (every frame comes) or `live` (the newest frame wins).
        age_ms: milliseconds from leaving the decoder to being emitted.
        dropped_since_last: frames of the stream that the pipeline dropped since the message before.
        models: names of the models that looked at this very frame.
        boxes: objects.
        area: share of the picture by class name, of the classes present.
        timings_ms: milliseconds spent on this frame by stage name.
        mask: what the payload is, or null where there is none.
    """

    version: Literal[1] = 1
    stream: Name
    sequence: Count
    run: str = ""
    run_start: Count = 0
    frame: Count
    pts: int
    time_base: tuple[Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]]
    time_s: float
    captured_at: float
    width: Annotated[int, msgspec.Meta(ge=1)]
    height: Annotated[int, msgspec.Meta(ge=1)]
    mode: Mode
    age_ms: float
    dropped_since_last: Count
    models: tuple[str, ...]
    boxes: tuple[BoxMessage, ...]
    area: dict[str, Share]
    timings_ms: dict[str, float]
    mask: MaskMessage | None = None


class EndMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="end"):
    """The last message of a stream.

    Attributes:
        sequence: follows the last analysis, so that a loss just before the end is seen too.
        frames: analysis messages of the stream from sequence 0 on, those of the runs before a resumption counted.
        dropped: frames that the pipeline dropped over the run.
        reason: `complete` when the source was read to its end, `stopped` when someone stopped the run, `failed` when
            the stream was given up.
    """

    version: Literal[1] = 1
    stream: Name
    sequence: Count
    run: str = ""
    run_start: Count = 0
    frames: Count
    dropped: Count
    reason: EndReason


Header = AnalysisMessage | EndMessage

KINDS = ("analysis", "end")

PREFIX = f"roadlens/v{VERSION}/".encode()
"""What every topic of this version begins with."""


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """One message as it arrived.

    Attributes:
        header: what it says.
        class_map: (h, w) uint8 class ids at the mask's size, 255 unknown; None where there is no mask.
        payload: the mask's bytes as they came.
        missed: messages of this stream lost between the one before and this one; `subscriber.Subscriber` sets it.
        restarted: whether the publisher was started again since the one before; set likewise.
    """

    header: Header
    class_map: NDArray[np.uint8] | None = None
    payload: bytes | None = None
    missed: int = 0
    restarted: bool = False


@lru_cache(maxsize=1024)
def topic(stream: str, kind: str = "") -> bytes:
    """The first part of a message: `roadlens/v1/<stream>/<kind>`, the stream percent-encoded.

    Without a kind it is the prefix to subscribe to for everything of that stream.

    >>> topic("camera 1/left", "analysis")
    b'roadlens/v1/camera%201%2Fleft/analysis'
    """
    return PREFIX + f"{quote(stream, safe='')}/{kind}".encode("ascii")


def from_analysis(analysis: Analysis, sequence: int, *, run: str = "", run_start: int = 0) -> AnalysisMessage:
    """The header of an analysis, without its mask.

    Numbers are rounded to what they are good for, so that JSON stays short: pixels to 0.01, scores and times to 0.001,
    areas to 0.0001, seconds to a microsecond.
    """
    frame = analysis.frame
    return AnalysisMessage(
        stream=frame.stream,
        sequence=sequence,
        run=run,
        run_start=run_start,
        frame=frame.index,
        pts=frame.pts,
        time_base=(frame.time_base.numerator, frame.time_base.denominator),
        time_s=round(frame.time, 6),
        captured_at=round(float(frame.captured_at), 6),
        width=frame.image.width,
        height=frame.image.height,
        mode=analysis.mode,
        age_ms=round(float(analysis.age) * 1000, 3),
        dropped_since_last=analysis.dropped_since_last,
        models=tuple(analysis.models),
        boxes=tuple(
            BoxMessage(
                x1=round(float(box.x1), 2),
                y1=round(float(box.y1), 2),
                x2=round(float(box.x2), 2),
                y2=round(float(box.y2), 2),
                class_id=int(box.class_id),
                label=box.label,
                score=round(float(box.score), 3),
                origin=box.origin,
                track=None if box.track is None else int(box.track),
            )
            for box in analysis.boxes
        ),
        area={name: round(float(share), 4) for name, share in analysis.area.items()},
        timings_ms={stage: round(float(spent), 3) for stage, spent in analysis.timings.items()},
    )


def encode(
    message: Header,
    class_map: NDArray[np.uint8] | None = None,
    classes: tuple[ClassInfo, ...] = (),
    *,
    header: HeaderFormat = "msgpack",
    mask: MaskOption = "png",
) -> list[bytes]:
    """The parts of a message, ready for `send_multipart`.

    Args:
        message: the header; its `mask` is filled in here.
        class_map: (h, w) uint8 class ids, or None.
        classes: the label set of the class map.
        header: how the header is written.
        mask: how the class map is written; `none` leaves it out.
    """
    parts = [topic(message.stream, _kind(message))]
    if class_map is None or mask == "none" or isinstance(message, EndMessage):
        return [*parts, _encode_header(message, header)]
    height, width = class_map.shape
    described = MaskMessage(encoding=mask, width=width, height=height, labels=_labels(classes))
    payload = encode_png(class_map, classes) if mask == "png" else encode_runs(class_map)
    return [*parts, _encode_header(msgspec.structs.replace(message, mask=described), header), payload]


def decode(parts: Sequence[bytes]) -> Received:
    """The message in the parts of a multipart; MessagePack and JSON headers are told apart by their first byte.

    Raises:
        MessageError: the parts are not a message of this version.
    """
    if not 2 <= len(parts) <= 3:
        raise MessageError(f"a message has 2 or 3 parts [topic, header, payload], this one has {len(parts)}")
    message = decode_header(parts[1])
    if parts[0] != topic(message.stream, _kind(message)):
        raise MessageError(
            f"the topic {bytes(parts[0])[:80]!r} does not fit the header, "
            f"which is of kind {_kind(message)} and stream {message.stream!r}"
        )
    description = message.mask if isinstance(message, AnalysisMessage) else None
    if description is None:
        if len(parts) == 3:
            raise MessageError("the message has a payload that its header does not describe")
        return Received(message)
    if len(parts) == 2:
        raise MessageError(f"the header describes a {description.encoding} mask, but the message has no payload")
    payload = bytes(parts[2])
    read = decode_png if description.encoding == "png" else decode_runs
    return Received(message, read(payload, description.width, description.height), payload)


def decode_header(data: bytes) -> Header:
    """The header in MessagePack or JSON bytes.

    Raises:
        MessageError: it is neither, a field is missing or has a wrong value, or the version is another one.
    """
    as_json = data[:1] == b"{"
    try:
        return _FROM_JSON.decode(data) if as_json else _FROM_MSGPACK.decode(data)
    except _UNDECODABLE as error:
        try:
            version = (_VERSION_FROM_JSON if as_json else _VERSION_FROM_MSGPACK).decode(data).version
        except _UNDECODABLE:
            version = VERSION
        if version != VERSION:
            raise MessageError(
                f"the message is of wire format {version} and this reader knows {VERSION}: "
                "use the same roadlens on both ends"
            ) from error
        raise MessageError(f"not the header of a roadlens message: {error}") from error


def to_json(message: Header) -> bytes:
    """The header as one line of JSON, without the line's end."""
    return _JSON.encode(message)


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the headers; it holds for MessagePack too, which carries the same map."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Header of a roadlens message",
        **msgspec.json.schema(AnalysisMessage | EndMessage),
    }


def encode_png(class_map: NDArray[np.uint8], classes: tuple[ClassInfo, ...] = ()) -> bytes:
    """An 8-bit indexed PNG: a pixel's index is its class id, its colour the class's; 255 is transparent black.

    OpenCV writes no indexed PNG, and a general encoder tries every filter. Class maps are areas that go on from row to
    row: filter Up turns them into zeros and DEFLATE's run-length strategy packs those, which is both the smallest and
    the fastest of the combinations tried (256×256 from Cityscapes: 2.3 kB in 0.10 ms on one core; filter None at
    level 1: 3.8 kB in 0.12 ms, at level 6: 2.5 kB in 0.35 ms; OpenCV's grey PNG: 4.0 kB in 0.36 ms).

    Args:
        class_map: (h, w) uint8.
        classes: gives the palette its colours; ids without a class are black.
    """
    height, width = class_map.shape
    rows = np.empty((height, width + 1), np.uint8)
    rows[:, 0] = 2  # filter Up
    rows[0, 1:] = class_map[0]
    np.subtract(class_map[1:], class_map[:-1], out=rows[1:, 1:])
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    data = deflate.compress(rows.data) + deflate.flush()
    size = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bit, indexed, not interlaced
    palette = _palette(classes, int(class_map.max()))
    return b"".join((_SIGNATURE, _chunk(b"IHDR", size), palette, _chunk(b"IDAT", data), _END))


def decode_png(data: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """The class ids of an indexed PNG as `encode_png` writes it (filters None and Up only).

    A general PNG reader gives the colours, not the ids; hence this one, which needs no library for it.

    Returns:
        (height, width) uint8.

    Raises:
        MessageError: broken, of another size, or another kind of PNG.
    """
    if data[:8] != _SIGNATURE:
        raise MessageError("the mask is said to be a PNG but does not begin like one")
    position, packed, size = 8, [], b""
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        if len(checksum) < 4 or zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(checksum, "big"):
            raise MessageError(f"the mask's PNG is damaged in its part {name.decode('latin-1')!r}")
        if name == b"IHDR":
            size = body
        elif name == b"IDAT":
            packed.append(body)
        position += 12 + length
    if size != struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0):
        raise MessageError(f"the mask's PNG is not an 8-bit indexed picture of {width}×{height}")
    wanted = height * (width + 1)
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(b"".join(packed), wanted + 1)
    except zlib.error as error:
        raise MessageError(f"the mask's PNG is damaged: {error}") from error
    if len(raw) != wanted:
        raise MessageError(f"the mask's PNG does not hold {width}×{height} pixels")
    rows = np.frombuffer(raw, np.uint8).reshape(height, width + 1)
    if (rows[:, 0] == 2).all():
        return np.add.accumulate(rows[:, 1:], axis=0, dtype=np.uint8)
    if (rows[:, 0] == 0).all():
        return rows[:, 1:].copy()
    raise MessageError("the mask's PNG uses row filters other than None and Up, which roadlens never writes")


def encode_runs(class_map: NDArray[np.uint8]) -> bytes:
    """Run lengths: records of 3 bytes, class id and length (uint16, little-endian), row by row without a break.

    A run goes on over the end of a row; one longer than 65,535 pixels is written as several.
    """
    flat = np.ascontiguousarray(class_map).reshape(-1)
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    pieces = (lengths + _LONGEST_RUN - 1) // _LONGEST_RUN
    runs = np.empty(int(pieces.sum()), _RUN)
    runs["id"] = np.repeat(flat[starts], pieces)
    runs["length"] = _LONGEST_RUN
    runs["length"][np.cumsum(pieces) - 1] = lengths - (pieces - 1) * _LONGEST_RUN
    return runs.tobytes()


def decode_runs(data: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """The class ids of `encode_runs`, (height, width) uint8.

    Raises:
        MessageError: the runs do not add up to the picture.
    """
    if len(data) % _RUN.itemsize:
        raise MessageError(f"run lengths come in records of 3 bytes, {len(data)} is not a multiple of it")
    runs = np.frombuffer(data, _RUN)
    total = int(runs["length"].sum(dtype=np.int64))
    if total != width * height:
        raise MessageError(f"the mask's runs add up to {total} pixels instead of {width}×{height}")
    return np.repeat(runs["id"], runs["length"]).reshape(height, width)


class _Versioned(msgspec.Struct):
    version: int


_FROM_MSGPACK: msgspec.msgpack.Decoder[Header] = msgspec.msgpack.Decoder(AnalysisMessage | EndMessage)
_FROM_JSON: msgspec.json.Decoder[Header] = msgspec.json.Decoder(AnalysisMessage | EndMessage)
_UNDECODABLE = (msgspec.DecodeError, ValueError, RecursionError)  # bad UTF-8 comes out as a ValueError
_VERSION_FROM_MSGPACK = msgspec.msgpack.Decoder(_Versioned)
_VERSION_FROM_JSON = msgspec.json.Decoder(_Versioned)
_MSGPACK = msgspec.msgpack.Encoder()
_JSON = msgspec.json.Encoder()

_RUN = np.dtype([("id", "u1"), ("length", "<u2")])
_LONGEST_RUN = 65535


def _kind(message: Header) -> str:
    return "analysis" if isinstance(message, AnalysisMessage) else "end"


def _encode_header(message: Header, header: HeaderFormat) -> bytes:
    return _MSGPACK.encode(message) if header == "msgpack" else _JSON.encode(message)


@lru_cache(maxsize=32)
def _labels(classes: tuple[ClassInfo, ...]) -> tuple[Label, ...]:
    return tuple(Label(id=c.id, name=c.name, color=c.color, thing=c.thing) for c in classes)


def _chunk(name: bytes, body: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(body)), name, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))))


@lru_cache(maxsize=256)
def _palette(classes: tuple[ClassInfo, ...], largest: int) -> bytes:
    """The palette's parts of the PNG: up to the largest id in use, for a reader refuses an index beyond its palette."""
    colors = bytearray(3 * (1 + max([largest, *(c.id for c in classes)])))
    for c in classes:
        colors[3 * c.id : 3 * c.id + 3] = bytes(c.color)
    palette = _chunk(b"PLTE", bytes(colors))
    return palette + _chunk(b"tRNS", b"\xff" * 255 + b"\x00") if largest == 255 else palette


_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = _chunk(b"IEND", b"")


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(schema(), order="deterministic")) + b"\n")
