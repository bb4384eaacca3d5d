"""Pre-event ring: the last seconds of a camera's own compressed pictures, written out when something has happened.

Nothing is decoded or encoded: the packets that the reading thread sees are kept from a key frame on, and a clip is
those plus some seconds after the event, in MP4. They are the camera's pictures: without overlay, and with faces.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import av
import msgspec
from av.packet import Packet

from engines.errors import OutputError
from pipeline.frame import Analysis
from pipeline.output_state import OutputChange, OutputObserver, OutputState
from pipeline.queued_output import explained
from pipeline.tap import CompressedPacket, Track
from pipeline.video_writer import partial_name

log = logging.getLogger(__name__)

_LATE = 1.0
"""Seconds behind its end by which a clip is written even where nothing more has come from the camera, which may be
what the event has destroyed; and how often that is looked for."""


class EventRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a clip is saved by itself.

    Attributes:
        class_name: of the segmenter; `class` in YAML.
        area: share of the picture that it must cover, 0 to 1.
    """

    class_name: str = msgspec.field(name="class")
    area: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.02


class EventOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pre-event ring of live streams.

    Attributes:
        folder: each stream has a folder of its own in it, its clips named by the UTC time they begin at.
        before: seconds kept; a clip begins with the key frame before them.
        after: seconds that follow the event.
        max_megabytes: most memory of a stream's ring, in 10⁶ bytes; a clip that outgrows it is cut short.
        save_when: saves a clip whenever a class comes to cover a share of the picture; null for on demand only.
    """

    folder: Path
    before: Annotated[float, msgspec.Meta(gt=0, le=600)] = 10.0
    after: Annotated[float, msgspec.Meta(ge=0, le=600)] = 5.0
    max_megabytes: Annotated[float, msgspec.Meta(gt=0)] = 64.0
    save_when: EventRule | None = None


@dataclass(eq=False)
class EventClip:
    """A clip being saved.

    Attributes:
        path: where it will be.
        reason: what happened.
        done: set when it is there, or cannot be.
        error: why it could not be written; empty otherwise. Valid once `done` is set.
    """

    path: Path
    reason: str
    done: threading.Event = field(default_factory=threading.Event)
    error: str = ""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is there; False when it is not within `timeout` seconds, or could not be written."""
        return self.done.wait(timeout) and not self.error


