"""A run as a person sees it: a progress bar on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import NoReturn, Self

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from engines.build_bar import build_bar
from pipeline.config import Config
from pipeline.runtime import RunResult, Runtime
from pipeline.session import Session, exit_code, summary, write_summary

log = logging.getLogger(__name__)

_LINE_SECONDS = 5.0
_SECOND_SIGNAL_SECONDS = 2.0

FINISH_SECONDS = 4.0
"""How long a stop may finish the files. After that it drops what is under way; what is written plays, and --resume
goes on with it."""

EXIT_SECONDS = 4.7
"""After this long a stop is over, whatever still runs: a service manager soon kills."""

_OPENING_SECONDS = 1.0
"""How long a stop waits for what is being opened: a camera that does not answer, an engine that is being built."""

_INTERRUPTED = 130

LAST_WORDS_SECONDS = 0.2
"""How long the end waits for whoever reads standard output and standard error."""


def run_session(config: Config, *, resume: bool = False, verbose: bool = False) -> int:
    """Run a configuration with progress on standard error; returns the exit code.

    Raises:
        RoadlensError: something cannot be opened; nothing has been written then.
    """
    console = Console(stderr=True, highlight=False)
    set_up_logging(console, verbose)
    with _Signals(console) as signals:
        with signals.opened(partial(_opened, config, resume, console)) as session:
            for name in session.already_complete:
                console.print(f"{name}: complete already, nothing to resume")
            if not session.plans:
                return 0
            for plan in session.plans:
                info, source = plan.info, plan.source
                kept = "every frame" if source.mode == "file" else "the newest frame wins"
                console.print(
                    f"{source.id}: {source.mode}, {kept}; {info.width}×{info.height}, {float(info.rate):.6g} fps",
                    markup=False,
                )
            for model in session.models:
                engine = model.engine
                console.print(f"{model.name}: {engine.backend} {engine.precision} on {model.device}", markup=False)
            signals.stop(session.runtime)
            with _progress(session, console) as poll:
                result = session.run(poll)
        values = summary(session, result)
        if config.summary is not None:
            write_summary(config.summary, values)
        _print_result(console, session, result)
        code = exit_code(result)
        if signals.heard:
            # A thread that hangs in native code, such as a socket's last messages, holds up no end.
            leave(code, patience=EXIT_SECONDS)
        return code


def _opened(config: Config, resume: bool, console: Console) -> Session:
    """The session; how far engines are built is a bar on a terminal, and lines elsewhere."""
    if not console.is_terminal:
        return Session(config, resume=resume)
    with build_bar(console) as building:
        return Session(config, resume=resume, building=building)


def set_up_logging(console: Console, verbose: bool) -> None:
    """Log lines as plain sentences on standard error; those of other packages from warnings on."""
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False, markup=False)
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for package in ("pipeline", "engines"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)


class _Signals:
    """SIGINT and SIGTERM while the block runs: the first one finishes the files, the second stops at once. Whatever
    hangs, the process is gone `EXIT_SECONDS` after the first.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._runtime: Runtime | None = None
        self._received = 0
        self._heard, self._over = threading.Event(), threading.Event()
        self._before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def __enter__(self) -> Self:
        for number in self._before:
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def opened(self, make_session: Callable[[], Session]) -> Session:
        """A session, opened in a thread: native code that builds an engine for minutes lets no signal through to the
        thread it runs in.
        """
        made: list[Session | BaseException] = []

        def make() -> None:
            try:
                made.append(make_session())
            except BaseException as error:  # noqa: BLE001  # raised again in the main thread
                made.append(error)

        opening = threading.Thread(target=make, name="open", daemon=True)
        opening.start()
        while opening.is_alive() and not self._heard.is_set():
            opening.join(0.05)
        opening.join(_OPENING_SECONDS)
        if opening.is_alive():
            self._console.show_cursor()  # a bar hides it
            leave(_INTERRUPTED)  # nothing has been written yet
        (session,) = made
        if isinstance(session, BaseException):
            raise session
        return session

    @property
    def heard(self) -> bool:
        """Whether a signal came."""
        return self._heard.is_set()

    def stop(self, runtime: Runtime) -> None:
        """What to stop from now on; at once, where a signal came before."""
        self._runtime = runtime
        if self._heard.is_set():
            runtime.stop()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._received += 1
        if self._received == 1:
            began = time.monotonic()
            self._heard.set()
            threading.Thread(target=self._bound, args=(began,), name="stop", daemon=True).start()
            if self._runtime is not None:
                self._runtime.stop()
            with suppress(OSError, ValueError, RuntimeError):  # nobody reads it, or what was interrupted was writing
                self._console.print("stopping: finishing the files (once more to stop at once)")
            return
        if self._received > 2 or self._runtime is None:
            os._exit(128 + number)
        self._runtime.abort()
        if not self._runtime.wait(_SECOND_SIGNAL_SECONDS):
            os._exit(128 + number)

    def _bound(self, began: float) -> None:
        """See to it that a stop comes to its end `EXIT_SECONDS` after it `began`, whatever is waited for elsewhere."""
        if self._over.wait(began + FINISH_SECONDS - time.monotonic()):
            return
        if self._runtime is not None:
            threading.Thread(target=self._runtime.abort, name="abort", daemon=True).start()
        if self._over.wait(began + EXIT_SECONDS - time.monotonic()):
            return
        leave(_INTERRUPTED, self._say_what_hangs)

    def _say_what_hangs(self) -> None:
        hanging = [] if self._runtime is None else self._runtime.result().not_stopped
        self._console.print(f"left behind what did not stop: {', '.join(hanging) or 'the outputs'}", markup=False)


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


