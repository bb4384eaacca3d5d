"""What the API of a server of several processes serves: its workers, the events of all of them, and the sums."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from engines.errors import RoadlensError
from pipeline.config import Config
from pipeline.metrics import MetricsServer, serve_metrics
from pipeline.serve.answers import ModelAnswer, StreamAnswer, Totals, WorkerAnswer, all_totals, stream_answer
from pipeline.serve.events import Event
from pipeline.serve.service import NotReady, Service
from pipeline.serve.statistics import Pace
from pipeline.session import RunningStream
from pipeline.state import SourceState, StateChange
from pipeline.workers.fleet import ANSWER_SECONDS, Fleet, Placed, Worker

WORKER = "pipeline.serve.workers.worker"


class FleetService(Service):
    """A server's workers as its API sees them.

    Args:
        config: what to serve.
        inputs: further files that it was read from; no output may be one of them.
        worker: the module that a worker runs.

    Attributes:
        fleet: the workers.

    Raises:
        RoadlensError: an address cannot be used.
    """

    def __init__(self, config: Config, inputs: Sequence[Path] = (), worker: str = WORKER) -> None:
        super().__init__(config, inputs)
        self.fleet = Fleet(config, worker, inputs, self._said, self._died)
        self._opened = False
        self._scraped: MetricsServer | None = None
        if config.metrics is not None:
            try:
                self._scraped = serve_metrics(self.registry, config.metrics.host, config.metrics.port)
            except RoadlensError:
                self.fleet.finish()
                raise

    def open(self) -> None:
        """Start the workers, and share the configured streams among them.

        Raises:
            RoadlensError: what a worker says that cannot use a model or output.
        """
        self.fleet.open()
        self._opened = True

    @property
    def over(self) -> bool:
        """Never: a worker that dies is replaced."""
        return False

    def finish(self, deadline: float) -> tuple[int, bool]:
        """Let the workers finish, and end; they are killed where they do not."""
        code = self.fleet.finish()
        if self._scraped is not None:
            self._scraped.close()
        return code, time.monotonic() < deadline

    @property
    def registry(self) -> CollectorRegistry:
        """What Prometheus scrapes: the sums over all workers."""
        return self.fleet.registry

    @property
    def opened(self) -> bool:
        """Whether the workers have loaded their engines."""
        return self._opened

    # What is said ---------------------------------------------------------------------------------------------------
    def _said(self, what: str, values: tuple[Any, ...]) -> None:
        if what == "event":
            event: Event = values[0]
            self.events.add(event.stream, event.kind, event.text, event.cause, event.retry_in, event.at)

    def _died(self, streams: list[str], reason: str) -> None:
        for name in streams or [""]:
            self.events.add(name, "worker replaced", reason)

    # What is asked --------------------------------------------------------------------------------------------------
    def worker(self, stream: str) -> Worker:
        """The worker of a stream.

        Raises:
            KeyError: there is no such stream.
            NotReady: its worker is being replaced.
        """
        worker = self.fleet.worker(stream)
        if worker is None:
            raise NotReady(f"the worker of the stream {stream!r} is being replaced")
        return worker

    async def streams(self) -> list[StreamAnswer]:
        """How all streams stand."""
        asked = [worker.process.ask("streams") for worker in self.fleet.workers if worker is not None]
        waits = [asyncio.wait_for(asyncio.wrap_future(answer), ANSWER_SECONDS) for answer in asked]
        answers = await asyncio.gather(*waits, return_exceptions=True)
        known = {each.id: each for answer in answers if not isinstance(answer, BaseException) for each in answer}
        return [known.get(name) or _away(name, placed) for name, placed in list(self.fleet.streams.items())]

    def models(self) -> list[ModelAnswer]:
        """What looks at the streams, as the first worker says it.

        Raises:
            NotReady: none is there now.
        """
        for worker in self.fleet.workers:
            if worker is not None:
                models: list[ModelAnswer] = worker.models
                return models
        raise NotReady("every worker is being replaced")

    def totals(self) -> Totals:
        """The figures of all workers, those that died included."""
        workers = [
            WorkerAnswer(
                number,
                None if worker is None else worker.process.pid,
                [name for name, placed in list(self.fleet.streams.items()) if placed.berth.first == number],
                self.fleet.restarts[number],
            )
            for number, worker in enumerate(self.fleet.workers)
        ]
        return all_totals(self.fleet.totals(), workers, time.monotonic() - self.began)


def _away(name: str, placed: Placed) -> StreamAnswer:
    """A stream for which no worker answers now."""
    change = StateChange(name, SourceState.CONNECTING, placed.reason or "its worker does not answer", at=placed.since)
    return stream_answer(RunningStream(name, placed.config, None, change, paused=placed.paused), None, Pace(), 0)
