"""Live sources: always drained and decoded, the newest frame wins, and whatever breaks is connected anew.

    reader (a thread a connection): read ─► decode ─► place on the timeline ─┐
    whoever iterates: ◄── the newest frame, and the watch over the reader ◄──┘

FFmpeg can be interrupted only by its own timeouts, which PyAV checks while it waits for the network. A name look-up or
a driver that hangs knows none of them. So each connection has a reader thread of its own, which alone opens, reads
and closes; one that does not come back in time is abandoned, and ends whenever FFmpeg lets it. Threads and descriptors
stay bounded, because no third attempt is made while two abandoned readers are still there. A child process could be
killed instead, but each picture would be copied between processes, and one that hangs in a driver cannot be killed
either. The reader is `pipeline.sources.live.reader`; here is the watch.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Self

from engines.errors import SourceError
from pipeline.contracts import AudioPacket, StreamInfo
from pipeline.frame import Frame, Mode
from pipeline.packets import PacketTap
from pipeline.sources.decoding import Decoding
from pipeline.sources.live.address import LiveOptions, live_input, open_input
from pipeline.sources.live.connection import (
    Action,
    Came,
    Connection,
    Due,
    Event,
    Lost,
    Pause,
    Released,
    Resume,
    Silent,
    Stop,
    step,
)
from pipeline.sources.live.reader import Lasting, OpenInput, Reader, Setup
from pipeline.sources.live.reports import Reports
from pipeline.sources.normalizer import Normalizer
from pipeline.sources.reading import Reading
from pipeline.state import SourceState, StateChange

log = logging.getLogger(__name__)

MOST_ABANDONED = 2
"""Readers that hang, beyond which no new one is started."""

_RELEASE_SECONDS = 0.5
"""How long a stalled source waits for its reader before it goes on without it."""

_CLOSE_SECONDS = 0.3
"""How long closing waits for the reader, which says good-bye to the camera."""

_LONGEST_WAIT = 5.0
"""Seconds after which to look again, whatever was computed."""


class Camera:
    """A camera. Opened once, iterated once by one thread; it ends when it is stopped, or has failed for good.

    Args:
        stream_id: id of the stream.
        address: see `live_input.is_live`; credentials in it are never printed.
        options: how it is read.
        decode_threads: of FFmpeg's decoder; they share one frame, as threads with a frame each would delay it.
        observe: told every change of state, from the threads that open and iterate; must not wait.
        on_packet: told every compressed packet, from the reading thread; must not wait.
        connect: opens the input; for tests.
        decoding: which decoder; the CPU's unless given.
        wall_clock: Unix time in seconds.
        monotonic: monotonic clock in seconds.
        chance: random numbers in [0, 1) for the jitter of the waits.

    Attributes:
        state: what it is doing.

    Raises:
        SourceError: the address is no live source's.
    """

    mode: Mode = "live"

    def __init__(
        self,
        stream_id: str,
        address: str,
        options: LiveOptions | None = None,
        *,
        decode_threads: int = 1,
        observe: Callable[[StateChange], None] = lambda _change: None,
        on_packet: PacketTap | None = None,
        connect: OpenInput | None = None,
        decoding: Decoding | None = None,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        options = options or LiveOptions()
        given = live_input(address, options)
        decoding = decoding or Decoding(stream_id)
        connect = connect or partial(open_input, decoding=decoding)
        self._setup = Setup(stream_id, given, options, decode_threads, decoding, connect, wall_clock, monotonic)
        self._lasting = Lasting(Normalizer(stream_id), on_packet)
        self.id, self.address, self.options = stream_id, given.name, options
        self.counts = self._lasting.counts
        self.wall_clock, self.monotonic = wall_clock, monotonic
        self._chance = chance
        self._bound = self.options.latency_bound
        self._open: StreamInfo | None = None
        self._reports = Reports(stream_id, observe)
        self._changed = threading.Condition()
        self._connection = Connection()
        self._reader: Reader | None = None
        self._abandoned: list[Reader] = []
        self._newest: Frame | None = None
        self._index = 0
        self._iterating = self._stopped = self._paused = self._said_stuck = False

    @property
    def state(self) -> SourceState:
        """What it is doing."""
        return self._connection.state

    @property
    def on_packet(self) -> PacketTap | None:
        """Who is told every compressed packet; may be set until the source is opened."""
        return self._lasting.on_packet

    @on_packet.setter
    def on_packet(self, tap: PacketTap | None) -> None:
        self._lasting.on_packet = tap

    @property
    def reconnects(self) -> int:
        """How often it has come back."""
        return self._connection.reconnects

    # From any thread ------------------------------------------------------------------------------------------------
    def stop(self) -> None:
        """End: a waiting `next` or `open` returns. Returns at once."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def pause(self) -> None:
        """Close the connection until `resume`. Returns at once."""
        self._set_paused(paused=True)

    def resume(self) -> None:
        """Connect again. Returns at once."""
        self._set_paused(paused=False)

    def _set_paused(self, paused: bool) -> None:
        with self._changed:
            self._paused = paused
            self._changed.notify_all()

    def close(self) -> None:
        """End and let the connection go. Twice is allowed."""
        self.stop()
        reader = self._reader
        self._apply(Stop())
        if reader is not None:
            reader.join(_CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Opening and iterating ------------------------------------------------------------------------------------------
    @classmethod
    def from_address(cls, stream_id: str, address: str, reading: Reading) -> Self:
        """The camera, device or pipe at an address.

        Raises:
            SourceError: not a live source's address.
        """
        return cls(
            stream_id, address, reading.live, decode_threads=reading.decode_threads, observe=reading.observe,
            decoding=reading.decoding,
        )  # fmt: skip

    def open(self) -> StreamInfo:
        """Connect and wait for the first frames. With `reconnect.at_start` `wait` it tries until the camera is there.

        Raises:
            SourceError: it cannot be opened; the sentence says why, without credentials.
        """
        while (event := self._next_event(opening=True)) is not None:
            self._apply(event)
            if self.state.final:
                raise SourceError(self._connection.reason)
        info = self._info()
        if info is None:
            raise RuntimeError(f"source {self.id!r} is open, but nothing is known of it")
        return info

    def __iter__(self) -> Iterator[Frame | AudioPacket]:
        with self._changed:
            self._iterating = True
        while True:
            event = self._next_event()
            if event is not None:
                self._apply(event)
                if self.state is SourceState.ENDED:
                    return
                if self.state is SourceState.FAILED:
                    raise SourceError(self._connection.reason)
            with self._changed:
                frame, self._newest = self._newest, None
            if frame is not None:
                yield frame

    def _info(self) -> StreamInfo | None:
        """What the source is, once enough is known."""
        reader, line = self._reader, self._lasting.line
        if reader is None or line is None or self.state is not SourceState.STREAMING:
            return None
        first, rate = reader.first_image, reader.rate(self.monotonic())
        if first is None or rate is None:
            return None
        line.frame_duration = max(round(1 / rate / line.time_base), 1)
        info = StreamInfo.of(first, line.time_base, rate, None)
        self._open = info
        self._follow(reader)
        return info

    def _follow(self, reader: Reader) -> None:
        """The bound as it is for the last few frames: what no dropping mends is allowed on top of what was asked for,
        or a camera of one frame a second would never be seen.
        """
        self._bound = self.options.latency_bound + reader.allowed
        if self._open is not None:
            self._open.latency_bound = self._bound

    # The watch ------------------------------------------------------------------------------------------------------
    def _next_event(self, opening: bool = False) -> Event | None:
        """The next thing that happens; None when there is a frame to take, or (opening) everything is known."""
        with self._changed:
            while True:
                if self._stopped or self.state.final:
                    return Stop()
                if self.state is SourceState.STREAMING and (self._info() if opening else self._newest) is not None:
                    return None
                now = self.monotonic()
                event = self._event(now)
                if event is not None:
                    return event
                self._changed.wait(min(max(self._deadline(now, opening) - now, 0.0), _LONGEST_WAIT))

    def _event(self, now: float) -> Event | None:
        connection, reader = self._connection, self._reader
        if self._paused != (connection.state is SourceState.PAUSED):
            if self._paused:
                return Pause()
            return Resume() if len(self._stuck()) < MOST_ABANDONED else None
        if connection.reading and reader is not None:
            if connection.state is SourceState.CONNECTING and reader.frames:
                return Came()
            if isinstance(reader.over, Lost) and reader.over.cause == "silent":
                return Silent(reader.over.cause, reader.over.reason)  # FFmpeg's timeout came before the watchdog's
            if reader.over is not None:
                return reader.over
            if now >= reader.deadline():
                return reader.silence()
        elif connection.state is SourceState.STALLED:
            if now >= connection.since + _RELEASE_SECONDS or not self._stuck():
                return Released()
        elif connection.state in {SourceState.CONNECTING, SourceState.BACKING_OFF}:
            due = connection.retry_at is None or now >= connection.retry_at
            return Due() if due and len(self._stuck()) < MOST_ABANDONED else None
        return None

    def _deadline(self, now: float, opening: bool) -> float:
        """When to look again though nobody has said anything."""
        connection, reader = self._connection, self._reader
        if connection.reading and reader is not None:
            deadline = reader.deadline()
            return min(deadline, now + 0.1) if opening and reader.first_image is not None else deadline
        if connection.state is SourceState.STALLED:
            return min(connection.since + _RELEASE_SECONDS, now + 0.05)
        if connection.retry_at is not None:
            return connection.retry_at if connection.retry_at > now else now + 0.2
        if connection.state is SourceState.PAUSED and not self._paused:
            return now + 0.2
        return float("inf")

    def _stuck(self) -> list[Reader]:
        self._abandoned = [r for r in self._abandoned if r.is_alive()]
        if len(self._abandoned) >= MOST_ABANDONED and not self._said_stuck:
            self._said_stuck = True
            log.warning("%s: %d reads of it have not returned; waiting for one of them", self.id, len(self._abandoned))
        return self._abandoned

    def _apply(self, event: Event) -> None:
        with self._changed:  # whoever closes may not be the one who iterates
            before = self._connection
            self._connection, actions = step(before, event, self.monotonic(), self.options.reconnect, self._chance())
            for action in actions:
                if action is Action.ABANDON:
                    self._abandon()
                else:
                    self._discard()
                    self._reader = Reader(self._setup, self._lasting, self._take, self._look)
                    self._reader.start()
            if self._connection is before:
                return
            if not self._connection.reading and not actions:
                self._reader = None  # it has ended by itself
            self._reports.add(before.seen, self._connection.change(self.id, self.wall_clock()), self.monotonic())
            self._changed.notify_all()
        self._reports.tell()

    def _abandon(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.abandon()
            self._discard()
            self._abandoned.append(reader)
            self._said_stuck = False

    def _discard(self) -> None:
        """Drop a frame that came in just before its connection went, and that has an index."""
        if self._newest is not None:
            self.counts.dropped["stopped"] += 1
        self._newest = None

    # From the reader ------------------------------------------------------------------------------------------------
    def _take(self, reader: Reader, frame: Frame) -> bool:
        """A decoded frame from a reader; False when nobody wants it any more."""
        with self._changed:
            if reader is not self._reader or reader.abandoned:
                return False
            self._follow(reader)
            frame.index = self._index
            self._index += 1
            if self._iterating and self.monotonic() - frame.arrived_at > self._bound:
                self.counts.dropped["old"] += 1
            else:
                if self._newest is not None:
                    self.counts.dropped["superseded" if self._iterating else "opening"] += 1
                self._newest = frame
            self._changed.notify_all()
            return True

    def _look(self) -> None:
        """A reader has something to say or is gone."""
        with self._changed:
            self._changed.notify_all()
