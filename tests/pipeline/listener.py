"""Takes connections on loopback, each in a thread of its own: what all cameras of the tests listen with."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Listener:
    """Listens from the beginning, takes connections from `start` to `stop`.

    Args:
        talk: called with each connection and its number, from 0; it closes the connection.

    Attributes:
        port: where it listens.
        connections: how many there were.
        stopped: set by `stop`.
    """

    def __init__(self, talk: Callable[[socket.socket, int], None]) -> None:
        self._talk = talk
        self.connections, self.stopped = 0, threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])

    def start(self) -> None:
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self.stopped.is_set():
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number, self.connections = self.connections, self.connections + 1
            threading.Thread(target=self._talk, args=(peer, number), daemon=True).start()

    def stop(self) -> None:
        """Take no more; those there are go on."""
        self.stopped.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
