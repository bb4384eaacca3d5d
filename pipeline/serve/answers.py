"""What the API answers with, and what of it goes into the OpenAPI document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, Literal

import msgspec

from engines.classes import ClassInfo
from engines.settings import schema
from pipeline.addresses import HIDDEN, strip_credentials
from pipeline.config import StreamConfig
from pipeline.drawing.overlay import OverlayStyle
from pipeline.runtime import LoadedModel, RunResult, StreamResult
from pipeline.serve.events import Event
from pipeline.serve.past.history import Timeline
from pipeline.serve.past.stored import StoredFile
from pipeline.serve.statistics import AreaPoint, Pace
from pipeline.session import RunningStream
from pipeline.state import SourceState


class StreamAnswer(msgspec.Struct, frozen=True):
    """A stream and how it stands.

    Attributes:
        id: its id.
        source: its address, without credentials.
        mode: `file` (every frame) or `live` (the newest frame wins); empty until that is known.
        state: what its source is doing; `reason` and `cause` say why, `since` since when (Unix seconds).
        paused: whether it was told to rest.
        attempt, reconnects, retry_in: of a live source; see the messages' `status`.
        width, height, rate: of the pictures; None until the source has been opened.
        pace: rate and age over the last seconds.
        frames_in, frames_out: frames decoded and given out.
        dropped: frames dropped, by `stage/reason`.
        decode_errors: packets that did not decode.
        clips: whether its last seconds can be saved.
        viewers: how many watch.
        video: whether browsers can have it as video, at `view.mp4`.
        overlay: what is drawn.
        config: what it was asked to be, without credentials.
    """

    id: str
    source: str
    mode: str
    state: SourceState
    reason: str
    cause: str
    since: float
    paused: bool
    attempt: int
    reconnects: int
    retry_in: float | None
    width: int | None
    height: int | None
    rate: float | None
    pace: Pace
    frames_in: int
    frames_out: int
    dropped: dict[str, int]
    decode_errors: int
    clips: bool
    viewers: int
    video: bool
    overlay: OverlayStyle | None
    config: dict[str, Any]


class Streams(msgspec.Struct, frozen=True):
    """Every stream there is."""

    streams: list[StreamAnswer]


class Areas(msgspec.Struct, frozen=True):
    """The classes' shares of a stream's pictures over time, a point a second."""

    points: list[AreaPoint]


class StoredFiles(msgspec.Struct, frozen=True):
    """Recordings and clips of a stream, oldest first."""

    files: list[StoredFile]


class Clip(msgspec.Struct, frozen=True):
    """A clip that is being saved, in the folder of the configuration."""

    file: str


class LinkOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how long a link is wanted.

    Attributes:
        seconds: until it is over.
    """

    seconds: Annotated[int, msgspec.Meta(ge=1, le=366 * 86400)] = 86400


class Link(msgspec.Struct, frozen=True):
    """Addresses of a stream's pictures that players open without a token.

    Attributes:
        snapshot: the newest picture, JPEG.
        mjpeg: live view.
        hls: the playlist; None where `outputs.hls` is not configured.
        until: Unix seconds at which they are over; None where the server has no token, and they are the plain ones.
    """

    snapshot: str
    mjpeg: str
    hls: str | None
    until: int | None


class Events(msgspec.Struct, frozen=True):
    """What happened lately, oldest first."""

    events: list[Event]


class ModelAnswer(msgspec.Struct, frozen=True):
    """A model and the engine it runs on."""

    name: str
    version: str
    task: str
    width: int
    height: int
    backend: str
    precision: str
    device: str
    every: int | Literal["auto"]
    classes: tuple[ClassInfo, ...]


class Models(msgspec.Struct, frozen=True):
    """What looks at the streams."""

    models: list[ModelAnswer]


class WorkerAnswer(msgspec.Struct, frozen=True):
    """A process of a server that has several (`workers`).

    Attributes:
        number: its number.
        pid: of its process; None while it is being replaced.
        streams: ids of its streams.
        restarts: how often it died and was replaced.
    """

    number: int
    pid: int | None
    streams: list[str]
    restarts: int


class Totals(msgspec.Struct, frozen=True):
    """The whole run, streams that were removed included: frames in = out + dropped + under way.

    Attributes:
        version: of roadlens.
        seconds: since the server was started.
        streams: how many there are.
        frames_in, frames_out: frames decoded and given out.
        dropped: frames dropped, by `stage/reason`.
        stages: milliseconds a frame, by stage.
        workers: the processes; empty where it is one.
    """

    version: str
    seconds: float
    streams: int
    frames_in: int
    frames_out: int
    dropped: dict[str, int]
    stages: dict[str, float]
    workers: list[WorkerAnswer] = []


