"""Recordings: the messages of a publisher in an MCAP file, bit for bit, and beside them views that Foxglove shows.

A message is recorded under its ZeroMQ topic as `{"header": base64, "payload": base64}`; compression takes back what
base64 costs. What `pipeline.foxglove` makes of it goes under topics of its own, such as `/front/mask`.

The file is written in chunks, one a second at the latest, each handed to the operating system whole: after a kill
everything but the last second is there. Readers that need the index at the end get it from `recover`.
"""

from __future__ import annotations

import logging
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import msgspec

from engines.errors import OutputError, SourceError, UsageError
from pipeline.foxglove import Views
from pipeline.frame import Analysis
from pipeline.messages import (
    PICTURE_PREFIX,
    PREFIX,
    EndMessage,
    EndReason,
    Header,
    HeartbeatMessage,
    MessageError,
    StatusMessage,
    decode_header,
    encode,
    from_analysis,
    from_change,
)
from pipeline.state import StateChange
from pipeline.video_writer import partial_name

if TYPE_CHECKING:
    from mcap.records import McapRecord
    from mcap.writer import Writer

log = logging.getLogger(__name__)

CHUNK = 256 * 1024
"""Bytes of a chunk before compression; a second's worth is a chunk, too."""

FLUSH = 1.0
"""Seconds of messages that a kill may cost."""

_SCHEMA_NAME = "roadlens.Multipart"
_MULTIPART = {
    "type": "object",
    "properties": {
        "header": {"type": "string", "contentEncoding": "base64"},
        "payload": {"type": "string", "contentEncoding": "base64"},
    },
}
_PREFIXES = (PREFIX.decode(), PICTURE_PREFIX.decode())
_LARGEST_RECORD = 1 << 30


class _Multipart(msgspec.Struct, frozen=True, omit_defaults=True):
    header: bytes
    payload: bytes | None = None


_DECODER = msgspec.json.Decoder(_Multipart)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A message as it was recorded.

    Attributes:
        at: when it arrived at the recorder: wall clock, Unix nanoseconds.
        parts: topic, header, and a payload where there is one.
    """

    at: int
    parts: tuple[bytes, ...]


class Recorder:
    """Writes messages into an MCAP file. May be called from several threads.

    Args:
        path: the file.
        overwrite: whether a file that is there already is replaced.
        views: whether what Foxglove shows is written beside the messages.
        clock: wall clock, Unix nanoseconds. Where it is set back, the times of messages go on as they were.
        monotonic: clock in seconds.

    Attributes:
        written: messages written.
        closed: whether nothing more can be written, be it for a full disk.

    Raises:
        OutputError: the file is there already or cannot be opened.
        UsageError: the package `mcap` is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        overwrite: bool = False,
        views: bool = True,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.written = 0
        self.closed = False
        self._clock, self._monotonic = clock, monotonic
        self._views = Views() if views else None
        self._lock = threading.Lock()
        self._schemas: dict[bytes, int] = {}
        self._channels: dict[tuple[str, int], int] = {}
        self._newest, self._newest_at, self._flushed_at = 0, monotonic(), float("-inf")
        self._file: BinaryIO | None = None
        writer = _mcap_writer()
        try:
            self._file = path.open("wb" if overwrite else "xb")
            self._writer: Writer = writer(self._file, chunk_size=CHUNK)
            self._writer.start(profile="", library="roadlens")
            self._file.flush()
        except FileExistsError as error:
            raise OutputError(f"{path} is there already and is not written over: give another name") from error
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}") from error

    def write(self, header: Header, parts: Sequence[bytes]) -> None:
        """Write a message.

        Args:
            header: the second of the parts, decoded: what views are made of.
            parts: topic, header and payload as they came.

        Raises:
            OutputError: the disk is full; what was written more than a second before stays.
        """
        payload = parts[2] if len(parts) > 2 else None
        raw = msgspec.json.encode(_Multipart(parts[1], payload))
        with self._writing() as file:
            if file is None:
                raise OutputError(f"{self.path} is closed and takes no more")
            monotonic = self._monotonic()
            now = max(self._clock(), self._newest + round((monotonic - self._newest_at) * 1e9))
            self._newest, self._newest_at = now, monotonic
            said = _said_at(header, now)
            self._add(parts[0].decode("ascii"), _SCHEMA_NAME, _MULTIPART, raw, now, said, header.sequence)
            try:
                for view in self._views.of(header, payload) if self._views is not None else ():
                    content = msgspec.json.encode(view.content)
                    self._add(view.topic, view.schema_name, view.schema, content, now, said, header.sequence)
            except MessageError as error:  # what came is recorded as it came, whatever it is
                log.debug("%s #%d cannot be shown: %s", header.stream, header.sequence, error)
            self.written += 1
            if monotonic - self._flushed_at >= FLUSH:
                self._writer.flush()  # type: ignore[no-untyped-call]  # mcap does not say what it returns
                self._flushed_at = monotonic

    def flush(self) -> None:
        """Hand what is written so far to the operating system.

        Raises:
            OutputError: the disk is full.
        """
        with self._writing() as file:
            if file is not None:
                self._writer.flush()  # type: ignore[no-untyped-call]  # mcap does not say what it returns
                self._flushed_at = self._newest_at

    def close(self) -> None:
        """Write the index and close the file. Twice is allowed.

        Raises:
            OutputError: the disk is full.
        """
        with self._writing() as file:
            if file is not None:
                self._writer.finish()  # type: ignore[no-untyped-call]  # mcap does not say what it returns
                file.close()
                self._file, self.closed = None, True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, topic: str, name: str, schema: Any, data: bytes, at: int, said: int, sequence: int) -> None:
        written = msgspec.json.encode(schema)
        if written not in self._schemas:
            self._schemas[written] = self._writer.register_schema(name, "jsonschema", written)
        key = (topic, self._schemas[written])
        if key not in self._channels:
            self._channels[key] = self._writer.register_channel(topic, "json", self._schemas[written])
        self._writer.add_message(self._channels[key], at, data, said, sequence & 0xFFFFFFFF)

    @contextmanager
    def _writing(self) -> Iterator[BinaryIO | None]:
        """The file, for one thread at a time; None once it is closed.

        Raises:
            OutputError: the system refused; the file is closed as it is, for its buffer can never be written.
        """
        with self._lock:
            try:
                yield self._file
            except OSError as error:
                file, self._file, self.closed = self._file, None, True
                if file is not None:
                    with suppress(OSError):
                        file.close()
                raise OutputError(
                    f"{self.path} could not be written further: {error.strerror}; what came before is intact"
                ) from error


