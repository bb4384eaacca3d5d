"""A run from its configuration: opens everything before anything is written, runs, and says how it went."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import engines
from engines.errors import ModelError, OutputError, RoadlensError, UsageError
from pipeline.config import Config, StreamConfig
from pipeline.fragments import ResumePoint
from pipeline.frame import Analysis
from pipeline.fuse import FuseOptions
from pipeline.jsonlines import JsonLines, complete_lines, read_lines, truncate_lines
from pipeline.metrics import Metrics
from pipeline.overlay import OverlayStage
from pipeline.publish import Publisher
from pipeline.runtime import LoadedModel, RunResult, Runtime, Sink, Stage, StreamPlan
from pipeline.sources import Source, StreamInfo, resolve_source, stream_name
from pipeline.video_writer import VideoWriter, partial_name

log = logging.getLogger(__name__)

_LEAST_FREE = 16 << 20
"""Bytes of free disk below which no run is begun."""


_READERS_TIME = 2.0
"""Seconds that a stop leaves the reader of a PUSH socket to take what is under way."""


class JsonLinesFile:
    """JSON lines of one stream at a partial name, given its final one when the stream has come to its end."""

    def __init__(self, path: Path, stream: str, first_frame: int) -> None:
        self.path, self.partial = path, partial_name(path)
        resumed = first_frame > 0
        if resumed:
            truncate_lines(self.partial, first_frame)
        self._lines = JsonLines(self.partial, append=resumed, first_sequence={stream: first_frame})

    def consume(self, analysis: Analysis) -> None:
        """Write one line."""
        self._lines.consume(analysis)

    def finish(self) -> None:
        """Close the file and give it its final name."""
        self._lines.close()
        self.partial.replace(self.path)

    def close(self) -> None:
        """Close the file where it is; one in which nothing has been written goes."""
        self._lines.close()
        if self.partial.exists() and self.partial.stat().st_size == 0:
            self.partial.unlink()


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a stream begins: frame, track number, and the recording to go on with."""

    frame: int = 0
    track: int = 1
    video: ResumePoint | None = None
    complete: bool = False


