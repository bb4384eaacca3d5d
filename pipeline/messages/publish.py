"""Analyses out over ZeroMQ: PUB loses rather than waits, PUSH waits rather than loses.

Beside the analyses go events, the states of the sources and, every second, a sign of life. Somebody who subscribes gets
the newest state of each stream at once; analyses by class and pictures are made only while somebody asks for them.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Self

import av
import msgspec

from pipeline.drawing.overlay import Overlay, OverlayStyle
from pipeline.frame import Analysis
from pipeline.messages.composing import picture_of
from pipeline.messages.headers import (
    AnalysisMessage,
    Header,
    HeaderFormat,
    HeartbeatMessage,
    MaskOption,
)
from pipeline.messages.numbering import Numbering
from pipeline.messages.sockets.keys import ServerKeys
from pipeline.messages.sockets.outlet import Outlet, Pattern
from pipeline.messages.topics import CLASS_TREES, asked_for, class_topics, topic
from pipeline.messages.wire import encode
from pipeline.pictures.colors import Colorimetry
from pipeline.pictures.picture import Picture
from pipeline.state import EndReason, StateChange

HEARTBEAT = 1.0
"""Seconds between two signs of life."""

PULSE = 0.05
"""Seconds between two looks for new subscribers: how long one waits for the state of the streams."""

_CHANGES = 256
"""Changes of state kept for a PUSH reader that takes nothing; the oldest go first."""


class PictureOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pictures on request, at `picture.roadlens/v1/<stream>/picture`: encoded only while somebody subscribes.

    Attributes:
        quality: of the JPEG, 1 to 100.
        max_width: pixels; wider pictures are shrunk to it. 0 for no limit.
        every: a picture of every n-th frame.
        overlay: whether class colours and boxes are drawn on it.
    """

    quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 80
    max_width: Annotated[int, msgspec.Meta(ge=0, le=16384)] = 1280
    every: Annotated[int, msgspec.Meta(ge=1)] = 1
    overlay: bool = False


@dataclass(slots=True, eq=False)
class _Stream:
    """What the publisher knows of a stream.

    Attributes:
        numbers: of its messages.
        done: sequence number up to which analyses have been sent, or not been wanted.
        alive: whether it gets heartbeats.
        heartbeats: sequence number of the next one.
        overlay: what draws on its pictures.
    """

    numbers: Numbering
    done: int
    alive: bool = True
    heartbeats: int = 0
    overlay: Overlay | None = None


