"""A run as a person sees it: a progress bar on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from engines.commands.build_bar import build_bar
from pipeline.commands.logs import set_up_logging, spelt
from pipeline.commands.outcome import Looks, print_result
from pipeline.config import Config
from pipeline.process import ending_signals, leave, leave_terminal
from pipeline.runtime import Runtime
from pipeline.session import Session
from pipeline.session.summary import exit_code, summary, write_summary

log = logging.getLogger(__name__)

_LINE_SECONDS = 5.0
_SECOND_SIGNAL_SECONDS = 2.0
_LOADING = "loading"  # what is said of a stream before its first frame is out

FINISH_SECONDS = 4.0
"""How long a stop may finish the files. After that it drops what is under way; what is written plays, and --resume
goes on with it."""

EXIT_SECONDS = 4.7
"""After this long a stop is over, whatever still runs: a service manager soon kills."""

_OPENING_SECONDS = 1.0
"""How long a stop waits for what is being opened: a camera that does not answer, an engine that is being built."""

_INTERRUPTED = 130


def run_session(config: Config, *, resume: bool = False, verbose: bool = False, inputs: Sequence[Path] = ()) -> int:
    """Run a configuration with progress on standard error; returns the exit code. `inputs` are further files that it
    was read from.

    Raises:
        RoadlensError: something cannot be opened; nothing has been written then.
    """
    console = Console(stderr=True, highlight=False)
    set_up_logging(console, verbose)
    looks = Looks()
    with _Signals(console) as signals:
        with signals.opened(partial(_opened, config, resume, inputs, looks, console)) as session:
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
        result.stages.pop(looks.name, None)  # no stage of the configuration's
        values = summary(session, result)
        if config.summary is not None:
            write_summary(config.summary, values)
        print_result(console, session, result, looks)
        code = exit_code(result)
        if signals.heard:
            # A thread that hangs in native code, such as a socket's last messages, holds up no end.
            leave(code, patience=EXIT_SECONDS)
        return code


def _opened(config: Config, resume: bool, inputs: Sequence[Path], looks: Looks, console: Console) -> Session:
    """The session; how far engines are built is a bar on a terminal, and lines elsewhere."""
    if not console.is_terminal:
        return Session(config, resume=resume, sinks=[looks], inputs=inputs)
    with build_bar(console) as building:
        return Session(config, resume=resume, sinks=[looks], building=building, inputs=inputs)


class _Signals:
    """SIGINT, SIGTERM and SIGHUP while the block runs: the first one finishes the files, the second stops at once.
    Whatever hangs, the process is gone `EXIT_SECONDS` after the first.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._runtime: Runtime | None = None
        self._received = 0
        self._heard, self._over = threading.Event(), threading.Event()
        self._before = {s: signal.getsignal(s) for s in ending_signals()}

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
        leave_terminal()
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
            TextColumn("{task.fields[pace]}"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console, transient=True) as bar:
            tasks: dict[str, TaskID] = {
                name: bar.add_task(name, total=total, pace=_LOADING, known=total or "?")
                for name, total in totals.items()
            }

            def show(runtime: Runtime) -> None:
                elapsed = max(time.monotonic() - began, 1e-6)
                for name, counts in runtime.counts().items():
                    if (totals[name] or 0) < counts.emitted:  # it was a guess
                        bar.update(tasks[name], total=counts.emitted, known="?")
                    pace = f"{counts.emitted / elapsed:.1f} fps" if counts.emitted else _LOADING
                    bar.update(tasks[name], completed=counts.emitted, pace=pace)

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
            if not counts.emitted:
                log.info("%s: %s", name, _LOADING)
                continue
            rate = counts.emitted / (now - began)
            total = totals[name]
            believed = total if total and total >= counts.emitted else None
            left = f", {spelt((believed - counts.emitted) / rate)} left" if believed else ""
            log.info("%s: %d of %s frames, %.1f fps%s", name, counts.emitted, believed or "?", rate, left)

    yield say
