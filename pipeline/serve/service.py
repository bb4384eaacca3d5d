"""What the API serves: a session once its engines are there, its events and statistics, and who watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from engines.errors import RoadlensError
from pipeline.config import Config
from pipeline.metrics import Metrics
from pipeline.outputs.snapshots import LiveView
from pipeline.serve.events import Event, EventLog
from pipeline.serve.past.history import StreamHistory
from pipeline.serve.statistics import StreamStatistics
from pipeline.session import Part, ServingSession
from pipeline.state import OutputChange, OutputState

FINISH_SECONDS = 2.5
"""How long a stop leaves the streams to finish what has been read."""

MOST_VIEWERS = 200
"""Live views and event streams at once."""


class NotReady(Exception):  # noqa: N818  # a state that passes, no error
    """The session is not there yet, or no longer."""


class Service:
    """A session as the API sees it. It is there before its engines are, and says so.

    Args:
        config: what to serve.
        inputs: further files that it was read from; no output may be one of them.
        part: what the session is to a server of several processes; None where it is the whole.
        heard: told each event, at once and in order; it must not wait.

    Attributes:
        events: what happened lately.
        statistics: how the streams do.
        history: what they did and what was seen in them.
        stopping: whether the server is being stopped: open answers come to an end.
        began: monotonic clock at the start.
    """

    def __init__(
        self,
        config: Config,
        inputs: Sequence[Path] = (),
        part: Part | None = None,
        heard: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        self.config, self._inputs, self._part = config, tuple(inputs), part
        self.events, self.statistics = EventLog(heard=heard), StreamStatistics()
        self.history = StreamHistory()
        self.metrics = Metrics()
        self.stopping = False
        self.began = time.monotonic()
        self._session: ServingSession | None = None
        self._problem = ""
        self._viewers = 0
        self._lock = threading.Lock()

    @property
    def max_streams(self) -> int:
        """Streams at once."""
        return self.config.serve.max_streams

    def open(self) -> ServingSession | None:
        """Load the engines, then start and add the configured streams. The session is the service's: `finish` ends it.

        Raises:
            RoadlensError: a model or output that cannot be used.
        """
        session = ServingSession(
            self.config, sinks=[self.statistics, self.history],
            observers=[self.events.changed, self.history.changed],
            output_observers=[self._output_changed], metrics=self.metrics, inputs=self._inputs, part=self._part,
        )  # fmt: skip
        session.start()
        self._session = session
        return session

    def _output_changed(self, change: OutputChange) -> None:
        if change.state is not OutputState.CONNECTING:
            self.events.add(change.stream, f"{change.output} {change.state.value}", change.reason, at=change.at)

    def close(self, problem: str = "") -> None:
        """Serve no more; `problem` is why, where it is one."""
        self.stopping = True
        self._problem = problem

    @property
    def over(self) -> bool:
        """Whether the session has ended by itself."""
        return self._session is not None and self._session.runtime.wait(0)

    def finish(self, deadline: float) -> tuple[int, bool]:
        """Finish the streams and close the session, what hangs excepted.

        Args:
            deadline: on the monotonic clock, when this returns at the latest.

        Returns:
            The exit code, and whether nothing is left.
        """
        session = self._session
        if session is None:
            return 0, True
        session.runtime.stop()
        over = session.runtime.wait(FINISH_SECONDS)
        if not over:
            session.runtime.abort()
            over = session.runtime.wait(1.0)
        failed = session.runtime.result().error if session.runtime.aborting else None
        code = failed.exit_code if isinstance(failed, RoadlensError) else int(failed is not None)
        closing = threading.Thread(target=session.close, name="close", daemon=True)
        closing.start()
        closing.join(max(0.1, deadline - time.monotonic()))
        return code, over and not closing.is_alive()

    @property
    def registry(self) -> CollectorRegistry:
        """What Prometheus scrapes."""
        return self.metrics.registry

    @property
    def session(self) -> ServingSession:
        """The session.

        Raises:
            NotReady: not there yet, or no longer.
        """
        if self._session is None or self.stopping:
            raise NotReady(self.reason)
        return self._session

    @property
    def view(self) -> LiveView:
        """The newest pictures.

        Raises:
            NotReady: not there yet, or no longer.
        """
        return self.session.view

    @property
    def opened(self) -> bool:
        """Whether the engines are there."""
        return self._session is not None

    @property
    def alive(self) -> bool:
        """Whether the process can still do its work."""
        return not self._problem and (self._session is None or not self._session.runtime.aborting)

    @property
    def ready(self) -> bool:
        """Whether streams can be analysed now."""
        return self.opened and not self.stopping and self.alive

    @property
    def reason(self) -> str:
        """Why it is not ready; empty when it is."""
        if self._problem:
            return self._problem
        if self.stopping:
            return "the server is being stopped"
        return "" if self.opened else "the engines are being built or loaded"

    def check_viewers(self) -> None:
        """Refuse one viewer too many.

        Raises:
            NotReady: there are `MOST_VIEWERS` already.
        """
        if self._viewers >= MOST_VIEWERS:
            raise NotReady(f"{MOST_VIEWERS} views are open, as many as there may be; close one")

    @contextmanager
    def counted_viewer(self) -> Iterator[None]:
        """Somebody watches while the block runs."""
        with self._lock:
            self._viewers += 1
        try:
            yield
        finally:
            with self._lock:
                self._viewers -= 1
