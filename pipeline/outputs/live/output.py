"""Video for those who watch now: one encoder a stream, and any number of destinations behind it.

The emit thread leaves a picture and goes on; a thread of this output encodes the newest one, and hands the compressed
picture to the destinations, each with a queue and a thread of its own. So neither a slow encoder nor a dead peer holds
up the stream or another destination. While the camera is away the output goes on with a card, so that viewers stay.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import av
import msgspec

from engines.errors import OutputError
from engines.loading import Degraded
from pipeline.contracts import StreamInfo
from pipeline.drawing.card import card_text, offline_card
from pipeline.frame import Analysis, Mode
from pipeline.outputs.encoded import TIME_BASE
from pipeline.outputs.encoder import no_device_encoding
from pipeline.outputs.live.destination import Destination
from pipeline.outputs.live.encoder import LiveEncoder, LiveEncoderOptions
from pipeline.outputs.live.timeline import OutputTimeline
from pipeline.state import SourceState, StateChange

log = logging.getLogger(__name__)

FINISH_SECONDS = 2.5
"""How long the end of a stream waits for its destinations to take what is queued."""

CLOSE_SECONDS = 0.5
"""How long closing waits for an encoder or a disk that may hang."""


class CardOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What viewers see while the camera of a live stream is away.

    Attributes:
        after: seconds without a picture until the card is shown; a source that says that it is away shows it at once.
        rate: cards a second.
    """

    after: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    rate: Annotated[float, msgspec.Meta(ge=0.5, le=60)] = 5.0


@dataclass(frozen=True, slots=True)
class _Picture:
    image: av.VideoFrame
    time: float
    arrived_at: float
    at: float
    captured_at: float


