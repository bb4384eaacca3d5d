"""What a run is made of: typed YAML, and the same values from the command line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from engines.errors import UsageError
from engines.settings import read_yaml, schema
from pipeline.anonymize import AnonymizeOptions
from pipeline.components import ComponentOptions
from pipeline.decoding import Decode
from pipeline.event_clip import EventOptions
from pipeline.keys import CurveOptions
from pipeline.live_input import LiveOptions
from pipeline.outputs import OutputOptions
from pipeline.overlay import OverlayStyle
from pipeline.publish import PictureOptions
from pipeline.serve.options import ServeOptions
from pipeline.smoothing import SmoothingOptions
from pipeline.tracking import TrackingOptions
from pipeline.video_writer import VideoOptions

Natural = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
StreamId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)")]


DEVICES = r"^(auto|(cpu|cuda(:[0-9]+)?)(,(cpu|cuda(:[0-9]+)?))*)$"
"""`auto`, a device, or several with commas between."""


class StreamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stream of footage.

    Attributes:
        source: a video file, a folder or glob of clips (one trip), a folder of pictures, `synthetic:?…`, a camera's
            address (`rtsp://`, `http://`, `rtmp://`, `srt://`, `udp://`, `v4l2:/dev/video0`), or `-` for a pipe.
        id: name in messages, metrics and output files; made of the source's name when left out.
        decode_threads: threads of the decoder; 0 lets FFmpeg choose.
        rate: frames a second of a folder of pictures.
        decode: `cuda` decodes on the GPU (NVDEC) and keeps the pictures there, `cpu` does not; `auto` does where models
            may run on a GPU and NVDEC is there.
        realtime: play what is no live source as if it were one.
        live: how a live source is read, and how old a frame of it may get.
    """

    source: str
    id: StreamId | None = None
    decode_threads: Annotated[int, msgspec.Meta(ge=0, le=64)] = 1
    rate: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 25.0
    decode: Decode = "auto"
    realtime: bool = False
    live: LiveOptions = LiveOptions()

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
        every: look at every n-th frame of each stream.
    """

    model: str
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8", "fp8"] = "auto"
    device: Annotated[str, msgspec.Meta(pattern=DEVICES)] = "auto"
    every: Natural = 1


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


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole run.

    Attributes:
        streams: what goes in.
        models: what looks at it; at most one segmenter.
        boxes: boxes from the segmenter's class map.
        min_score: smallest score of a localizer's box.
        hold_score: smallest score of one that was there when its model looked last, so that none flickers.
        tracking: track numbers.
        smoothing: of the segmenter's class map over time; null for none.
        overlay: what is drawn.
        video: overlaid video out.
        outputs: overlaid video for those who watch now: media servers, HLS, recording.
        events: the last seconds of live sources, kept as they came and saved on demand; null for none.
        jsonl: JSON lines out: a file for one stream, a folder for several, `-` for standard output.
        mcap: a recording of the run's messages, all streams in one file, that opens in Foxglove.
        anonymize: what is blurred in every picture that leaves the process; null for nothing.
        publish: ZeroMQ out, one or more sockets.
        metrics: Prometheus endpoint.
        summary: a final JSON summary: a file, or `-` for standard output.
        serve: where the control API of `roadlens serve` listens.
    """

    streams: tuple[StreamConfig, ...] = ()
    models: tuple[ModelConfig, ...] = (ModelConfig("cityscapes-unet"),)
    boxes: ComponentOptions = ComponentOptions()
    min_score: Share = 0.5
    hold_score: Share = 0.4
    tracking: TrackingOptions = TrackingOptions()
    smoothing: SmoothingOptions | None = None
    overlay: OverlayStyle = OverlayStyle()
    video: VideoConfig = VideoConfig()
    outputs: OutputOptions = OutputOptions()
    events: EventOptions | None = None
    jsonl: str | None = None
    mcap: Path | None = None
    anonymize: AnonymizeOptions | None = None
    publish: tuple[PublishConfig, ...] = ()
    metrics: MetricsConfig | None = None
    summary: str | None = None
    serve: ServeOptions = ServeOptions()


def read_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        UsageError: the file cannot be read, or a key or value is wrong; the sentence names the place.
    """
    config = read_yaml(path, Config)
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
    if config.jsonl == "-" and config.summary == "-":
        raise UsageError(f"{where}: JSON lines and the summary cannot both go to standard output; give one a file")
    if config.anonymize is not None and config.events is not None:
        raise UsageError(
            f"{where}: `events` saves the camera's own pictures, in which nothing is blurred; "
            "leave out either `events` or `anonymize`"
        )


def devices_of(config: Config) -> list[str]:
    """The devices that streams are shared among, as they are asked for; one unless several are given."""
    return config.models[0].device.split(",") if config.models else ["auto"]


def config_schema() -> dict[str, object]:
    """The JSON Schema of a configuration file."""
    return schema(Config)