class Ready(msgspec.Struct, frozen=True):
    """Whether streams can be analysed, and if not, why."""

    ready: bool
    reason: str = ""


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request: where it stands, and one sentence."""

    loc: list[str | int]
    msg: str


class Refusal(msgspec.Struct, frozen=True):
    """What is wrong with a request: a sentence, or a list of faults by field (422)."""

    detail: str | list[Fault]


ANSWERS = (
    Streams, StreamAnswer, Areas, Timeline, StoredFiles, Clip, Link, LinkOptions, Events, Models, Totals, Ready,
    Refusal,
    StreamConfig,
    OverlayStyle,
)  # fmt: skip


def schemas() -> dict[str, Any]:
    """The JSON Schemas of everything the API takes and gives, by name; a change has no required fields."""
    names = [type_.__name__ for type_ in ANSWERS]
    made: dict[str, Any] = {}
    for type_, name in zip(ANSWERS, names, strict=True):
        whole = schema(type_)
        made.update(whole.get("$defs", {}))
        made.setdefault(name, {k: v for k, v in whole.items() if k not in {"$schema", "$ref", "$defs"}})
    for name in ("StreamConfig", "OverlayStyle"):
        changed = {k: v for k, v in made[name].items() if k != "required"}
        made[f"{name}Change"] = {**changed, "description": f"Some fields of a {name}; the others stay as they are."}
    replaced: dict[str, Any] = _references(made)
    return replaced


def _references(value: Any) -> Any:
    """`$ref`s as OpenAPI has them."""
    if isinstance(value, dict):
        return {
            k: v.replace("#/$defs/", "#/components/schemas/") if k == "$ref" else _references(v)
            for k, v in value.items()
        }
    return [_references(v) for v in value] if isinstance(value, list) else value


def shown(config: StreamConfig) -> dict[str, Any]:
    """A configuration without its secrets: addresses lose their credentials, FFmpeg's options their values."""
    cleaned: dict[str, Any] = _cleaned(msgspec.to_builtins(config, enc_hook=str))
    return cleaned


def _cleaned(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {k: HIDDEN if name == "ffmpeg" else _cleaned(v, str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(v) for v in value]
    return strip_credentials(value) if isinstance(value, str) else value


def stream_answer(stream: RunningStream, result: StreamResult | None, pace: Pace, viewers: int) -> StreamAnswer:
    """How a stream stands; `result` is the runtime's, None while it has not begun."""
    change, info, source = stream.change, stream.info, stream.source
    counts = None if result is None else result.counts
    return StreamAnswer(
        id=stream.id,
        source=strip_credentials(stream.config.source),
        mode="" if source is None else source.mode,
        state=change.state,
        reason=change.reason,
        cause=change.cause,
        since=change.at,
        paused=stream.paused,
        attempt=change.attempt,
        reconnects=change.reconnects,
        retry_in=change.retry_in,
        width=None if info is None else info.width,
        height=None if info is None else info.height,
        rate=None if info is None else round(float(info.rate), 3),
        pace=pace,
        frames_in=0 if counts is None else counts.decoded,
        frames_out=0 if counts is None else counts.emitted,
        dropped={} if counts is None else dropped(counts.dropped),
        decode_errors=0 if result is None else result.decode_errors,
        clips=stream.ring is not None,
        viewers=viewers,
        video=stream.browsers is not None,
        overlay=None if stream.overlay is None else stream.overlay.style,
        config=shown(stream.config),
    )


def dropped(counts: dict[tuple[str, str], int]) -> dict[str, int]:
    """Drops by `stage/reason`."""
    return {f"{stage}/{reason}": n for (stage, reason), n in sorted(dict(counts).items()) if n}


def model_answers(models: Sequence[LoadedModel]) -> list[ModelAnswer]:
    """Each model with the engine it runs on."""
    said = []
    for model in models:
        engine, spec = model.engine, model.engine.spec
        said.append(
            ModelAnswer(
                spec.name, spec.version, spec.task, spec.width, spec.height, engine.backend, engine.precision,
                engine.device, model.every, spec.classes,
            )
        )  # fmt: skip
    return said


def totals(result: RunResult, streams: int, seconds: float) -> Totals:
    """The figures of a run that has so many streams now and has run for so many seconds."""
    counts = [result.removed, *(s.counts for s in result.streams)]
    drops: Counter[tuple[str, str]] = Counter()
    for each in counts:
        drops.update(dict(each.dropped))
    frames = sum(each.emitted for each in counts)
    stages = {name: round(t.wall * 1000 / max(frames, 1), 3) for name, t in sorted(result.stages.items())}
    return Totals(
        version("roadlens"), round(seconds, 3), streams, sum(each.decoded for each in counts), frames, dropped(drops),
        stages,
    )  # fmt: skip


def all_totals(parts: Sequence[Totals], workers: list[WorkerAnswer], seconds: float) -> Totals:
    """The figures of several processes as one's."""
    drops: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    for part in parts:
        drops.update(part.dropped)
        stages.update({name: each * part.frames_out for name, each in part.stages.items()})
    frames = sum(part.frames_out for part in parts)
    return Totals(
        version("roadlens"), round(seconds, 3), sum(len(worker.streams) for worker in workers),
        sum(part.frames_in for part in parts), frames, dict(sorted(drops.items())),
        {name: round(each / max(frames, 1), 3) for name, each in sorted(stages.items())}, workers,
    )  # fmt: skip
