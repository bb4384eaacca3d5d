"""A run from its configuration: everything is opened before anything is written, runs, and says how it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import msgspec

from engines.errors import UsageError
from engines.loading import Observe
from pipeline.capabilities import attach_source
from pipeline.config import Config, StreamConfig
from pipeline.contracts import Sink, Source, Stage
from pipeline.metrics import Metrics
from pipeline.outputs.live.opening import check_outputs
from pipeline.runtime import RunResult, Runtime, StreamPlan
from pipeline.session.files import RunFiles
from pipeline.session.opening import plan, resolved
from pipeline.session.shared import OpenSession, Part, Shared
from pipeline.session.sidecar import SideCar, made_of
from pipeline.session.starts import Resumption, Start
from pipeline.session.stream import RunningStream, config_of, parted, unique_names
from pipeline.state import OutputObserver, StateChange


class Session(OpenSession):
    """Everything a run needs, opened and checked; a context manager that closes it again.

    Args:
        config: the run.
        sources: one's own sources, each a stream beside those of the configuration; see `pipeline.contracts.Source`.
        resume: go on where an earlier run of the same configuration was killed.
        stages: one's own stages, for every stream.
        sinks: one's own sinks, shared by all streams.
        inputs: further files that the run reads, such as its configuration; no output may be one of them.
        part: what the session is to a run of several processes; None where it is the whole run.
        observers: told every state change of a source, from one thread of the session's.
        output_observers: told every state change of a live output, from its thread; they must not wait.
        metrics: where counters and times go; the session's own where it is left out.
        building: told how far the build of an engine is; left out, each tenth is logged.

    Attributes:
        config: the run, without one's own sources.
        plans: the streams that were opened at the start.
        already_complete: ids of streams that have nothing to be resumed.

    Raises:
        RoadlensError: whatever cannot be opened; nothing has been written then.
    """

    def __init__(
        self,
        config: Config,
        *,
        sources: Sequence[Source] = (),
        resume: bool = False,
        stages: Sequence[Stage] = (),
        sinks: Sequence[Sink] = (),
        observers: Sequence[Callable[[StateChange], None]] = (),
        output_observers: Sequence[OutputObserver] = (),
        metrics: Metrics | None = None,
        building: Observe | None = None,
        inputs: Sequence[Path] = (),
        part: Part | None = None,
    ) -> None:
        if not config.streams and not sources:
            raise UsageError("no source is given; name a video file, a folder of clips, or synthetic:")
        for source in sources:  # one that cannot be used is refused before anything is opened
            attach_source(source)
        streams, footage = parted(config.streams)
        self.config = config = msgspec.structs.replace(config, streams=streams)
        self.plans: list[StreamPlan] = []
        self.already_complete: list[str] = []
        self._many = len(config.streams) + len(sources) > 1 or part is not None
        self._files = RunFiles(config, many=self._many, inputs=[*inputs, *footage])
        self._resumption = Resumption(self._files) if resume else None
        self._shared = Shared(
            config, self._files, stages=stages, sinks=sinks, observers=observers, output_observers=output_observers,
            metrics=metrics, building=building, part=part,
        )  # fmt: skip
        try:
            self._open(sources)
        except BaseException:
            self.close()
            raise

    # Opening --------------------------------------------------------------------------------------------------------
    def _open(self, sources: Sequence[Source]) -> None:
        shared, files = self._shared, self._files
        check_outputs(self.config.outputs, self._many)
        opened = self._open_sources(sources)
        for stream, _ in opened:
            files.claim(stream.id, stream.config.source, stream.attached.paths)
        # A file is to be through soon; of a live source each answer is.
        through = all(source.mode == "file" for _, source in opened)
        shared.load_models("throughput" if through else "latency", -(-len(opened) // len(shared.placer.devices)))
        starts = {stream.id: self._start(stream, source) for stream, source in opened}
        shared.open_messages({name: start.frame for name, start in starts.items()})
        going = {name: start.frame for name, start in starts.items() if not start.complete}
        if going:
            shared.record_messages(None if self._resumption is None else going)
        shared.begin()
        for stream, source in opened:
            if starts[stream.id].complete:
                self.already_complete.append(stream.id)
                source.close()
                shared.streams.take_out(stream)
            else:
                side_car = self._side_car(stream)
                self.plans.append(plan(shared, stream, source, starts[stream.id], side_car))
        shared.open_runtime(self.plans)

    def _open_sources(self, sources: Sequence[Source]) -> list[tuple[RunningStream, Source]]:
        own = [config_of(source) for source in sources]
        names = unique_names([*self.config.streams, *own])
        given: list[tuple[StreamConfig, Source | None]] = [
            *((config, None) for config in self.config.streams),
            *zip(own, sources, strict=True),
        ]
        opened = []
        for name, (config, of_ones_own) in zip(names, given, strict=True):
            stream, source = resolved(self._shared, name, config, config.live, of_ones_own)
            self._shared.streams.put(stream)
            self._shared.stack.callback(source.close)
            stream.info = source.open()
            opened.append((stream, source))
        return opened

    def _start(self, stream: RunningStream, source: Source) -> Start:
        self._files.check_writable(stream.id)
        if self._resumption is None:
            return Start()
        if source.mode == "live":
            raise UsageError(
                f"--resume goes on with files, and {stream.id!r} is live: what it sent meanwhile is gone; leave it out"
            )
        return self._resumption.start(stream.id, _made_of(stream))

    def _side_car(self, stream: RunningStream) -> SideCar | None:
        anchor = self._files.anchor(stream.id)
        if anchor is None:
            return None
        return SideCar(anchor, self.outputs[stream.id], _made_of(stream))

    # Running --------------------------------------------------------------------------------------------------------
    def run(self, poll: Callable[[Runtime], None] = lambda _runtime: None, interval: float = 0.2) -> RunResult:
        """Run to the end; `poll` is called every `interval` seconds, from this thread."""
        self.runtime.start()
        while not self.runtime.wait(interval):
            poll(self.runtime)
        poll(self.runtime)
        return self.runtime.result()

    def files(self, stream: str) -> list[Path]:
        """The output files of a stream that exist: the final one, or the partial one where it did not end well."""
        return self._files.present(stream)

    def close(self) -> None:
        """Abort what still runs, close files, sockets and engines. Twice is allowed."""
        self._shared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _made_of(stream: RunningStream) -> list[str]:
    """Fingerprints of what a stream reads: of a recording that is no file here by what came of it so far."""
    content = getattr(stream.source, "content", "")
    return made_of(content or stream.config.source, stream.attached.paths, stream.config.track)
