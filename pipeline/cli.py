"""The command `roadlens`: registers the commands, and ends a user's mistake in one line.

Only typer is imported here; FFmpeg, OpenCV and OpenVINO are loaded by the command that needs them.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from engines.errors import OutputError, RoadlensError, UsageError
from pipeline.commands import options
from pipeline.commands.archive import archive, find
from pipeline.commands.extras import missing_extra
from pipeline.commands.labels import export_labels
from pipeline.commands.run import config_app, demo, run, serve
from pipeline.commands.subscribe import subscribe
from pipeline.commands.trip import trip
from pipeline.process import ending_signals, interrupt, of_the_system, open_standard_files, visible

EXIT_CODES = """Exit codes: 0 done · 1 unexpected · 2 wrong command line or configuration · 3 source · 4 model ·
5 output · 6 a check did not pass · 130 interrupted."""

GROUPS = {
    "Run": ("run", "serve", "demo", "config"),
    "Archive": ("archive", "find", "trip", "export-labels"),
    "Look": ("subscribe", "mcap", "keys"),
    "Models": ("models", "engines"),
    "Train": ("data", "train", "eval", "export", "report", "explain", "explain-eval"),
}
"""How `--help` groups the commands, in order; those that no group names stand at the end."""

NEWLINE = "\n"

MOVED = {"record": "mcap record", "replay": "mcap replay", "recover": "mcap recover"}
"""Commands as they were called once, and as they are called now."""


class Commands(TyperGroup):
    """The commands of `roadlens`, listed in groups by its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # click calls it so
        shown = {name: command for name, command in self.commands.items() if not command.hidden}
        width = formatter.width - 6 - max(map(len, shown), default=0)
        grouped = [name for names in GROUPS.values() for name in names]
        others = tuple(name for name in shown if name not in grouped)
        for title, names in {**GROUPS, "Others": others}.items():
            rows = [(name, shown[name].get_short_help_str(width)) for name in names if name in shown]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


app = typer.Typer(
    name="roadlens",
    cls=Commands,
    help="Driving footage in; overlaid video, messages and metrics out.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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


def _moved(name: str) -> Callable[[], None]:
    def refuse() -> None:
        raise UsageError(f"`roadlens {name}` is called `roadlens {MOVED[name]}` now")

    return refuse


@cache
def _add_commands() -> None:
    """Mount the package's own commands and those that packages declare in the entry-point group `roadlens.commands`."""
    app.command("run", epilog=EXIT_CODES)(run)
    app.command("serve", epilog=EXIT_CODES)(serve)
    app.command("demo")(demo)
    app.command("archive", epilog=EXIT_CODES)(archive)
    app.command("find", epilog=EXIT_CODES)(find)
    app.command("trip", epilog=EXIT_CODES)(trip)
    app.command("export-labels", epilog=EXIT_CODES)(export_labels)
    app.command("subscribe")(subscribe)
    app.add_typer(config_app, name="config")
    for point in sorted(entry_points(group="roadlens.commands"), key=lambda p: p.name):
        command = point.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=point.name)
        else:
            app.command(point.name)(command)
    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    for name in MOVED:
        app.command(name, hidden=True, add_help_option=False, context_settings=anything)(_moved(name))


def _renamed(error: Exception) -> str | None:
    """The sentence about an option that is called otherwise now; None where the error is about something else."""
    flag = getattr(error, "option_name", None)
    command = getattr(getattr(error, "ctx", None), "info_name", None)
    if command not in {"run", "serve"} or flag not in options.RENAMED:
        return None
    return f"{flag} is called {options.RENAMED[flag]} now"


def main() -> None:
    """Run the command; a user's mistake ends in one line and its exit code, never in a traceback."""
    open_standard_files()
    _add_commands()
    for number in ending_signals()[2:]:  # commands that write more than an answer have handlers of their own
        signal.signal(number, interrupt)
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except RoadlensError as error:
        print(f"roadlens: {visible(str(error), keep=NEWLINE)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        preferred = "train" if sys.argv[1:] and sys.argv[1] in GROUPS["Train"] else ""
        sentence = missing_extra(error.name, preferred)
        if sentence is None:
            raise
        print(f"roadlens: {sentence}", file=sys.stderr)
        sys.exit(UsageError.exit_code)
    except BrokenPipeError:
        # The reader of standard output is gone (`| head`): nothing more can be said to it.
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        if (sentence := of_the_system(error)) is not None:
            print(f"roadlens: {sentence}", file=sys.stderr)
            sys.exit(OutputError.exit_code)
        if (sentence := _renamed(error)) is not None:
            print(f"roadlens: {sentence}", file=sys.stderr)
            sys.exit(UsageError.exit_code)
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
