"""A worker as its parent has it: a process of its own, started from nothing, and the line to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engines.errors import RoadlensError
from pipeline.workers.line import STOP

GONE = "gone"
"""What is heard of a worker last."""


class WorkerError(RoadlensError):
    """What a worker says of something that it could not do; it ends the command as it would have in one process."""

    def __init__(self, exit_code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class WorkerGone(RoadlensError):  # noqa: N818  # it happened to the process, not to what was asked
    """The worker's process ended before it answered; `killed` says whether somebody else ended it at once."""

    def __init__(self, sentence: str, *, killed: bool = False) -> None:
        super().__init__(sentence)
        self.killed = killed


class WorkerProcess:
    """A worker. It is started, not forked: engines, CUDA and threads of the parent's have no part in it.

    Args:
        module: what it runs, `python -m MODULE DESCRIPTOR`.
        heard: told what it says, from a thread of its own: the worker, what, and the values; `GONE` at its end.
    """

    def __init__(self, module: str, heard: Callable[[WorkerProcess, str, tuple[Any, ...]], None]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
            # In a session of its own: a terminal's Ctrl-C is the parent's to hear.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno())], stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()], start_new_session=True, env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        self._line = Connection(ours.detach())
        self._heard = heard
        self._numbers = count()
        self._asked: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._over = False
        threading.Thread(target=self._listen, name=f"worker {self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def end(self) -> str:
        """How its process ended, for people; it is over."""
        code = self._process.wait()
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def ask(self, verb: str, *values: Any) -> Future[Any]:
        """Ask something; the future has the answer, `WorkerError` or `WorkerGone`."""
        answer: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            if not self._over:
                self._asked[number] = answer
                with suppress(OSError):  # its end is about to be heard
                    self._line.send((number, verb, values))
                    return answer
            self._asked.pop(number, None)
        answer.set_exception(self._gone())
        return answer

    def stop(self) -> Future[Any]:
        """Ask it to finish and to end."""
        return self.ask(STOP)

    def wait(self, seconds: float) -> bool:
        """Wait until its process is over; False when `seconds` passed first."""
        try:
            self._process.wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End its process at once."""
        self._process.kill()
        self._process.wait()

    def _gone(self) -> WorkerGone:
        return WorkerGone(self.end, killed=self._process.wait() == -signal.SIGKILL)

    def _listen(self) -> None:
        while True:
            try:
                number, what, values = self._line.recv()
            except (EOFError, OSError):
                break
            if number is None:
                self._heard(self, what, values)
                continue
            with self._lock:
                answer = self._asked.pop(number, None)
            if answer is None:
                continue
            with suppress(InvalidStateError):  # whoever asked waits no longer
                if what == "done":
                    answer.set_result(values)
                else:
                    answer.set_exception(WorkerError(*values))
        with self._lock:
            self._over = True
            left = list(self._asked.values())
            self._asked.clear()
            self._line.close()
        for answer in left:
            with suppress(InvalidStateError):
                answer.set_exception(self._gone())
        self._process.wait()
        self._heard(self, GONE, ())
