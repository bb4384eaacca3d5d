"""The workers of a server, as their parent has them: each with its share of the streams, and one more in reserve.

No more are started than there are streams; the next one when a stream comes, out of the reserve.

A stream is on one worker from its beginning to its end. A worker that dies is replaced by the one in reserve, whose
engines are loaded already: its streams are opened there, and another reserve is started. The other workers do not
notice. What the dead one has counted goes on counting, up to its last snapshot.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from engines.errors import RoadlensError, UsageError
from pipeline.config import Config, StreamConfig, devices_of
from pipeline.runtime.placement import Berth, Placer
from pipeline.session import Part
from pipeline.session.shared import READERS_TIME
from pipeline.session.stream import cameras_of, unique_names
from pipeline.workers.places import files_named, socket_folder
from pipeline.workers.process import GONE, WorkerError, WorkerGone, WorkerProcess
from pipeline.workers.relay import Relay, open_relay
from pipeline.workers.sums import Families, Sum

log = logging.getLogger(__name__)

SNAPSHOT_SECONDS = 1.0
"""From one snapshot of a worker to the next: as much of what it has counted may be lost when it is killed."""

ANSWER_SECONDS = 1.0
"""How long whoever asks for all streams or metrics waits for a worker; then what was known last has to do."""

LONGEST_PAUSE = 30.0
"""Seconds before a worker is started again that died soon after its start, at most; one that lived longer than that is
started again at once."""

RESERVE_SECONDS = 2.0
"""How long after the death of the worker in reserve another one is started."""

FINISH_SECONDS = 3.8
"""How long a stop leaves the workers to end by themselves."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is to be.

    Attributes:
        config: without streams; they come one by one.
        part: what its session is to the whole.
        address: the Unix socket at which it answers HTTP.
        inputs: files that the run reads; no output may be one of them.
        levels: of its loggers, by their names.
    """

    config: Config
    part: Part
    address: Path
    inputs: tuple[Path, ...]
    levels: dict[str, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a worker stands.

    Attributes:
        metrics: what it has counted and timed.
        rates: frames a second of its streams, where they are known.
        totals: what the server's API says of all of its streams, removed ones included.
    """

    metrics: Families
    rates: dict[str, float]
    totals: Any


@dataclass(slots=True, eq=False)
class Worker:
    """A worker whose engines are loaded.

    Attributes:
        process: what runs.
        address: where it answers HTTP.
        models: what it says of its engines.
        snapshot: the newest.
    """

    process: WorkerProcess
    address: Path
    models: Any = None
    snapshot: Snapshot | None = None

    def look(self) -> Future[Snapshot]:
        """Have its newest snapshot kept."""
        answer = self.process.ask("snapshot")

        def keep(done: Future[Snapshot]) -> None:
            if done.exception() is None:
                self.snapshot = done.result()

        answer.add_done_callback(keep)
        return answer


@dataclass(slots=True, eq=False)
class Placed:
    """A stream and where it is.

    Attributes:
        config: what it is asked to be.
        berth: its share of a worker's work; the worker is `berth.first`.
        pending: whether its worker has not taken it yet, and may refuse it.
        paused: whether it rests.
        reason: why nobody answers for it now; empty while its worker does.
        since: Unix seconds, of `reason`.
    """

    config: StreamConfig
    berth: Berth
    pending: bool = False
    paused: bool = False
    reason: str = ""
    since: float = field(default_factory=time.time)


