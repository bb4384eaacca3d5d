"""`roadlens archive` and `roadlens find`: index clips into tables once, and ask them.

Only typer is imported here; FFmpeg, OpenVINO and pyarrow are loaded by the command that needs them.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engines.errors import SourceError, UsageError
from pipeline.commands.options import MODELS, merged, takes
from pipeline.process import check_memory, ending_signals, leave_terminal, visible

if TYPE_CHECKING:
    from pipeline.archive.crew.processes import Place
    from pipeline.archive.indexing import Progress, Summary
    from pipeline.archive.positions.sidecars import Unused
    from pipeline.archive.reading import Archive, Moment
    from pipeline.config import Config

_LINE_SECONDS = 5.0


@takes(MODELS)
def archive(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT… ARCHIVE", help="Folders, cards, clips, stores (s3://…); then the archive."),
    ],
    config: Annotated[Path | None, typer.Option(help="YAML file with models, tracking and stages.")] = None,
    every: Annotated[
        int, typer.Option(min=1, help="Look at one frame in so many; NAME:EVERY of a model goes first.")
    ] = 15,
    processes: Annotated[int, typer.Option(min=0, max=4096, help="Processes; 0 for one a core.")] = 0,
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Index on a Ray cluster: HOST:PORT, or auto for this machine's.")
    ] = "",
    tries: Annotated[int, typer.Option(min=1, help="Failures after which a clip is set aside.")] = 3,
    again: Annotated[bool, typer.Option("--again", help="Index all of it anew.")] = False,
    drop_replaced: Annotated[
        bool,
        typer.Option("--drop-replaced", help="Take out clips that others have taken the place of."),
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")] = False,
    **given: Any,
) -> None:
    """Index folders and cards of clips into tables that can be asked; goes on where an earlier run was stopped.

    One frame in fifteen is looked at. Each clip is indexed once, by processes of this machine or, with --ray, of all
    machines of a Ray cluster; see pipeline/archive/ARCHIVE.md.
    """
    check_memory()
    _check_words(inputs, ray)
    from rich.console import Console

    from pipeline.archive.crew.processes import Processes
    from pipeline.archive.indexing import Indexing
    from pipeline.archive.terms import terms_of
    from pipeline.commands.logs import set_up_logging
    from pipeline.config import Config, read_config

    console = Console(stderr=True, highlight=False)
    set_up_logging(console, verbose)
    settings = merged(Config() if config is None else read_config(config), MODELS, given)
    settings = _at_cadence(settings, every, given.get("model") or [])
    terms = terms_of(settings, Path(inputs[-1]))
    with ExitStack() as stack:
        stopped = stack.enter_context(_stop_signals(console))
        indexing = Indexing(
            inputs[:-1], Path(inputs[-1]), terms, again=again, tries=tries, drop_replaced=drop_replaced,
            say=partial(_say, console),
        )  # fmt: skip
        run = stack.enter_context(indexing)
        crew = None
        if run.to_do:
            _say(console, f"{run.to_do} clips, {_cadence(settings)}")
            place = stack.enter_context(_place(settings, run.to_do, processes, ray, verbose=verbose))
            crew = Processes(_whole_paths(settings), terms, place, partial(_say, console))
            stack.callback(crew.close)
        show = stack.enter_context(_progress(console))
        summary = run.run(crew, show, stopped.is_set)
    _conclude(console, summary, Path(inputs[-1]), drop_replaced)


def _check_words(inputs: Sequence[str], ray: str) -> None:
    """What is known to be wrong before anything is looked at."""
    if len(inputs) < 2:
        raise UsageError(f"name what is to be indexed, and behind it the archive: roadlens archive {inputs[0]} ARCHIVE")
    if "://" in inputs[-1]:
        raise UsageError(f"{inputs[-1]}: an archive is a folder of this machine; name one as the last word")
    if ray:
        from pipeline.archive.crew.on_ray import check_cluster

        check_cluster(ray)


def _say(console: Any, sentence: str) -> None:
    console.print(visible(sentence), markup=False, soft_wrap=True)


def _at_cadence(settings: Config, every: int, models: list[str]) -> Config:
    """The configuration with the cadence of the models that have none of their own."""
    import msgspec

    own = {text.rpartition(":")[0] for text in models if text.rpartition(":")[2].isdigit()}
    models_ = tuple(
        m if m.every != 1 or m.model in own else msgspec.structs.replace(m, every=every) for m in settings.models
    )
    return msgspec.structs.replace(settings, models=models_)


def _whole_paths(settings: Config) -> Config:
    """The configuration with whole paths of model files: whoever looks at clips may be in another folder."""
    import msgspec

    def whole(model: str) -> str:
        return str(Path(model).resolve()) if Path(model).is_file() and model.endswith(".onnx") else model

    models = tuple(msgspec.structs.replace(m, model=whole(m.model)) for m in settings.models)
    return msgspec.structs.replace(settings, models=models)


def _cadence(settings: Config) -> str:
    return ", ".join(
        f"{m.model} looks at " + ("every frame" if m.every == 1 else f"one frame in {m.every}") for m in settings.models
    )


@contextmanager
def _place(settings: Config, clips: int, processes: int, ray: str, *, verbose: bool) -> Iterator[Place]:
    """Where clips are looked at."""
    from pipeline.archive.crew.processes import Here
    from pipeline.process import usable_cores

    if not ray:
        yield Here(min(processes or usable_cores(), clips))
        return
    from pipeline.archive.crew.on_ray import Cluster, connected

    with connected(ray, verbose=verbose):
        yield Cluster(settings, clips, processes)


@contextmanager
def _stop_signals(console: Any) -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and SIGHUP set; a second one ends the process at once."""
    stopped = threading.Event()

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        leave_terminal()
        stopped.set()
        _say(console, "stopping: writing what is indexed (once more to stop at once)")

    before = {number: signal.signal(number, stop) for number in ending_signals()}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(console: Any) -> Iterator[Any]:
    """Something that shows how far a run is: a bar on a terminal, lines elsewhere."""
    from pipeline.commands.logs import spelt

    if console.is_terminal:
        from rich import progress as rich_progress

        texts = rich_progress.TextColumn
        columns = texts("{task.description}"), rich_progress.BarColumn(), texts("{task.fields[left]}")
        with rich_progress.Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("clips", total=1.0, left="")

            def show(progress: Progress) -> None:
                left = "" if progress.seconds_left is None else f"{spelt(progress.seconds_left)} left"
                bar.update(
                    task, description=f"{progress.done}/{progress.clips} clips", total=progress.bytes or 1,
                    completed=progress.bytes_done, left=left,
                )  # fmt: skip

            yield show
        return
    last = time.monotonic()

    def say(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_SECONDS:
            last = time.monotonic()
            left = "" if progress.seconds_left is None else f", {spelt(progress.seconds_left)} left"
            _say(console, f"{progress.done} of {progress.clips} clips{left}")

    yield say


def _conclude(console: Any, summary: Summary, archive: Path, dropped: bool) -> None:
    for path, reason in summary.set_aside:
        _say(console, f"set aside: {reason if reason.startswith(path) else f'{path}: {reason}'}")
    for reason, files in _by_reason(summary.unused):
        number = "1 file" if len(files) == 1 else f"{len(files)} files, such as"
        detail = f" ({files[0].detail})" if files[0].detail else ""
        _say(console, f"places not used of {number} {files[0].path}, which {reason}{detail}")
    there = f", {summary.there} were there" if summary.there else ""
    aside = f", {len(summary.set_aside)} set aside" if summary.set_aside else ""
    left = "taken out" if dropped else "kept (--drop-replaced takes them out)"
    replaced = f", {summary.replaced} that others have replaced {left}" if summary.replaced else ""
    took = f" in {summary.cpu_seconds:.1f} CPU seconds" if summary.indexed else ""
    _say(console, f"{archive}: {summary.indexed} of {summary.found} clips indexed{took}{there}{replaced}{aside}")
    if summary.stopped:
        raise typer.Exit(130)
    if not summary.indexed and not summary.there:
        raise SourceError(f"none of the {summary.found} clips can be used; the first: {summary.set_aside[0][1]}")


def _by_reason(unused: Sequence[Unused]) -> list[tuple[str, list[Unused]]]:
    """What was not used, the reason of most of it first, each in the order of paths."""
    by_reason: dict[str, list[Unused]] = defaultdict(list)
    for each in sorted(unused, key=lambda each: each.path):
        by_reason[each.reason].append(each)
    return sorted(by_reason.items(), key=lambda entry: (-len(entry[1]), entry[0]))


def find(
    archive: Annotated[Path, typer.Argument(help="What `roadlens archive` made.")],
    expression: Annotated[str, typer.Argument(help="Such as 'person and area.road > 0.3'.")],
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each moment, in place of a table.")] = False,
    clips: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Cut the moments out of their clips.")] = None,
    before: Annotated[float, typer.Option(min=0, max=600, help="Seconds that a cut has before its moment.")] = 3.0,
    after: Annotated[float, typer.Option(min=0, max=600, help="Seconds that a cut has behind its moment.")] = 3.0,
    limit: Annotated[int, typer.Option(min=0, help="Show so many moments at most; 0 for all.")] = 0,
) -> None:
    """Find the moments of an archive at which an expression is true; cut them out without encoding.

    Names: classes (person), area.CLASS, count.LABEL, score.LABEL, seen.LABEL (seconds), event, event.KIND, time, hour,
    day, camera, trip, maker, near(latitude, longitude, metres); see pipeline/archive/ARCHIVE.md.
    """
    from pipeline.archive.reading import Archive

    opened = Archive(archive)
    found = opened.find(expression)
    shown = found[:limit] if limit else found
    if json:
        _print_lines(shown)
    else:
        _print_table(shown)
    missing = f"; {len(opened.missing)} of {len(opened.state.clips)} clips are not indexed" if opened.missing else ""
    print(f"{len(found)} moments{missing}", file=sys.stderr)
    if clips is not None:
        _cut(shown, opened, clips, expression, before, after)


def _print_lines(found: Sequence[Moment]) -> None:
    import msgspec

    for moment in found:
        print(msgspec.json.encode(moment).decode())


def _print_table(found: Sequence[Moment]) -> None:
    if not found:
        return
    rows = [("time", "camera", "from", "to", "frames", "clip")]
    for m in found:
        time = "" if m.time is None else f"{m.time:%Y-%m-%d %H:%M:%S}"
        rows.append((time, m.camera, f"{m.start:.1f}", f"{m.end:.1f}", str(len(m.frames)), visible(m.path)))
    widths = [max(map(len, each)) for each in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _cut(found: Sequence[Moment], archive: Archive, folder: Path, why: str, before: float, after: float) -> None:
    from engines.errors import OutputError, RoadlensError
    from pipeline.archive.find.cutting import cut_moment
    from pipeline.archive.find.originals import GoneError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror}") from None
    failed: list[RoadlensError] = []
    gone: dict[str, list[Moment]] = defaultdict(list)
    for moment in found:
        try:
            print(cut_moment(archive, moment, folder, why, before, after), file=sys.stderr)
        except GoneError as error:
            gone[str(error)].append(moment)
        except RoadlensError as error:
            failed.append(error)
            print(visible(f"not cut: {error}"), file=sys.stderr)
    for said, moments in gone.items():  # no fault: cameras write over their oldest clips
        print(visible(f"gone: {said} ({len(moments)} moments)"), file=sys.stderr)
    if failed:
        raise SourceError(f"{len(failed)} of {len(found)} moments could not be cut out; the first: {failed[0]}")
