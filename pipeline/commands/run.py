"""`roadlens run`, `serve`, `demo` and `config`: a configuration from a file and the command line, and what runs it.

Only typer is imported here; FFmpeg, OpenCV and OpenVINO are loaded by the command that needs them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engines.errors import UsageError
from pipeline.commands.options import MODELS, RUN, SERVE, merged, takes
from pipeline.process import check_memory

if TYPE_CHECKING:
    from pipeline.config import Config

ConfigFile = Annotated[Path | None, typer.Option(help="YAML file; what is on the command line comes on top.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")]

config_app = typer.Typer(help="Check a configuration file, or print its JSON Schema.", no_args_is_help=True)


@takes(RUN)
def run(
    config: ConfigFile = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run was killed.")] = False,
    verbose: Verbose = False,
    **given: Any,
) -> None:
    """Analyse footage: overlaid video, JSON lines, ZeroMQ messages, metrics, in any combination."""
    check_memory()
    settings = merged(_read(config), RUN, given)
    if settings.workers > 1:
        raise UsageError(
            f"`workers: {settings.workers}` is for `roadlens serve`, and a run is one process; leave it out, or start "
            "several runs with a part of the footage each"
        )
    _refuse_what_would_do_nothing(settings)
    from pipeline.commands.console import run_session

    raise typer.Exit(run_session(settings, resume=resume, verbose=verbose, inputs=[config] if config else []))


@takes(SERVE)
def serve(config: ConfigFile = None, verbose: Verbose = False, **given: Any) -> None:
    """Serve the dashboard and the control API: streams are added, watched and removed while others run."""
    check_memory()
    settings = merged(_read(config), SERVE, given, viewed=True)
    from rich.console import Console

    from pipeline.commands.logs import set_up_logging
    from pipeline.serve.server import serve as serve_until_stopped

    set_up_logging(Console(stderr=True, highlight=False), verbose)
    raise typer.Exit(serve_until_stopped(settings, [config] if config else []))


@takes(MODELS)
def demo(
    folder: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("roadlens-demo"),
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Length of the drive.")] = 10.0,
    verbose: Verbose = False,
    **given: Any,
) -> None:
    """Analyse a synthetic drive: a first look without any footage of one's own."""
    check_memory()
    from pipeline.commands.console import run_session
    from pipeline.config import Config, StreamConfig, VideoConfig
    from pipeline.drawing.overlay import OverlayStyle

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be made: {error.strerror}; give another with -o") from None
    settings = Config(
        streams=(StreamConfig(f"synthetic:?seconds={seconds:g}", "demo"),),
        overlay=OverlayStyle(legend=True, heads_up=True),
        video=VideoConfig(path=folder / "demo.mp4"),
        jsonl=str(folder / "demo.jsonl"),
        summary=str(folder / "summary.json"),
    )
    raise typer.Exit(run_session(merged(settings, MODELS, given), verbose=verbose))


@config_app.command("check")
def config_check(file: Annotated[Path, typer.Argument(help="YAML file.")]) -> None:
    """Say whether a configuration file is right, and where it is not."""
    settings = _read(file)
    typer.echo(f"{file} is right: {len(settings.streams)} streams, {len(settings.models)} models")


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of configuration files, for editors."""
    import json

    from pipeline import config

    typer.echo(json.dumps(config.config_schema(), indent=2))


def _read(path: Path | None) -> Config:
    from pipeline.config import Config, read_config

    return Config() if path is None else read_config(path)


def _refuse_what_would_do_nothing(settings: Config) -> None:
    """See that something comes out of a run, and that what it shall keep of cameras has a camera."""
    from pipeline.sources.live.address import may_be_live

    outputs = settings.video.path, settings.jsonl, settings.summary, settings.event_clips, settings.mcap
    if all(output is None for output in outputs) and not settings.publish and not settings.outputs.any:
        raise UsageError(
            "nothing would come out: "
            "give -o video.mp4, --jsonl, --mcap, --pub, --push, --restream, --hls, --record or --summary"
        )
    if settings.event_clips is None:
        return
    if settings.streams and not any(may_be_live(s.source, s.mode) for s in settings.streams):
        raise UsageError(
            "clips of events (--event-clips, `event_clips`) are cut from what a camera sent, and no source is one; "
            "leave them out: the files are there already"
        )
    if settings.event_clips.save_when is None:
        raise UsageError(
            "nothing would save a clip of an event (--event-clips, `event_clips`): say when, with "
            "`event_clips.save_when` in a configuration, or let clients of `roadlens serve` ask for it"
        )
