"""What looks at clips: engines that are loaded once, and a short run of each clip through them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Self

import msgspec

from engines.errors import RoadlensError, SourceError
from engines.loading import in_tenths
from pipeline.analysis.carrying.cadence import CarryingOptions
from pipeline.analysis.fuse import FuseOptions
from pipeline.archive.collecting import Collector
from pipeline.archive.inputs.stores import local_copy
from pipeline.archive.jobs import Answer, Job
from pipeline.archive.positions.clock import believed
from pipeline.archive.positions.fixes import Positions
from pipeline.archive.positions.reading import whereabouts
from pipeline.archive.positions.sidecars import Unused
from pipeline.archive.rows import ClipRow, FrameRow, Indexed, encode
from pipeline.config import Config, configured_stages
from pipeline.contracts import Stage, StreamInfo
from pipeline.drawing.anonymize import AnonymizeStage
from pipeline.metrics import Metrics
from pipeline.provenance import is_own_video
from pipeline.runtime import Runtime, StreamPlan
from pipeline.runtime.result import StreamResult
from pipeline.session.degradations import Degradations
from pipeline.session.models import check_anonymity, check_classes, load_models
from pipeline.sources.clips import ClipSource
from pipeline.sources.decoding import Decoding

_STREAM = "clip"

_NOTHING_CARRIED = CarryingOptions(by="repeat")
"""An archive keeps what was looked at alone."""

_PLACE = re.compile(r"([+-]\d{2}(?:\.\d+)?)([+-]\d{3}(?:\.\d+)?)")
"""Latitude and longitude in degrees, as containers have them (ISO 6709, Annex H)."""


class Indexer:
    """Engines, and what is done with each clip. A context manager that closes the engines.

    Args:
        config: the models, and what stages there are.
        workers: processes that compute on the CPU beside each other, each on its share of the cores.
        say: told how far an engine is that is being built.

    Raises:
        ModelError: a model cannot be used.
    """

    def __init__(self, config: Config, workers: int = 1, say: Callable[[str], None] = lambda _text: None) -> None:
        self._config, self._stack, self._metrics = config, ExitStack(), Metrics()
        degradations = Degradations(self._metrics)
        try:
            self._models = load_models(
                config, "throughput", 1, self._metrics, degradations, in_tenths(say), self._stack, workers
            )
            check_classes(config, self._models)
            check_anonymity(config, self._models)
        except BaseException:
            self._stack.close()
            raise
        self._degraded = degradations.say
        options = (config.boxes, config.tracking, config.min_score, config.hold_score, config.smoothing)
        self._fuse = FuseOptions(*options)

    @property
    def engines(self) -> list[str]:
        """What computes: of each model its name, precision, backend and device."""
        return [f"{m.name}: {m.engine.backend} {m.engine.precision} on {m.device}" for m in self._models]

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precision that each model computes in."""
        return tuple(model.engine.precision for model in self._models)

    @property
    def familiar(self) -> tuple[str, ...]:
        """By what each model tells novelty, a digest; empty for one that does not."""
        known = (model.engine.spec.familiar for model in self._models)
        return tuple("" if each is None else sha256(msgspec.json.encode(each)).hexdigest() for each in known)

    def index(self, job: Job, tell: Callable[[float], None] = lambda _share: None) -> Answer:
        """Look at a clip.

        Args:
            job: which.
            tell: told about once a second which share of it is done, 0 to 1.

        Returns:
            What was found, and the CPU seconds that it took.

        Raises:
            OutOfReachError: it cannot be had.
            RoadlensError: it cannot be read, or a stage failed.
        """
        began = time.process_time()
        with local_copy(job.path, job.bytes) as path:
            if is_own_video(path):
                raise SourceError(f"{job.path} is a video that roadlens wrote")
            indexed, unused = self._looked_at(job, path, tell)
            return Answer(encode(indexed), time.process_time() - began, unused=unused)

    def _looked_at(self, job: Job, path: Path, tell: Callable[[float], None]) -> tuple[Indexed, tuple[Unused, ...]]:
        on_cpu = all(model.device == "cpu" for model in self._config.models)
        source = ClipSource(_STREAM, [path], 1, decoding=Decoding(_STREAM, "cpu" if on_cpu else "auto"))
        with source:
            info = source.open()
            recorded = source.counts.recorded[0]
            clocked = bool(recorded.by) and recorded.at > 0
            collector = Collector(clocked)
            plan = StreamPlan(source, info, self._stages(), [collector])
            result = self._run(plan, info, tell)
        if result.error is not None:
            raise result.error
        where = whereabouts(path, recorded.at if clocked else None, collector.seconds)
        at, by = believed(recorded if clocked else None, where.began, time.time(), utc=where.utc)
        if by == "gps" and at is not None:
            for frame in collector.frames:
                frame.at = round(at + frame.seconds, 6)
        begun = _located(collector.frames, where.positions) or _place(info)
        tags = {key.lower(): value for key, value in info.extras.tags.items()}
        row = ClipRow(
            clip=job.clip, path=job.path, bytes=job.bytes, camera=job.camera, car=job.car, maker=job.maker,
            recorded_at=None if at is None else round(at, 6), recorded_from=by,
            seconds=round(collector.seconds, 6), width=info.width, height=info.height, rate=round(float(info.rate), 6),
            frames=collector.read, analysed=len(collector.frames), decode_errors=result.decode_errors,
            missing=max(source.counts.missing, 0), latitude=begun[0], longitude=begun[1],
            make=_tag(tags, "make"), model=_tag(tags, "model"),
            positions_from="" if where.positions is None else where.positions.source,
            novelty=self._novelty(collector),
        )  # fmt: skip
        found = Indexed(row, collector.frames, collector.objects, collector.events, collector.thumbnails)
        return found, where.unused

    def _novelty(self, collector: Collector) -> float | None:
        """By the first model that can tell."""
        told = next((collector.novelty[m.name] for m in self._models if m.name in collector.novelty), None)
        return None if told is None else round(median(told), 3)

    def _stages(self) -> list[Stage]:
        stages = list(configured_stages(self._config))
        if self._config.anonymize is not None:
            specs = [model.engine.spec for model in self._models]
            outlined = next((s.name for s in specs if "class_map" in s.outputs and "boxes" not in s.outputs), "")
            stages.insert(0, AnonymizeStage(self._config.anonymize, outlined))
        return stages

    def _run(self, plan: StreamPlan, info: StreamInfo, tell: Callable[[float], None]) -> StreamResult:
        runtime = Runtime([plan], self._models, self._fuse, degraded=self._degraded, carrying=_NOTHING_CARRIED)
        runtime.start()
        try:
            while not runtime.wait(1.0):
                emitted = runtime.counts()[_STREAM].emitted
                tell(min(emitted / info.expected_frames, 1.0) if info.expected_frames else float(emitted))
        finally:
            runtime.close()
        (stream,) = runtime.result().streams
        return stream

    def close(self) -> None:
        """Let go of the engines. Twice is allowed."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _tag(tags: dict[str, str], name: str) -> str:
    return next((tags[key].strip() for key in (f"com.apple.quicktime.{name}", name) if tags.get(key)), "")[:200]


def _located(frames: list[FrameRow], positions: Positions | None) -> tuple[float, float] | None:
    """Put into each frame where the car was; where it was first."""
    if positions is None:
        return None
    first = None
    for row in frames:
        if (position := positions.at(row.seconds)) is not None:
            row.latitude, row.longitude = round(position.latitude, 7), round(position.longitude, 7)
            row.speed = None if position.speed is None else round(position.speed, 3)
            row.heading = None if position.heading is None else round(position.heading, 2)
            first = first or (row.latitude, row.longitude)
    return first


def _place(info: StreamInfo) -> tuple[float | None, float | None]:
    """Latitude and longitude where the recording was begun; None where it does not say."""
    for key, value in info.extras.tags.items():
        if "location" in key.lower() and (match := _PLACE.match(value.strip())):
            latitude, longitude = float(match[1]), float(match[2])
            if abs(latitude) <= 90 and abs(longitude) <= 180 and (latitude, longitude) != (0.0, 0.0):
                return latitude, longitude
    return None, None


FAULTS = (RoadlensError, OSError, RuntimeError, ValueError)
"""What may be wrong with one clip, and no other."""
