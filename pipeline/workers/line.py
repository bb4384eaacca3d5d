"""A worker's end of the line to its parent: what it is asked is done in threads, in any order; what it says goes up.

Both ends are processes of one program and one user, so that values travel as pickles.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from engines.errors import RoadlensError
from pipeline.addresses import strip_credentials
from pipeline.process import ending_signals

log = logging.getLogger(__name__)

STOP = "stop"
"""The last thing that a worker is asked; also what it does when its parent is gone."""


class Line:
    """The worker's end.

    Args:
        connection: to the parent.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def say(self, what: str, *values: Any) -> None:
        """Tell the parent something; a parent that is gone hears nothing."""
        self._send((None, what, values))

    def attend(self, verbs: Mapping[str, Callable[..., Any]]) -> None:
        """Do what is asked until `STOP` has been done, which is done in this thread.

        Args:
            verbs: what can be asked, `STOP` among it, by its name.
        """
        while True:
            try:
                number, verb, values = self._connection.recv()
            except (EOFError, OSError):  # the parent is gone
                number, verb, values = -1, STOP, ()
            if verb == STOP:
                self._do(number, verbs[STOP], values)
                return
            threading.Thread(target=self._do, args=(number, verbs[verb], values), name=verb, daemon=True).start()

    def _do(self, number: int, work: Callable[..., Any], values: tuple[Any, ...]) -> None:
        try:
            self._send((number, "done", work(*values)))
        except RoadlensError as error:
            self._send((number, "refused", (error.exit_code, strip_credentials(str(error)))))
        except Exception as error:
            log.exception("a worker failed")
            self._send((number, "refused", (1, f"{type(error).__name__}: {strip_credentials(str(error))}")))

    def _send(self, message: tuple[Any, ...]) -> None:
        with self._sending, suppress(OSError):
            self._connection.send(message)


def line_to_parent() -> Line:
    """The line of this process, whose descriptor is its argument. Signals are the parent's: it tells when to stop."""
    for number in ending_signals():
        signal.signal(number, signal.SIG_IGN)
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    return Line(Connection(descriptor))