class EventRing:
    """Keeps the newest packets of one live stream and writes them out on demand.

    Args:
        stream: its id.
        options: how much is kept, and where clips go.
        observe: told when a clip cannot be written.
        wall_clock: Unix time in seconds.

    Example:
        >>> source.on_packet = ring.packet  # doctest: +SKIP
        >>> clip = ring.save("hard braking")  # doctest: +SKIP
        >>> clip.wait(30), clip.path  # doctest: +SKIP

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(
        self,
        stream: str,
        options: EventOptions,
        observe: OutputObserver = lambda _change: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.stream, self.options = stream, options
        self.folder = options.folder / stream
        self._observe, self._wall = observe, wall_clock
        self._lock = threading.Lock()
        self._ring: deque[CompressedPacket] = deque()
        self._bytes = 0
        self._saving: EventClip | None = None
        self._until = self._overdue = 0.0
        self._jobs: queue.SimpleQueue[tuple[EventClip, list[CompressedPacket]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._covered = self._closed = False
        with explained("clips of events", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    # What comes in --------------------------------------------------------------------------------------------------
    def packet(self, packet: CompressedPacket) -> None:
        """Keep a packet; from the reading thread, never waits. A `PacketTap`."""
        with self._lock:
            if not self._ring and not _begins(packet):
                return
            self._ring.append(packet)
            self._bytes += len(packet.data)
            full = self._bytes > self.options.max_megabytes * 1e6
            if self._saving is not None:
                if packet.arrived_at < self._until and not full:
                    return
                self._hand_over()
            self._forget(packet.arrived_at - self.options.before, full)

    def _forget(self, before: float, full: bool) -> None:
        """Let go of what no clip needs: whole groups of pictures, while the next one begins early enough."""
        while True:
            following = next((i for i, p in enumerate(self._ring) if i and _begins(p)), None)
            if following is None:
                if full:  # one group of pictures larger than all the memory there is: wait for the next
                    self._ring.clear()
                    self._bytes = 0
                return
            if self._ring[following].arrived_at > before and not full:
                return
            for _ in range(following):
                self._bytes -= len(self._ring.popleft().data)
            full = self._bytes > self.options.max_megabytes * 1e6

    def consume(self, analysis: Analysis) -> None:
        """Save a clip when the rule's class has come to cover its share of the picture, once until it has gone."""
        rule = self.options.save_when
        if rule is None or not analysis.models:
            return
        share = analysis.area.get(rule.class_name, 0.0)
        if share >= rule.area and not self._covered:
            self._covered = True
            try:
                self.save(rule.class_name)
            except OutputError as error:
                log.warning("%s", error)
        elif share < rule.area / 2:
            self._covered = False

    # Saving ---------------------------------------------------------------------------------------------------------
    def save(self, reason: str = "event") -> EventClip:
        """Write what is kept and what comes in the next `after` seconds, where anything comes.

        While a clip is being saved it is prolonged instead, so that events close together share one.

        Args:
            reason: what happened; it becomes part of the name and stands in the file.

        Raises:
            OutputError: nothing has come from the camera yet, or the ring has been closed.
        """
        with self._lock:
            if self._closed:
                raise OutputError(f"stream {self.stream!r} is gone; save a clip while it is there")
            if not self._ring:
                raise OutputError(f"stream {self.stream!r} has no pictures yet; save a clip when its camera is there")
            self._until = self._ring[-1].arrived_at + self.options.after
            self._overdue = time.monotonic() + self.options.after + _LATE
            if self._saving is None:
                self._saving = EventClip(self.folder / self._name(self._ring[0].captured_at, reason), reason)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._write_all, name=f"events {self.stream}", daemon=True)
                    self._thread.start()
            return self._saving

    def _name(self, at: float, reason: str) -> str:
        moment = datetime.fromtimestamp(at, UTC)
        what = re.sub(r"[^A-Za-z0-9_-]+", "-", reason).strip("-")[:40] or "event"
        return f"{self.stream}_{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z_{what}.mp4"

    def _hand_over(self) -> None:
        """Give the clip being saved to the thread that writes; the lock is held."""
        if self._saving is not None:
            self._jobs.put((self._saving, list(self._ring)))
            self._saving = None

    def finish(self) -> None:
        """The stream has come to its end: so has the clip being saved. What is kept can still be."""
        with self._lock:
            self._hand_over()

    def close(self) -> None:
        """Write the clip being saved as far as it has come. Twice is allowed."""
        with self._lock:
            self._closed = True
            self._hand_over()
            thread = self._thread
        if thread is not None:
            self._jobs.put(None)
            thread.join(3.0)

    # The thread -----------------------------------------------------------------------------------------------------
    def _write_all(self) -> None:
        while (job := self._next_job()) is not None:
            clip, packets = job
            try:
                write_packets(clip.path, packets, clip.reason)
                log.info("%s: saved %s", self.stream, clip.path)
            except (OSError, ValueError) as error:
                clip.error = f"{clip.path} cannot be written: {getattr(error, 'strerror', None) or error}"
                partial_name(clip.path).unlink(missing_ok=True)
                log.warning("%s: %s", self.stream, clip.error)
                self._observe(OutputChange(self.stream, "events", OutputState.PAUSED, clip.error, self._wall()))
            clip.done.set()

    def _next_job(self) -> tuple[EventClip, list[CompressedPacket]] | None:
        """The next clip to write, also one whose camera has gone silent; None at the end."""
        while True:
            try:
                return self._jobs.get(timeout=_LATE)
            except queue.Empty:
                with self._lock:
                    if time.monotonic() > self._overdue:
                        self._hand_over()


