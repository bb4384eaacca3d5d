"""What the process may use, what of a stranger's words it prints, how it is asked to end, and how it leaves where a
thread of it hangs.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from engines.errors import NO_MEMORY, UsageError, lacks_memory

LAST_WORDS_SECONDS = 0.2
"""How long the end waits for whoever reads standard output and standard error."""


LEAST_ADDRESSES = 1 << 30
"""Bytes of addresses (`ulimit -v`) below which libraries in C++ end the process while they load, without a word: on two
cores they did between 500 and 950 MB, and every core asks for more."""


def check_memory() -> None:
    """See that the process may have the memory that the libraries of a run ask for when they are loaded.

    Raises:
        UsageError: a limit is so low that they would end it.
    """
    with suppress(ImportError):  # Windows has none
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if 0 <= limit < LEAST_ADDRESSES:
            raise UsageError(
                f"the memory of a process is limited to {limit >> 20} MB here, of which a run needs "
                f"{LEAST_ADDRESSES >> 20} before it begins; allow more of it (`ulimit -v`)"
            )


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def visible(text: str, keep: str = "") -> str:
    """A text of which nothing steers a terminal or begins a line of its own in a log: whatever is no printable sign is
    written as an escape, but for the signs to `keep`.

    >>> visible("front\\x1b[2J\\nwarning: none")
    'front\\\\x1b[2J\\\\nwarning: none'
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape", "surrogatepass").decode()
        for sign in text
    )


class VisibleFormatter(logging.Formatter):
    """Log lines as plain sentences, each one line: names of files and words of servers may hold anything."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        """The sentence, without the traceback that may follow."""
        return visible(record.message)


def open_standard_files() -> None:
    """See that the descriptors 0 to 2 are open. Where one is not (`>&-`), the next file that is opened gets its number,
    and what a library prints lands in it. What is written to a closed standard output is refused as on a full disk.
    """
    for number, place, mode in (
        (0, os.devnull, os.O_RDONLY),
        (1, "/dev/full", os.O_WRONLY),
        (2, os.devnull, os.O_WRONLY),
    ):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(place if Path(place).exists() else os.devnull, mode)  # takes the lowest number that is free
            if number == 1:
                sys.stdout = open(number, "w", closefd=False)  # noqa: SIM115  # for as long as the process is
            elif number == 2:
                sys.stderr = open(number, "w", closefd=False)  # noqa: SIM115


def of_the_system(error: Exception) -> str | None:
    """The sentence about what the system refuses to the whole process; None where the error is another one. Standard
    output takes nothing any more after one about it.
    """
    number = getattr(error, "errno", None)
    if number in {errno.EMFILE, errno.ENFILE} or "Too many open files" in str(error):
        return "too many files are open; allow more of them with: ulimit -n 1024"
    if lacks_memory(error):
        return NO_MEMORY
    if getattr(error, "filename", None) is None and number in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF}:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        return f"standard output cannot be written: it is closed, or {os.strerror(number).lower()}"
    return None


def ending_signals() -> tuple[signal.Signals, ...]:
    """Signals that ask for an end: Ctrl-C, SIGTERM, and SIGHUP where the terminal goes away, unless it was ignored when
    the process began, as `nohup` has it.
    """
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is None or signal.getsignal(hang_up) is signal.SIG_IGN:
        return signal.SIGINT, signal.SIGTERM
    return signal.SIGINT, signal.SIGTERM, hang_up


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """A handler: an end as that by Ctrl-C."""
    leave_terminal()
    raise KeyboardInterrupt


def leave_terminal() -> None:
    """Where nobody reads standard output or standard error any more, as behind a terminal that was closed, write to
    nowhere: no last word may cost a file its end.
    """
    if not hasattr(select, "poll"):
        return
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            looked = select.poll()
            looked.register(descriptor, 0)
            if any(event & (select.POLLHUP | select.POLLERR) for _, event in looked.poll(0)):
                os.dup2(nowhere, descriptor)
        os.close(nowhere)


def leave(code: int, last_words: Callable[[], None] = lambda: None, patience: float = LAST_WORDS_SECONDS) -> NoReturn:
    """End the process though threads of it hang, be it in writing to somebody who does not read: that is why
    `last_words`, and what the logs and standard output hold back, have `patience` seconds.
    """

    def speak() -> None:
        with suppress(OSError, ValueError, RuntimeError):  # nobody reads it any more
            last_words()
            logging.shutdown()
            sys.stdout.flush()

    speaking = threading.Thread(target=speak, name="last words", daemon=True)
    speaking.start()
    speaking.join(patience)
    os._exit(code)
