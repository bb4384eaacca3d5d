"""ZeroMQ contexts that end: terminating one may wait for ever, and nobody waits for it longer than he wants to."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import zmq

log = logging.getLogger(__name__)

_GRACE = 2.0
"""Seconds that a context whose sockets have nothing more to deliver gets to end; it needs milliseconds."""

_LOOK = 0.05
"""Seconds between two looks at whether to go on waiting."""


def terminated(end: Callable[[], object], name: str, given_up: Callable[[], bool]) -> bool:
    """Terminate a context in a thread of its own, which is left behind if it outlives the caller's patience.

    `zmq_ctx_term` is one call that nothing interrupts. It waits for what sockets still deliver, and with libzmq 4.3.5
    it waits for ever where a peer breaks its connection off just while something is sent to it and the socket is
    closed, whatever its linger (libzmq issue 2586 and its kind).

    Args:
        end: what terminates the context: its `term` or `destroy`.
        name: of the socket, for the thread's name.
        given_up: asked now and then; whether to leave the context behind.

    Returns:
        Whether it has ended.
    """
    waiting = threading.Thread(target=end, name=f"end of {name}", daemon=True)
    waiting.start()
    while True:
        waiting.join(_LOOK)
        if not waiting.is_alive():
            return True
        if given_up():
            return False


def end_within(seconds: float, end: Callable[[], object], name: str) -> None:
    """Terminate a context (see `terminated`), and say so where it has not ended a little after `seconds`."""
    deadline = time.monotonic() + seconds + _GRACE
    if not terminated(end, name, lambda: time.monotonic() >= deadline):
        log.warning("ZeroMQ does not end the connections of %s: they are left behind, nothing waits for them", name)


def destroy(context: zmq.Context[zmq.Socket[bytes]], name: str) -> None:
    """Close all sockets of a context, which deliver nothing more, and terminate it."""
    end_within(0, lambda: context.destroy(linger=0), name)