def _begins(packet: CompressedPacket) -> bool:
    return packet.track.kind == "video" and packet.is_keyframe


def write_packets(path: Path, packets: Sequence[CompressedPacket], comment: str = "") -> None:
    """Write packets as MP4, as they are; the file gets its name when it is whole.

    A camera that came back with other pictures (codec or size) does not fit into one file: the clip then begins with
    those that came last, which are those of the event. Sound that MP4 cannot hold is left out.

    Args:
        path: `.mp4`.
        packets: in the order of decoding, from a key frame of the video on, on one timeline.
        comment: stands in the file's metadata.

    Raises:
        OSError: the disk is full, or the packets make no video.
    """
    chosen = _of_one_shape(packets)
    partial = partial_name(path)
    with av.open(str(partial), "w", format="mp4", options={"movflags": "faststart"}) as container:
        container.metadata["comment"] = comment
        tracks: dict[str, tuple[Track, Any]] = {}
        for packet in chosen:
            track = packet.track
            if track.kind not in tracks and track.template.codec_context.name in container.supported_codecs:
                tracks[track.kind] = track, container.add_stream_from_template(track.template, opaque=True)
        own = {kind: [p for p in chosen if _shape(p.track) == _shape(track)] for kind, (track, _) in tracks.items()}
        decoded_at = {kind: iter(decoding_times(each)) for kind, each in own.items()}
        taken = {id(p) for each in own.values() for p in each}
        start = min(p.pts * p.track.time_base for p in chosen)
        for packet in chosen:
            if id(packet) not in taken:
                continue
            track, stream = tracks[packet.track.kind]
            shift, dts = round(start / track.time_base), next(decoded_at[track.kind])
            copied: Packet[Any] = Packet(packet.data)
            copied.pts, copied.dts, copied.duration = max(packet.pts, dts) - shift, dts - shift, packet.duration
            copied.time_base, copied.is_keyframe, copied.stream = track.time_base, packet.is_keyframe, stream
            container.mux([copied])
    partial.replace(path)


def _shape(track: Track) -> tuple[object, ...]:
    """What packets that stand in one track of a file have in common; a reconnect makes new tracks of the same shape."""
    extradata = bytes(track.template.codec_context.extradata or b"")
    return track.kind, track.codec, track.width, track.height, track.time_base, extradata


def _of_one_shape(packets: Sequence[CompressedPacket]) -> list[CompressedPacket]:
    """The packets from the first key frame on behind which the video does not change its shape.

    Raises:
        ValueError: there is no such key frame.
    """
    shapes: dict[int, tuple[object, ...]] = {}
    last: tuple[object, ...] | None = None
    first = len(packets)
    for index in range(len(packets) - 1, -1, -1):
        packet = packets[index]
        if packet.track.kind != "video":
            continue
        shape = shapes.setdefault(id(packet.track), _shape(packet.track))
        last = last or shape
        if shape != last:
            break
        if packet.is_keyframe:
            first = index
    if first == len(packets):
        raise ValueError("no key frame has come from the camera")
    return list(packets[first:])


def decoding_times(packets: Sequence[CompressedPacket]) -> list[int]:
    """When each packet of a track is decoded, in units of its time base: rising, and never later than it is shown.

    The source's own where it says so. Else (RTP gives none) the presentation times in rising order, set back by as many
    pictures as are reordered.
    """
    given = [p.dts for p in packets]
    known = [d for d in given if d is not None]
    if len(known) == len(given) and all(a < b for a, b in pairwise(known)):
        return known
    shown = [p.pts for p in packets]
    rising = sorted(shown)
    depth = 0
    while any(rising[i - depth] > shown[i] for i in range(depth, len(shown))):
        depth += 1
    step = max(1, (rising[-1] - rising[0]) // max(1, len(rising) - 1))
    times = [rising[0] - (depth - i) * step for i in range(depth)] + rising[: len(rising) - depth]
    for i in range(1, len(times)):
        times[i] = max(times[i], times[i - 1] + 1)
    return times
