"""The other processes of a run on this machine: what happens when one of them ends before its time."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

_LOOK = 0.25
"""Seconds between two looks; Lightning's own watch looks for the first time after five."""


class Started(Protocol):
    """A process, as `subprocess.Popen` has it."""

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...


class Companions:
    """Sees that a run whose processes do not all live ends in a sentence, and that none of them is left behind.

    Where a process of a run is gone, the others hear of it as soon as they exchange gradients; some, on GPUs, wait
    without end. Lightning's own watch kills them all within seconds, without a word: this one takes its place. It
    waits until this process has noticed by itself and spoken, and ends it after `patience` seconds where it has not.

    Args:
        launcher: of the trainer; None where a run has one process.
        output: folder of the run, for the sentence.
        patience: seconds that this process is given to notice.
    """

    def __init__(self, launcher: object, output: Path, patience: float = 60.0) -> None:
        self.output, self.patience = output, patience
        self._started: Sequence[Started] = ()
        self._over = threading.Event()
        self._launcher = launcher

    def __enter__(self) -> Self:
        if hasattr(self._launcher, "procs"):
            threading.Thread(target=self._watch, name="companions", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(failed=kind is not None)

    def lost(self, seconds: float = 5.0) -> str:
        """How one of them ended before its time, in a clause; empty where that is not known within `seconds`."""
        for _ in range(round(seconds / _LOOK) if self._started else 0):
            if found := self._fallen():
                return found
            self._over.wait(_LOOK)
        return ""

    def _end(self, failed: bool) -> None:
        self._over.set()
        if failed:
            for process in self._started:
                process.kill()

    def _fallen(self) -> str:
        for rank, process in enumerate(self._started, 1):
            if code := process.poll():
                how = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with code {code}"
                return f"process {rank + 1} of {len(self._started) + 1} {how}"
        return ""

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            if not self._started:
                self._started = _taken(self._launcher)
            found = self._fallen()
            if found and not self._over.wait(self.patience):
                print(f"roadlens: {left_alone(self.output, found)}", file=sys.stderr, flush=True)
                self._end(failed=True)
                os._exit(1)  # whatever the main thread waits for is not to come


def _taken(launcher: object) -> Sequence[Started]:
    """The processes, once all are started, out of the list in which Lightning's own watch looks for them."""
    procs: list[Started] = getattr(launcher, "procs", [])
    if len(procs) < getattr(launcher, "num_processes", 1) - 1:
        return ()
    found = list(procs)
    procs.clear()
    return found


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def left_alone(output: Path, reason: str) -> str:
    """The sentence that ends a run of several processes of which one is gone."""
    return f"another process of this run has ended ({reason}); see what it said, and go on with --resume in {output}"
