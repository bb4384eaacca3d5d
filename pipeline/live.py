"""Live sources: always drained and decoded, the newest frame wins, and whatever breaks is connected anew.

    reader (a thread a connection): read ─► decode ─► place on the timeline ─┐
    whoever iterates: ◄── the newest frame, and the watch over the reader ◄──┘

FFmpeg can be interrupted only by its own timeouts, which PyAV checks while it waits for the network. A name look-up or
a driver that hangs knows none of them. So each connection has a reader thread of its own, which alone opens, reads
and closes; one that does not come back in time is abandoned, and ends whenever FFmpeg lets it. Threads and descriptors
stay bounded, because no third attempt is made while two abandoned readers are still there. A child process could be
killed instead, but each picture would be copied between processes, and one that hangs in a driver cannot be killed
either.
"""

from __future__ import annotations

import logging
import random
import statistics
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from types import TracebackType
from typing import Any, Self

import av
import av.error
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from engines.errors import SourceError
from pipeline.clocks import ArrivalClock, Pace
from pipeline.connection import (
    Action,
    Came,
    Connection,
    Due,
    Event,
    Lost,
    Over,
    Pause,
    Released,
    Resume,
    Silent,
    Stop,
    step,
)
from pipeline.decoding import Decoding
from pipeline.frame import Frame, Mode
from pipeline.live_input import (
    Fault,
    LiveInput,
    LiveOptions,
    fault,
    has_clock,
    held_back,
    live_input,
    open_input,
    picture_track,
)
from pipeline.sources import AudioPacket, Normalizer, SourceCounts, StreamInfo
from pipeline.state import SourceState, StateChange
from pipeline.tap import CompressedPacket, PacketTap, Track
from pipeline.timeline import Timeline

log = logging.getLogger(__name__)

OpenInput = Callable[[LiveInput, LiveOptions, Callable[[], bool]], InputContainer]

MOST_ABANDONED = 2
"""Readers that hang, beyond which no new one is started."""

_RELEASE_SECONDS = 0.5
"""How long a stalled source waits for its reader before it goes on without it."""

_CLOSE_SECONDS = 0.3
"""How long closing waits for the reader, which says good-bye to the camera."""

_MARGIN = 0.25
"""Seconds after a timeout of FFmpeg's at which the watchdog takes over, because FFmpeg gives the better reason."""

_UNDECODABLE_SECONDS = 30.0
"""Packets without a picture: a camera may send key frames that rarely, but not more so."""

_KEY_SECONDS = 2.0
"""How long packets are skipped for a key frame; streams with gradual refresh have none."""

_RATE_FRAMES, _RATE_SECONDS = 6, 0.7
"""Frames, or seconds after the first, from which the rate is estimated."""

_RUNAWAY_SPAN, _RUNAWAY_RATE, _RUNAWAY_FACTOR = 2.0, 250.0, 8.0
"""Frames a second, over a span, that no camera sends: a demuxer that lost its place."""

_BEHIND, _BEHIND_SECONDS = 1.0, 2.0
"""Seconds that the decoder may be late, and for how long, before it skips to the next key frame."""

_LONGEST_PAUSE = 1.0
"""Seconds beyond the read timeout that timestamps may jump ahead before they count as a clock that was set."""

_LONGEST_WAIT = 5.0
"""Seconds after which to look again, whatever was computed."""

_SAY_AGAIN_SECONDS, _MOST_SAID = 60.0, 16
"""How long a reason that stands in the log is not repeated, and how many reasons are remembered."""

_NO_CLOCK_BASE = Fraction(1, 90_000)


