"""Where the frames of one stream go, counted for its result and for the metrics."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.analysis.sound import FAULTS
from pipeline.contracts import SourceCounts
from pipeline.frame import Analysis
from pipeline.metrics import Metrics
from pipeline.runtime.result import StreamCounts

log = logging.getLogger(__name__)

BLIND_SECONDS, BLIND_SHARE, BLIND_RATE, BLIND_LEAST = 5.0, 0.1, 1.0, 5
"""A stream is blind of which, over so many seconds, at most this share goes out and less than this many a second, of
this many pictures at least."""

_LATE = "the models or the outputs take longer than live.latency_bound leaves them; raise it, or choose a smaller model"
_WHY = {
    "start": "no key frame comes; have the camera send one a second",
    "behind": "decoding is too slow; choose a smaller stream of the camera, or give it more decode_threads",
    "undecoded": "they cannot be decoded; where they are lost on the way, transport: tcp loses none",
    "decode/old": "they are too old when they come; raise live.latency_bound, or look at the load and the network",
    "batch/failed": "the engine fails",
    **dict.fromkeys(("slot/old", "fuse/old", "emit/old"), _LATE),
}
_SLOW = "the models or the outputs are too slow; choose a smaller model, or run fewer streams"


@dataclass(frozen=True, slots=True)
class Tally:
    """What has become of a stream's pictures so far.

    Attributes:
        came: pictures that came.
        out: those that were given to the outputs.
        gone: those that were not, by where and why.
    """

    came: int = 0
    out: int = 0
    gone: Counter[str] = field(default_factory=Counter)


class Sight:
    """Notices that pictures come and almost none of them go out, for whatever cause.

    >>> sight = Sight()
    >>> sight.look(0.0, Tally(0, 0)), sight.look(2.0, Tally(50, 50)), sight.look(5.0, Tally(125, 125))
    (None, None, '')
    >>> sight.look(11.0, Tally(275, 125, Counter({"decode/old": 150})))[:51]
    'pictures come, but almost none goes out (0 of 150 i'
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._before = Tally()

    def forget(self) -> None:
        """It rests, or nothing is known of it: begin anew."""
        self._began = None

    def look(self, now: float, tally: Tally) -> str | None:
        """Why the stream is blind, empty where it sees; None while that cannot be said.

        Args:
            now: monotonic time, seconds.
            tally: so far.
        """
        before, began = self._before, self._began
        came, out = tally.came - before.came, tally.out - before.out
        if began is None or now - began < BLIND_SECONDS or came < BLIND_LEAST:
            if began is None:
                self._began, self._before = now, tally
            return None
        self._began, self._before = now, tally
        if out > BLIND_SHARE * came or out >= BLIND_RATE * (now - began):
            return ""
        gone = (tally.gone - before.gone).most_common(1)
        why = _WHY.get(gone[0][0], _SLOW) if gone else _SLOW
        return f"pictures come, but almost none goes out ({out} of {came} in {now - began:.0f} s): {why}"


class FrameCounter:
    """Counts the frames of a stream.

    Args:
        stream: its id.
        metrics: counted there as well; None for no metrics.

    Attributes:
        counts: so far.
    """

    def __init__(self, stream: str, metrics: Metrics | None) -> None:
        self.stream, self.counts = stream, StreamCounts()
        self._metrics = metrics
        self._lock, self._following = threading.Lock(), threading.Lock()
        self._source_dropped: Counter[str] = Counter()
        self._source_skipped: Counter[str] = Counter()
        self._decode_errors = self._packets = 0

    def decoded(self, count: int = 1) -> None:
        """Frames have come out of the decoder."""
        with self._lock:
            self.counts.decoded += count
        if metrics := self._metrics:
            metrics.decoded(self.stream, count)

    def dropped(self, count: int, stage: str, reason: str) -> None:
        """Frames have gone, at a stage and for a reason."""
        if not count:
            return
        with self._lock:  # several threads may count one reason; a file's frames never come here
            self.counts.dropped[stage, reason] += count
        if metrics := self._metrics:
            metrics.dropped(self.stream, stage, reason, count)

    def emitted(self, analysis: Analysis) -> None:
        """A frame has been given to the outputs; one thread."""
        self.counts.emitted += 1
        self.counts.looked.update(analysis.models)
        if analysis.carried_from:
            self.counts.carried.update(analysis.carried_from.keys())
        if metrics := self._metrics:
            metrics.emitted(self.stream)
            for model in analysis.carried_from:
                metrics.carried(self.stream, model)
            metrics.age(self.stream, analysis.age)
            metrics.seen(self.stream, analysis.area, (box.label for box in analysis.boxes))
            for model, novelty in analysis.novelty.items():
                metrics.novelty(self.stream, model, novelty)

    def inferred(self, models: Iterable[str]) -> None:
        """Models have looked at a frame."""
        if metrics := self._metrics:
            for model in models:
                metrics.inferred(self.stream, model)

    def put_off(self, count: int) -> None:
        """Looks were put off to newer frames, for the engine does not keep up; said the first time. One thread."""
        if not count:
            return
        if not self.counts.put_off:
            log.warning(
                "%s: the models do not keep up; they look less often than `every: auto` would have them, and what they "
                "see is carried further; counted from here on", self.stream,
            )  # fmt: skip
        self.counts.put_off += count
        if metrics := self._metrics:
            metrics.looks_put_off(self.stream, count)

    def wrong(self, faults: Counter[tuple[str, str]]) -> None:
        """Models have said what cannot be so, by model and `FAULTS`; each is said once in words, and taken out of the
        counter that was given. One thread."""
        for (model, fault), count in faults.items():
            if not self.counts.faults[model, fault]:
                log.warning("%s: of the model %s %s; counted from here on", self.stream, model, FAULTS[fault])
            self.counts.faults[model, fault] += count
            if metrics := self._metrics:
                metrics.model_fault(self.stream, model, fault, count)
        faults.clear()

    def waiting(self, stage: str, count: int) -> None:
        """So many frames wait for a stage."""
        if metrics := self._metrics:
            metrics.queue_depth(self.stream, stage, count)

    def follow(self, source: SourceCounts) -> None:
        """Count what the source has received, skipped, decoded and dropped by itself, and its decode errors, since it
        was looked at last.
        """
        with self._following:
            for reason, count in list(source.dropped.items()):
                new = count - self._source_dropped[reason]
                if new > 0:
                    self.decoded(new)
                    self.dropped(new, "decode", reason)
                    self._source_dropped[reason] = count
            if metrics := self._metrics:
                if source.packets != self._packets:
                    metrics.received(self.stream, source.packets - self._packets)
                if source.decode_errors != self._decode_errors:
                    metrics.decode_error(self.stream, source.decode_errors - self._decode_errors)
                for reason, count in list(source.skipped.items()):
                    if count != self._source_skipped[reason]:
                        metrics.skipped(self.stream, reason, count - self._source_skipped[reason])
                        self._source_skipped[reason] = count
            self._packets, self._decode_errors = source.packets, source.decode_errors

    def tally(self, source: SourceCounts) -> Tally:
        """What has become of the pictures so far."""
        self.follow(source)
        with self._lock:
            gone = Counter({f"{stage}/{reason}": n for (stage, reason), n in self.counts.dropped.items()})
        gone.update(dict(source.skipped))
        gone["undecoded"] += source.decode_errors
        return Tally(max(source.packets, self.counts.decoded), self.counts.emitted, gone)

    def forget(self) -> None:
        """Count no more in the metrics: the stream was removed, and its name may be another's."""
        self._metrics = None
