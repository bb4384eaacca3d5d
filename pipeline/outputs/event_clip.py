"""Pre-event ring: the last seconds of a camera's own compressed pictures, written out when something has happened.

No picture is decoded or encoded: the packets that the reading thread sees are kept from a key frame on, and a clip is
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
from pathlib import Path
from typing import Annotated

import av.error
import msgspec

from engines.containers import in_words
from engines.errors import OutputError
from pipeline.analysis.ahead.happenings import Event, Happening, finding_of
from pipeline.files import partial_name
from pipeline.frame import Analysis
from pipeline.outputs.live.destination import explained
from pipeline.outputs.naming import TimedNames, times_of
from pipeline.outputs.remux import Remuxed, write_packets
from pipeline.packets import CompressedPacket
from pipeline.state import OutputChange, OutputObserver, OutputState

log = logging.getLogger(__name__)

_LATE = 1.0
"""Seconds behind its end by which a clip is written even where nothing more has come from the camera, which may be
what the event has destroyed; and how often that is looked for."""


class EventRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a clip is saved by itself: when a class comes to cover a share of the picture, or when an event begins.

    Attributes:
        class_name: of the segmenter; `class` in YAML.
        area: share of the picture that it must cover, 0 to 1.
        events: which events on the road ahead, such as `[approach, cut_in]`; they need the key `ahead`.
        confidence: least confidence of an event, 0 to 1.
    """

    class_name: str | None = msgspec.field(name="class", default=None)
    area: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.02
    events: tuple[Happening, ...] = ()
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


class EventClipOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pre-event ring of live streams.

    Attributes:
        folder: each stream has a folder of its own in it, its clips named by the UTC time they begin at, this machine's
            clock's; when the camera says that the first picture was captured is in the file's `description`.
        before: seconds kept; a clip begins with the key frame before them.
        after: seconds that follow the event.
        max_megabytes: most memory of a stream's ring, in 10⁶ bytes; a clip that outgrows it is cut short.
        save_when: saves a clip whenever a class comes to cover a share of the picture, or an event begins; null for on
            demand only.
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
        tags: what stands in its file.
        done: set when it is there, or cannot be.
        error: why it could not be written; empty otherwise. Valid once `done` is set.
        holds: what was written and what left out; None where it could not be written. Valid once `done` is set.
    """

    path: Path
    reason: str
    tags: dict[str, str] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)
    error: str = ""
    holds: Remuxed | None = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is there; False when it is not within `timeout` seconds, or could not be written."""
        return self.done.wait(timeout) and not self.error


class EventRing:
    """Keeps the newest packets of one live stream and writes them out on demand.

    Args:
        stream: its id.
        options: how much is kept, and where clips go.
        observe: told when a clip cannot be written.
        dropped: told how many packets were left out of a clip, and why.
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
        options: EventClipOptions,
        observe: OutputObserver = lambda _change: None,
        dropped: Callable[[int, str], None] = lambda _count, _reason: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.stream, self.options = stream, options
        self.folder, self._names = options.folder / stream, clip_names(stream)
        self._observe, self._dropped, self._wall = observe, dropped, wall_clock
        self._said: set[str] = set()
        self._lock = threading.Lock()
        self._ring: deque[CompressedPacket] = deque()
        self._bytes = 0
        self._saving: EventClip | None = None
        self._until = self._overdue = 0.0
        self._jobs: queue.SimpleQueue[tuple[EventClip, list[CompressedPacket]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._covered = self._closed = False
        self._happening: set[str] = set()
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
        """Save a clip when the rule's class has come to cover its share of the picture, once until it has gone, and
        when one of the rule's events has begun.
        """
        rule = self.options.save_when
        if rule is None or not analysis.models:
            return
        share = 0.0 if rule.class_name is None else analysis.area.get(rule.class_name, 0.0)
        if rule.class_name is not None and share >= rule.area and not self._covered:
            self._covered = True
            self._save_by_rule(rule.class_name)
        elif share < rule.area / 2:
            self._covered = False
        if rule.events:
            self._save_events(rule, finding_of(analysis.notes).events)

    def _save_events(self, rule: EventRule, events: Sequence[Event]) -> None:
        wanted = [event for event in events if event.kind in rule.events and event.confidence >= rule.confidence]
        for event in wanted:
            if event.id not in self._happening:
                self._save_by_rule(f"{event.kind}: {event.text}")
        self._happening = {event.id for event in wanted}

    def _save_by_rule(self, reason: str) -> None:
        try:
            self.save(reason)
        except OutputError as error:
            log.warning("%s", error)

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
                self._saving = self._begun(reason)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._write_all, name=f"events {self.stream}", daemon=True)
                    self._thread.start()
            return self._saving

    def _begun(self, reason: str) -> EventClip:
        """A clip that begins with what is kept."""
        first = self._ring[0]
        at = self._wall() - (time.monotonic() - first.arrived_at)
        what = re.sub(r"[^A-Za-z0-9_-]+", "-", reason).strip("-")[:40] or "event"
        tags = {"comment": reason, **times_of(at, first.captured_at)}
        return EventClip(self._names.next(self.folder, at, f"_{what}"), reason, tags)

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
                clip.holds = write_packets(clip.path, packets, clip.tags, self.stream, self._warn)
                self._say_saved(clip, clip.holds)
            except (av.error.FFmpegError, OSError, ValueError) as error:
                clip.error = f"{clip.path} cannot be written: {in_words(error)}"
                partial_name(clip.path).unlink(missing_ok=True)
                log.warning("%s: %s", self.stream, clip.error)
                self._observe(OutputChange(self.stream, "events", OutputState.PAUSED, clip.error, self._wall()))
            clip.done.set()

    def _say_saved(self, clip: EventClip, holds: Remuxed) -> None:
        lost = ", ".join(f"{count} {reason}" for reason, count in sorted(holds.left_out.items()))
        log.info("%s: saved %s%s", self.stream, clip.path, f"; packets left out: {lost}" if lost else "")
        for reason, count in holds.left_out.items():
            self._dropped(count, reason)

    def _warn(self, sentence: str) -> None:
        """Say what is the same for every clip once."""
        log.log(logging.DEBUG if sentence in self._said else logging.WARNING, "%s", sentence)
        self._said.add(sentence)

    def _next_job(self) -> tuple[EventClip, list[CompressedPacket]] | None:
        """The next clip to write, also one whose camera has gone silent; None at the end."""
        while True:
            try:
                return self._jobs.get(timeout=_LATE)
            except queue.Empty:
                with self._lock:
                    if time.monotonic() > self._overdue:
                        self._hand_over()


def clip_names(stream: str) -> TimedNames:
    """The names under which clips of a stream are written."""
    return TimedNames(stream, "_[A-Za-z0-9_-]+")


def _begins(packet: CompressedPacket) -> bool:
    return packet.track.kind == "video" and packet.is_keyframe
