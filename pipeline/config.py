"""What a run is made of: typed YAML, and the same values from the command line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from engines.bundled import DEFAULT
from engines.errors import UsageError
from engines.settings import read_yaml, schema
from pipeline.addresses import networks
from pipeline.analysis.ahead.stage import AheadOptions
from pipeline.analysis.carrying.cadence import CarryingOptions
from pipeline.analysis.components import ComponentOptions
from pipeline.analysis.ignore import IgnoreOptions
from pipeline.analysis.smoothing import SmoothingOptions
from pipeline.analysis.tracking import TrackingOptions
from pipeline.contracts import Stage
from pipeline.drawing.anonymize import AnonymizeOptions
from pipeline.drawing.overlay import OverlayStyle
from pipeline.messages.publish import PictureOptions
from pipeline.messages.sockets.keys import CurveOptions
from pipeline.outputs.event_clip import EventClipOptions
from pipeline.outputs.live.opening import OutputOptions
from pipeline.outputs.mp4 import VideoOptions
from pipeline.sources.decoding import Decode
from pipeline.sources.live.address import LiveOptions
from pipeline.sources.reading import Wanted

Natural = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
StreamId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)")]


DEVICES = r"^(auto|(cpu|cuda(:[0-9]+)?)(,(cpu|cuda(:[0-9]+)?))*)$"
"""`auto`, a device, or several with commas between."""

ROOT_PATH = r"^(?!/(api|assets|docs|livez|login|logout|metrics|readyz)(/|$))(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*$(?!\n)"
"""Nothing, or a path of plain letters that ends without a slash, and is none of the server's own."""

RENAMED = {"events": "event_clips", "outputs.push": "outputs.restream"}
"""Keys as they were called once, and as they are called now."""


class StreamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stream of footage.

    Attributes:
        source: a video file, a folder or glob of clips (one trip), a folder of pictures, `synthetic:?…`, a camera's
            address (`rtsp://`, `http://`, `rtmp://`, `srt://`, `udp://`, `v4l2:/dev/video0`), or `-` for a pipe.
        id: name in messages, metrics and output files; made of the source's name when left out.
        camera: whose clips of a folder or glob are read, such as `front`, where their names say which camera took
            them; `any` for all as one trip. Each camera is a stream of its own where this is left out.
        track: which track of pictures of a file that has several, from 1; each is a stream where this is left out.
        decode_threads: threads of the decoder; 0 lets FFmpeg choose.
        rate: frames a second of a folder of pictures.
        decode: `cuda` decodes on the GPU (NVDEC) and keeps the pictures there, `cpu` does not; `auto` does where models
            may run on a GPU and NVDEC is there.
        mode: `file` reads every frame of a recording, `live` the newest frames of a camera; `auto` sees which it is and
            takes what comes through a pipe for a recording.
        realtime: play what is no live source as if it were one.
        live: how a live source is read, and how old a frame of it may get.
        ignore: what of its pictures is not looked at.
    """

    source: str
    id: StreamId | None = None
    camera: str | None = None
    track: Natural | None = None
    decode_threads: Annotated[int, msgspec.Meta(ge=0, le=64)] = 1
    rate: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 25.0
    decode: Decode = "auto"
    mode: Wanted = "auto"
    realtime: bool = False
    live: LiveOptions = LiveOptions()
    ignore: IgnoreOptions = IgnoreOptions()

    def picture_rate(self) -> Fraction:
        """`rate` as an exact fraction."""
        return Fraction(self.rate).limit_denominator(1001)


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model.

    Attributes:
        model: name of a bundled model, or path of an ONNX file with its spec.
        precision: of the engine; `auto` takes fp16 on a GPU, bf16 where the CPU computes in it; `int8` and `fp8` run
            the quantised twin beside the model.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`; or several with commas, `cuda:0,cuda:1`:
            an engine on each, and each stream on the one that has the least to do. Then every model names the same.
        every: look at every n-th frame of each stream; `auto` looks as often as its content asks for, see `carrying`.
        backend: `auto` (TensorRT, else PyTorch on a GPU; OpenVINO on a CPU), or one of them by name; `tensorrt-rtx`,
            for GeForce and RTX GPUs, is taken only so.
    """

    model: str
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8", "fp8"] = "auto"
    device: Annotated[str, msgspec.Meta(pattern=DEVICES)] = "auto"
    every: Natural | Literal["auto"] = 1
    backend: Literal["auto", "openvino", "tensorrt", "tensorrt-rtx", "torch"] = "auto"


