"""A run: its streams, which come, rest and go while others run, and its devices.

    source ─► decode ─► slot ─► batch ─► engine(s) ─► fuse ─► stages ─► sinks
    StreamWorker: a thread      DeviceWorker: a thread   StreamWorker: two threads

`Runtime` starts and stops the workers and adds up what they did; what a worker does stands with it.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence

from engines.errors import UsageError
from engines.loading import Degraded
from pipeline.analysis.carrying.cadence import CarryingOptions
from pipeline.analysis.fuse import FuseOptions
from pipeline.metrics import Metrics
from pipeline.process import usable_cores
from pipeline.runtime.context import RunContext, StopSignal
from pipeline.runtime.device import Device
from pipeline.runtime.device_worker import DeviceWorker
from pipeline.runtime.lifecycle import Pause, Resume
from pipeline.runtime.placement import Placer
from pipeline.runtime.plan import LoadedModel, StreamPlan
from pipeline.runtime.result import RunResult, StreamCounts, StreamResult, added, summed
from pipeline.runtime.stageclock import StageTime, merged
from pipeline.runtime.stream import Stream
from pipeline.runtime.stream_worker import StreamWorker
from pipeline.state import StateChange

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0
"""How long a stop may take; what has not stopped by then is named."""

REMOVE_SECONDS = 2.0
"""How long a stream that is removed may take to finish what has been read of it; after that it is dropped."""

WATCH_SECONDS = 1.0
"""How often to look whether pictures go out."""


class Runtime:
    """Runs streams through models into sinks.

    Args:
        streams: opened sources with their stages and sinks.
        models: engines; closed by whoever loaded them.
        fuse: how predictions become boxes and tracks.
        metrics: where counters and times go; None for none.
        monotonic: clock in seconds.
        idle: keep running when all streams are over, until it is stopped: for a server, to which streams are added.
        observe: told the state changes of the streams whose sources do not say them; from any thread, and must not
            wait.
        degraded: told where a GPU had no room for model inputs and the CPU made them, and when a device is lost.
        placer: which device looks at a stream; left out, of as many devices as the models have engines.
        carrying: what stands between the frames that a model looks at.

    Raises:
        UsageError: a stream cannot be taken on; see `add`.

    Example:
        >>> runtime = Runtime([plan], [LoadedModel(engine)])  # doctest: +SKIP
        >>> runtime.start()  # doctest: +SKIP
        >>> runtime.wait()  # doctest: +SKIP
        >>> runtime.result().streams[0].counts.emitted  # doctest: +SKIP
    """

    def __init__(
        self,
        streams: Sequence[StreamPlan],
        models: Sequence[LoadedModel],
        fuse: FuseOptions | None = None,
        metrics: Metrics | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        idle: bool = False,
        observe: Callable[[StateChange], None] = lambda _change: None,
        degraded: Callable[[Degraded], None] = lambda _what: None,
        placer: Placer | None = None,
        carrying: CarryingOptions | None = None,
    ) -> None:
        ready = threading.Condition()
        self._placer = placer or Placer(["device"] * min((len(m.engines) for m in models), default=1))
        self._run = RunContext(
            tuple(models), fuse or FuseOptions(), self._placer, metrics, monotonic, idle, observe, degraded, ready,
            StopSignal(ready, monotonic), carrying or CarryingOptions(),
            threading.Semaphore(max(1, usable_cores() // 2)),
        )  # fmt: skip
        self._devices = [Device(number, self._run) for number in range(len(self._placer.devices))]
        self._batchers = [DeviceWorker(device, self._devices, self._run) for device in self._devices]
        self._known: dict[str, StreamWorker] = {}
        self._stuck: list[StreamWorker] = []
        self._removed = StreamCounts()
        self._removed_stages: dict[str, StageTime] = {}
        self._started = False
        self._over = threading.Event()
        self._began = self._began_cpu = 0.0
        self._seconds = self._cpu_seconds = 0.0
        for plan in streams:
            self.add(plan)

    # Start, stop, wait ----------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start all threads."""
        self._began, self._began_cpu = time.perf_counter(), time.process_time()
        self._started = True
        for worker in list(self._known.values()):
            worker.start()
        for batcher in self._batchers:
            batcher.start()
        # It holds no runtime that nobody else holds.
        watch = threading.Thread(target=_watch, args=(weakref.ref(self), self._over), name="watch", daemon=True)
        watch.start()

    def stop(self) -> None:
        """Read no further; what has been read is analysed and written, and the outputs are finished."""
        self._run.stop.stop()
        for worker in list(self._known.values()):
            worker.stream.interrupt()

    def abort(self) -> None:
        """Stop at once: what is under way is dropped and counted."""
        self._run.stop.abort()
        for worker in list(self._known.values()):
            worker.stream.abort()

    @property
    def stopping(self) -> bool:
        """Whether the run is being stopped."""
        return self._run.stop.stopping

    @property
    def stopping_seconds(self) -> float:
        """How long the run has been stopping; 0 while it is not."""
        return self._run.stop.seconds

    @property
    def aborting(self) -> bool:
        """Whether the run is being stopped without finishing what is under way."""
        return self._run.stop.aborting

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every stream is over (an idle runtime: until it is stopped); False when `timeout` seconds passed
        first.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (thread := next(iter(self._running()), None)) is not None:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if deadline is not None and thread.is_alive():
                return False
        self._over.set()
        if not self._seconds:
            self._seconds = time.perf_counter() - self._began
            self._cpu_seconds = time.process_time() - self._began_cpu
        return True

    def close(self) -> None:
        """Abort what still runs and wait for it, `STOP_SECONDS` at most."""
        if self._running():
            self.abort()
            if not self.wait(STOP_SECONDS):
                log.warning("did not stop within %.0f s: %s", STOP_SECONDS, ", ".join(self._alive()))

    def watch(self) -> None:
        """Look whether the pictures of every stream go out."""
        now = self._run.monotonic()
        for worker in list(self._known.values()):
            worker.stream.watch(now)

    def _running(self) -> list[threading.Thread]:
        batchers = [b.thread for b in self._batchers if b.thread is not None and b.thread.is_alive()]
        return [*(t for worker in list(self._known.values()) for t in worker.threads), *batchers]

    def _alive(self) -> list[str]:
        stuck = [thread for worker in self._stuck for thread in worker.threads]
        return [thread.name for thread in (*self._running(), *stuck)]

    # Streams that come, rest and go ---------------------------------------------------------------------------------
    def add(self, plan: StreamPlan) -> None:
        """Take a stream on; it starts at once when the runtime has been started.

        Raises:
            UsageError: a stream of this id is there, the runtime is being stopped, or the source, a stage or a sink is
                none (`pipeline.contracts`).
        """
        name, berth = plan.source.id, plan.berth or self._placer.place(float(plan.info.rate))
        try:
            worker = StreamWorker(Stream(plan, berth, self._run), self._run)
            with self._run.ready:
                if name in self._known:
                    raise UsageError(
                        f"the stream id {name!r} is in use; remove that stream first, or choose another id"
                    )
                if self._run.stop.stopping or all(device.over for device in self._devices):
                    raise UsageError(f"the stream {name!r} cannot be added: the run is being stopped")
                self._known[name] = worker
                self._devices[self._placer.device(berth)].take_on(worker.stream)
                if self._started:
                    worker.start()
        except UsageError:
            if plan.berth is None:
                berth.leave()
            raise

    def remove(
        self, name: str, timeout: float = REMOVE_SECONDS, over: Callable[[], None] = lambda: None
    ) -> StreamResult:
        """Let a stream go: read no further, finish what has been read and the outputs of it. What is not finished
        after `timeout` seconds is dropped and counted. Other streams do not notice. Returns when its outputs are
        finished; not to be called from a sink or stage.

        Args:
            name: its id.
            timeout: seconds.
            over: called once none of its threads is left: before this returns, or by the last of those that did not
                stop in time.

        Raises:
            UsageError: there is no such stream.
        """
        worker = self._worker(name)
        worker.leave(timeout, STOP_SECONDS - REMOVE_SECONDS)
        with self._run.ready:
            result = worker.result()
            if worker.stream.life.gone:
                return result  # removed from two places at once
            ended = worker.retire(over)
            del self._known[name]
            worker.stream.berth.leave()
            self._stuck.append(worker)
            self._settle()
            if result.not_stopped:
                log.warning("%s: removed, but these did not stop: %s", name, ", ".join(result.not_stopped))
        if ended:
            over()
        return result

    def _settle(self) -> None:
        """Add up the removed streams of which no thread is left, and let go of them; `ready` is held."""
        for worker in [worker for worker in self._stuck if not worker.threads]:
            self._stuck.remove(worker)
            self._removed = summed(self._removed, worker.stream.counter.counts)
            self._removed_stages = added(self._removed_stages, merged(worker.clocks))

    def pause(self, name: str) -> None:
        """Let a stream rest: nothing is read until `resume`; what has been read is finished. Twice is allowed.

        Raises:
            UsageError: there is no such stream.
        """
        self._worker(name).stream.apply(Pause())

    def resume(self, name: str) -> None:
        """Go on with a stream that rests.

        Raises:
            UsageError: there is no such stream.
        """
        self._worker(name).stream.apply(Resume())

    def _worker(self, name: str) -> StreamWorker:
        worker = self._known.get(name)
        if worker is None:
            known = ", ".join(self._known) or "none"
            raise UsageError(f"there is no stream {name!r}; the streams are: {known}")
        return worker

    # Results --------------------------------------------------------------------------------------------------------
    def counts(self) -> dict[str, StreamCounts]:
        """Frames so far, by stream; without those removed."""
        return {name: worker.stream.counter.counts for name, worker in list(self._known.items())}

    def progress(self) -> dict[str, StreamResult]:
        """How each stream stands so far, by id; without those removed. `reason` says how it ends once it has."""
        return {name: worker.result() for name, worker in list(self._known.items())}

    def result(self) -> RunResult:
        """How the run went; complete once `wait` has returned True."""
        with self._run.ready:
            self._settle()
            known, stuck = list(self._known.values()), list(self._stuck)
            removed, stages = self._removed, self._removed_stages
        clocks = [clock for worker in (*known, *stuck) for clock in worker.clocks]
        for worker in stuck:
            removed = summed(removed, worker.stream.counter.counts)
        return RunResult(
            [worker.result() for worker in known],
            added(stages, merged([*(batcher.clock for batcher in self._batchers), *clocks])),
            self._seconds,
            self._cpu_seconds,
            self._alive(),
            removed,
        )


def _watch(runtime: weakref.ref[Runtime], over: threading.Event) -> None:
    """Look after the streams of a runtime until it is over."""
    while not over.wait(WATCH_SECONDS):
        watched = runtime()
        if watched is None:
            return
        watched.watch()
        del watched
