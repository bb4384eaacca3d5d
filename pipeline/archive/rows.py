"""What is found out of one clip, as values that go from the process that looks to the one that writes.

Numbers are rounded as those of messages are (`pipeline.messages.headers`), so that a row says what a JSON line says.
"""

from __future__ import annotations

import msgspec


class ClipRow(msgspec.Struct, array_like=True, kw_only=True):
    """A clip: where it is, where it comes from, and how it was read.

    Attributes:
        clip: its id, made of its content.
        path: where it is: an absolute path, or an address of a store.
        bytes: its size.
        camera: the camera's name in the archive.
        car: the folder that tells cameras of one name apart; empty where none has to.
        maker: who names recordings so; empty where that is not known.
        recorded_at: Unix seconds, UTC, when it begins; None where nothing says.
        recorded_from: what says so: `metadata`, `name`, `modified` or `gps`; empty where nothing does.
        seconds: of footage.
        width, height: pixels, upright.
        rate: nominal frames a second.
        frames: pictures that were read.
        analysed: of those, how many a model looked at.
        decode_errors, missing: packets that did not decode; pictures that the container announces and does not hold.
        latitude, longitude: degrees (WGS 84) where it was begun, as its container says; None where it does not.
        positions_from: what says where the car was: `gpmf`, `novatek`, `blackvue`, `70mai`, `text`,
            `freegps`, `gpx`, `nmea` or `srt`; else empty.
        make, model: of the camera, as its container says; empty where it does not.
        novelty: how unlike what the model was trained on it is, the median of a picture a second at most
            (`engines.novelty`); None where the model cannot tell.
    """

    clip: str
    path: str
    bytes: int
    camera: str
    car: str = ""
    maker: str = ""
    recorded_at: float | None = None
    recorded_from: str = ""
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    rate: float = 0.0
    frames: int = 0
    analysed: int = 0
    decode_errors: int = 0
    missing: int = 0
    latitude: float | None = None
    longitude: float | None = None
    make: str = ""
    model: str = ""
    positions_from: str = ""
    novelty: float | None = None


class FrameRow(msgspec.Struct, array_like=True):
    """A frame that a model looked at.

    Attributes:
        frame: place in the clip, from 0, counting every decoded frame.
        seconds: since the clip's first frame.
        at: wall clock of the capture, Unix seconds, UTC; None where the clip has no clock.
        area: share of the picture by class name, of the classes present.
        count: boxes by label.
        notes: what stages found out, as JSON; empty for nothing.
        latitude, longitude: degrees (WGS 84) where the car was; None where nothing says.
        speed: metres a second over ground, as a receiver says; None where none does.
        heading: degrees from north, clockwise; None where that is not known.
    """

    frame: int
    seconds: float
    at: float | None
    area: dict[str, float]
    count: dict[str, int]
    notes: str = ""
    latitude: float | None = None
    longitude: float | None = None
    speed: float | None = None
    heading: float | None = None


class ObjectRow(msgspec.Struct, array_like=True):
    """A box: xyxy in pixels of the full-size frame, x right, y down, right and bottom edges exclusive."""

    frame: int
    label: str
    score: float
    x1: float
    y1: float
    x2: float
    y2: float
    track: int | None
    origin: str


class EventRow(msgspec.Struct, array_like=True):
    """Something that happened.

    Attributes:
        kind: what.
        start, end, peak: seconds since the clip's first frame; the peak is when it was most so.
        confidence: 0 to 1; None where nobody says.
        tracks: of the objects that it is about.
        source: the note that told of it.
        text: in words.
        figures: what it stands on, as JSON; empty for nothing.
    """

    kind: str
    start: float
    end: float
    peak: float | None = None
    confidence: float | None = None
    tracks: tuple[int, ...] = ()
    source: str = ""
    text: str = ""
    figures: str = ""


class Indexed(msgspec.Struct, array_like=True):
    """All that is found out of one clip.

    Attributes:
        clip: the clip.
        frames, objects, events: in order of time.
        thumbnails: JPEGs by the number of their frame.
    """

    clip: ClipRow
    frames: list[FrameRow] = []
    objects: list[ObjectRow] = []
    events: list[EventRow] = []
    thumbnails: dict[int, bytes] = {}


def encode(indexed: Indexed) -> bytes:
    """As bytes, the same for the same values."""
    return msgspec.msgpack.encode(indexed)


def decode(data: bytes) -> Indexed:
    """Back from bytes.

    Raises:
        msgspec.DecodeError: they are none of `encode`.
    """
    return msgspec.msgpack.decode(data, type=Indexed)
