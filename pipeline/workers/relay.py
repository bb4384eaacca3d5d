"""One address for the messages of several processes.

Workers connect to a socket of the parent's, which passes on what they send: with PUB to every subscriber and in C, so
that no message waits for Python; with PUSH one by one, and a worker that closes waits until its last is taken.
Subscriptions go the other way, so that a worker encodes what somebody wants and nothing else. Numbers are made by the
workers, those of a stream by one of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import zmq
from zmq.utils.monitor import recv_monitor_message

from pipeline.config import PublishConfig
from pipeline.messages.sockets.contexts import destroy, end_within
from pipeline.messages.sockets.keys import server_keys
from pipeline.messages.sockets.outlet import FAREWELL, Outlet, bind, sending_socket
from pipeline.session.shared import RELAY_HIGH_WATER

_SETTLE_MS = 50
"""Milliseconds from the end of the last connection until everything that came over it has been passed on."""


class Relay(Protocol):
    """Passes on what comes at an address of the workers'."""

    def close(self, seconds: float) -> None:
        """Pass on what is under way, and free both addresses; workers have `seconds` to be gone. Twice is allowed."""


def open_relay(options: PublishConfig, address: str, stop: Callable[[], bool]) -> Relay:
    """Bind the address of a configuration, and that of the workers.

    Args:
        options: what the subscribers see.
        address: `ipc://…` to which the workers connect.
        stop: says whether PUSH waits for its reader no longer than `linger`.

    Raises:
        RoadlensError: the address cannot be used.
    """
    return (_PubRelay if options.pattern == "pub" else _PushRelay)(options, address, stop)


class _Connections:
    """How many workers are connected to a socket, as far as it has said."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._socket, self._open = socket, 0

    def any(self) -> bool:
        while self._monitor.poll(0):
            happened = recv_monitor_message(self._monitor)["event"]
            self._open += 1 if happened == zmq.EVENT_HANDSHAKE_SUCCEEDED else -1
        return self._open > 0

    def close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(0)


class _PubRelay:
    def __init__(self, options: PublishConfig, address: str, _stop: Callable[[], bool]) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._linger, self._endpoint = options.linger, options.bind
        try:
            self._front = sending_socket(self._context, "pub", options.high_water, relays=True)
            keys = None if options.curve is None else server_keys(options.curve)
            self._end_doorkeeper = bind(self._front, self._context, options.bind, options.allow_remote, keys)
            self._back = self._context.socket(zmq.XSUB)
            self._back.set_hwm(max(options.high_water, RELAY_HIGH_WATER))
            self._back.bind(address)
        except BaseException:
            destroy(self._context, options.bind)
            raise
        self._connections = _Connections(self._back)
        self._thread = threading.Thread(target=self._pass_on, name=f"relay {options.bind}", daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        with suppress(zmq.ContextTerminated):
            zmq.proxy(self._front, self._back)
        self._back.close(0)
        self._front.close(round(self._linger * 1000))

    def close(self, seconds: float) -> None:
        if self._front.closed:
            return
        deadline = time.monotonic() + seconds
        while self._connections.any() and time.monotonic() < deadline:
            time.sleep(_SETTLE_MS / 1000)
        time.sleep(_SETTLE_MS / 1000)
        self._connections.close()
        self._end_doorkeeper()
        end_within(self._linger, self._context.term, self._endpoint)


class _PushRelay:
    def __init__(self, options: PublishConfig, address: str, stop: Callable[[], bool]) -> None:
        keys = None if options.curve is None else server_keys(options.curve)
        self._outlet = Outlet(
            options.bind, "push", high_water=options.high_water, linger=options.linger, stop=stop,
            allow_remote=options.allow_remote, curve=keys,
        )  # fmt: skip
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._back = self._context.socket(zmq.ROUTER)
        self._back.set_hwm(options.high_water)
        self._back.bind(address)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._pass_on, name=f"relay {options.bind}", daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        while True:
            if self._back.poll(_SETTLE_MS):
                sender, *parts = self._back.recv_multipart()
                if parts == [FAREWELL]:
                    self._back.send_multipart([sender, FAREWELL])
                else:
                    self._outlet.send(parts)
            elif self._closing.is_set():
                break
        destroy(self._context, self._outlet.endpoint)
        self._outlet.close()

    def close(self, seconds: float) -> None:
        self._closing.set()
        self._thread.join(seconds)
