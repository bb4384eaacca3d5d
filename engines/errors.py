"""The errors a user can mend: one sentence each, and the exit code the command ends with."""

from __future__ import annotations

import errno

NO_MEMORY = (
    "there is too little memory; allow more of it (`ulimit -v`, the container's limit), or ask for fewer streams"
)
"""What is said where memory, or a thread's stack, is refused."""

_REFUSED = (
    "bad_alloc", "can't alloc", "annot allocate memory", "nsufficient memory", "can't start new thread",
    "failed to map segment", "Broken promise",
)  # fmt: skip


class RoadlensError(Exception):
    """A mistake or a condition that the person at the keyboard can act on.

    The message is one sentence that says what was given, what is wanted and how to mend it.
    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 1


class UsageError(RoadlensError):
    """The command line, a configuration file or a recipe asks for something that does not exist or does not fit."""

    exit_code = 2


class SourceError(RoadlensError):
    """Footage or data that cannot be opened or read."""

    exit_code = 3


class ModelError(RoadlensError):
    """A model file that is missing, has no `ModelSpec`, or does another task than the one asked for."""

    exit_code = 4


class DeviceError(ModelError):
    """A device or a backend that was asked for and is not there; `lacking` says what, in one word, for a metric."""

    def __init__(self, sentence: str, lacking: str) -> None:
        super().__init__(sentence)
        self.lacking = lacking


class OutputError(RoadlensError):
    """An output that cannot be written: a path, a full disk, a port in use."""

    exit_code = 5


class CheckFailed(RoadlensError):  # noqa: N818  # a check that did not pass is no error of the program
    """A check that was asked for did not pass: `models verify`, `config check`, `data check`."""

    exit_code = 6


def lacks_memory(error: BaseException) -> bool:
    """Whether memory was refused: as Python says it, the system, and libraries in C++.

    >>> lacks_memory(RuntimeError("can't start new thread"))
    True
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if type(error) is RuntimeError and "Resource temporarily unavailable" in str(error):
        return True  # C++ was refused a thread
    return any(sign in str(error) for sign in _REFUSED)
