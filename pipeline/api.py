"""The Python API of a run, as short as the command."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence

import msgspec

from pipeline.config import Config, ModelConfig, StreamConfig
from pipeline.frame import Analysis
from pipeline.runtime import Sink, Stage
from pipeline.session import Session
from pipeline.smoothing import SmoothingOptions


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
    *sources: str,
    model: str = "cityscapes-unet",
    precision: str = "auto",
    smooth: bool = False,
    config: Config | None = None,
    stages: Sequence[Stage] = (),
    sinks: Sequence[Sink] = (),
) -> Iterator[Analysis]:
    """Analyse footage: yields one `Analysis` a frame, of each stream in order, streams interleaved.

    Leaving the loop early stops the run. A file is never dropped from: the run waits for the caller.

    Args:
        sources: as on the command line; each is a stream.
        model: bundled name or path; `config`'s models are used instead when it is given.
        precision: `auto`, `fp32`, `fp16` (GPU), `bf16`, `int8` or `fp8` (GPU).
        smooth: smooth class maps over time, as `config`'s `smoothing` says where it says something.
        config: everything else; its streams come before `sources`.
        stages: one's own stages.
        sinks: one's own sinks, beside the configuration's.

    Raises:
        RoadlensError: a source, model or output that cannot be used, at the first step or when it fails.

    Example:
        >>> for analysis in analyse("drive.mp4", model="cityscapes-unet"):  # doctest: +SKIP
        ...     print(analysis.frame.time, analysis.area["road"])
    """
    if config is None:
        config = Config(models=(ModelConfig(model, precision),))  # type: ignore[arg-type]  # checked by engines.load
    streams = (*config.streams, *(StreamConfig(source) for source in sources))
    smoothing = config.smoothing or (SmoothingOptions() if smooth else None)
    config = msgspec.structs.replace(config, streams=streams, smoothing=smoothing)
    handover = _Handover()
    with Session(config, stages=stages, sinks=[*sinks, handover]) as session:
        runtime = session.runtime
        runtime.start()
        try:
            over = False
            while not over or not handover.waiting.empty():
                over = over or runtime.wait(0)
                try:
                    yield handover.waiting.get(timeout=0.05)
                except queue.Empty:
                    continue
        finally:
            handover.closed = True
            runtime.close()
        error = runtime.result().error
        if error is not None:
            raise error