class Session:
    """Everything a run needs, opened and checked; a context manager that closes it again.

    Args:
        config: the run.
        resume: go on where an earlier run of the same configuration was killed.
        stages: one's own stages, for every stream.
        sinks: one's own sinks, shared by all streams.

    Attributes:
        runtime: to start, stop and wait for.
        plans: the streams.
        metrics: the run's metrics.
        outputs: final paths of the files written, by stream.

    Raises:
        RoadlensError: whatever cannot be opened; nothing has been written then.
    """

    def __init__(
        self, config: Config, *, resume: bool = False, stages: Sequence[Stage] = (), sinks: Sequence[Sink] = ()
    ) -> None:
        if not config.streams:
            raise UsageError("no source is given; name a video file, a folder of clips, or synthetic:")
        self.config = config
        self.metrics = Metrics()
        self.outputs: dict[str, list[Path]] = {}
        self.already_complete: list[str] = []
        self.encoders: dict[str, str] = {}
        self._resume, self._stages, self._sinks = resume, tuple(stages), tuple(sinks)
        self._stack = ExitStack()
        self._runtime: Runtime | None = None
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise

    @property
    def runtime(self) -> Runtime:
        """The runtime, not yet started."""
        if self._runtime is None:
            raise RuntimeError("the session is not open")
        return self._runtime

    def _open(self) -> None:
        config = self.config
        opened = self._open_sources()
        self.models = self._load_models()
        starts = {source.id: self._start(source) for source, _ in opened}
        if config.metrics is not None:
            self._stack.enter_context(self.metrics.serve(config.metrics.host, config.metrics.port))
        shared: list[Sink] = list(self._sinks)
        shared += [self._publisher(i, {k: s.frame for k, s in starts.items()}) for i in range(len(config.publish))]
        if config.jsonl == "-":
            lines = JsonLines("-", first_sequence={k: s.frame for k, s in starts.items()})
            self._stack.callback(lines.close)
            shared.append(lines)
        self.plans = []
        for source, info in opened:
            start = starts[source.id]
            if start.complete:
                self.already_complete.append(source.id)
                source.close()
                continue
            files = self._file_sinks(source, info, start)
            stages = list(self._stages)
            if self.config.video.path is not None:
                stages.append(OverlayStage(self.config.overlay, float(1 / info.rate)))
            self.plans.append(StreamPlan(source, info, stages, [*shared, *files], start.frame, start.track))
        fuse = FuseOptions(config.boxes, config.tracking, config.min_score)
        self._runtime = Runtime(self.plans, self.models, fuse, self.metrics)
        self._stack.callback(self._runtime.close)

    # Sources --------------------------------------------------------------------------------------------------------
    def _open_sources(self) -> list[tuple[Source, StreamInfo]]:
        opened = []
        names = _unique_names(self.config.streams)
        for name, stream in zip(names, self.config.streams, strict=True):
            source = resolve_source(stream.source, name, stream.decode_threads, stream.picture_rate())
            self._stack.callback(source.close)
            opened.append((source, source.open()))
        return opened

    # Models ---------------------------------------------------------------------------------------------------------
    def _load_models(self) -> list[LoadedModel]:
        batch = min(8, len(self.config.streams))
        loaded: list[LoadedModel] = []
        for wanted in self.config.models:
            engine = engines.load(wanted.model, device=wanted.device, precision=wanted.precision, max_batch=batch)
            self._stack.callback(engine.close)
            loaded.append(LoadedModel(engine, wanted.every))
            self.metrics.engine(engine.spec.name, engine.backend, engine.precision, engine.device, "ready")
        segmenters = [m.name for m in loaded if m.engine.spec.task == "segmentation"]
        if len(segmenters) > 1:
            raise ModelError(
                f"{' and '.join(segmenters)} are both segmenters; "
                "a run takes one segmenter and any number of localizers"
            )
        names = [m.name for m in loaded]
        for name in names:
            if names.count(name) > 1:
                raise ModelError(f"two of the models call themselves {name!r}; list each model once")
        return loaded

    # Outputs --------------------------------------------------------------------------------------------------------
    def _publisher(self, index: int, first: dict[str, int]) -> Publisher:
        options = self.config.publish[index]
        publisher = Publisher(
            options.bind,
            options.pattern,
            header=options.header,
            mask=options.mask,
            high_water=options.high_water,
            linger=options.linger,
            stop=self._gives_up,
            allow_remote=options.allow_remote,
            first_sequence=first,
        )
        self._stack.callback(publisher.close)
        return publisher

    def _gives_up(self) -> bool:
        """Whether what waits for a reader shall wait no longer: a stop has given it its time."""
        runtime = self._runtime
        return runtime is not None and (runtime.aborting or runtime.stopping_seconds > _READERS_TIME)

    def _video_path(self, stream: str) -> Path | None:
        return None if self.config.video.path is None else _file_for(self.config.video.path, stream, ".mp4", self._many)

    def _jsonl_path(self, stream: str) -> Path | None:
        if self.config.jsonl in (None, "-"):
            return None
        return _file_for(Path(str(self.config.jsonl)), stream, ".jsonl", self._many)

    @property
    def _many(self) -> bool:
        return len(self.config.streams) > 1

    def _start(self, source: Source) -> _Start:
        """Where a stream begins: at 0, or with `--resume` where all its files agree to go on."""
        video, lines = self._video_path(source.id), self._jsonl_path(source.id)
        self.outputs[source.id] = [p for p in (video, lines) if p is not None]
        for path in self.outputs[source.id]:
            _check_writable(path)
        if not self._resume:
            if self.outputs[source.id]:
                _stopped_marker(self.outputs[source.id][0]).unlink(missing_ok=True)
            return _Start()
        if not self.outputs[source.id]:
            raise UsageError("--resume goes on with files; give the -o and --jsonl of the run that was interrupted")
        if _stopped_marker(self.outputs[source.id][0]).exists():
            # An interrupted run gave its files their final names; they become partial again.
            for path in self.outputs[source.id]:
                if path.exists():
                    path.replace(partial_name(path))
            _stopped_marker(self.outputs[source.id][0]).unlink()
        if all(p.exists() and not partial_name(p).exists() for p in self.outputs[source.id]):
            return _Start(complete=True)
        whole = None
        if lines is not None:
            whole = complete_lines(partial_name(lines)) if partial_name(lines).exists() else 0
        if video is None:
            frame, point = whole or 0, None
        else:
            point = VideoWriter.resume_point(video, whole)
            frame = point.frames if point is not None else 0
        track = 1
        if lines is not None and frame:
            numbers = [
                b.track for m, _ in zip(read_lines(partial_name(lines)), range(frame), strict=False) for b in m.boxes
            ]
            track = 1 + max((n for n in numbers if n is not None), default=0)
        if frame:
            log.info("%s: going on at frame %d", source.id, frame)
        else:
            log.info("%s: nothing to resume; starting at the first frame", source.id)
        return _Start(frame, track, point)

    def _file_sinks(self, source: Source, info: StreamInfo, start: _Start) -> list[Sink]:
        sinks: list[Sink] = []
        lines, video = self._jsonl_path(source.id), self._video_path(source.id)
        if lines is not None:
            file = JsonLinesFile(lines, source.id, start.frame)
            self._stack.callback(file.close)
            sinks.append(file)
        if video is not None:
            writer = VideoWriter(video, info, self.config.video, start.video)
            self._stack.callback(writer.close)
            sinks.append(writer)
            self.encoders[source.id] = writer.encoder
            self.metrics.encoder(source.id, writer.encoder)
        return sinks

    # Running --------------------------------------------------------------------------------------------------------
    def run(self, poll: Callable[[Runtime], None] = lambda _runtime: None, interval: float = 0.2) -> RunResult:
        """Run to the end; `poll` is called every `interval` seconds, from this thread."""
        self.runtime.start()
        while not self.runtime.wait(interval):
            poll(self.runtime)
        poll(self.runtime)
        result = self.runtime.result()
        for stream in result.streams:
            files = self.outputs[stream.stream]
            if stream.reason == "stopped" and files and files[0].exists():
                _stopped_marker(files[0]).write_text(json.dumps({"frames": stream.counts.emitted}) + "\n")
        return result

    def files(self, stream: str) -> list[Path]:
        """The output files of a stream that exist: the final one, or the partial one where it did not end well."""
        found = [(path, partial_name(path)) for path in self.outputs.get(stream, [])]
        return [partial if partial.exists() else path for path, partial in found if partial.exists() or path.exists()]

    def close(self) -> None:
        """Abort what still runs, close files, sockets and engines. Twice is allowed."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unique_names(streams: Sequence[StreamConfig]) -> list[str]:
    """An id for every stream: its own, or made of its source and numbered where that is taken."""
    taken = {s.id for s in streams if s.id is not None}
    names = []
    for stream in streams:
        name = stream.id or stream_name(stream.source)
        number = 2
        while stream.id is None and name in taken:
            name = f"{stream_name(stream.source)}-{number}"
            number += 1
        taken.add(name)
        names.append(name)
    return names


def _file_for(path: Path, stream: str, suffix: str, many: bool) -> Path:
    """The file of a stream: the path itself for one stream, `<path>/<stream><suffix>` where it is a folder."""
    is_folder = path.is_dir() or not path.suffix
    if is_folder:
        return path / f"{stream}{suffix}"
    if path.suffix.lower() != suffix:
        raise UsageError(f"{path}: this output is written as {suffix}; give a name that ends in {suffix}, or a folder")
    if many:
        raise UsageError(f"{path} is one file, but there are several streams; give a folder, such as -o {path.stem}/")
    return path


def _stopped_marker(path: Path) -> Path:
    """Stands beside a finished file whose run was interrupted, and lets `--resume` go on with it."""
    return path.with_name(f"{path.name}.stopped")


def _check_writable(path: Path) -> None:
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give a file name")
    if not folder.exists():
        if folder.parent.is_dir():
            try:
                folder.mkdir(exist_ok=True)
            except OSError as error:
                raise OutputError(f"the folder {folder} cannot be made: {error.strerror}") from None
        else:
            raise OutputError(f"{path} cannot be written: the folder {folder} does not exist; make it first")
    probe = path.with_name(f".{path.name}.probe")
    try:
        probe.touch()
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from None
    if free < _LEAST_FREE:
        raise OutputError(f"{path} cannot be written: its disk has {free >> 20} MB left; free some space first")


def summary(session: Session, result: RunResult) -> dict[str, Any]:
    """The final summary as JSON-ready values: streams with their frame counts, stage times in ms a frame, models."""
    frames = sum(s.counts.emitted for s in result.streams)
    return {
        "seconds": round(result.seconds, 3),
        "cpu_seconds": round(result.cpu_seconds, 3),
        "frames": frames,
        "frames_per_second": round(frames / result.seconds, 2) if result.seconds else 0.0,
        "streams": [
            {
                "stream": s.stream,
                "mode": s.mode,
                "ended": s.reason,
                "error": None if s.error is None else str(s.error),
                "frames_in": s.counts.decoded,
                "frames_out": s.counts.emitted,
                "frames_dropped": {f"{stage}/{reason}": n for (stage, reason), n in sorted(s.counts.dropped.items())},
                "decode_errors": s.decode_errors,
                "skipped_clips": [{"clip": name, "reason": reason} for name, reason in s.skipped_clips],
                "encoder": session.encoders.get(s.stream),
                "files": [str(p) for p in session.files(s.stream)],
            }
            for s in result.streams
        ],
        "already_complete": session.already_complete,
        "models": [
            {
                "model": m.name, "backend": m.engine.backend, "precision": m.engine.precision,
                "device": m.engine.device, "every": m.every,
            }
            for m in session.models
        ],
        "stages": {
            name: {
                "calls": t.calls,
                "wall_ms": round(t.wall * 1000 / max(frames, 1), 3),
                "cpu_ms": round(t.cpu * 1000 / max(frames, 1), 3),
            }
            for name, t in sorted(result.stages.items())
        },
    }  # fmt: skip


def write_summary(target: str, values: dict[str, Any]) -> None:
    """Write the summary to a file, or to standard output for `-`.

    Raises:
        OutputError: the file cannot be written.
    """
    text = json.dumps(values, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror}") from None


def exit_code(result: RunResult) -> int:
    """0 when every stream came to its end, 130 when the run was interrupted, else the first error's code."""
    error = result.error
    if isinstance(error, RoadlensError):
        return error.exit_code
    if error is not None:
        return 1
    return 130 if any(s.reason == "stopped" for s in result.streams) else 0
