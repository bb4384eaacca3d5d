"""The command `roadlens`.

Only typer is imported here; FFmpeg, OpenCV and OpenVINO are loaded by the command that needs them.
"""

from __future__ import annotations

import logging
import re
import sys
from functools import cache
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engines.errors import RoadlensError, UsageError

if TYPE_CHECKING:
    from pipeline.config import Config

EXIT_CODES = """Exit codes: 0 done · 1 unexpected · 2 wrong command line or configuration · 3 source · 4 model ·
5 output · 6 a check did not pass · 130 interrupted."""

PRECISION_HELP = "auto, fp32, fp16 (GPU), bf16, int8 or fp8 (GPU)."
DEVICE_HELP = "auto, cpu, cuda or cuda:N; cuda:0,cuda:1 shares the streams between both."

app = typer.Typer(
    name="roadlens",
    help="Driving footage in; overlaid video, messages and metrics out.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(help="Check a configuration file, or print its JSON Schema.", no_args_is_help=True)
app.add_typer(config_app, name="config")

# Options that several commands share.
ConfigFile = Annotated[Path | None, typer.Option(help="YAML file; what is on the command line comes on top.")]
Pub = Annotated[list[str] | None, typer.Option(help="ZeroMQ PUB address: loses rather than waits.")]
To = Annotated[
    list[str] | None, typer.Option(metavar="ADDRESS", help="Push overlaid video to rtsp://, rtmp://, udp:// …")
]
HlsFolder = Annotated[Path | None, typer.Option(help="Folder for HLS of the overlaid video.")]
RecordFolder = Annotated[Path | None, typer.Option(help="Folder to record overlaid video in without end.")]
EventsFolder = Annotated[
    Path | None, typer.Option(help="Folder for clips of events: the last seconds of a camera, saved on demand.")
]
Models = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME[:EVERY]", help="Bundled name or .onnx; :3 looks at every third frame. Repeatable."),
]
Precision = Annotated[str | None, typer.Option(help=PRECISION_HELP)]
Device = Annotated[str | None, typer.Option(metavar="DEVICE[,DEVICE…]", help=DEVICE_HELP)]
Realtime = Annotated[bool, typer.Option("--realtime", help="Play the files as if they were cameras.")]
Anonymize = Annotated[
    bool, typer.Option("--anonymize", help="Blur people and number plates in every picture that leaves.")
]
Smooth = Annotated[bool, typer.Option("--smooth", help="Smooth class maps over time: less flicker, a slight lag.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"roadlens {version('roadlens')}")
        raise typer.Exit


@app.callback()
def root(
    _version_flag: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Driving footage in; overlaid video, messages and metrics out."""


@app.command(epilog=EXIT_CODES)
def run(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE…",
            help="Video files, folders or quoted globs of clips (one trip each), folders of pictures, synthetic:",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Overlaid video: a .mp4, or a folder for several streams.")
    ] = None,
    jsonl: Annotated[str | None, typer.Option(help="JSON lines: a .jsonl, a folder, or - for standard output.")] = None,
    pub: Pub = None,
    push: Annotated[list[str] | None, typer.Option(help="ZeroMQ PUSH address: waits rather than loses.")] = None,
    to: To = None,
    hls: HlsFolder = None,
    record: RecordFolder = None,
    events: EventsFolder = None,
    metrics: Annotated[str | None, typer.Option(metavar="[HOST:]PORT", help="Prometheus endpoint.")] = None,
    summary: Annotated[str | None, typer.Option(help="Final JSON summary: a file, or -.")] = None,
    model: Models = None,
    precision: Precision = None,
    device: Device = None,
    realtime: Realtime = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run was killed.")] = False,
    opacity: Annotated[float | None, typer.Option(min=0, max=1, help="Of the class colours.")] = None,
    legend: Annotated[bool | None, typer.Option(help="Draw the legend.")] = None,
    heads_up: Annotated[bool | None, typer.Option(help="Draw stream, time, fps and frame age.")] = None,
    boxes: Annotated[bool | None, typer.Option(help="Draw boxes.")] = None,
    outlines: Annotated[bool | None, typer.Option(help="Draw outlines of things.")] = None,
    hide: Annotated[list[str] | None, typer.Option(help="A class that is not coloured. Repeatable.")] = None,
    preset: Annotated[str | None, typer.Option(help="Of x264: ultrafast to veryslow.")] = None,
    crf: Annotated[float | None, typer.Option(min=0, max=51, help="Quality of the video; less is better.")] = None,
    encoder: Annotated[str | None, typer.Option(help="auto, libx264 or h264_nvenc.")] = None,
    mcap: Annotated[Path | None, typer.Option(help="Recording of the messages, which Foxglove opens.")] = None,
    anonymize: Anonymize = False,
    smooth: Smooth = False,
    verbose: Verbose = False,
) -> None:
    """Analyse footage: overlaid video, JSON lines, ZeroMQ messages, metrics, in any combination."""
    values: dict[str, Any] = {
        "video": {"path": None if output is None else str(output), "preset": preset, "crf": crf, "encoder": encoder},
        "overlay": {
            "opacity": opacity, "legend": legend, "heads_up": heads_up, "boxes": boxes, "outlines": outlines,
            "hide": tuple(hide) if hide else None,
        },
        "jsonl": jsonl,
        "summary": summary,
        "mcap": None if mcap is None else str(mcap),
    }  # fmt: skip
    settings = _configured(config, values)
    settings = _with_flags(settings, anonymize, smooth)
    settings = _with_outputs(settings, to or [], hls, record, events)
    settings = _with_lists(
        settings, sources or [], model or [], precision, device, pub or [], push or [], metrics, realtime
    )
    files = settings.video.path, settings.jsonl, settings.summary, settings.events, settings.mcap
    if all(f is None for f in files) and not settings.publish and not settings.outputs.any:
        raise UsageError(
            "nothing would come out: "
            "give -o video.mp4, --jsonl, --mcap, --pub, --push, --to, --hls, --record or --summary"
        )
    from pipeline.console import run_session

    raise typer.Exit(run_session(settings, resume=resume, verbose=verbose))


@app.command(epilog=EXIT_CODES)
def serve(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE…", help="Streams to begin with; as of `run`.", show_default=False),
    ] = None,
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 unless told otherwise.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="TCP port; 8089 unless told otherwise.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that clients must show. Or the variable ROADLENS_TOKEN.")
    ] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="A name this server is called by. Repeatable.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for overlaid video.")] = None,
    jsonl: Annotated[str | None, typer.Option(help="JSON lines: a folder, or - for standard output.")] = None,
    pub: Pub = None,
    to: To = None,
    hls: HlsFolder = None,
    record: RecordFolder = None,
    events: EventsFolder = None,
    realtime: Realtime = False,
    model: Models = None,
    precision: Precision = None,
    device: Device = None,
    anonymize: Anonymize = False,
    smooth: Smooth = False,
    verbose: Verbose = False,
) -> None:
    """Serve the dashboard and the control API: streams are added, watched and removed while others run."""
    values: dict[str, Any] = {
        "video": {"path": None if output is None else str(output)},
        "jsonl": jsonl,
        "serve": {
            "host": host, "port": port, "token_file": None if token_file is None else str(token_file),
            "allow_hosts": allow_host,
        },
    }  # fmt: skip
    settings = _configured(config, values)
    settings = _with_flags(settings, anonymize, smooth)
    settings = _with_outputs(settings, to or [], hls, record, events)
    settings = _with_lists(settings, sources or [], model or [], precision, device, pub or [], [], None, realtime)
    from rich.console import Console

    from pipeline.console import set_up_logging
    from pipeline.serve.server import serve as serve_until_stopped

    set_up_logging(Console(stderr=True, highlight=False), verbose)
    raise typer.Exit(serve_until_stopped(settings))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("roadlens-demo"),
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Length of the drive.")] = 10.0,
    model: Annotated[str, typer.Option(help="Bundled name or .onnx.")] = "cityscapes-unet",
    precision: Precision = None,
    device: Device = None,
    verbose: Verbose = False,
) -> None:
    """Analyse a synthetic drive: a first look without any footage of one's own."""
    from pipeline.config import Config, ModelConfig, StreamConfig, VideoConfig
    from pipeline.console import run_session
    from pipeline.overlay import OverlayStyle

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be made: {error.strerror}; give another with -o") from None
    settings = Config(
        streams=(StreamConfig(f"synthetic:?seconds={seconds:g}", "demo"),),
        models=(ModelConfig(model),),
        overlay=OverlayStyle(legend=True, heads_up=True),
        video=VideoConfig(path=folder / "demo.mp4"),
        jsonl=str(folder / "demo.jsonl"),
        summary=str(folder / "summary.json"),
    )
    settings = _with_lists(settings, [], [], precision, device, [], [], None, False)
    raise typer.Exit(run_session(settings, verbose=verbose))


@config_app.command("check")
def config_check(file: Annotated[Path, typer.Argument(help="YAML file.")]) -> None:
    """Say whether a configuration file is right, and where it is not."""
    from pipeline.config import read_config

    settings = read_config(file)
    typer.echo(f"{file} is right: {len(settings.streams)} streams, {len(settings.models)} models")


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of configuration files, for editors."""
    import json

    from pipeline import config

    typer.echo(json.dumps(config.config_schema(), indent=2))


def _configured(path: Path | None, values: dict[str, Any]) -> Config:
    """The configuration file with what the command line gave (not None) on top."""
    import msgspec

    from engines.settings import decode
    from pipeline.config import Config, read_config

    settings = read_config(path) if path is not None else Config()
    merged = msgspec.to_builtins(settings, enc_hook=str)  # a Path becomes text
    for key, value in values.items():
        if isinstance(value, dict):
            merged[key].update({k: v for k, v in value.items() if v is not None})
        elif value is not None:
            merged[key] = value
    return decode(merged, Config, "the command line")


def _with_flags(settings: Config, anonymize: bool, smooth: bool) -> Config:
    """What a flag asks for, as the configuration has it where it says something of it."""
    import msgspec

    from pipeline.anonymize import AnonymizeOptions
    from pipeline.smoothing import SmoothingOptions

    if anonymize and settings.anonymize is None:
        settings = msgspec.structs.replace(settings, anonymize=AnonymizeOptions())
    if smooth and settings.smoothing is None:
        settings = msgspec.structs.replace(settings, smoothing=SmoothingOptions())
    return settings


def _with_outputs(
    settings: Config, to: list[str], hls: Path | None, record: Path | None, events: Path | None
) -> Config:
    """The configuration with the live outputs of the command line on top; what it says of their folders' use stays."""
    from msgspec.structs import replace

    from pipeline.event_clip import EventOptions
    from pipeline.hls import HlsOptions
    from pipeline.push import PushOptions
    from pipeline.recording import RecordingOptions

    outputs = settings.outputs
    if to:
        outputs = replace(outputs, push=(*outputs.push, *(PushOptions(address) for address in to)))
    if hls is not None:
        outputs = replace(outputs, hls=replace(outputs.hls or HlsOptions(hls), folder=hls))
    if record is not None:
        outputs = replace(outputs, record=replace(outputs.record or RecordingOptions(record), folder=record))
    if events is not None:
        settings = replace(settings, events=replace(settings.events or EventOptions(events), folder=events))
    return replace(settings, outputs=outputs)


def _with_lists(
    settings: Config,
    sources: list[str],
    models: list[str],
    precision: str | None,
    device: str | None,
    pub: list[str],
    push: list[str],
    metrics: str | None,
    realtime: bool,
) -> Config:
    import msgspec

    from engines.settings import decode
    from pipeline.config import DEVICES, MetricsConfig, ModelConfig, PublishConfig, StreamConfig, check

    changes: dict[str, Any] = {"streams": (*settings.streams, *(StreamConfig(s, realtime=realtime) for s in sources))}
    if models:
        changes["models"] = tuple(_model(text) for text in models)
    if device is not None and re.match(DEVICES, device) is None:
        raise UsageError(
            f"--device {device!r} is no device; give auto, cpu, cuda or cuda:N, or several such as cuda:0,cuda:1"
        )
    for key, value in (("precision", precision), ("device", device)):
        if value is not None:
            chosen = changes.get("models", settings.models)
            changes["models"] = tuple(
                decode({**msgspec.to_builtins(m), key: value}, ModelConfig, f"--{key}") for m in chosen
            )
    published = [PublishConfig(a) for a in pub] + [PublishConfig(a, "push") for a in push]
    changes["publish"] = (*settings.publish, *published)
    if metrics is not None:
        host, _, port = metrics.rpartition(":")
        if not port.isdigit():
            raise UsageError(f"--metrics takes a port, or host:port such as 127.0.0.1:9464, not {metrics!r}")
        changes["metrics"] = decode({"port": int(port), "host": host or "127.0.0.1"}, MetricsConfig, "--metrics")
    result: Config = msgspec.structs.replace(settings, **changes)
    check(result, "the command line")
    return result


def _model(text: str) -> Any:
    from pipeline.config import ModelConfig

    name, colon, every = text.rpartition(":")
    if colon and every.isdigit():
        if int(every) < 1:
            raise UsageError(f"--model {text}: a model looks at every frame (1) or every n-th, not every {every}-th")
        return ModelConfig(name, every=int(every))
    return ModelConfig(text)


@cache
def _add_commands() -> None:
    """Mount the commands that the packages declare in the entry-point group `roadlens.commands`."""
    from pipeline.subscribe_command import subscribe

    app.command("subscribe")(subscribe)
    for point in sorted(entry_points(group="roadlens.commands"), key=lambda p: p.name):
        command = point.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=point.name)
        else:
            app.command(point.name)(command)


def main() -> None:
    """Run the command; a user's mistake ends in one line and its exit code, never in a traceback."""
    _add_commands()
    try:
        code = app(standalone_mode=False)
    except RoadlensError as error:
        print(f"roadlens: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of standard output is gone (`| head`): nothing more can be said to it.
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()  # a usage error of click's: it prints the usage and one sentence
        sys.exit(getattr(error, "exit_code", 2))
    finally:
        logging.shutdown()
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