class VideoConfig(VideoOptions, frozen=True, forbid_unknown_fields=True):
    """Overlaid video; `path` is a file for one stream, a folder for several."""

    path: Path | None = None


class PublishConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """ZeroMQ messages.

    Attributes:
        bind: `tcp://127.0.0.1:5555` or `ipc:///path`.
        pattern: `pub` loses rather than waits; `push` waits rather than loses.
        header: `msgpack` or `json`.
        mask: `png`, `rle` or `none`.
        high_water: messages queued for a peer that does not read.
        linger: seconds that the end of a stopped run waits for readers.
        allow_remote: whether an address that other machines reach may be bound.
        picture: pictures on request, with `pub`; null for none.
        curve: encrypt, and serve only the clients named; null for a plain socket.
    """

    bind: str
    pattern: Literal["pub", "push"] = "pub"
    header: Literal["msgpack", "json"] = "msgpack"
    mask: Literal["png", "rle", "none"] = "png"
    high_water: Natural = 16
    linger: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    allow_remote: bool = False
    picture: PictureOptions | None = None
    curve: CurveOptions | None = None


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The Prometheus endpoint."""

    port: Port = 9464
    host: str = "127.0.0.1"


class ServeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The control API and the dashboard.

    Attributes:
        host: address to listen on; one that other machines reach needs a token.
        port: TCP port; 0 for a free one.
        token_file: file with the token that clients must show; the variable ROADLENS_TOKEN does as well.
        allow_hosts: names by which browsers may call this server, beside addresses, `localhost` and its own name.
        max_streams: streams at once.
        source_folders: folders of whose files and devices clients may make streams; of no others, and by default of
            none. Streams of the configuration and the command line may be anything.
        root_path: the sub-path below which a reverse proxy serves this server, such as `/cams`; empty for none.
        trusted_proxies: addresses and networks of the proxies whose `X-Forwarded-Proto`, `-Host` and `-Prefix` are
            believed; nobody's unless named.
    """

    host: str = "127.0.0.1"
    port: Port = 8089
    token_file: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    max_streams: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 64
    source_folders: tuple[Path, ...] = ()
    root_path: Annotated[str, msgspec.Meta(pattern=ROOT_PATH)] = ""
    trusted_proxies: tuple[str, ...] = ()


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole run.

    Attributes:
        streams: what goes in.
        models: what looks at it; at most one segmenter.
        boxes: boxes from the segmenter's class map, where the model gives none itself.
        min_score: smallest score of a model's box; null takes what the model says of itself.
        hold_score: smallest score of one that was there when its model looked last, so that none flickers; null for
            four fifths of `min_score`.
        tracking: track numbers.
        smoothing: of the segmenter's class map over time; null for none.
        carrying: what stands between the frames that a model looks at, where it does not look at every one.
        ahead: the lead vehicle, and what happens on the road ahead; null for not looking.
        overlay: what is drawn.
        video: overlaid video out.
        outputs: overlaid video for those who watch now: media servers, HLS, recording.
        event_clips: the last seconds of live sources, kept as they came and saved on demand; null for none.
        jsonl: JSON lines out: a file for one stream, a folder for several, `-` for standard output.
        mcap: a recording of the run's messages, all streams in one file, that opens in Foxglove.
        instances: whether each box in the messages tells which pixels of the class map are its own.
        anonymize: what is blurred in every picture that leaves the process; null for nothing.
        publish: ZeroMQ out, one or more sockets.
        metrics: Prometheus endpoint.
        summary: a final JSON summary: a file, or `-` for standard output.
        serve: where the control API of `roadlens serve` listens.
        workers: processes that share the streams, each with its own engines; for more streams than Python in one
            process is fast enough for.
    """

    streams: tuple[StreamConfig, ...] = ()
    models: tuple[ModelConfig, ...] = (ModelConfig(DEFAULT),)
    boxes: ComponentOptions = ComponentOptions()
    min_score: Share | None = None
    hold_score: Share | None = None
    tracking: TrackingOptions = TrackingOptions()
    smoothing: SmoothingOptions | None = None
    carrying: CarryingOptions = CarryingOptions()
    ahead: AheadOptions | None = None
    overlay: OverlayStyle = OverlayStyle()
    video: VideoConfig = VideoConfig()
    outputs: OutputOptions = OutputOptions()
    event_clips: EventClipOptions | None = None
    jsonl: str | None = None
    mcap: Path | None = None
    instances: bool = False
    anonymize: AnonymizeOptions | None = None
    publish: tuple[PublishConfig, ...] = ()
    metrics: MetricsConfig | None = None
    summary: str | None = None
    serve: ServeOptions = ServeOptions()
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1


def read_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        UsageError: the file cannot be read, or a key or value is wrong; the sentence names the place.
    """
    config = read_yaml(path, Config, RENAMED)
    check(config, str(path))
    return config