class Publisher:
    """A sink that sends every analysis over one ZeroMQ socket. May be called from several threads, one a stream.

    `pub`: any number of subscribers; one that is slow loses messages and sees it by their sequence numbers; nobody
    ever waits. While no one is subscribed, nothing is encoded. `push`: every message goes to exactly one reader;
    without a reader, or with a slow one, `consume` waits. TCP keep-alive, not a ZeroMQ heartbeat, finds dead hosts: a
    reader that is merely full answers no heartbeat, and would be cut off.

    Example:
        >>> with Publisher("tcp://127.0.0.1:5555", "push") as publisher:  # doctest: +SKIP
        ...     for analysis in analyses:
        ...         publisher.consume(analysis)
        ...     publisher.end("drive")

    Args:
        endpoint: where to bind: `tcp://host:port` (port 0 or `*`: a free one) or `ipc:///path`.
        pattern: `pub` or `push`.
        header: how the headers are written.
        mask: how the class maps are written; `none` leaves them out.
        instances: whether boxes tell which pixels of the class map are theirs.
        picture: pictures on request, with `pub` only; None for none.
        style: what is drawn on pictures, where they are overlaid and no output has drawn it already.
        high_water: messages queued for a peer that does not read.
        linger: seconds that a run being stopped still waits for readers, over all messages and `close` together; with
            `pub` also how long `close` delivers what is queued. A run that is not stopped delivers all over `push`.
        stop: says whether the run is being stopped. An `Event().is_set` fits.
        allow_remote: whether an address that other machines can reach may be bound.
        first_sequence: where the numbering of a stream goes on after an interrupted run; 0 for one not named.
        curve: keys with which the socket speaks CurveZMQ only, to those who are allowed; None for a plain socket.
        heartbeat: seconds between two signs of life.
        relay: an address to connect to instead, where `pipeline.workers.relay` passes on what is sent to `endpoint`.

    Attributes:
        endpoint: the address bound, with the port that was chosen.
        sent: messages handed to ZeroMQ by stream, ends included, without streams that were forgotten.
        unsent: analyses given up by stream because PUSH waited longer than a run being stopped may.

    Raises:
        OutputError: the endpoint is malformed, in use, or not of this machine.
        UsageError: the endpoint is open to other machines and `allow_remote` is not set.
    """

    name = "publish"

    def __init__(
        self,
        endpoint: str,
        pattern: Pattern = "pub",
        *,
        header: HeaderFormat = "msgpack",
        mask: MaskOption = "png",
        instances: bool = False,
        picture: PictureOptions | None = None,
        style: OverlayStyle | None = None,
        high_water: int = 16,
        linger: float = 1.0,
        stop: Callable[[], bool] = lambda: False,
        allow_remote: bool = False,
        first_sequence: Mapping[str, int] | None = None,
        curve: ServerKeys | None = None,
        heartbeat: float = HEARTBEAT,
        relay: str | None = None,
    ) -> None:
        self.pattern = pattern
        self.sent: dict[str, int] = {}
        self.unsent: dict[str, int] = {}
        self._header = header
        self._mask = mask
        self._instances = instances
        self._picture = picture if pattern == "pub" else None
        self._style = style or OverlayStyle()
        self._run = secrets.token_hex(4)
        self._began = time.monotonic()
        self._heartbeat = heartbeat
        self._first = dict(first_sequence or {})
        self._streams: dict[str, _Stream] = {}
        # A name stands for a stream that is to be forgotten once what came before it has been told.
        self._changes: deque[StateChange | str] = deque(maxlen=_CHANGES)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._outlet = Outlet(
            endpoint, pattern, high_water=high_water, linger=linger, stop=stop, allow_remote=allow_remote, curve=curve,
            relay=relay, trees=CLASS_TREES,
        )  # fmt: skip
        self.endpoint: str = self._outlet.endpoint
        self._pulse = threading.Thread(target=self._beat, name=f"pulse {self.endpoint}", daemon=True)
        self._pulse.start()

    def consume(self, analysis: Analysis) -> None:
        """Send an analysis under the next sequence number of its stream; one thread a stream."""
        name = analysis.frame.stream
        with self._lock:
            self._tell_changes()
            stream = self._stream(name)
            stream.alive = True
            sequence = stream.numbers.take(analysis)
            self._outlet.hear()  # once a frame: ZeroMQ takes microseconds to say that there is nothing new
            if not self._outlet.anybody():
                stream.done = sequence + 1
                return
        message = stream.numbers.header(analysis, sequence)
        with self._lock:
            # Of the twenty topics of a frame most are by class, and mostly nobody asks for any.
            subjects = [topic(name, "analysis"), *(class_topics(message) if self._outlet.anybody_in_trees() else [])]
            topics = [wanted for subject in subjects for wanted in asked_for(subject, self._outlet.wanted)]
            shown = [] if self._picture is None else asked_for(topic(name, "picture"), self._outlet.wanted)
        events = [self._parts(event) for event in stream.numbers.happened(message)] if message.notes else []
        parts = self._encoded(message, analysis) if topics else []
        picture = self._pictured(analysis, sequence, stream) if shown else None
        with self._lock:
            for subject in topics:
                if not self._send(name, [subject, *parts[1:]]):
                    self.unsent[name] = self.unsent.get(name, 0) + 1
            for event in events:
                if self._outlet.wanted(event[0]):
                    self._send(name, event)
            stream.done = sequence + 1
            if picture is not None:
                for subject in shown:
                    self._send(name, [subject, *picture[1:]])

    def status(self, change: StateChange) -> None:
        """Tell the readers of a change of state, and those who come later of the newest one. Never waits.

        With `push` it goes out as soon as a reader takes it.
        """
        self._changes.append(change)
        self._tell_changes_if_free()

    def forget(self, stream: str) -> None:
        """A stream was removed: nobody who comes later hears of it. One that takes its name has a `run` of its own, so
        that its numbers can begin anew. Never waits.
        """
        self._changes.append(stream)
        self._tell_changes_if_free()

    def end(self, stream: str, reason: EndReason = "complete", dropped: int | None = None) -> None:
        """Tell the readers that a stream is over. `close` says `stopped` of every stream that has not ended by then.

        Args:
            stream: its id.
            reason: `complete` only where the source was read to its end.
            dropped: frames of the stream dropped over the run; left out, the sum over its analyses.
        """
        with self._lock:
            self._tell_changes()
            known = self._stream(stream)
            self._outlet.hear()
            known.alive = False
            known.overlay = None
            message = known.numbers.end(reason, dropped)
            if self._outlet.wanted(topic(stream, "end")):
                self._send(stream, self._parts(message))
            known.done = known.numbers.next

    def close(self) -> None:
        """End what has not ended, deliver what is queued (see `linger`), and free the socket. Twice is allowed.

        Leaving the `with` block by an exception counts as stopping.
        """
        if self._outlet.closed:
            return
        self._closing.set()
        self._pulse.join()
        for name in [name for name, stream in self._streams.items() if stream.numbers.open]:
            self.end(name, "stopped")
        with self._lock:
            self._tell_changes()
            self._outlet.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._outlet.stop_now()
        self.close()

    # Encoding: without the lock, in the stream's own thread ---------------------------------------------------------
    def _encoded(self, message: AnalysisMessage, analysis: Analysis) -> list[bytes]:
        return encode(message, analysis.class_map, analysis.classes, header=self._header, mask=self._mask).parts

    def _parts(self, message: Header) -> list[bytes]:
        return encode(message, header=self._header).parts

    def _pictured(self, analysis: Analysis, sequence: int, stream: _Stream) -> list[bytes] | None:
        options = self._picture
        if options is None or sequence % options.every:
            return None
        image = analysis.frame.image
        if options.overlay:
            image = analysis.picture or self._drawn(analysis, stream)
        jpeg, *size = Picture.of(image).jpeg(options.quality, options.max_width)
        message = picture_of(analysis, sequence, (size[0], size[1]), run=stream.numbers.run, overlaid=options.overlay)
        return [*self._parts(message), jpeg]

    def _drawn(self, analysis: Analysis, stream: _Stream) -> av.VideoFrame:
        if stream.overlay is None:
            stream.overlay = Overlay(self._style, analysis.classes, Colorimetry.of(analysis.frame.image))
        return stream.overlay.draw(analysis)

    # Sending: the lock is held --------------------------------------------------------------------------------------
    def _stream(self, name: str) -> _Stream:
        if name not in self._streams:
            first = self._first.get(name, 0)
            self._streams[name] = _Stream(Numbering(name, self._run, first, self._instances), first)
        return self._streams[name]

    def _send(self, stream: str, parts: list[bytes], *, wait: bool = True) -> bool:
        taken = self._outlet.send(parts) if wait else self._outlet.offer(parts)
        if taken:
            self.sent[stream] = self.sent.get(stream, 0) + 1
        return taken

    def _tell_changes_if_free(self) -> None:
        """`_tell_changes`, unless another thread holds the lock: then it, or the pulse, will."""
        if self._lock.acquire(blocking=False):
            try:
                self._tell_changes(wait=False)
            finally:
                self._lock.release()

    def _forget(self, name: str) -> None:
        for known in (self._streams, self.sent, self.unsent, self._first):
            known.pop(name, None)
        self._run = secrets.token_hex(4)

    def _tell_changes(self, *, wait: bool = True) -> None:
        """Send the changes of state that have come in, in their order."""
        if self._changes:
            self._outlet.hear()
        while self._changes:
            change = self._changes.popleft()
            if isinstance(change, str):
                self._forget(change)
                continue
            stream = self._stream(change.stream)
            message = stream.numbers.changed(change)
            if self._outlet.wanted(topic(change.stream, "status")) and not self._send(
                change.stream, self._parts(message), wait=wait
            ):
                if not wait:
                    self._changes.appendleft(change)
                return
            stream.numbers.status = message
            stream.alive = not change.state.final

    # The pulse: a thread of its own ---------------------------------------------------------------------------------
    def _beat(self) -> None:
        next_heartbeat = self._began + self._heartbeat
        while not self._closing.wait(PULSE):
            # PUSH may be waiting for its reader, with the lock: that is no time for signs of life.
            if not self._lock.acquire(blocking=self.pattern == "pub"):
                continue
            try:
                self._tell_changes(wait=False)
                if self.pattern == "push":
                    continue
                self._greet(self._outlet.joined())
                if (now := time.monotonic()) >= next_heartbeat:
                    next_heartbeat = max(next_heartbeat + self._heartbeat, now)
                    self._show_life(now)
            finally:
                self._lock.release()

    def _greet(self, joined: set[bytes]) -> None:
        """Send the newest states again that new subscribers want to know: each once, however many there are."""
        for name, stream in self._streams.items():
            status = stream.numbers.status
            if status is None:
                continue
            subject = topic(name, "status")
            if any(subject[:length] in joined for length in range(len(subject) + 1)):
                self._send(name, self._parts(status))

    def _show_life(self, now: float) -> None:
        for name, stream in self._streams.items():
            numbers = stream.numbers
            # Again and again, and of what is over as well: a proxy tells of the first subscriber only.
            if numbers.status is not None and self._outlet.wanted(topic(name, "status")):
                self._send(name, self._parts(numbers.status))
            if not stream.alive:
                continue
            message = HeartbeatMessage(
                stream=name,
                sequence=stream.heartbeats,
                run=numbers.run,
                at=round(time.time(), 6),
                uptime_s=round(now - self._began, 3),
                interval_s=self._heartbeat,
                state=None if numbers.status is None else numbers.status.state,
                next_sequence=stream.done,
                sent=self.sent.get(name, 0),
                dropped=numbers.dropped,
            )
            stream.heartbeats += 1
            if self._outlet.wanted(topic(name, "heartbeat")):
                self._send(name, self._parts(message))