@contextmanager
def _progress(session: Session, console: Console) -> Iterator[Callable[[Runtime], None]]:
    """Something to call a few times a second, that shows how far each stream is."""
    totals = {
        p.source.id: None if p.info.expected_frames is None else max(p.info.expected_frames - p.first_frame, 0)
        for p in session.plans
    }
    began = time.monotonic()
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.fields[known]}"),
            TextColumn("{task.fields[fps]:.1f} fps"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console, transient=True) as bar:
            tasks: dict[str, TaskID] = {
                name: bar.add_task(name, total=total, fps=0.0, known=total or "?") for name, total in totals.items()
            }

            def show(runtime: Runtime) -> None:
                elapsed = max(time.monotonic() - began, 1e-6)
                for name, counts in runtime.counts().items():
                    bar.update(tasks[name], completed=counts.emitted, fps=counts.emitted / elapsed)

            yield show
        return
    last = began

    def say(runtime: Runtime) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _LINE_SECONDS:
            return
        last = now
        for name, counts in runtime.counts().items():
            rate = counts.emitted / (now - began)
            total = totals[name]
            left = (
                f", {(total - counts.emitted) / rate:.0f} s left" if total and rate and total > counts.emitted else ""
            )
            log.info("%s: %d of %s frames, %.1f fps%s", name, counts.emitted, total or "?", rate, left)

    yield say


def _print_result(console: Console, session: Session, result: RunResult) -> None:
    frames = sum(s.counts.emitted for s in result.streams)
    table = Table("stream", "frames in", "out", "dropped", "ended", "files")
    for s in result.streams:
        files = "\n".join(str(p) for p in session.files(s.stream))
        table.add_row(
            s.stream, str(s.counts.decoded), str(s.counts.emitted), str(sum(s.counts.dropped.values())), s.reason, files
        )
    console.print(table)
    stages = Table("stage", "ms per frame", "CPU ms per frame")
    for name, times in sorted(result.stages.items(), key=lambda item: -item[1].wall):
        stages.add_row(name, f"{times.wall * 1000 / max(frames, 1):.2f}", f"{times.cpu * 1000 / max(frames, 1):.2f}")
    console.print(stages)
    rate = frames / result.seconds if result.seconds else 0.0
    console.print(f"{frames} frames in {result.seconds:.1f} s: {rate:.1f} fps")
    for s in result.streams:
        if s.skipped_clips:
            console.print(f"{s.stream}: {len(s.skipped_clips)} clips skipped", markup=False)
        if s.decode_errors:
            console.print(f"{s.stream}: {s.decode_errors} packets did not decode", markup=False)
    if result.not_stopped:
        console.print("did not stop: " + ", ".join(result.not_stopped), markup=False)
