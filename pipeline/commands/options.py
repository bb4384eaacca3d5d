"""The options of `run`, `serve` and `demo`: what each is called, where its value stands in a configuration, how it
comes on top of what a configuration file says there, and without what it would do nothing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from engines.errors import UsageError
from pipeline.commands.needs import (
    CLASS_MAP,
    CLIPS,
    EITHER,
    ENCODED,
    FILES,
    MESSAGES,
    OVERLAID,
    PICTURES,
    STREAMS,
    X264,
    Need,
)

if TYPE_CHECKING:
    from pipeline.config import Config

F = TypeVar("F", bound=Callable[..., None])


@dataclass(frozen=True, slots=True)
class Option:
    """An option of the command line that says something of a configuration.

    Attributes:
        name: of the parameter; the flag is `--name`, with hyphens.
        key: where the value stands in `Config`: `outputs.hls.folder`; `models[].device` is the `device` of every model.
            A mapping on the way that the configuration leaves out (null) is made, with defaults beside the value.
            Several keys have a space between them.
        type: what typer makes of the words of the command line.
        help: one sentence.
        how: `set` replaces what the configuration says, `append` adds to it, `on` takes the defaults where the
            configuration says nothing.
        value: what stands at the key, made of what typer made; for `append` one of its items.
        info: what typer is told besides: metavar, bounds.
        flags: flags other than `--name`.
        argument: whether it is given without a flag.
        needs: what there has to be, or it would do nothing and is refused.
    """

    name: str
    key: str
    type: Any
    help: str
    how: Literal["set", "append", "on"] = "set"
    value: Callable[[Any], object] = lambda given: given
    info: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    argument: bool = False
    needs: tuple[Need, ...] = ()

    @property
    def flag(self) -> str:
        """How a person calls it."""
        return str(self.info["metavar"]) if self.argument else "--" + self.name.replace("_", "-")

    def parameter(self) -> inspect.Parameter:
        """The parameter that typer reads; None or an empty list is what was not given."""
        info: Any
        if self.argument:
            info = typer.Argument(help=self.help, show_default=False, **self.info)
        else:
            info = typer.Option(*self.flags, help=self.help, **self.info)
        annotation: Any = Annotated[self.type | None, info]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _model(text: str) -> dict[str, object]:
    name, colon, every = text.rpartition(":")
    if not (colon and (every == "auto" or every.isdecimal())):
        return {"model": text}
    return {"model": name, "every": _every(every, f"--model {text}")}


def _every(text: str, flag: str = "") -> int | str:
    if text == "auto":
        return text
    if not text.isdecimal():
        raise UsageError(f"--every takes auto, 1 for every frame, or n for every n-th, not {text!r}")
    if int(text) < 1:
        raise UsageError(f"{flag or '--every ' + text}: a model looks at every frame (1) or every n-th, "
                         f"not every {text}-th")  # fmt: skip
    return int(text)


def _device(text: str) -> str:
    from pipeline.config import DEVICES

    if re.match(DEVICES, text) is None:
        raise UsageError(
            f"--device {text!r} is no device; give auto, cpu, cuda or cuda:N, or several such as cuda:0,cuda:1"
        )
    return text


def _endpoint(text: str) -> dict[str, object]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal():
        raise UsageError(f"--metrics takes a port, or host:port such as 127.0.0.1:9464, not {text!r}")
    return {"port": int(port), "host": host or "127.0.0.1"}


def _polygon(text: str) -> list[list[float]]:
    try:
        corners = [[float(value) for value in corner.split(",")] for corner in text.split()]
    except ValueError:
        corners = []
    if len(corners) < 3 or any(len(corner) != 2 for corner in corners):
        raise UsageError(
            f"--ignore {text!r} is no region; give three corners or more in pixels: '0,300 640,300 640,360'"
        )
    return corners


SOURCES = Option(
    "sources", "streams", list[str],
    "Video files, folders or quoted globs of clips (one trip each), folders of pictures, cameras, synthetic:",
    "append", lambda source: {"source": source}, {"metavar": "SOURCE…"}, argument=True,
)  # fmt: skip

# Models before what is said of every model, sources before what is said of every stream.
MODELS = (
    Option(
        "model", "models", list[str], "Bundled name or .onnx; :3 looks at every third frame, see --every. Repeatable.",
        value=lambda given: [_model(text) for text in given], info={"metavar": "NAME[:EVERY]"},
    ),
    Option("precision", "models[].precision", str, "auto, fp32, fp16 (GPU), bf16, int8 or fp8 (GPU)."),
    Option(
        "device", "models[].device", str, "auto, cpu, cuda or cuda:N; cuda:0,cuda:1 shares the streams between both.",
        value=_device, info={"metavar": "DEVICE[,DEVICE…]"},
    ),
)  # fmt: skip

SHARED = (
    Option("output", "video.path", Path, "Overlaid video: a .mp4, or a folder for several streams.", value=str,
           flags=("-o", "--output")),
    Option("jsonl", "jsonl", str, "JSON lines: a .jsonl, a folder, or - for standard output."),
    Option("mcap", "mcap", Path, "Recording of the messages, which Foxglove opens.", value=str),
    Option("instances", "instances", bool, "Each box in the messages tells which pixels are its own.",
           flags=("--instances",), needs=(MESSAGES, CLASS_MAP)),
    Option("pub", "publish", list[str], "ZeroMQ PUB address: loses rather than waits. Repeatable.",
           "append", lambda address: {"bind": address, "pattern": "pub"}, {"metavar": "ADDRESS"}),
    Option("push", "publish", list[str], "ZeroMQ PUSH address: waits rather than loses. Repeatable.",
           "append", lambda address: {"bind": address, "pattern": "push"}, {"metavar": "ADDRESS"}),
    Option("restream", "outputs.restream", list[str],
           "Send overlaid video to a media server: rtsp://, rtmp://, udp:// … Repeatable.",
           "append", lambda address: {"address": address}, {"metavar": "ADDRESS"}),
    Option("hls", "outputs.hls.folder", Path, "Folder for HLS of the overlaid video.", value=str),
    Option("record", "outputs.record.folder", Path, "Folder to record overlaid video in without end.", value=str),
    Option("event_clips", "event_clips.folder", Path,
           "Folder for clips of events: the last seconds of a camera, saved on demand.", value=str),
    Option("metrics", "metrics", str, "Prometheus endpoint.", value=_endpoint, info={"metavar": "[HOST:]PORT"}),
    *MODELS,
    Option("every", "models[].every", str, "auto: look as often as the content asks for, carry in between; or n.",
           value=_every, info={"metavar": "N|auto"}),
    Option("realtime", "streams[].realtime", bool, "Play the files as if they were cameras.", flags=("--realtime",),
           needs=(FILES,)),
    Option("mode", "streams[].mode", str, "file: every frame of a recording; live: a camera; auto: sees which.",
           needs=(EITHER,)),
    Option("camera", "streams[].camera", str, "Whose clips of a folder: front, rear …; any for all as one trip.",
           needs=(CLIPS,)),
    Option("track", "streams[].track", int, "Which video track of files with several, from 1.", info={"min": 1},
           needs=(CLIPS,)),
    Option("ignore", "streams[].ignore.polygons", list[str], "Region that is not looked at: x,y x,y x,y … Repeatable.",
           "append", _polygon, {"metavar": "'X,Y X,Y X,Y…'"}, needs=(STREAMS,)),
    Option("ignore_mask", "streams[].ignore.mask", Path,
           "Picture of the stream's size, white where it is not looked at.", value=str, needs=(STREAMS,)),
    Option("bars", "streams[].ignore.bars", bool, "Find black bars and panels along the edges and cut them off.",
           needs=(STREAMS,)),
    Option("own_car", "streams[].ignore.own_car", bool, "Keep in mind where the class map shows the own car.",
           needs=(STREAMS, CLASS_MAP)),
    Option("anonymize", "anonymize", bool, "Blur people and number plates in every picture that leaves.", "on",
           flags=("--anonymize",), needs=(PICTURES,)),
    Option("anonymize_sparing", "anonymize.sparing", bool,
           "Blur heads and near plates only, not people whole and the lower part of every vehicle.",
           flags=("--anonymize-sparing",), needs=(PICTURES,)),
    Option("smooth", "smoothing", bool, "Smooth class maps over time: less flicker, a slight lag.", "on",
           flags=("--smooth",), needs=(CLASS_MAP,)),
    Option("ahead", "ahead", bool, "Look for the lead vehicle, the time to contact, and events on the road.", "on",
           flags=("--ahead",)),
    Option("opacity", "overlay.opacity", float, "Of the class colours.", info={"min": 0, "max": 1},
           needs=(OVERLAID, CLASS_MAP)),
    Option("legend", "overlay.legend", bool, "Draw a legend of the classes in the picture.",
           needs=(OVERLAID, CLASS_MAP)),
    Option("heads_up", "overlay.heads_up", bool, "Draw stream and time; and, where no file keeps it, fps and age.",
           needs=(OVERLAID,)),
    Option("boxes", "overlay.boxes", bool, "Draw boxes.", needs=(OVERLAID,)),
    Option("outlines", "overlay.outlines", bool, "Draw outlines of things.", needs=(OVERLAID, CLASS_MAP)),
    Option("hide", "overlay.hide", list[str], "A class that is neither coloured, outlined nor boxed. Repeatable.",
           needs=(OVERLAID,)),
    Option("preset", "video.preset outputs.encoder.preset", str, "Of x264: ultrafast to veryslow.",
           needs=(ENCODED, X264)),
    Option("crf", "video.crf outputs.encoder.crf", float, "Quality of the video; less is better.",
           info={"min": 0, "max": 51}, needs=(ENCODED,)),
    Option("encoder", "video.encoder outputs.encoder.encoder", str, "auto, libx264 or h264_nvenc.", needs=(ENCODED,)),
)  # fmt: skip

RUN = (SOURCES, *SHARED, Option("summary", "summary", str, "Final JSON summary: a file, or -."))

WORKERS = Option("workers", "workers", int, "Processes that share the streams, each with its own engines.")

SERVE = (
    SOURCES,
    WORKERS,
    Option("host", "serve.host", str, "Address to listen on; 127.0.0.1 unless told otherwise."),
    Option("port", "serve.port", int, "TCP port; 8089 unless told otherwise.", info={"min": 0, "max": 65535}),
    Option("token_file", "serve.token_file", Path,
           "File with the token that clients must show. Or the variable ROADLENS_TOKEN.", value=str),
    Option("allow_host", "serve.allow_hosts", list[str], "A name this server is called by. Repeatable."),
    Option("source_folder", "serve.source_folders", list[str],
           "Folder of whose files clients may make streams. Repeatable.", info={"metavar": "DIR"}),
    Option("root_path", "serve.root_path", str, "Sub-path below which a reverse proxy serves it.",
           info={"metavar": "/PATH"}),
    Option("trusted_proxy", "serve.trusted_proxies", list[str],
           "A proxy whose X-Forwarded headers are believed. Repeatable.", info={"metavar": "ADDRESS"}),
    *SHARED,
)  # fmt: skip

RENAMED = {"--to": "--restream", "--events": "--event-clips"}
"""Flags of `run` and `serve` as they were called once, and as they are called now."""


def takes(options: Sequence[Option]) -> Callable[[F], F]:
    """Give a command's function the parameters of `options`, in place of its last one, `**given`."""

    def with_parameters(command: F) -> F:
        own = inspect.signature(command, eval_str=True).parameters.values()
        kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.kind is not p.VAR_KEYWORD]
        signature = inspect.Signature([*(option.parameter() for option in options), *kept])
        command.__signature__ = signature  # type: ignore[attr-defined]  # what `inspect.signature` looks for
        return command

    return with_parameters