class LiveOutput:
    """A sink of one stream that encodes its overlaid pictures once, for all its destinations.

    A live stream's newest picture wins; of a file no picture is dropped: it is held up in place.

    Args:
        stream: its id.
        info: the stream.
        mode: whether it is a file or live.
        destinations: where the pictures go.
        encoder: options of the encoder.
        card: what is shown while the camera is away; None for nothing. Files have none.
        dropped: told how many pictures were dropped before the encoder, and why.
        monotonic: clock in seconds.
        wall_clock: Unix time in seconds.

    Attributes:
        encoder: name of the encoder.

    Raises:
        OutputError: no encoder opens.
    """

    name = "live_output"

    def __init__(
        self,
        stream: str,
        info: StreamInfo,
        mode: Mode,
        destinations: Sequence[Destination],
        encoder: LiveEncoderOptions | None = None,
        card: CardOptions | None = None,
        dropped: Callable[[int, str], None] = lambda _count, _reason: None,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.stream, self.destinations = stream, tuple(destinations)
        self._mode, self._card = mode, card if mode == "live" else None
        self._dropped, self._monotonic, self._wall = dropped, monotonic, wall_clock
        self._encoder = LiveEncoder(info, encoder or LiveEncoderOptions())
        self.encoder = self._encoder.name
        self._changed = threading.Condition()
        self._waiting: _Picture | None = None
        self._away: StateChange | None = None
        self._last_arrival: float | None = None
        self._last_wall = 0.0
        self._last: _Picture | None = None
        self._last_pts = -1
        self._ended = self._closed = self._broken = False
        self._key = threading.Event()
        for destination in self.destinations:
            destination.begin(self._encoder.video, self._key.set)
        self._thread = threading.Thread(target=self._run, name=f"live output {stream}", daemon=True)
        self._thread.start()

    @property
    def takes_device(self) -> bool:
        """Whether its encoder reads pictures in GPU memory where they lie, as far as is known."""
        return self._encoder.takes_device

    def observe(self, degraded: Callable[[Degraded], None]) -> None:
        """Have what the encoder goes without told to `degraded`."""
        stream = self.stream  # what the encoder holds must not know this output
        self._encoder.degraded = lambda: degraded(no_device_encoding(stream))

    # From the runtime -----------------------------------------------------------------------------------------------
    def consume(self, analysis: Analysis) -> None:
        """Leave the picture for the encoder."""
        frame = analysis.frame
        image = frame.image if analysis.picture is None else analysis.picture
        at = self._wall() - (self._monotonic() - frame.arrived_at)
        picture = _Picture(image, frame.time, frame.arrived_at, at, frame.captured_at)
        dropped = ""
        with self._changed:
            if self._mode == "file":
                self._changed.wait_for(lambda: self._waiting is None or self._closed or self._broken)
            if self._closed or self._broken:
                dropped = "failed"
            elif self._waiting is not None:
                dropped = "newer"
            if dropped != "failed":
                self._waiting = picture
            self._last_arrival, self._last_wall, self._away = self._monotonic(), self._wall(), None
            self._changed.notify_all()
        if dropped:
            self._dropped(1, dropped)

    def status(self, change: StateChange) -> None:
        """The source of a stream entered a state: away from the camera, viewers get a card."""
        if change.stream != self.stream or change.state in {SourceState.STREAMING, SourceState.BLIND}:
            return
        with self._changed:
            since = self._away.at if self._away is not None else change.at or self._wall()
            # One absence, however many attempts: it began with the first change.
            self._away = StateChange(change.stream, change.state, change.reason, change.cause, since, change.attempt)
            self._changed.notify_all()

    def finish(self) -> None:
        """Encode what waits, let the destinations write it, and stop."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        deadline = time.monotonic() + FINISH_SECONDS
        self._thread.join(FINISH_SECONDS)
        for destination in self.destinations:
            destination.end()
        for destination in self.destinations:
            if not destination.join(max(0.0, deadline - time.monotonic())):
                log.warning("%s: %s did not take the last pictures", self.stream, destination.name)
        self.close()

    def close(self) -> None:
        """Stop now; destinations have `CLOSE_SECONDS` to end what they write. Twice is allowed."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        for destination in self.destinations:
            destination.close()
        deadline = time.monotonic() + CLOSE_SECONDS
        self._thread.join(CLOSE_SECONDS)
        for destination in self.destinations:
            destination.join(max(0.0, deadline - time.monotonic()))

    # The thread -----------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        timeline = OutputTimeline(self._monotonic())
        first: float | None = None
        drawn: tuple[tuple[str, str], av.VideoFrame] | None = None
        try:
            while (item := self._next()) is not None:
                if isinstance(item, _Picture):
                    drawn = None
                    if self._mode == "live":
                        shown = timeline.picture(item.time, item.arrived_at)
                    else:
                        first = item.time if first is None else first
                        shown = item.time - first
                    self._last = item
                    self._emit(item.image, shown, item.at, item.captured_at)
                    continue
                if drawn is None or drawn[0] != item:
                    last, video = self._last, self._encoder.video
                    drawn = item, offline_card(None if last is None else last.image, video.width, video.height, item)
                self._emit(drawn[1], timeline.card(self._monotonic()), self._wall(), None)
        except OutputError as error:
            log.error("%s: live outputs stop: %s", self.stream, error)  # noqa: TRY400  # one line is all there is to say
        finally:
            with self._changed:
                self._broken = True
                self._changed.notify_all()
            for destination in self.destinations:
                destination.end()

    def _next(self) -> _Picture | tuple[str, str] | None:
        """The next picture, or the text of a card where one is due; None at the end."""
        due = None if self._card is None else self._monotonic() + 1 / self._card.rate
        with self._changed:
            while True:
                if self._closed or (self._ended and self._waiting is None):
                    return None
                if self._waiting is not None:
                    picture, self._waiting = self._waiting, None
                    self._changed.notify_all()
                    return picture
                now = self._monotonic()
                silent = self._silent(now)
                if due is not None and now >= due and silent is not None:
                    return silent
                self._changed.wait(0.2 if due is None or now >= due else max(0.001, due - now))

    def _silent(self, now: float) -> tuple[str, str] | None:
        """The text of the card that viewers should see now, if any; the lock is held."""
        if self._card is None:
            return None
        if self._away is not None:
            return card_text(self._away.at, self._away)
        if self._last_arrival is not None and now - self._last_arrival > self._card.after:
            return card_text(self._last_wall, None)
        return None

    def _emit(self, image: av.VideoFrame, shown: float, at: float, captured_at: float | None) -> None:
        key = self._key.is_set()
        self._key.clear()
        # Times of a file may be finer than those of the output, which FFmpeg takes only once each.
        self._last_pts = max(round(shown / TIME_BASE), self._last_pts + 1)
        for picture in self._encoder.encode(image, self._last_pts, at, key, captured_at):
            for destination in self.destinations:
                destination.put(picture, wait=self._mode == "file")
