"""The numbers of a stream's messages: counted here for the publisher, for recordings and for JSON lines."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.analysis.ahead.happenings import finding_of
from pipeline.frame import Analysis
from pipeline.messages.composing import event_of, from_analysis, from_change
from pipeline.messages.headers import AnalysisMessage, EndMessage, EventMessage, Header, StatusMessage
from pipeline.state import EndReason, StateChange


@dataclass(slots=True, eq=False)
class Numbering:
    """Numbers the messages of one stream in one run. One thread at a time.

    Analyses and the end share one numbering without holes; changes of state and events have one each, from 0.

    Attributes:
        stream: id of the stream.
        run: id of the run.
        first: first sequence number of this run; above 0 where an interrupted run was resumed.
        instances: whether boxes tell which pixels are theirs.
        next: sequence number of the next analysis, or of the end.
        dropped: frames that the analyses say were dropped.
        open: whether an analysis came and no end since.
        status: the newest state that was told; the next one is numbered behind it.
        events: how many messages of events there were.
    """

    stream: str
    run: str = ""
    first: int = 0
    instances: bool = False
    next: int = field(init=False)
    dropped: int = field(default=0, init=False)
    open: bool = field(default=False, init=False)
    status: StatusMessage | None = field(default=None, init=False)
    events: int = field(default=0, init=False)
    _going_on: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.next = self.first

    def take(self, analysis: Analysis) -> int:
        """Count an analysis; its sequence number."""
        self.open = True
        self.dropped += analysis.dropped_since_last
        return self._taken()

    def header(self, analysis: Analysis, sequence: int) -> AnalysisMessage:
        """The header of an analysis that was counted."""
        return from_analysis(analysis, sequence, run=self.run, run_start=self.first, instances=self.instances)

    def happened(self, message: AnalysisMessage) -> list[EventMessage]:
        """Count the events that begin or end in a frame; their messages."""
        told = []
        for event in finding_of(message.notes).events:
            if event.id in self._going_on and event.end is None:
                continue
            if event.end is None:
                self._going_on.add(event.id)
            else:
                self._going_on.discard(event.id)
            told.append(event_of(event, message, self.events))
            self.events += 1
        return told

    def end(self, reason: EndReason, dropped: int | None = None) -> EndMessage:
        """Count the end; its message.

        Args:
            reason: how the stream ended.
            dropped: frames dropped over the run; left out, the sum over its analyses.
        """
        self.open = False
        sequence = self._taken()
        return EndMessage(
            stream=self.stream,
            sequence=sequence,
            run=self.run,
            run_start=self.first,
            frames=sequence,
            dropped=self.dropped if dropped is None else dropped,
            reason=reason,
        )

    def go_on(self, header: Header) -> None:
        """Number what follows behind a message of an interrupted run."""
        if isinstance(header, AnalysisMessage):
            self.next = header.sequence + 1
            self.dropped += header.dropped_since_last
        elif isinstance(header, StatusMessage):
            self.status = header
        elif isinstance(header, EventMessage):
            self.events = header.sequence + 1
            (self._going_on.add if header.end_s is None else self._going_on.discard)(header.id)

    def changed(self, change: StateChange) -> StatusMessage:
        """The message of a change of state. It counts once it is set as `status`: what nobody takes has no number."""
        return from_change(change, 0 if self.status is None else self.status.sequence + 1, run=self.run)

    def _taken(self) -> int:
        sequence = self.next
        self.next += 1
        return sequence
