"""Recordings: the messages of a publisher in an MCAP file, bit for bit, and beside them views that Foxglove shows.

A message is recorded under its ZeroMQ topic as `{"header": base64, "payload": base64}`; compression takes back what
base64 costs. What `pipeline.messages.foxglove` makes of it goes under topics of its own, such as `/front/mask`.

The file is written in chunks, one a second at the latest, each handed to the operating system whole: after a kill
everything but the last second is there. Readers that need the index at the end get it from `recover`.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import msgspec

from engines.errors import OutputError
from pipeline.files import earlier_name, partial_name, stopped_name
from pipeline.frame import Analysis
from pipeline.messages.foxglove import Views
from pipeline.messages.headers import (
    AnalysisMessage,
    EndMessage,
    EventMessage,
    Header,
    HeartbeatMessage,
    MessageError,
    StatusMessage,
)
from pipeline.messages.numbering import Numbering
from pipeline.messages.recording import CHUNK, Multipart, decoded, interrupted, mcap_writer
from pipeline.messages.wire import encode
from pipeline.state import EndReason, StateChange

if TYPE_CHECKING:
    from mcap.writer import Writer

log = logging.getLogger(__name__)

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
        writer = mcap_writer()
        try:
            self._file = path.open("wb" if overwrite else "xb")
            self._writer: Writer = writer(self._file, chunk_size=CHUNK)
            self._writer.start(profile="", library="roadlens")
            self._file.flush()
        except FileExistsError as error:
            raise OutputError(f"{path} is there already and is not written over: give another name") from error
        except OSError as error:
            if self._file is not None:
                with suppress(OSError):  # its buffer can never be written; Python 3.13 would say that in a traceback
                    self._file.close()
            raise OutputError(f"{path} cannot be written: {error.strerror}") from error

    def write(self, header: Header, parts: Sequence[bytes], at: int | None = None) -> None:
        """Write a message.

        Args:
            header: the second of the parts, decoded: what views are made of.
            parts: topic, header and payload as they came.
            at: when it came, of one that was recorded before: Unix nanoseconds; left out, now.

        Raises:
            OutputError: the disk is full; what was written more than a second before stays.
        """
        payload = parts[2] if len(parts) > 2 else None
        raw = msgspec.json.encode(Multipart(parts[1], payload))
        with self._writing() as file:
            if file is None:
                raise OutputError(f"{self.path} is closed and takes no more")
            monotonic = self._monotonic()
            now = max(self._clock(), self._newest + round((monotonic - self._newest_at) * 1e9)) if at is None else at
            self._newest, self._newest_at = now, monotonic
            said = _said_at(header, now)
            self._add(parts[0].decode("ascii"), _SCHEMA_NAME, _MULTIPART, raw, now, said, header.sequence)
            try:
                for view in self._views.of(header, payload) if self._views is not None else ():
                    content = msgspec.json.encode(view.content)
                    self._add(view.topic, view.schema_name, view.schema, content, now, said, header.sequence)
            except (
                MessageError,
                ValueError,
                OverflowError,
            ) as error:  # what came is recorded as it came, whatever it is
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

    Until it is closed the file has a partial name. It gets its own when every stream has come to its end; when one was
    stopped, only where nothing has that name, and a side-car says that it can be resumed.

    Args:
        path: the recording.
        resume: the frame at which each stream of an interrupted run goes on; what that run recorded before is kept.
        lasting: whether streams come and go, so that the recording is whole whenever it is closed.
        unfinished: whether other files of the run still have partial names when it is closed: it keeps its own then, so
            that none looks complete without the others.
        instances: whether boxes tell which pixels of the class map are theirs.

    Raises:
        OutputError: the file cannot be written.
        UsageError: the package `mcap` is not installed.
    """

    name = "mcap"

    def __init__(
        self,
        path: Path,
        resume: Mapping[str, int] | None = None,
        *,
        lasting: bool = False,
        unfinished: Callable[[], bool] = lambda: False,
        instances: bool = False,
    ) -> None:
        self._instances = instances
        self.path, self.partial = path, partial_name(path)
        self._lasting, self._unfinished = lasting, unfinished
        self._run = secrets.token_hex(4)
        self._numbers: dict[str, Numbering] = {}
        self._reasons: set[EndReason] = set()
        self._any = False
        earlier = earlier_name(path)
        if resume is None:
            earlier.unlink(missing_ok=True)
            self._recorder = Recorder(self.partial, overwrite=True)
            return
        found = interrupted(path)
        if found is not None and found != earlier:
            found.replace(earlier)
        stopped_name(path).unlink(missing_ok=True)
        self._recorder = Recorder(self.partial, overwrite=True)
        if found is not None:
            self._copy(earlier, resume)
            self._recorder.flush()
            earlier.unlink()

    def _copy(self, earlier: Path, resume: Mapping[str, int]) -> None:
        """Keep what an interrupted run recorded ahead of the frames at which its streams go on."""
        for recorded, header in decoded(earlier):
            kept = resume.get(header.stream)
            if isinstance(header, EndMessage) and kept is not None:
                continue
            if isinstance(header, AnalysisMessage):
                if kept is not None and header.frame >= kept:
                    continue
                self._any = True
            if isinstance(header, EventMessage) and kept is not None and header.analysis >= kept:
                continue
            self._run = header.run
            self._of(header.stream).go_on(header)
            self._recorder.write(header, recorded.parts, recorded.at)

    def consume(self, analysis: Analysis) -> None:
        """Record an analysis; one thread a stream."""
        self._any = True
        numbers = self._of(analysis.frame.stream)
        message = numbers.header(analysis, numbers.take(analysis))
        self._recorder.write(*encode(message, analysis.class_map, analysis.classes))
        for event in numbers.happened(message):
            self._recorder.write(*encode(event))

    def status(self, change: StateChange) -> None:
        """Record that a source entered a state; one thread."""
        numbers = self._of(change.stream)
        numbers.status = numbers.changed(change)
        try:
            self._recorder.write(*encode(numbers.status))
        except OutputError as error:
            log.error("%s", error)  # noqa: TRY400  # the streams' own threads are told by their next analysis

    def end(self, stream: str, reason: EndReason = "complete", dropped: int | None = None) -> None:
        """Record that a stream is over, and hand what is recorded to the operating system."""
        self._reasons.add(reason)
        self._recorder.write(*encode(self._of(stream).end(reason, dropped)))
        self._recorder.flush()

    def close(self) -> None:
        """End what has not ended, write the index, and give the file its name where it may have it; one without a
        frame goes. Twice is allowed.
        """
        if self._recorder.closed:
            return
        for stream, numbers in sorted(self._numbers.items()):
            if numbers.open:
                self.end(stream, "stopped")
        self._recorder.close()
        if not self._any:
            self.partial.unlink(missing_ok=True)
        elif self._lasting or self._reasons == {"complete"}:
            self.partial.replace(self.path)
            stopped_name(self.path).unlink(missing_ok=True)
        elif "failed" not in self._reasons and not self.path.exists() and not self._unfinished():
            stopped_name(self.path).touch()
            self.partial.replace(self.path)

    def _of(self, stream: str) -> Numbering:
        return self._numbers.setdefault(stream, Numbering(stream, self._run, instances=self._instances))


def _said_at(header: Header, now: int) -> int:
    """When a message was made, in Unix nanoseconds, as far as it says."""
    if isinstance(header, StatusMessage | HeartbeatMessage):
        return max(0, min(round(header.at * 1e9), (1 << 63) - 1))
    captured = getattr(header, "captured_at", None)
    return now if captured is None else max(0, min(round(captured * 1e9), (1 << 63) - 1))
