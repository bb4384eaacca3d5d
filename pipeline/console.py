"""A run as a person sees it: a progress bar on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline.config import Config
from pipeline.runtime import RunResult, Runtime
from pipeline.session import Session, exit_code, summary, write_summary

log = logging.getLogger(__name__)

_LINE_SECONDS = 5.0
_SECOND_SIGNAL_SECONDS = 2.0


def run_session(config: Config, *, resume: bool = False, verbose: bool = False) -> int:
    """Run a configuration with progress on standard error; returns the exit code.

    Raises:
        RoadlensError: something cannot be opened; nothing has been written then.
    """
    console = Console(stderr=True, highlight=False)
    set_up_logging(console, verbose)
    with Session(config, resume=resume) as session:
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
        with _stopped_by_signals(session.runtime, console), _progress(session, console) as poll:
            result = session.run(poll)
    values = summary(session, result)
    if config.summary is not None:
        write_summary(config.summary, values)
    _print_result(console, session, result)
    return exit_code(result)


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


@contextmanager
def _stopped_by_signals(runtime: Runtime, console: Console) -> Iterator[None]:
    """The first SIGINT or SIGTERM finishes the files, the second stops at once."""
    received = 0

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received == 1:
            console.print("stopping: finishing the files (once more to stop at once)")
            runtime.stop()
            return
        runtime.abort()
        if received > 2 or not runtime.wait(_SECOND_SIGNAL_SECONDS):
            os._exit(128 + number)

    before = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