class McapSink:
    """A sink that records a run itself, without a publisher: the messages that one would send. Shared by all streams.

    Until it is closed the file has a partial name.

    Args:
        path: the recording.

    Raises:
        OutputError: the file cannot be written.
        UsageError: the package `mcap` is not installed.
    """

    name = "mcap"

    def __init__(self, path: Path) -> None:
        self.path, self.partial = path, partial_name(path)
        self._recorder = Recorder(self.partial, overwrite=True)
        self._run = secrets.token_hex(4)
        self._next: dict[str, int] = {}
        self._changes: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._open: set[str] = set()

    def consume(self, analysis: Analysis) -> None:
        """Record an analysis; one thread a stream."""
        stream = analysis.frame.stream
        self._open.add(stream)
        self._dropped[stream] = self._dropped.get(stream, 0) + analysis.dropped_since_last
        message = from_analysis(analysis, self._numbered(stream), run=self._run)
        parts = encode(message, analysis.class_map, analysis.classes)
        self._recorder.write(decode_header(parts[1]), parts)

    def status(self, change: StateChange) -> None:
        """Record that a source entered a state; one thread."""
        sequence = self._changes.get(change.stream, 0)
        self._changes[change.stream] = sequence + 1
        message = from_change(change, sequence, run=self._run)
        try:
            self._recorder.write(message, encode(message))
        except OutputError as error:
            log.error("%s", error)  # noqa: TRY400  # the streams' own threads are told by their next analysis

    def end(self, stream: str, reason: EndReason = "complete", dropped: int | None = None) -> None:
        """Record that a stream is over."""
        self._open.discard(stream)
        sequence = self._numbered(stream)
        known = self._dropped.get(stream, 0) if dropped is None else dropped
        message = EndMessage(
            stream=stream, sequence=sequence, run=self._run, frames=sequence, dropped=known, reason=reason
        )
        self._recorder.write(message, encode(message))

    def close(self) -> None:
        """End what has not ended, write the index, and give the file its name. Twice is allowed."""
        if self._recorder.closed:
            return
        for stream in sorted(self._open):
            self.end(stream, "stopped")
        self._recorder.close()
        self.partial.replace(self.path)

    def _numbered(self, stream: str) -> int:
        sequence = self._next.get(stream, 0)
        self._next[stream] = sequence + 1
        return sequence


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
            if record.topic.startswith(_PREFIXES):
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
        raise SourceError(f"{path} holds no messages of roadlens; `roadlens record` writes such a file")


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
    writer = _mcap_writer()(file, chunk_size=CHUNK)
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
    _mcap_writer()
    import zstandard
    from mcap.exceptions import McapError
    from mcap.records import Channel, Chunk, Message, Schema
    from mcap.stream_reader import StreamReader, breakup_chunk

    torn = (McapError, struct.error, ValueError, KeyError, zstandard.ZstdError, RuntimeError, MemoryError)
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
                        yield from breakup_chunk(record, validate_crc=True)
                    except torn:
                        log.warning("%s: a damaged chunk is left out", path)
                elif isinstance(record, Schema | Channel | Message):
                    yield record
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def _mcap_writer() -> type[Writer]:
    try:
        from mcap.writer import Writer
    except ModuleNotFoundError as error:
        raise UsageError("recordings need the package mcap: pip install 'roadlens[record]'") from error
    return Writer


def _said_at(header: Header, now: int) -> int:
    """When a message was made, in Unix nanoseconds, as far as it says."""
    if isinstance(header, StatusMessage | HeartbeatMessage):
        return max(0, min(round(header.at * 1e9), (1 << 63) - 1))
    captured = getattr(header, "captured_at", None)
    return now if captured is None else max(0, min(round(captured * 1e9), (1 << 63) - 1))
