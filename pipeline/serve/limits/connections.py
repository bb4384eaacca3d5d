"""The server's connections: whoever keeps one and asks nothing, or never ends what he asks, gives his place away.

uvicorn counts connections, and answers everybody with 503 once there are too many, probes included: some hundred idle
or half-open ones are enough. Here a request must come within `PATIENCE` seconds, and where `MOST` connections are open
a new one takes the place of the oldest that nobody would miss.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger(__name__)

MOST = 512
"""Connections at once, WebSockets included."""

PATIENCE = 20.0
"""Seconds within which the head of a request has to be there, and then its body."""


class Connection(H11Protocol):
    """A connection of HTTP, as uvicorn makes them."""

    most, patience = MOST, PATIENCE
    _timer: asyncio.TimerHandle | None = None
    _waits_for = ""
    began = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn's own
        """Take a connection, in place of another one where there are too many."""
        super().connection_made(transport)
        self.began = self.loop.time()
        self._watch()
        if len(self.connections) <= self.most:
            return
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        least = min(others, key=lambda other: (other.worth, other.began), default=self)
        (self if least.worth == _AT_WORK else least).give_up()

    @property
    def worth(self) -> int:
        """What would be lost with it: nothing of one that has asked nothing, least of one that does not go on."""
        if self.cycle is None or self.cycle.response_complete:
            return _IDLE
        if self.cycle.more_body:
            return _SPEAKING
        return _NOT_READING if self.transport.get_write_buffer_size() else _AT_WORK

    def give_up(self) -> None:
        """Close it, whatever is still to be sent."""
        self.connections.discard(self)
        self._stop_watching()
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what came, and see what is to come now."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Look at what came meanwhile: a client may ask ahead."""
        self._stop_watching()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_watching()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Hand over to who speaks WebSocket."""
        self._stop_watching()
        self._waits_for = _OTHERS
        super().handle_websocket_upgrade(event)

    def _watch(self) -> None:
        if self._waits_for == _OTHERS or self.transport.is_closing():
            return
        waits_for = {_IDLE: "the head of a request", _SPEAKING: "the body of a request"}.get(self.worth, "")
        if waits_for == self._waits_for:
            return
        self._stop_watching()
        self._waits_for = waits_for
        if waits_for:
            self._timer = self.loop.call_later(self.patience, self._late)

    def _late(self) -> None:
        log.debug("a connection is closed: %s has not come within %g s", self._waits_for, self.patience)
        self.give_up()

    def _stop_watching(self) -> None:
        self._waits_for = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_IDLE, _SPEAKING, _NOT_READING, _AT_WORK = range(4)
_OTHERS = "nothing: it is another protocol's"
