"""One connection to a camera, from opening to closing: read, decode, place on the timeline, hand over.

    packet ─► arrival clock ─► tap ─► decoder ─► timeline ─► `take`

It knows the camera as two values, and the watch over it (`pipeline.sources.live.camera`) as two callbacks. Everything
that a connection learns is gone with it, apart from what `Lasting` keeps.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.error
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from engines.containers import exact
from pipeline.contracts import SourceCounts
from pipeline.frame import Frame
from pipeline.packets import PacketTap, Track
from pipeline.sources.clocks import Allowance, ArrivalClock
from pipeline.sources.decoding import Decoding
from pipeline.sources.live.address import (
    PLAYLIST_SECONDS,
    LiveInput,
    LiveOptions,
    as_playlist,
    has_clock,
    held_back,
    picture_track,
)
from pipeline.sources.live.books import Books, Coded
from pipeline.sources.live.connection import Lost, Over, Silent
from pipeline.sources.live.faults import Fault, fault, mistake
from pipeline.sources.live.playlist import PLAYLISTS, Known, PlaylistPace
from pipeline.sources.live.rates import Runaway, nominal_rate
from pipeline.sources.live.readahead import Read, dated
from pipeline.sources.live.showing import show
from pipeline.sources.live.stamps import ClockSteps, capture_time
from pipeline.sources.normalizer import Normalizer
from pipeline.sources.reordering import DecodeOrder
from pipeline.sources.timeline import Timeline

log = logging.getLogger(__name__)

OpenInput = Callable[[LiveInput, LiveOptions, Callable[[], bool]], InputContainer]
"""Opens an input; asked a few times a second, its last argument says whether nobody waits for it any more."""

_MARGIN = 0.25
"""Seconds after a timeout of FFmpeg's at which the watchdog takes over, because FFmpeg gives the better reason."""

_UNDECODABLE_SECONDS = 30.0
"""Packets without a picture: a camera may send key frames that rarely, but not more so."""

_KEY_SECONDS = 2.0
"""How long packets are skipped for a key frame; streams with gradual refresh have none."""

_RATE_FRAMES, _RATE_SECONDS = 6, 0.7
"""Frames, or seconds after the first, from which the rate is estimated."""

_BEHIND, _BEHIND_SECONDS = 1.0, 2.0
"""Seconds that the decoder may be late beyond what is allowed, and for how long, before it skips to a key frame."""

_WAITS = 0.01
"""Seconds of a read in which nothing was left over to be read."""

_LONGEST_PAUSE = 1.0
"""Seconds beyond the read timeout that timestamps may jump ahead before they count as a clock that was set."""

_SLOWEST = 10.0
"""Seconds between pictures from which they say nothing of a rate."""

