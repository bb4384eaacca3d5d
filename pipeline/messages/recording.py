"""Recordings of messages (MCAP) as they are read again: whole, torn, or written anew."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from engines.errors import OutputError, SourceError, UsageError
from pipeline.files import earlier_name, partial_name, stopped_name
from pipeline.messages.headers import AnalysisMessage, EndMessage, Header
from pipeline.messages.topics import EARLIER, PICTURE_PREFIX, PREFIX
from pipeline.messages.wire import decode_header

if TYPE_CHECKING:
    from mcap.records import Chunk, McapRecord
    from mcap.writer import Writer

log = logging.getLogger(__name__)


CHUNK = 256 * 1024
"""Bytes of a chunk before compression; a second's worth is a chunk, too."""
PREFIXES = (PREFIX.decode(), PICTURE_PREFIX.decode(), EARLIER[PICTURE_PREFIX].decode())
_LARGEST_RECORD = 256 << 20
_LARGEST_CHUNK, _DENSEST_CHUNK, _SMALL_CHUNK = 64 << 20, 500, 1 << 20
"""Bytes of a chunk once it is unpacked; how many times those of the packed one, where that is more than a small chunk.
Class maps of one colour pack to a hundredth; a file that claims more is made to fill the memory of who opens it."""


class Multipart(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message as a recording holds it: its header as it was sent, and the mask or picture that came with it."""

    header: bytes
    payload: bytes | None = None


_DECODER = msgspec.json.Decoder(Multipart)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A message as it was recorded.

    Attributes:
        at: when it arrived at the recorder: wall clock, Unix nanoseconds.
        parts: topic, header, and a payload where there is one.
    """

    at: int
    parts: tuple[bytes, ...]


class NoMessages(SourceError):  # noqa: N818  # a recording may be empty
    """A recording without a message of roadlens."""


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """What a recording of a run holds of a stream.

    Attributes:
        frames: analyses, from the first frame on and without a hole.
        ended: whether its end is recorded, and was that of its source.
    """

    frames: int = 0
    ended: bool = False


def interrupted(path: Path) -> Path | None:
    """The recording that an interrupted run left of `path`, under the name that it has; None where there is none."""
    for name in (earlier_name(path), partial_name(path)):
        if name.exists() and name.stat().st_size:
            return name
    return path if stopped_name(path).exists() and path.exists() else None


def recorded_streams(path: Path) -> dict[str, RecordedStream]:
    """What a recording holds of each stream; nothing of one that was killed before its first message.

    Raises:
        SourceError: the file cannot be read or is no MCAP.
    """
    frames: dict[str, int] = {}
    ended: set[str] = set()
    for _, header in decoded(path):
        if isinstance(header, AnalysisMessage) and header.frame == frames.get(header.stream, 0):
            frames[header.stream] = header.frame + 1
        elif isinstance(header, EndMessage) and header.reason == "complete":
            ended.add(header.stream)
    return {stream: RecordedStream(frames.get(stream, 0), stream in ended) for stream in {*frames, *ended}}


def recorded_track(path: Path, stream: str, frames: int) -> int:
    """The greatest track number in the first frames of a stream; 0 without one."""
    of_stream = (h for _, h in decoded(path) if isinstance(h, AnalysisMessage) and h.stream == stream)
    numbers = [box.track for header in islice(of_stream, frames) for box in header.boxes]
    return max((number for number in numbers if number is not None), default=0)


def decoded(path: Path) -> Iterator[tuple[Recorded, Header]]:
    """The messages of a recording with their headers decoded; none of one that was killed before its first."""
    try:
        for recorded in read_recording(path):
            yield recorded, decode_header(recorded.parts[1])
    except NoMessages:
        return


def read_recording(path: Path) -> Iterator[Recorded]:
    """The messages of a recording in the order in which they came; a torn end and damaged chunks are left out, and
    said in the log.

    Raises:
        SourceError: the file cannot be read, is no MCAP, or holds no messages of roadlens.
        UsageError: the package `mcap` is not installed.
    """
    from mcap.records import Channel, Message

    topics: dict[int, bytes] = {}
    found = False
    for record in _records(path):
        if isinstance(record, Channel):
            if record.topic.startswith(PREFIXES):
                topics[record.id] = record.topic.encode("ascii")
        elif isinstance(record, Message) and record.channel_id in topics:
            try:
                multipart = _DECODER.decode(record.data)
            except (msgspec.DecodeError, ValueError) as error:
                raise SourceError(
                    f"{path} holds something else than messages under {topics[record.channel_id]!r}"
                ) from error
            payload = () if multipart.payload is None else (multipart.payload,)
            yield Recorded(record.log_time, (topics[record.channel_id], multipart.header, *payload))
            found = True
    if not found:
        raise NoMessages(f"{path} holds no messages of roadlens; `roadlens record` writes such a file")


def recover(path: Path, target: Path) -> int:
    """Write what is whole of a recording into a new file, with the index that a kill has left out.

    Returns:
        How many MCAP messages it holds, views included.

    Raises:
        SourceError: the file cannot be read or is no MCAP.
        OutputError: the target is there already or cannot be written.
    """
    records = _records(path)
    first = next(records, None)  # before the target is made, so that what is no MCAP leaves nothing behind
    try:
        with target.open("xb") as file:
            return _written_anew(() if first is None else chain((first,), records), file)
    except FileExistsError as error:
        raise OutputError(f"{target} is there already and is not written over: give another name") from error
    except (OSError, SourceError) as error:
        target.unlink(missing_ok=True)
        if isinstance(error, SourceError):
            raise
        raise OutputError(f"{target} cannot be written: {error.strerror}") from error


def _written_anew(records: Iterable[McapRecord], file: BinaryIO) -> int:
    """Write records into a file of their own, without those of which a damaged chunk held the channel; how many
    messages that were."""
    from mcap.records import Channel, Message, Schema

    schemas: dict[int, int] = {0: 0}
    channels: dict[int, int] = {}
    count = 0
    writer = mcap_writer()(file, chunk_size=CHUNK)
    writer.start(profile="", library="roadlens")
    for record in records:
        if isinstance(record, Schema) and record.id not in schemas:
            schemas[record.id] = writer.register_schema(record.name, record.encoding, record.data)
        elif isinstance(record, Channel) and record.id not in channels:
            schema = schemas.get(record.schema_id, 0)  # without, where that was damaged
            channels[record.id] = writer.register_channel(
                record.topic, record.message_encoding, schema, record.metadata
            )
        elif isinstance(record, Message) and record.channel_id in channels:
            channel = channels[record.channel_id]
            writer.add_message(channel, record.log_time, record.data, record.publish_time, record.sequence)
            count += 1
    writer.finish()  # type: ignore[no-untyped-call]  # mcap does not say what it returns
    return count


def _records(path: Path) -> Iterator[McapRecord]:
    """The schemas, channels and messages of a file, in order, as far as they are whole."""
    mcap_writer()
    import zstandard
    from mcap.exceptions import McapError
    from mcap.records import Channel, Chunk, Message, Schema
    from mcap.stream_reader import StreamReader, breakup_chunk

    # OverflowError: of a record that claims more bytes than a machine could address.
    torn = (
        McapError, struct.error, ValueError, KeyError, zstandard.ZstdError, RuntimeError, MemoryError, OverflowError
    )  # fmt: skip
    try:
        with path.open("rb") as file:
            if file.read(8) != b"\x89MCAP0\r\n":
                raise SourceError(f"{path} is no MCAP file")
            reader = StreamReader(file, skip_magic=True, emit_chunks=True, record_size_limit=_LARGEST_RECORD)
            records = iter(reader.records)
            while True:
                try:
                    record = next(records, None)
                except torn:
                    log.warning("%s is not complete: its recorder was killed, or it is damaged from here on", path)
                    return
                if record is None:
                    return
                if isinstance(record, Chunk):
                    try:
                        yield from breakup_chunk(_unpacked(record), validate_crc=True)
                    except torn:
                        log.warning("%s: a damaged chunk is left out", path)
                elif isinstance(record, Schema | Channel | Message):
                    yield record
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def _unpacked(chunk: Chunk) -> Chunk:
    """A chunk whose data are as they were before they were packed.

    Raises:
        ValueError: there are more of them than a chunk has.
    """
    most = min(_LARGEST_CHUNK, max(_SMALL_CHUNK, _DENSEST_CHUNK * len(chunk.data)))
    if chunk.compression == "zstd":
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(chunk.data) as reader:
            data = reader.read(most + 1)
    elif chunk.compression == "lz4":
        import lz4.frame

        data = lz4.frame.LZ4FrameDecompressor().decompress(chunk.data, most + 1)
    else:
        data = chunk.data
    if len(data) > most and chunk.compression:
        raise ValueError(f"a chunk of {len(chunk.data)} bytes unpacks to more than {most}")
    return replace(chunk, compression="", data=data)


def mcap_writer() -> type[Writer]:
    """The writer of the package `mcap`.

    Raises:
        UsageError: the package is not installed.
    """
    try:
        from mcap.writer import Writer
    except ModuleNotFoundError as error:
        raise UsageError(
            "recordings need the package mcap; install it in the folder of roadlens with: pip install '.[mcap]'"
        ) from error
    return Writer
