"""What the API serves: a session once its engines are there, its events and statistics, and who watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.config import Config
from pipeline.live_view import LiveView
from pipeline.metrics import Metrics
from pipeline.output_state import OutputChange, OutputState
from pipeline.serve.events import EventLog
from pipeline.serve.statistics import StreamStatistics
from pipeline.session import Session

MOST_VIEWERS = 200
"""Live views and event streams at once."""


class NotReady(Exception):  # noqa: N818  # a state that passes, no error
    """The session is not there yet, or no longer."""


class Service:
    """A session as the API sees it. It is there before its engines are, and says so.

    Args:
        config: what to serve.

    Attributes:
        events: what happened lately.
        statistics: how the streams do.
        stopping: whether the server is being stopped: open answers come to an end.
        began: monotonic clock at the start.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.events, self.statistics = EventLog(), StreamStatistics()
        self.metrics = Metrics()
        self.stopping = False
        self.began = time.monotonic()
        self._session: Session | None = None
        self._problem = ""
        self._viewers = 0
        self._lock = threading.Lock()

    @property
    def max_streams(self) -> int:
        """Streams at once."""
        return self.config.serve.max_streams

    def open(self) -> Session:
        """Load the engines, then start and add the configured streams.

        Raises:
            RoadlensError: a model or output that cannot be used.
        """
        session = Session(
            self.config, serving=True, sinks=[self.statistics], observers=[self.events.changed],
            output_observers=[self._output_changed], metrics=self.metrics,
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
    def session(self) -> Session:
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
        view = self.session.view
        if view is None:
            raise NotReady("this session shows no pictures")
        return view

    @property
    def alive(self) -> bool:
        """Whether the process can still do its work."""
        return not self._problem and (self._session is None or not self._session.runtime.aborting)

    @property
    def ready(self) -> bool:
        """Whether streams can be analysed now."""
        return self._session is not None and not self.stopping and self.alive

    @property
    def reason(self) -> str:
        """Why it is not ready; empty when it is."""
        if self._problem:
            return self._problem
        if self.stopping:
            return "the server is being stopped"
        return "" if self._session is not None else "the engines are being built or loaded"

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