_NO_CLOCK_BASE = Fraction(1, 90_000)


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What is fixed of a camera.

    Attributes:
        id: id of the stream.
        input: what FFmpeg opens.
        options: how it is read.
        decode_threads: of FFmpeg's decoder.
        decoding: which decoder.
        connect: opens the input.
        wall_clock: Unix time in seconds.
        monotonic: monotonic clock in seconds.
    """

    id: str
    input: LiveInput
    options: LiveOptions
    decode_threads: int
    decoding: Decoding
    connect: OpenInput
    wall_clock: Callable[[], float]
    monotonic: Callable[[], float]

    @property
    def address(self) -> str:
        """The address for people: without credentials."""
        return self.input.name


@dataclass(slots=True, eq=False)
class Lasting:
    """What outlives one connection.

    Attributes:
        normalize: makes every picture of the size of the first.
        on_packet: told every compressed packet; None for nobody.
        counts: what happened while reading.
        line: the timeline that all connections share; None before the first packet.
        last_frame_at: monotonic time of the last frame, seconds.
        played_out: whether the last connection came to the end of a playlist.
        mistakes: failures of roadlens itself that stand in the log.
        known: the packets of a playlist that were read.
    """

    normalize: Normalizer
    on_packet: PacketTap | None = None
    counts: SourceCounts = field(default_factory=SourceCounts)
    line: Timeline | None = None
    last_frame_at: float | None = None
    played_out: bool = False
    mistakes: set[str] = field(default_factory=set)
    known: Known = field(default_factory=Known)


class _Abandoned(Exception):  # noqa: N818  # no error: nobody waits for this reader any more
    pass


class Reader(threading.Thread):
    """One connection, from opening to closing, all in this thread.

    Args:
        setup: the camera.
        lasting: what the connection before left, and what this one leaves to the next.
        take: called with each frame; False ends the reader, because nobody wants its frames any more.
        changed: called when the reader has something to say or is gone.

    Attributes:
        frames: decoded and handed over.
        first_image: the first of them, as it was handed over.
        held_back: packets that FFmpeg holds back.
        over: how it ended; None while it runs.
        abandoned: whether nobody waits for it any more.
    """

    def __init__(
        self,
        setup: Setup,
        lasting: Lasting,
        take: Callable[[Reader, Frame], bool],
        changed: Callable[[], None],
    ) -> None:
        super().__init__(name=f"read {setup.id}", daemon=True)
        self._setup, self._lasting, self._options = setup, lasting, setup.options
        self._take, self._changed = take, changed
        self.began = setup.monotonic()
        self.frames = self.held_back = 0
        self.first_image: av.VideoFrame | None = None
        self.over: Lost | Over | None = None
        self.abandoned = False
        self._wake = threading.Event()
        self._open = False
        self._packet_at = self._frame_at = self._first_at = self.began
        self._ahead = self._placed_at = 0.0
        self._steps: deque[float] = deque(maxlen=60)
        self._announced: Fraction | None = None
        self._last_pts: float | None = None
        self._books, self._runaway = Books(lasting.counts), Runaway()
        self._behind_since: float | None = None
        self._skipping = False
        self._pace: PlaylistPace | None = None
        self._patience = self._options.read_timeout
        self._finished = False
        self._order, self._allowance, self._stamps = DecodeOrder(), Allowance(), ClockSteps()

    def abandon(self) -> None:
        """Let it end when it can."""
        self.abandoned = True
        self._wake.set()

    # For the watch --------------------------------------------------------------------------------------------------
    def deadline(self) -> float:
        """When it counts as silent."""
        if not self._open:
            return self.began + self._options.open_timeout + _MARGIN
        undecodable = max(self._patience, _UNDECODABLE_SECONDS)
        return min(self._packet_at + self._patience + _MARGIN, self._frame_at + undecodable)

    def silence(self) -> Silent:
        """Why it counts as silent."""
        name = self._setup.address
        if not self._open:
            return Silent("timeout", f"no answer from {name} within {self._options.open_timeout:g} s")
        if self._packet_at > self._frame_at + self._options.read_timeout:
            return Silent("damaged", f"{name} sends packets, but no picture can be decoded from them")
        return _silent(name, self._options.read_timeout)

    @property
    def allowed(self) -> float:
        """Seconds that a frame is old when it is handed over, though nothing is late."""
        return 0.0 if self._pace else self._allowance.seconds

    def rate(self, now: float) -> Fraction | None:
        """Frames a second, once there is something to tell it by."""
        few = self.frames < _RATE_FRAMES and now - self._first_at < _RATE_SECONDS and self.over is None
        return None if self.first_image is None or few else nominal_rate(list(self._steps), self._announced)

    # The thread -----------------------------------------------------------------------------------------------------
    def run(self) -> None:
        setup = self._setup
        try:
            self._read()
            over: Lost | None = Lost("ended", f"{setup.address} ended the stream")
            if self._pace is not None and not self._finished:
                over = Lost("silent", f"no pictures are added to the playlist {setup.address}")
        except _Abandoned:
            over = None
        except (Fault, av.error.FFmpegError, OSError) as error:
            why = fault(error, setup.input.url, setup.address, self._options.read_timeout)
            if why.cause == "timeout" and self._open:
                why = Fault(*_fields(_silent(setup.address, self._options.read_timeout)))
            if getattr(error, "errno", None) == errno.EIO and self._open and "://" in setup.input.url:
                why = Fault("ended", f"{setup.address} closed the connection")  # FFmpeg's way to say so
            over = Lost(why.cause, why.reason)
        except Exception as error:  # whatever it is, it is this connection's end and no more
            why, new = mistake(error, setup.address, self._lasting.mistakes)
            over = Lost(why.cause, why.reason)
            if new:
                log.exception("%s: reading failed", setup.id)
        ends = over is not None and over.cause == "ended" and (self._finished or not setup.input.reopens)
        self.over = Over() if ends else over
        self._changed()

    def _read(self) -> None:
        setup, lasting = self._setup, self._lasting
        with _connected(setup, lambda: self.abandoned) as container:
            if self.abandoned:
                return
            if container.format.name in PLAYLISTS:
                self._pace = PlaylistPace(setup.id, setup.address, setup.monotonic, self._wake)
                self._patience = max(PLAYLIST_SECONDS, self._options.read_timeout)
                lasting.known.connected()
            video = picture_track(container, setup.input)
            # Of a playlist to which more is added no length is known. One that was played until nothing more came, and
            # has an end when it is looked at again, is over; a server that was away in between has no end.
            self._finished = self._pace is not None and container.duration is not None
            if self._finished and lasting.played_out:
                return
            lasting.played_out = False
            self._configure(video)
            tracks = {} if lasting.on_packet is None else _tracks(container, video)
            self.held_back = 0 if self._pace else held_back(container, video)
            clock, self._allowance = ArrivalClock(self.held_back), Allowance(self.held_back)
            timed = has_clock(container)
            self._packet_at = self._frame_at = setup.monotonic()
            self._open = True
            joined = False
            reads = self._reads(container.demux(video, *(s for s in container.streams.audio if s.index in tracks)))
            if timed and not self._pace and setup.input.reopens:  # a pipe may carry a file, as fast as it is taken
                reads = dated(reads, video.index)
            with self._booked(video):
                for read in reads:
                    packet = read.packet
                    if packet.stream_index != video.index:
                        show(lasting.on_packet, lasting.line, packet, tracks, read.now, setup.wall_clock())
                        continue
                    self._packet_at = setup.monotonic()
                    if self._pace is not None and lasting.known.again(packet, read.now - read.before):
                        self._books.skipped("again")
                        continue
                    if not joined:
                        if not (packet.is_keyframe or self._packet_at - self._frame_at > _KEY_SECONDS):
                            self._books.skipped("start")
                            continue
                        joined = True
                        self._join(packet, timed, read.now)
                    self._decode(read, tracks, clock, timed)

    @contextmanager
    def _booked(self, video: VideoStream) -> Iterator[None]:
        """At the end, count what the decoder still holds: it is old."""
        try:
            yield
        finally:
            kept = 0
            with suppress(av.error.FFmpegError):
                kept = len(video.codec_context.decode(None))
            self._books.close(kept)

    def _reads(self, packets: Iterator[Packet[Any]]) -> Iterator[Read]:
        """The packets, and when each of them was read."""
        setup, late = self._setup, 0
        while True:
            before = setup.monotonic()
            packet = next(packets, None)
            now = setup.monotonic()
            if self.abandoned:
                raise _Abandoned
            if packet is None or not packet.size:
                self._lasting.played_out = self._pace is not None
                return
            self._packet_at = now
            yield Read(packet, before, now)
            late += late > 0 or now - before >= self._patience
            if late and late >= self.held_back:
                # An interrupted read hands out what FFmpeg held back; one that is begun afterwards waits again.
                raise Fault(*_fields(_silent(setup.address, self._patience)))

    def _configure(self, video: VideoStream) -> None:
        # A thread a frame would hold back as many frames as there are threads.
        video.thread_type, video.thread_count = "SLICE", max(self._setup.decode_threads, 1)
        video.codec_context.flags |= Flags.low_delay
        announced = exact(video.average_rate, Fraction(0))
        self._announced = announced if 1 <= announced <= 240 else None

    def _join(self, packet: Packet[Any], timed: bool, now: float) -> None:
        """A new connection goes on where the one before was lost, as much later as it was away."""
        lasting = self._lasting
        time_base = exact(packet.time_base, _NO_CLOCK_BASE) if timed else _NO_CLOCK_BASE
        pts = (packet.pts or 0) if timed else round(now / _NO_CLOCK_BASE)
        if timed and packet.pts is None:
            packet.pts = 0
        if lasting.line is None:
            longest = self._options.read_timeout + _LONGEST_PAUSE
            lasting.line = Timeline(time_base, round(Fraction(1, 25) / time_base), longest)
            if not timed:
                lasting.line.begin_at_zero(pts)
        elif lasting.last_frame_at is not None:
            lasting.line.join_clip(pts, time_base, max(now - lasting.last_frame_at, 1e-6))

    def _decode(self, read: Read, tracks: dict[int, Track], clock: ArrivalClock, timed: bool) -> None:
        setup, packet, now = self._setup, read.packet, self._packet_at
        if self._pace is not None:
            self._pace.waited += read.now - read.before
        seconds = None if packet.pts is None or not timed else float(packet.pts * packet.time_base)
        arrived = now if self._pace else self._arrival(seconds, clock, read)
        self._allowance.packet(arrived)
        coded = Coded(packet.pts, arrived, capture_time(packet, setup.wall_clock() - (now - arrived)))
        show(self._lasting.on_packet, self._lasting.line, packet, tracks, arrived, coded.captured)
        late = now - arrived if self._pace is None or seconds is None else self._pace.late(seconds, now)
        if self._skips(read, late):
            self._books.skipped("behind")
            return
        self._books.put(coded)
        try:
            images = packet.decode()
        except av.error.FFmpegError as error:
            self._books.failed()
            log.debug("%s: a packet does not decode: %s", setup.id, error)
            return
        for image in images:
            coded = self._books.frame(image.pts) or coded
            try:
                self._hand_over(image, coded, timed)
            except _Abandoned:
                self._books.untaken()
                raise

    def _arrival(self, seconds: float | None, clock: ArrivalClock, read: Read) -> float:
        """When a packet reached this machine, by its presentation time."""
        time, begins = (None, False) if seconds is None else self._order.place(seconds)
        if begins:
            clock.restart()
        return clock.arrived(time, read.before, read.now)

    def _hand_over(self, image: av.VideoFrame, coded: Coded, timed: bool) -> None:
        setup, lasting, line = self._setup, self._lasting, self._lasting.line
        arrived, captured = coded.arrived, coded.captured
        if line is None:
            raise RuntimeError("a frame before the first packet")
        time_base = (image.time_base or line.time_base) if timed else _NO_CLOCK_BASE
        pts = image.pts if timed else round(arrived / _NO_CLOCK_BASE)
        self._allowance.frame(arrived)
        if pts is not None:
            seconds = float(pts * time_base)
            if timed and self._pace is None:
                seconds, stepped = self._stamps.believed(seconds, arrived, self._allowance.seconds)
                if stepped:  # the line goes on as time has passed since the first picture
                    line.join_clip(pts, time_base, max(self._ahead + arrived - self._placed_at, 1e-6))
                    line.resets += 1
                elif abs(seconds - pts * time_base) > 1e-3:
                    pts = round(seconds / time_base)
            if self._last_pts is not None and 0 < seconds - self._last_pts < _SLOWEST:
                self._steps.append(seconds - self._last_pts)
            self._last_pts = seconds
            if self._pace is not None:
                arrived, captured = self._pace.wait(seconds), setup.wall_clock()
                if self._pace.jump:  # the line goes on, as much later as time has passed
                    line.join_clip(pts, time_base, max(setup.monotonic() - self._frame_at, 1e-6))
                    line.resets += 1
        setup.decoding.check(image)
        upright = lasting.normalize(image)
        if self.abandoned:
            raise _Abandoned
        placed = line.place(pts, time_base, image.duration if timed else 0)
        lasting.counts.resets = line.resets
        self._placed_at = float(placed * line.time_base)
        if not self.frames:
            self._ahead = self._placed_at - arrived
        duration = round(image.duration * time_base / line.time_base) if timed else 0
        frame = Frame(setup.id, 0, placed, line.time_base, captured, arrived, upright, duration)
        now = setup.monotonic()
        if not self.frames:
            self.first_image, self._first_at = upright, now
        self.frames += 1
        self._frame_at = lasting.last_frame_at = now
        if not self._take(self, frame):
            raise _Abandoned
        usual = float(self._announced or nominal_rate(list(self._steps), None))
        if (most := self._runaway.saw(now, usual)) and setup.input.reopens:
            raise Fault("runaway", f"{setup.address} sends over {most:.0f} pictures a second")

    def _skips(self, read: Read, age: float) -> bool:
        """Where decoding itself is too slow, skip to a key frame rather than fall behind further and further. A reader
        that has to wait for what is late is not slow.
        """
        waits, key = read.now - read.before > _WAITS, read.packet.is_keyframe
        if age <= _BEHIND + self._allowance.held or waits:
            self._behind_since = None
            self._skipping = self._skipping and not key
        else:
            self._behind_since = self._behind_since or self._packet_at
            if not self._skipping and self._packet_at - self._behind_since > _BEHIND_SECONDS:
                self._skipping = True
                log.warning("%s: decoding is too slow; skipping to the next key frame", self._setup.id)
        return self._skipping and not key


def _silent(name: str, seconds: float) -> Silent:
    return Silent("silent", f"nothing has come from {name} for {seconds:g} s, though the connection is open")


def _fields(silent: Silent) -> tuple[str, str]:
    return silent.cause, silent.reason


def _connected(setup: Setup, abandoned: Callable[[], bool]) -> InputContainer:
    """The input, open; a playlist as one, however its address is spelt."""
    container = setup.connect(setup.input, setup.options, abandoned)
    if container.format.name not in PLAYLISTS or setup.input.playlist:
        return container
    container.close()
    return setup.connect(as_playlist(setup.input), setup.options, abandoned)


def _tracks(container: InputContainer, video: VideoStream) -> dict[int, Track]:
    """What whoever is shown the packets gets, by index."""
    sound = {s.index: Track.of(s) for s in container.streams.audio if s.codec_context is not None}
    return {video.index: Track.of(video), **sound}
