"""The Python API of a run, as short as the command."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from engines.bundled import DEFAULT
from pipeline.analysis.smoothing import SmoothingOptions
from pipeline.config import Config, ModelConfig, StreamConfig
from pipeline.contracts import Sink, Source, Stage
from pipeline.frame import Analysis
from pipeline.session import Session
from pipeline.shown import Shown


class _Handover:
    """A sink that hands analyses to the caller's thread, a few at a time."""

    def __init__(self) -> None:
        self.waiting: queue.Queue[Analysis] = queue.Queue(maxsize=4)
        self.closed = False

    def consume(self, analysis: Analysis) -> None:
        while not self.closed:
            try:
                self.waiting.put(analysis, timeout=0.1)
            except queue.Full:
                continue
            return


def analyse(
    *sources: str | Source,
    model: str = DEFAULT,
    precision: str = "auto",
    smooth: bool = False,
    config: Config | None = None,
    stages: Sequence[Stage] = (),
    sinks: Sequence[Sink] = (),
    progress: bool = False,
) -> Iterator[Shown]:
    """Analyse footage: yields one `Analysis` a frame, of each stream in order, streams interleaved. Each has pictures,
    too (`pipeline.shown.Shown`), and shows itself in a notebook.

    Leaving the loop early stops the run. A file is never dropped from: the run waits for the caller.

    Args:
        sources: as on the command line, or objects of one's own (`pipeline.contracts.Source`); each is a stream.
        model: bundled name or path; `config`'s models are used instead when it is given.
        precision: `auto`, `fp32`, `fp16` (GPU), `bf16`, `int8` or `fp8` (GPU).
        smooth: smooth class maps over time, as `config`'s `smoothing` says where it says something.
        config: everything else; its streams come before the addresses in `sources`, and those before the objects.
        stages: one's own stages.
        sinks: one's own sinks, beside the configuration's.
        progress: show a bar, in a notebook or on a terminal: frames done, and the time left where that is known.

    Raises:
        RoadlensError: a source, model or output that cannot be used, at the first step or when it fails.

    Example:
        >>> for analysis in analyse("drive.mp4"):  # doctest: +SKIP
        ...     print(analysis.frame.time, analysis.area["road"])
    """
    if config is None:
        config = Config(models=(ModelConfig(model, precision),))  # type: ignore[arg-type]  # checked by engines.load
    addressed = (StreamConfig(source) for source in sources if isinstance(source, str))
    own = [source for source in sources if not isinstance(source, str)]
    streams = (*config.streams, *addressed)
    smoothing = config.smoothing or (SmoothingOptions() if smooth else None)
    config = msgspec.structs.replace(config, streams=streams, smoothing=smoothing)
    handover = _Handover()
    with Session(config, sources=own, stages=stages, sinks=[*sinks, handover]) as session:
        runtime = session.runtime
        runtime.start()
        try:
            with _bar(session, progress) as step:
                over = False
                while not over or not handover.waiting.empty():
                    over = over or runtime.wait(0)
                    try:
                        analysis = handover.waiting.get(timeout=0.05)
                    except queue.Empty:
                        continue
                    step()
                    yield Shown.of(analysis)
        finally:
            handover.closed = True
            runtime.close()
        error = runtime.result().error
        if error is not None:
            raise error


@contextmanager
def _bar(session: Session, shown: bool) -> Iterator[Callable[[], None]]:
    """A progress bar over all streams; what it gives is called once a frame."""
    if not shown:
        yield lambda: None
        return
    lengths = [plan.info.expected_frames for plan in session.plans]
    whole = None if None in lengths else sum(length or 0 for length in lengths)
    columns = TextColumn("{task.completed:.0f} of {task.fields[whole]} frames"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        task = progress.add_task("analyse", total=whole, whole="?" if whole is None else whole)
        yield lambda: progress.advance(task)