def merged(settings: Config, options: Sequence[Option], given: Mapping[str, Any], *, viewed: bool = False) -> Config:
    """A configuration with what the command line gave on top.

    Args:
        settings: what the configuration file says, or the defaults.
        options: those of the command, in the order in which they apply.
        given: values by the options' names; None and an empty list are those that were not given.
        viewed: whether pictures are shown to viewers, beside what the configuration has.

    Raises:
        UsageError: a value does not fit, two options contradict each other, or one would do nothing; the sentence names
            the flag.
    """
    import msgspec

    from engines.settings import decode
    from pipeline.config import Config, check

    wanted = [(option, given[option.name]) for option in options if given.get(option.name) not in (None, [])]
    for option, value in wanted:
        document = msgspec.to_builtins(settings, enc_hook=str)  # a Path becomes text
        for key in option.key.split():
            _put(document, key.split("."), option, value)
        settings = decode(document, Config, option.flag)
    for option, _ in wanted:
        for need in option.needs:
            if not need.met(settings, viewed):
                raise UsageError(f"{option.flag} {need.otherwise}")
    check(settings, "the command line")
    return settings


def _put(inside: dict[str, Any], steps: Sequence[str], option: Option, value: Any) -> None:
    """Put a value where the `steps` lead from a mapping of the configuration."""
    step, *further = steps
    if step.endswith("[]"):
        step = step.removesuffix("[]")
        if not inside[step]:
            raise UsageError(
                f"{option.flag} is said of the {step} that the command line or the configuration names, "
                f"and they name none; name one, or leave {option.flag} out"
            )
        for item in inside[step]:
            _put(item, further, option, value)
    elif further:
        if inside[step] is None:
            inside[step] = {}
        _put(inside[step], further, option, value)
    elif option.how == "append":
        inside[step] = [*inside[step], *map(option.value, value)]
    elif option.how == "on":
        inside[step] = {} if inside[step] is None else inside[step]
    else:
        inside[step] = option.value(value)