class Fleet:
    """Starts workers, shares streams among them, and replaces those that die.

    Args:
        config: the whole run.
        module: what a worker runs.
        inputs: further files that the run reads.
        said: told what a worker says; from threads of the fleet's.
        died: told of a worker's death: the ids of its streams, and the reason.

    Attributes:
        streams: where each stream is, in the order in which they came.
        restarts: how often each worker was replaced, by its number.
        registry: the metrics of all of them, to be scraped.

    Raises:
        RoadlensError: an address of the configuration cannot be used.
    """

    def __init__(
        self,
        config: Config,
        module: str,
        inputs: Sequence[Path] = (),
        said: Callable[[str, tuple[Any, ...]], None] = lambda _what, _values: None,
        died: Callable[[list[str], str], None] = lambda _streams, _reason: None,
    ) -> None:
        self.config, self._module, self._said, self._died = config, module, said, died
        self._inputs = (*inputs, *files_named(config.streams))
        self.streams: dict[str, Placed] = {}
        self.restarts = [0] * config.workers
        self._gone: list[Any] = []
        self._workers: list[Worker | None] = [None] * config.workers
        self._reserve: tuple[Worker, Future[Any]] | None = None
        self._started = 0
        self._put_at = [0.0] * config.workers
        self._pauses = [0.0] * config.workers
        self._processes: set[WorkerProcess] = set()
        self._placer = Placer([f"worker {number}" for number in range(config.workers)])
        self._changing = threading.RLock()
        self._ending, self._stopped_at = threading.Event(), 0.0
        self._count = 0
        self._sum = Sum(self._changing, self.look, lambda: [each.metrics for each in self._snapshots])
        self.registry = CollectorRegistry()
        self.registry.register(self._sum)
        self._stack = ExitStack()
        self._relays: list[Relay] = []
        try:
            self._folder = socket_folder(self._stack)
            for number, options in enumerate(config.publish):
                self._relays.append(open_relay(options, self._relay(number), self._gives_up))
        except BaseException:
            self.finish()
            raise

    # Workers come ---------------------------------------------------------------------------------------------------
    def open(self) -> None:
        """Start the workers, and give them the streams of the configuration.

        Raises:
            RoadlensError: a worker cannot be started; none is left then.
        """
        streams = cameras_of(self.config.streams)
        wanted = self.config.workers
        self._started = min(wanted, max(len(streams), 1))
        if self._started < wanted:
            log.info("no more workers than streams: %d of %d started; the others when streams come",
                     self._started, wanted)  # fmt: skip
        begun = [self._begun(number) for number in range(self._started)]
        wait([answer for _, answer in begun], return_when=FIRST_EXCEPTION)
        try:
            for worker, answer in sorted(begun, key=lambda each: not each[1].done()):
                worker.models = answer.result()
        except RoadlensError:
            if self._ending.is_set():
                return
            self.finish()
            raise
        for name, config in zip(unique_names(streams), streams, strict=True):
            self.place(config, name).pending = False
        for number, (worker, _) in enumerate(begun):
            self._put(number, worker)
        threading.Thread(target=self._look, name="snapshots", daemon=True).start()

    def _begun(self, number: int | None) -> tuple[Worker, Future[Any]]:
        """A worker that loads its engines, and what it says when it has; of no number is the one in reserve."""
        with self._changing:
            if self._ending.is_set():
                raise WorkerGone("the server is being stopped")
            self._count += 1
            worker = Worker(WorkerProcess(self._module, self._heard), self._folder / f"{self._count}.http")
            self._processes.add(worker.process)
        config = self.config
        devices = devices_of(config)
        if number is not None and len(devices) > 1:  # that in reserve may have to stand in for any
            device = ",".join(devices[number % len(devices) :: config.workers])
            config = replace(config, models=tuple(replace(model, device=device) for model in config.models))
        part = Part(config.workers, tuple(self._relay(number) for number in range(len(config.publish))))
        alone = replace(config, streams=(), metrics=None, workers=1)
        levels = {name: logging.getLogger(name).level for name in ("", "pipeline", "engines")}
        return worker, worker.process.ask("open", Job(alone, part, worker.address, self._inputs, levels))

    def _put(self, number: int, worker: Worker) -> None:
        """Let a worker be the one of that number: it takes the streams that are there, and those that come."""
        with self._changing:
            self._workers[number], self._put_at[number] = worker, time.monotonic()
            own = {name: placed for name, placed in self._of(number).items() if not placed.pending}
        self._sum.up(number, True)
        taken = worker.process.ask("add", [(name, each.config, each.paused) for name, each in own.items()])
        if isinstance(taken.exception(), WorkerGone):
            self._replace(worker.process)  # it may have died before it was ours
            return
        taken.result()
        for placed in own.values():
            placed.reason = ""
        self._keep_reserve()

    def _keep_reserve(self) -> None:
        """Have a worker in reserve; not before all others are there."""
        with self._changing:
            if self._reserve is not None or None in self.workers or self._ending.is_set():
                return
            self._reserve = self._begun(None)
            answer = self._reserve[1]

        def loaded(done: Future[Any]) -> None:
            if isinstance(error := done.exception(), WorkerError):
                log.warning("no worker is in reserve: %s; one that dies is replaced by a new one", error)

        answer.add_done_callback(loaded)

    # Workers go -----------------------------------------------------------------------------------------------------
    def _heard(self, process: WorkerProcess, what: str, values: tuple[Any, ...]) -> None:
        if what == GONE:
            self._processes.discard(process)
            self._replace(process)
        else:
            self._said(what, values)

    def _replace(self, process: WorkerProcess) -> None:
        """Have another worker in place of one that died; nothing where it was none of ours, or is replaced already."""
        with self._changing:
            if self._ending.is_set():
                return
            if self._reserve is not None and self._reserve[0].process is process:
                refused = isinstance(self._reserve[1].exception(), WorkerError)  # the next would be, too
                self._reserve = None
                if not refused:
                    again = threading.Timer(RESERVE_SECONDS, self._keep_reserve)
                    again.daemon = True
                    again.start()
                return
            known = [each for each in self._workers if each is not None and each.process is process]
            if not known:
                return
            number = self._workers.index(known[0])
            self._workers[number] = None
            self.restarts[number] += 1
            streams = self._of(number)
            reason = f"worker {number} {process.end}; its streams are opened again"
            for placed in streams.values():
                placed.reason, placed.since = reason, time.time()
            last = known[0].snapshot
            self._sum.died(number, [] if last is None else last.metrics)
            self._gone += [] if last is None else [last.totals]
        log.error("%s (%s)", reason, ", ".join(streams) or "it had none")
        self._died(list(streams), reason)
        self._start_again(number)

    def _start_again(self, number: int) -> None:
        soon = time.monotonic() - self._put_at[number] < LONGEST_PAUSE
        pause = min(max(1.0, 2 * self._pauses[number]), LONGEST_PAUSE) if soon and self.restarts[number] > 1 else 0.0
        while not self._ending.wait(pause):
            self._pauses[number] = pause
            with self._changing:
                reserve, self._reserve = self._reserve, None
            try:
                worker, answer = reserve or self._begun(number)
                worker.models = answer.result()
            except RoadlensError as error:
                if self._ending.is_set():
                    return
                pause = min(max(1.0, 2 * pause), LONGEST_PAUSE)
                log.error("worker %d cannot be started: %s; trying again in %g s", number, error, pause)  # noqa: TRY400
            else:
                self._put(number, worker)
                return

    # Streams --------------------------------------------------------------------------------------------------------
    def place(self, config: StreamConfig, name: str | None = None) -> Placed:
        """Find a worker for a stream that is to come, the one with the least to do; it is `pending` until it is there.

        Raises:
            UsageError: the id is in use.
        """
        with self._changing:
            name = name or unique_names([config], self.streams)[0]
            if name in self.streams:
                raise UsageError(f"the stream id {name!r} is in use; remove that stream first, or choose another id")
            placed = self.streams[name] = Placed(replace(config, id=name), self._placer.place(), pending=True)
            return placed

    def forget(self, name: str) -> None:
        """A stream is gone, or was refused."""
        with self._changing:
            placed = self.streams.pop(name, None)
        if placed is not None:
            placed.berth.leave()
            self._sum.forget(name)

    def worker(self, name: str) -> Worker | None:
        """The worker that a stream is on; None while it is being replaced."""
        return self._workers[self.streams[name].berth.first]

    def come(self, placed: Placed, seconds: float) -> Worker | None:
        """The worker of a stream that is to come, started where it has not been; None where that takes too long."""
        number = placed.berth.first
        with self._changing:
            new = number >= self._started
            if new:
                self._started = number + 1
        if new:
            self._start_again(number)
        deadline = time.monotonic() + seconds
        while (worker := self._workers[number]) is None and time.monotonic() < deadline:
            if self._ending.wait(0.05):
                break
        return worker

    @property
    def workers(self) -> list[Worker | None]:
        """The workers that were started by number; None for one that is not there yet, or being replaced."""
        return self._workers[: self._started]

    def _of(self, number: int) -> dict[str, Placed]:
        return {name: placed for name, placed in self.streams.items() if placed.berth.first == number}

    # Metrics --------------------------------------------------------------------------------------------------------
    def look(self) -> None:
        """Have the newest snapshots of the workers that are there, as far as they answer soon."""
        wait([worker.look() for worker in self.workers if worker is not None], ANSWER_SECONDS)

    def totals(self) -> list[Any]:
        """The totals of every worker, those that died included."""
        self.look()
        with self._changing:
            return [*self._gone, *(snapshot.totals for snapshot in self._snapshots)]

    @property
    def _snapshots(self) -> list[Snapshot]:
        return [each.snapshot for each in self._workers if each is not None and each.snapshot is not None]

    def _look(self) -> None:
        while not self._ending.wait(SNAPSHOT_SECONDS):
            self.look()
            for snapshot in self._snapshots:
                for name, rate in snapshot.rates.items():
                    if name in self.streams:
                        self._placer.pace(self.streams[name].berth, rate)

    # The end --------------------------------------------------------------------------------------------------------
    def finish(self) -> int:
        """Let the workers finish what has been read and end; those that do not within `FINISH_SECONDS` are killed.
        Twice is allowed. Returns the exit code.
        """
        with self._changing:
            self._stopped_at = self._stopped_at or time.monotonic()
            self._ending.set()
            opened = [worker.process for worker in self._workers if worker is not None]
            for process in self._processes.difference(opened):
                process.kill()  # it loads its engines, or is in reserve: there is nothing to finish
            processes = [process for process in opened if process in self._processes]
        answers = [process.stop() for process in processes]
        deadline = self._stopped_at + FINISH_SECONDS
        for process in processes:
            if not process.wait(deadline - time.monotonic()):
                log.warning("a worker did not stop by itself, and was killed")
                process.kill()
        for relay in self._relays:
            relay.close(max(deadline - time.monotonic(), 0.1))
        self._stack.close()
        codes = [answer.result() for answer in answers if answer.done() and answer.exception() is None]
        return max(codes, default=0)

    def _gives_up(self) -> bool:
        return self._ending.is_set() and time.monotonic() > self._stopped_at + READERS_TIME

    def _relay(self, number: int) -> str:
        return f"ipc://{self._folder}/{number}.zmq"
