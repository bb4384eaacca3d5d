"""A session that serves: it begins without streams and goes on until it is stopped; streams come and go meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from engines.errors import RoadlensError, UsageError
from pipeline.addresses import strip_credentials
from pipeline.config import Config, StreamConfig
from pipeline.contracts import Sink, Source, Stage
from pipeline.metrics import Metrics
from pipeline.outputs.event_clip import EventClip
from pipeline.outputs.live.hls import remove_hls
from pipeline.outputs.live.opening import check_outputs
from pipeline.outputs.snapshots import LiveView
from pipeline.session.files import RunFiles
from pipeline.session.opening import plan, regions, resolved
from pipeline.session.shared import OpenSession, Part, Shared
from pipeline.session.starts import Start
from pipeline.session.stream import RunningStream, cameras_of, free_name, parted, unique_names
from pipeline.state import OutputObserver, SourceState, StateChange

log = logging.getLogger(__name__)


class ServingSession(OpenSession):
    """Everything that serving needs, opened and checked; a context manager that closes it again.

    Args:
        config: what is served; `start` adds its streams.
        stages: one's own stages, for every stream.
        sinks: one's own sinks, shared by all streams.
        observers: told every state change of a source, from one thread of the session's.
        output_observers: told every state change of a live output, from its thread; they must not wait.
        metrics: where counters and times go; the session's own where it is left out.
        inputs: further files that the run reads, such as its configuration; no output may be one of them.
        part: what the session is to a run of several processes; None where it is the whole run.

    Attributes:
        config: what is served.
        view: the newest pictures, for viewers.

    Raises:
        RoadlensError: a model or output that cannot be used; nothing has been written then.
    """

    def __init__(
        self,
        config: Config,
        *,
        stages: Sequence[Stage] = (),
        sinks: Sequence[Sink] = (),
        observers: Sequence[Callable[[StateChange], None]] = (),
        output_observers: Sequence[OutputObserver] = (),
        metrics: Metrics | None = None,
        inputs: Sequence[Path] = (),
        part: Part | None = None,
    ) -> None:
        self.config = config
        self.view = LiveView()
        self._changing = threading.Lock()
        self._files = RunFiles(config, many=True, fresh=True, inputs=inputs)
        self._shared = shared = Shared(
            config, self._files, stages=stages, sinks=sinks, observers=observers, output_observers=output_observers,
            metrics=metrics, part=part,
        )  # fmt: skip
        self._streams, self._states = shared.streams, shared.states
        try:
            check_outputs(config.outputs, many=True)
            shared.load_models("latency", None)  # how many streams will come is not known
            shared.open_messages({})
            shared.record_messages(lasting=True)
            shared.show(self.view)
            shared.begin()
            shared.open_runtime([], idle=True)
        except BaseException:
            self.close()
            raise

    # Streams come ---------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start, and add the streams of the configuration."""
        self.runtime.start()
        streams = cameras_of(self.config.streams)
        for name, config in zip(unique_names(streams), streams, strict=True):
            self.take_on(name, config)

    def take_on(self, name: str, config: StreamConfig) -> None:
        """Add a stream of the owner's. One that cannot be opened is there as `failed`, with its reason: it keeps nobody
        else from being served.
        """
        try:
            self.add_stream(config, name)
        except RoadlensError as error:
            reason = strip_credentials(str(error))
            log.error("%s: %s", name, reason)  # noqa: TRY400  # a sentence for the user, no traceback
            failed = StateChange(name, SourceState.FAILED, reason, at=time.time())
            with self._changing:
                self._streams.put(RunningStream(name, config, None, failed))
            self._states.tell(failed)

    def add_stream(self, config: StreamConfig, name: str | None = None) -> RunningStream:
        """Open a source and run it beside the others. A live one is opened in the background: it is there at once,
        and its state says how it gets on.

        Raises:
            RoadlensError: the id is in use, or the source or an output cannot be opened; nothing has changed then.
        """
        if name is None:
            parted([config], single=True)
        with self._name_for(config, name) as taken:
            stream, source = self._resolved(taken, config)
            with self._changing:
                self._streams.put(stream)
        return self._begun(stream, source)

    @contextmanager
    def _name_for(self, config: StreamConfig, name: str | None) -> Iterator[str]:
        """The id of a stream that comes, nobody else's until the end of the block. Disks are not looked at under the
        lock: one of a network that is gone would hold up whoever steers another stream.
        """
        made = name or unique_names([config])[0]
        with self._changing:
            taken = self._streams.taken
            if name is None and config.id is None:
                made = free_name(made, taken)
            if made in taken:
                raise UsageError(f"the stream id {made!r} is in use; remove that stream first, or choose another id")
            self._streams.coming.add(made)
        try:
            yield made
        finally:
            with self._changing:
                self._streams.coming.discard(made)

    def _resolved(self, name: str, config: StreamConfig) -> tuple[RunningStream, Source]:
        # A camera that is away when the server starts is waited for, like one that goes away later.
        live = replace(config.live, reconnect=replace(config.live.reconnect, at_start="wait"))
        return resolved(self._shared, name, config, live)

    def _begun(self, stream: RunningStream, source: Source) -> RunningStream:
        if stream.attached.waits:
            self._states.tell(stream.change)
            work = threading.Thread(target=self._begin_live, args=(stream, source), name=f"open {stream.id}")
            work.daemon = True  # a camera that never answers must not keep the process alive
            work.start()
            return stream
        try:
            self._begin(stream, source)
        except BaseException:
            with self._changing, self._states.telling:
                self._streams.take_out(stream)
                self._shared.forget(stream.id)
            raise
        return stream

    def _begin(self, stream: RunningStream, source: Source) -> None:
        try:
            stream.info = stream.info or source.open()
            with self._changing:
                if stream.removed:
                    source.close()
                    return
                self._files.claim(stream.id, stream.config.source, stream.attached.paths)
                self._files.check_writable(stream.id)
                planned = plan(self._shared, stream, source, Start(), None)
                if not stream.attached.waits:
                    # Not before all of it is open: one that cannot be has never been there.
                    self._states.tell(stream.change)
                self.runtime.add(planned)
                if stream.paused:
                    self.runtime.pause(stream.id)
        except BaseException:
            source.close()
            stream.resources.close()
            raise

    def _begin_live(self, stream: RunningStream, source: Source) -> None:
        try:
            self._begin(stream, source)
        except Exception as error:  # a stream's failure is its own, whatever it is
            if stream.removed:
                return
            reason = strip_credentials(str(error))
            if not isinstance(error, RoadlensError):
                log.exception("%s: %s", stream.id, reason)
            self._states.tell(StateChange(stream.id, SourceState.FAILED, reason, stream.change.cause, time.time()))

    # Streams go -----------------------------------------------------------------------------------------------------
    def remove_stream(self, name: str) -> None:
        """Let a stream go: what has been read of it is finished, and so are its files. Others do not notice.

        Raises:
            UsageError: there is no such stream.
        """
        with self._parted(name):
            pass

    @contextmanager
    def _parted(self, name: str) -> Iterator[None]:
        """Let a stream go. Its name is taken until the end of the block, and whatever is known of it goes with it,
        unless another one of its name is there by then.
        """
        with self._changing:
            stream = self._streams.named(name)
            stream.removed = True
            self._streams.take_out(stream)
            self._streams.going.add(name)
            ran = name in self.runtime.counts()
        try:
            self._finish(stream, ran)
            yield
        finally:
            with self._changing, self._states.telling:
                self._streams.going.discard(name)
                gone = name not in self.streams
                if gone:
                    self._shared.forget(name)
            if gone and self.config.outputs.hls is not None:
                remove_hls(self.config.outputs.hls, name)

    def _finish(self, stream: RunningStream, ran: bool) -> None:
        """Stop a stream that has been taken out of the list, and close what it has open."""
        if ran:
            self.runtime.remove(stream.id, over=stream.resources.close)
        else:
            stream.attached.stop()
            stream.resources.close()
        self.view.end(stream.id)
        if not ran:
            self._states.tell(StateChange(stream.id, SourceState.ENDED, "removed", "stopped", time.time()))

    def replace_stream(self, name: str, config: StreamConfig) -> RunningStream:
        """Let a stream go on as another one of the same id; a file begins anew.

        Raises:
            RoadlensError: there is no such stream, or the new source cannot be opened; the old one runs on then. Or an
                output of it cannot, and the old one begins anew.
        """
        before = self._streams.named(name)
        parted([config], single=True)
        new, source = self._resolved(name, config)
        try:
            if not new.attached.waits:
                new.info = source.open()
                regions(new, new.info)
            with self._parted(name), self._changing:
                self._streams.put(new)
        except BaseException:
            source.close()
            new.resources.close()
            raise
        try:
            return self._begun(new, source)
        except RoadlensError:
            if name not in self.streams:
                self.take_on(name, before.config)
            raise

    # Streams are steered --------------------------------------------------------------------------------------------
    def pause_stream(self, name: str, paused: bool = True) -> None:
        """Let a stream rest, or go on.

        Raises:
            UsageError: there is no such stream, or it is over.
        """
        with self._changing:
            stream = self._streams.named(name)
            if stream.change.state.final:
                raise UsageError(f"the stream {name!r} has {stream.change.state}; start it again or remove it")
            stream.paused = paused
            if name in self.runtime.counts():
                (self.runtime.pause if paused else self.runtime.resume)(name)

    def save_event(self, name: str, reason: str = "event") -> EventClip:
        """Save the last seconds of a stream, and the next ones, as its camera sent them.

        Raises:
            UsageError: there is no such stream, or nothing is kept of it.
            OutputError: nothing has come from its camera yet.
        """
        stream = self._streams.named(name)
        if stream.ring is None:
            why = "it is a file" if self.config.event_clips is not None else "set `event_clips` in the configuration"
            raise UsageError(f"nothing is kept of the stream {name!r} to be saved: {why}")
        return stream.ring.save(reason)

    def close(self) -> None:
        """Abort what still runs, close files, sockets and engines. Twice is allowed."""
        self._shared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
