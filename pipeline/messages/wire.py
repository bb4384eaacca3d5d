"""Messages as bytes and back: the multipart that carries header and payload.

A message is `[topic, header, payload]`, the payload only where there is a mask or a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import ClassInfo
from pipeline.messages.headers import (
    VERSION,
    AnalysisMessage,
    Header,
    HeaderFormat,
    Label,
    MaskMessage,
    MaskOption,
    MessageError,
    PictureMessage,
    check_values,
    kind_of,
)
from pipeline.messages.masks import decode_png, decode_runs, encode_png, encode_runs
from pipeline.messages.segmentations import decode_segmentation
from pipeline.messages.topics import WITH_PREFIX, class_topic, classes_seen, current, topic


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """One message as it arrived.

    Attributes:
        header: what it says.
        class_map: (h, w) uint8 class ids at the mask's size, 255 none of them; None where there is no mask.
        payload: the bytes of the mask or picture as they came.
        missed: messages of this stream lost between the one before and this one; `Subscriber` sets it.
        restarted: whether the publisher was started again since the one before; set likewise.
        parts: all of the message as it came.
    """

    header: Header
    class_map: NDArray[np.uint8] | None = None
    payload: bytes | None = None
    missed: int = 0
    restarted: bool = False
    parts: tuple[bytes, ...] = ()

    def instances(self) -> NDArray[np.uint16] | None:
        """Which pixels of the class map are of which box, (h, w) uint16: 0 for those of nobody, n for those of
        `header.boxes[n - 1]`; None where no box says so.

        Raises:
            MessageError: a segmentation is none, or they are not of one size.
        """
        boxes = self.header.boxes if isinstance(self.header, AnalysisMessage) else ()
        told = {n: box.segmentation for n, box in enumerate(boxes, 1) if box.segmentation}
        if not told:
            return None
        sizes = {segmentation.size for segmentation in told.values()}
        if len(sizes) > 1:
            raise MessageError(f"the segmentations of one message are of several sizes: {sorted(sizes)}")
        owners = np.zeros(sizes.pop(), np.uint16)
        for number, segmentation in told.items():
            owners[decode_segmentation(segmentation)] = number
        return owners


MAX_HEADER = 4 << 20
"""Bytes of a header: thousands of boxes. What is made of a header in Python takes many times its bytes."""


class Encoded(NamedTuple):
    """A message as it goes out.

    Attributes:
        header: what it says, its mask described.
        parts: topic, header, and a payload where there is one, ready for `send_multipart`.
    """

    header: Header
    parts: list[bytes]


def encode(
    message: Header,
    class_map: NDArray[np.uint8] | None = None,
    classes: tuple[ClassInfo, ...] = (),
    *,
    header: HeaderFormat = "msgpack",
    mask: MaskOption = "png",
) -> Encoded:
    """A message in bytes.

    Args:
        message: the header; its `mask` is filled in here.
        class_map: (h, w) uint8 class ids, or None.
        classes: the label set of the class map.
        header: how the header is written.
        mask: how the class map is written; `none` leaves it out.
    """
    subject = topic(message.stream, kind_of(message))
    if class_map is None or mask == "none" or not isinstance(message, AnalysisMessage):
        return Encoded(message, [subject, _encode_header(message, header)])
    height, width = class_map.shape
    described = MaskMessage(encoding=mask, width=width, height=height, labels=_labels(classes))
    payload = encode_png(class_map, classes) if mask == "png" else encode_runs(class_map)
    message = msgspec.structs.replace(message, mask=described)
    return Encoded(message, [subject, _encode_header(message, header), payload])


def decode(parts: Sequence[bytes], *, masks: bool = True) -> Received:
    """The message in the parts of a multipart; MessagePack and JSON headers are told apart by their first byte.

    Args:
        parts: topic, header, and a payload where there is one.
        masks: whether class maps are decoded; without it `Received.class_map` is None and only the payload is there.

    Raises:
        MessageError: the parts are not a message of this version.
    """
    if not 2 <= len(parts) <= 3:
        raise MessageError(f"a message has 2 or 3 parts [topic, header, payload], this one has {len(parts)}")
    whole = tuple(bytes(part) for part in parts)
    message = decode_header(whole[1])
    if not _fits(whole[0], message):
        raise MessageError(
            f"the topic {whole[0][:80]!r} does not fit the header, "
            f"which is of kind {kind_of(message)} and stream {message.stream!r}"
        )
    if isinstance(message, PictureMessage):
        if len(parts) == 2 or whole[2][:2] != b"\xff\xd8":
            raise MessageError("the message is of kind picture, but its payload is no JPEG")
        return Received(message, payload=whole[2], parts=whole)
    description = message.mask if isinstance(message, AnalysisMessage) else None
    if description is None:
        if len(parts) == 3:
            raise MessageError("the message has a payload that its header does not describe")
        return Received(message, parts=whole)
    if len(parts) == 2:
        raise MessageError(f"the header describes a {description.encoding} mask, but the message has no payload")
    read = decode_png if description.encoding == "png" else decode_runs
    class_map = read(whole[2], description.width, description.height) if masks else None
    return Received(message, class_map, whole[2], parts=whole)


def decode_header(data: bytes) -> Header:
    """The header in MessagePack or JSON bytes.

    Raises:
        MessageError: it is neither, a field is missing or has a wrong value, or the version is another one.
    """
    as_json = data[:1] == b"{"
    if len(data) > MAX_HEADER:
        raise MessageError(f"the header has {len(data)} bytes and may have {MAX_HEADER}")
    try:
        return _checked(_FROM_JSON.decode(data) if as_json else _FROM_MSGPACK.decode(data))
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


class _Versioned(msgspec.Struct):
    version: int


_FROM_MSGPACK: msgspec.msgpack.Decoder[Header] = msgspec.msgpack.Decoder(Header)
_FROM_JSON: msgspec.json.Decoder[Header] = msgspec.json.Decoder(Header)
_UNDECODABLE = (msgspec.DecodeError, ValueError, RecursionError)  # bad UTF-8 comes out as a ValueError
_VERSION_FROM_MSGPACK = msgspec.msgpack.Decoder(_Versioned)
_VERSION_FROM_JSON = msgspec.json.Decoder(_Versioned)
_MSGPACK = msgspec.msgpack.Encoder()
_JSON = msgspec.json.Encoder()


def _checked(message: Header) -> Header:
    check_values(message)
    return message


def _fits(subject: bytes, message: Header) -> bool:
    """Whether a topic is one of those under which this message may come."""
    subject = current(subject)
    if subject == topic(message.stream, kind_of(message)):
        return True
    if not isinstance(message, AnalysisMessage) or not subject.startswith(WITH_PREFIX):
        return False
    return any(subject == class_topic(name, message.stream) for name in classes_seen(message))


def _encode_header(message: Header, header: HeaderFormat) -> bytes:
    return _MSGPACK.encode(message) if header == "msgpack" else _JSON.encode(message)


@lru_cache(maxsize=32)
def _labels(classes: tuple[ClassInfo, ...]) -> tuple[Label, ...]:
    return tuple(Label(id=c.id, name=c.name, color=c.color, thing=c.thing) for c in classes)