class LiveSource:
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
        on_packet: may be set until the source is opened.
        played_out: whether the last connection came to the end of a playlist.

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
        self.id = stream_id
        self.options = options or LiveOptions()
        self.input = live_input(address, self.options)
        self.address = self.input.name
        self.counts = SourceCounts()
        self.decode_threads, self.on_packet = decode_threads, on_packet
        self.wall_clock, self.monotonic = wall_clock, monotonic
        self.decoding = decoding or Decoding(stream_id)
        self.connect: OpenInput = connect or partial(open_input, decoding=self.decoding)
        self.normalize = Normalizer(stream_id)
        self.line: Timeline | None = None
        self.last_frame_at: float | None = None
        self._observe, self._chance = observe, chance
        self._bound = self.options.latency_bound
        self._changed = threading.Condition()
        self._connection = Connection()
        self._reader: _Reader | None = None
        self._abandoned: list[_Reader] = []
        self._newest: Frame | None = None
        self._index = 0
        self._iterating = self._stopped = self._paused = self._said_stuck = self._back_to_say = False
        self.played_out = False
        self._said: dict[str, float] = {}

    @property
    def state(self) -> SourceState:
        """What it is doing."""
        return self._connection.state

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Opening and iterating ------------------------------------------------------------------------------------------
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
            self._index = int(self._newest is not None)  # what came while it was being opened is the first
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
        reader, line = self._reader, self.line
        if reader is None or line is None or self.state is not SourceState.STREAMING:
            return None
        first, rate = reader.first_image, reader.rate(self.monotonic())
        if first is None or rate is None:
            return None
        line.frame_duration = max(round(1 / rate / line.time_base), 1)
        info = StreamInfo.of(first, line.time_base, rate, None)
        # What FFmpeg holds back no dropping mends: a camera of 5 frames a second would never be seen.
        self._bound = info.latency_bound = self.options.latency_bound + reader.held_back / float(rate)
        return info

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

    def _stuck(self) -> list[_Reader]:
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
                    self._reader = _Reader(self)
                    self._reader.start()
            if self._connection is before:
                return
            if not self._connection.reading and not actions:
                self._reader = None  # it has ended by itself
            change = self._connection.change(self.id, self.wall_clock())
            self._changed.notify_all()
        self._say(before, change)
        self._observe(change)

    def _abandon(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.abandon()
            self._discard()
            self._abandoned.append(reader)
            self._said_stuck = False

    def _discard(self) -> None:
        """Drop a frame that came in just before its connection went, and that has an index."""
        if self._iterating and self._newest is not None:
            self.counts.dropped["stopped"] += 1
        self._newest = None

    def _say(self, before: Connection, change: StateChange) -> None:
        """In the log only what is new: neither each of a thousand attempts that fail alike, nor a camera that flaps."""
        lost = change.state in {SourceState.STALLED, SourceState.BACKING_OFF}
        back = change.state is SourceState.STREAMING and before.seen
        if not lost and not back:
            return
        now = self.monotonic()
        known = now - self._said.get(change.reason, float("-inf")) < _SAY_AGAIN_SECONDS
        if lost and not known:
            if len(self._said) > _MOST_SAID:
                self._said.clear()
            self._said[change.reason] = now
            self._back_to_say = True
            log.warning("%s: %s; trying again", self.id, change.reason)
        elif back and self._back_to_say:
            self._back_to_say = False
            log.info("%s: back", self.id)

    # From the reader ------------------------------------------------------------------------------------------------
    def take(self, reader: _Reader, frame: Frame) -> bool:
        """A decoded frame from a reader; False when nobody wants it any more."""
        with self._changed:
            if reader is not self._reader or reader.abandoned:
                return False
            if self._iterating:
                frame.index = self._index
                self._index += 1
                if self.monotonic() - frame.arrived_at > self._bound:
                    self.counts.dropped["old"] += 1
                    self._changed.notify_all()
                    return True
                self.counts.dropped["superseded"] += self._newest is not None
            self._newest = frame
            self._changed.notify_all()
            return True

    def ended(self) -> None:
        """A reader has something to say or is gone."""
        with self._changed:
            self._changed.notify_all()


class _Abandoned(Exception):  # noqa: N818  # no error: nobody waits for this reader any more
    pass


class _Reader(threading.Thread):
    """One connection, from opening to closing, all in this thread.

    Attributes:
        frames: decoded and handed over.
        first_image: the first of them, as it was handed over.
        held_back: packets that FFmpeg holds back.
        over: how it ended; None while it runs.
        abandoned: whether nobody waits for it any more.
    """

    def __init__(self, source: LiveSource) -> None:
        super().__init__(name=f"read {source.id}", daemon=True)
        self._source, self._options = source, source.options
        self.began = source.monotonic()
        self.frames = self.held_back = 0
        self.first_image: av.VideoFrame | None = None
        self.over: Lost | Over | None = None
        self.abandoned = False
        self._wake = threading.Event()
        self._open = False
        self._packet_at = self._frame_at = self._first_at = self.began
        self._steps: deque[float] = deque(maxlen=60)
        self._announced: Fraction | None = None
        self._last_pts: float | None = None
        self._arrivals: dict[int | None, tuple[float, float]] = {}
        self._recent: deque[float] = deque()
        self._behind_since: float | None = None
        self._skipping = False
        self._pace = Pace() if source.input.paced else None
        self._finished = False

    def abandon(self) -> None:
        """Let it end when it can."""
        self.abandoned = True
        self._wake.set()

    # For the watch --------------------------------------------------------------------------------------------------
    def deadline(self) -> float:
        """When it counts as silent."""
        if not self._open:
            return self.began + self._options.open_timeout + _MARGIN
        undecodable = max(self._options.read_timeout, _UNDECODABLE_SECONDS)
        return min(self._packet_at + self._options.read_timeout + _MARGIN, self._frame_at + undecodable)

    def silence(self) -> Silent:
        """Why it counts as silent."""
        name = self._source.address
        if not self._open:
            return Silent("timeout", f"no answer from {name} within {self._options.open_timeout:g} s")
        if self._packet_at > self._frame_at + self._options.read_timeout:
            return Silent("damaged", f"{name} sends packets, but no picture can be decoded from them")
        return _silent(name, self._options.read_timeout)

    def rate(self, now: float) -> Fraction | None:
        """Frames a second, once there is something to tell it by."""
        if self.first_image is None:
            return None
        if self.frames < _RATE_FRAMES and now - self._first_at < _RATE_SECONDS and self.over is None:
            return None
        return nominal_rate(list(self._steps), self._announced)

    # The thread -----------------------------------------------------------------------------------------------------
    def run(self) -> None:
        source = self._source
        try:
            self._read()
            over: Lost | None = Lost("ended", f"{source.address} ended the stream")
        except _Abandoned:
            over = None
        except Exception as error:  # whatever it is, it is this connection's end and no more
            why = fault(error, source.input, self._options.read_timeout)
            if why.cause == "timeout" and self._open:
                why = Fault(*_fields(_silent(source.address, self._options.read_timeout)))
            if not isinstance(error, Fault | av.error.FFmpegError | OSError):
                log.exception("%s: reading failed", source.id)
            over = Lost(why.cause, why.reason)
        ends = over is not None and over.cause == "ended" and (self._finished or not source.input.reopens)
        self.over = Over() if ends else over
        source.ended()

    def _read(self) -> None:
        source = self._source
        with source.connect(source.input, self._options, lambda: self.abandoned) as container:
            if self.abandoned:
                return
            video = picture_track(container, source.input)
            # Of a playlist to which more is added no length is known. One that was played until nothing more came, and
            # has an end when it is looked at again, is over; a server that was away in between has no end.
            self._finished = source.input.paced and container.duration is not None
            if self._finished and source.played_out:
                return
            source.played_out = False
            self._configure(video)
            tracks = self._tracks(container, video)
            self.held_back = 0 if self._pace else held_back(container, video)
            clock = ArrivalClock(self.held_back)
            timed = has_clock(container)
            self._packet_at = self._frame_at = source.monotonic()
            self._open = True
            joined = False
            packets = container.demux(video, *(s for s in container.streams.audio if s.index in tracks))
            while True:
                before = source.monotonic()
                packet = next(packets, None)
                now = source.monotonic()
                if self.abandoned:
                    raise _Abandoned
                if packet is None or not packet.size:
                    source.played_out = source.input.paced
                    return  # what the decoder still holds is old
                if now - before >= self._options.read_timeout:
                    # An interrupted read hands out what FFmpeg's parser held back, and only the next one fails.
                    raise Fault(*_fields(_silent(source.address, self._options.read_timeout)))
                if packet.stream_index != video.index:
                    self._tap(packet, tracks, now, source.wall_clock())
                    continue
                self._packet_at = now
                if not joined:
                    if not (packet.is_keyframe or now - self._frame_at > _KEY_SECONDS):
                        continue
                    joined = True
                    self._join(packet, timed, now)
                self._decode(packet, tracks, clock, before, timed)

    def _configure(self, video: VideoStream) -> None:
        # A thread a frame would hold back as many frames as there are threads.
        video.thread_type = "SLICE"
        video.thread_count = max(self._source.decode_threads, 1)
        video.codec_context.flags |= Flags.low_delay
        announced = video.average_rate
        self._announced = announced if announced and 1 <= announced <= 240 else None

    def _tracks(self, container: InputContainer, video: VideoStream) -> dict[int, Track]:
        if self._source.on_packet is None:
            return {}
        sound = {s.index: Track.of(s) for s in container.streams.audio if s.codec_context is not None}
        return {video.index: Track.of(video), **sound}

    def _join(self, packet: Packet[Any], timed: bool, now: float) -> None:
        """A new connection goes on where the one before was lost, as much later as it was away."""
        source = self._source
        time_base = packet.time_base if timed else _NO_CLOCK_BASE
        pts = (packet.pts or 0) if timed else round(now / _NO_CLOCK_BASE)
        if timed and packet.pts is None:
            packet.pts = 0
        if source.line is None:
            longest = self._options.read_timeout + _LONGEST_PAUSE
            source.line = Timeline(time_base, round(Fraction(1, 25) / time_base), longest)
            if not timed:
                source.line.begin_at_zero(pts)
        elif source.last_frame_at is not None:
            source.line.join_clip(pts, time_base, max(now - source.last_frame_at, 1e-6))

    def _decode(
        self, packet: Packet[Any], tracks: dict[int, Track], clock: ArrivalClock, before: float, timed: bool
    ) -> None:
        source, now = self._source, self._packet_at
        seconds = None if packet.pts is None or not timed else float(packet.pts * packet.time_base)
        arrived = clock.arrived(seconds, before, now)
        captured = capture_time(packet, source.wall_clock() - (now - arrived))
        self._tap(packet, tracks, arrived, captured)
        if len(self._arrivals) > 64:
            self._arrivals.clear()
        self._arrivals[packet.pts] = arrived, captured
        self._catch_up(packet, now, arrived)
        try:
            images = packet.decode()
        except av.error.FFmpegError as error:
            source.counts.decode_errors += 1
            log.debug("%s: a packet does not decode: %s", source.id, error)
            return
        for image in images:
            self._hand_over(image, *self._arrivals.pop(image.pts, (arrived, captured)), timed)

    def _hand_over(self, image: av.VideoFrame, arrived: float, captured: float, timed: bool) -> None:
        source, line = self._source, self._source.line
        if line is None:
            raise RuntimeError("a frame before the first packet")
        time_base = (image.time_base or line.time_base) if timed else _NO_CLOCK_BASE
        pts = image.pts if timed else round(arrived / _NO_CLOCK_BASE)
        if pts is not None:
            seconds = float(pts * time_base)
            if self._last_pts is not None and 0 < seconds - self._last_pts < _LONGEST_PAUSE:
                self._steps.append(seconds - self._last_pts)
            self._last_pts = seconds
            if self._pace is not None:
                arrived, captured = self._keep_pace(self._pace, seconds)
        source.decoding.check(image)
        upright = source.normalize(image)
        if self.abandoned:
            raise _Abandoned
        placed = line.place(pts, time_base, image.duration if timed else 0)
        source.counts.resets = line.resets
        duration = round(image.duration * time_base / line.time_base) if timed else 0
        frame = Frame(source.id, 0, placed, line.time_base, captured, arrived, upright, duration)
        now = source.monotonic()
        if not self.frames:
            self.first_image, self._first_at = upright, now
        self.frames += 1
        self._frame_at = source.last_frame_at = now
        if not source.take(self, frame):
            raise _Abandoned
        self._watch_rate(now)

    def _keep_pace(self, pace: Pace, pts: float) -> tuple[float, float]:
        """Wait until a frame is due; when it arrived and was captured, as far as that can be known."""
        source = self._source
        now = source.monotonic()
        due = pace.due(pts, now)
        if due > now and self._wake.wait(due - now):
            raise _Abandoned
        return min(due, source.monotonic()), source.wall_clock()

    def _watch_rate(self, now: float) -> None:
        """Notice a demuxer that has lost its place and hands out frames without end."""
        self._recent.append(now)
        while self._recent[0] < now - _RUNAWAY_SPAN:
            self._recent.popleft()
        usual = float(self._announced or nominal_rate(list(self._steps), None))
        most = max(_RUNAWAY_RATE, _RUNAWAY_FACTOR * min(usual, 240)) * _RUNAWAY_SPAN
        if len(self._recent) > most and self._source.input.reopens:
            raise Fault("runaway", f"{self._source.address} sends over {most / _RUNAWAY_SPAN:.0f} pictures a second")

    def _catch_up(self, packet: Packet[Any], now: float, arrived: float) -> None:
        """Where decoding itself is too slow, skip to a key frame rather than fall behind further and further."""
        if now - arrived <= _BEHIND:
            self._behind_since = None
            if self._skipping and packet.is_keyframe:
                self._skipping = False
                packet.stream.codec_context.skip_frame = "DEFAULT"
            return
        self._behind_since = self._behind_since or now
        if not self._skipping and now - self._behind_since > _BEHIND_SECONDS:
            self._skipping = True
            packet.stream.codec_context.skip_frame = "NONKEY"
            log.warning("%s: decoding is too slow; skipping to the next key frame", self._source.id)

    def _tap(self, packet: Packet[Any], tracks: dict[int, Track], arrived: float, captured: float) -> None:
        tap, track, line = self._source.on_packet, tracks.get(packet.stream_index), self._source.line
        if tap is None or track is None or line is None or packet.pts is None:
            return
        pts = line.place_packet(packet.pts, packet.time_base)
        dts = None if packet.dts is None else packet.dts + pts - packet.pts
        tap(
            CompressedPacket(
                track, bytes(packet), pts, dts, packet.duration or 0, packet.is_keyframe, arrived, captured
            )
        )


def capture_time(packet: Packet[Any], read_at: float) -> float:
    """Wall clock of a packet's capture, Unix seconds: the camera's, which FFmpeg makes of RTCP sender reports (RFC
    3550, 6.4.1) and hands out as producer reference time; else `read_at`, also where the camera's clock is more than
    `_CLOCK_ERROR` away from ours.
    """
    if packet.has_sidedata("prft"):
        microseconds, _flags = struct.unpack_from("<qi", bytes(packet.get_sidedata("prft")))
        if abs(microseconds / 1e6 - read_at) < _CLOCK_ERROR:
            return float(microseconds / 1e6)
    return read_at


_CLOCK_ERROR = 60.0


def nominal_rate(steps: list[float], announced: Fraction | None) -> Fraction:
    """Frames a second for display and key-frame distance.

    Args:
        steps: seconds between pictures by their timestamps.
        announced: what the source says, or None.

    >>> nominal_rate([0.0333, 0.0334, 0.0333, 0.0666], None), nominal_rate([0.0398, 0.0402, 0.04], Fraction(25))
    (Fraction(30, 1), Fraction(25, 1))
    >>> nominal_rate([], None), nominal_rate([0.08], Fraction(25)), nominal_rate([0.001, 0.001], None)
    (Fraction(25, 1), Fraction(25, 2), Fraction(25, 1))
    """
    measured = 1 / max(statistics.median(steps), 1 / 1000) if steps else 0.0
    if announced is not None and (not steps or abs(measured / float(announced) - 1) < _SAME_RATE):
        return announced
    near = min(_USUAL_RATES, key=lambda usual: abs(measured / float(usual) - 1))
    if abs(measured / float(near) - 1) < _SAME_RATE:
        return near
    # Pictures in a bunch, as at the start of a connection, say nothing.
    return Fraction(measured).limit_denominator(100) if 0.1 <= measured <= 240 else announced or Fraction(25)


_SAME_RATE = 0.1
_USUAL_RATES = tuple(Fraction(r) / 2 for r in (2, 4, 6, 8, 10, 12, 15, 16, 20, 24, 25, 30, 40, 50, 60, 100, 120, 240))


def _silent(name: str, seconds: float) -> Silent:
    return Silent("silent", f"nothing has come from {name} for {seconds:g} s, though the connection is open")


def _fields(silent: Silent) -> tuple[str, str]:
    return silent.cause, silent.reason