def check(config: Config, where: str) -> None:
    """What types cannot say.

    Raises:
        UsageError: two streams with one id, a model listed twice, or options that contradict each other.
    """
    ids = [s.id for s in config.streams if s.id is not None]
    for name in ids:
        if ids.count(name) > 1:
            raise UsageError(f"{where}: the stream id {name!r} is given twice; every stream needs one of its own")
    names = [m.model for m in config.models]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{where}: the model {name!r} is listed twice; list it once")
    several = {m.device for m in config.models if "," in m.device}
    if several and len({m.device for m in config.models}) > 1:
        raise UsageError(
            f"{where}: of several devices ({', '.join(sorted(several))}) a stream's models are all on one; "
            "give every model the same `device`"
        )
    if config.workers > 1:
        _check_workers(config, where)
    if config.jsonl == "-" and config.summary == "-":
        raise UsageError(f"{where}: JSON lines and the summary cannot both go to standard output; give one a file")
    try:
        networks(config.serve.trusted_proxies)
    except UsageError as error:
        raise UsageError(f"{where}: serve.trusted_proxies: {error}") from None
    if config.ahead is not None and not config.tracking.enabled:
        raise UsageError(f"{where}: `ahead` follows tracks, and `tracking` is not enabled; leave out one of the two")
    rule = None if config.event_clips is None else config.event_clips.save_when
    if rule is not None and rule.class_name is None and not rule.events:
        raise UsageError(
            f"{where}: `event_clips.save_when` says neither a `class` nor `events`; give one, or leave it out"
        )
    if rule is not None and rule.events and config.ahead is None:
        raise UsageError(
            f"{where}: `event_clips.save_when.events` waits for events, and nobody looks for them; add `ahead: {{}}`"
        )
    if config.anonymize is not None and config.event_clips is not None:
        raise UsageError(
            f"{where}: `event_clips` saves the camera's own pictures, in which nothing is blurred; "
            "leave out either `event_clips` or `anonymize`"
        )


def _check_workers(config: Config, where: str) -> None:
    """That nothing is asked for which several processes cannot share."""
    alone = {
        "a recording (`mcap`) is one file; run `roadlens mcap record` beside it": config.mcap is not None,
        "standard output (`jsonl: -`) is one; give a folder": config.jsonl == "-",
        "standard input (`-`) is read by one process": any(stream.source == "-" for stream in config.streams),
    }
    for reason, asked in alone.items():
        if asked:
            raise UsageError(
                f"{where}: {config.workers} workers write and read side by side, and {reason}; leave out --workers"
            )


def configured_stages(config: Config) -> list[Stage]:
    """A new stage for each key that asks for one: whose value is a struct with a method `stage`, which makes it."""
    return [value.stage() for value in msgspec.structs.astuple(config) if hasattr(value, "stage")]


def devices_of(config: Config) -> list[str]:
    """The devices that streams are shared among, as they are asked for; one unless several are given."""
    return config.models[0].device.split(",") if config.models else ["auto"]


def config_schema() -> dict[str, object]:
    """The JSON Schema of a configuration file."""
    return schema(Config)
