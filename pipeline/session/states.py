"""Who is told what sources and live outputs are doing, in which order, and by which thread."""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.capabilities import AttachedSink, attach_sink
from pipeline.contracts import Sink
from pipeline.metrics import Metrics
from pipeline.session.stream import RunningStream, Streams
from pipeline.state import OutputChange, OutputObserver, SourceState, StateChange

log = logging.getLogger(__name__)


class States:
    """Hands state changes on: to the stream itself, to metrics and sinks at once, to observers in order and in a thread
    of its own, for a source never waits for an observer.

    Args:
        streams: the session's streams.
        metrics: where states are counted.
        observers: told every state change of a source.
        output_observers: told every state change of a live output, from its thread; they must not wait.

    Attributes:
        telling: held while a change is handed on; whoever forgets a stream holds it, too.
    """

    def __init__(
        self,
        streams: Streams,
        metrics: Metrics,
        observers: Sequence[Callable[[StateChange], None]] = (),
        output_observers: Sequence[OutputObserver] = (),
    ) -> None:
        self.telling = threading.Lock()
        self._streams, self._metrics = streams, metrics
        self._observers, self._output_observers = tuple(observers), tuple(output_observers)
        self._sinks: list[AttachedSink] = []
        self._changes: queue.SimpleQueue[StateChange | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, sinks: Sequence[Sink]) -> None:
        """The shared sinks are open: they and the observers are told from now on."""
        self._sinks = list(map(attach_sink, sinks))
        self._thread = threading.Thread(target=self._tell_observers, name="states", daemon=True)
        self._thread.start()

    def tell(self, change: StateChange) -> None:
        """A stream entered a state."""
        with self.telling:
            self._tell(change)

    def tell_of_runtime(self, change: StateChange) -> None:
        """The runtime says that a stream entered a state. Whether a camera's stream sees is for the runtime to say, but
        only while the camera itself says that it streams; all else of it stays as the camera said.
        """
        with self.telling:
            stream = self._streams.by_id.get(change.stream)
            blinds = change.state is SourceState.BLIND
            if stream is not None and (blinds or (stream.attached.waits and change.state is SourceState.STREAMING)):
                if stream.change.state is not (SourceState.STREAMING if blinds else SourceState.BLIND):
                    return
                change = replace(
                    stream.change, state=change.state, reason=change.reason, cause=change.cause, at=change.at
                )
            self._tell(change)

    def tell_of_source(self, teller: weakref.ref[RunningStream], change: StateChange) -> None:
        """A source says that its stream entered a state.

        The threads of a source may outlive its stream: what they say is neither of the next stream of that id, nor of
        a stream that has been forgotten meanwhile.
        """
        with self.telling:
            if self._streams.by_id.get(change.stream) in (teller(), None):
                self._tell(change)

    def tell_of_output(self, change: OutputChange) -> None:
        """A live output entered a state."""
        for observer in self._output_observers:
            observer(change)

    def forget(self, name: str) -> None:
        """A stream was removed; `telling` is held."""
        self._metrics.forget(name)
        for sink in self._sinks:
            if sink.forget is not None:
                sink.forget(name)

    def close(self) -> None:
        """Hand on what waits, a second at most. The sinks are about to be closed, and a source may still have something
        to say: they are told nothing any more.
        """
        if self._thread is not None:
            self._changes.put(None)
            self._thread.join(1.0)
        with self.telling:
            self._sinks.clear()

    def _tell(self, change: StateChange) -> None:
        stream = self._streams.by_id.get(change.stream)
        if stream is None and change.stream not in self._streams.going:
            return
        if stream is not None:
            # What ended after it failed has failed; a source may say what the runtime says as well, and what it did
            # before it knew.
            if stream.change.state is SourceState.FAILED and stream.change is not change:
                return
            stream.change = change
            if stream.output is not None:
                stream.output.status(change)
        self._metrics.state(change)
        # At once, so that a stream's last state goes out before its end does.
        for sink in self._sinks:
            if sink.status is not None:
                sink.status(change)
        if self._thread is not None:
            self._changes.put(change)

    def _tell_observers(self) -> None:
        while (change := self._changes.get()) is not None:
            for observer in self._observers:
                try:
                    observer(change)
                except Exception:
                    log.exception("%s: its state could not be handed on", change.stream)
