"""`roadlens export-labels`: pictures of an archive for people who label and train, the hardest first.

Only typer is imported here; pyarrow, FFmpeg and OpenVINO are loaded by the command.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.process import ending_signals, interrupt, visible

if TYPE_CHECKING:
    from pipeline.archive.labels.manifest import Manifest

_NAMED = 5
"""Clips that are named of those that could not be read."""


class LabelFormat(StrEnum):
    """Forms of labels, by the tools that read them."""

    cityscapes = "cityscapes"
    coco = "coco"
    yolo = "yolo"
    cvat = "cvat"


def export_labels(
    archive: Annotated[Path, typer.Argument(help="What `roadlens archive` made.")],
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    format_: Annotated[
        LabelFormat, typer.Option("--format", help="cityscapes (PNG), coco (JSON), yolo (text) or cvat (XML).")
    ] = LabelFormat.coco,
    where: Annotated[
        str | None, typer.Option(metavar="EXPRESSION", help="Frames of which this is true, as `find` has it.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="So many pictures at most; 0 for all.")] = 100,
    per_clip: Annotated[int, typer.Option(min=0, help="So many of one clip at most; 0 for all.")] = 3,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="File of a model the archive was made with, else the bundled. Repeatable."),
    ] = None,
    second: Annotated[str, typer.Option(metavar="MODEL", help="Frames on which this one disagrees are harder.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Export pictures of an archive with labels, the hardest first, to be corrected and trained on.

    Hard is what is rare, flickers, or is doubtful. Near-duplicates are left out. What was corrected comes back by
    `roadlens train own --data FOLDER`. See pipeline/archive/labels/LABELS.md.
    """
    from pipeline.archive.labels import export
    from pipeline.archive.labels.manifest import Wanted
    from pipeline.archive.reading import Archive

    wanted = Wanted(format_.value, where, limit, per_clip, tuple(model or ()), second, device)
    with _interruptible(), _progress() as tell:
        manifest = export.export_labels(Archive(archive), folder, wanted, _say, tell)
    _conclude(manifest, folder)


def _say(sentence: str) -> None:
    print(visible(sentence), file=sys.stderr)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Whatever asks for an end is as Ctrl-C: what is half done is removed."""
    before = {number: signal.signal(number, interrupt) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Something that shows how many frames were looked at, where somebody sees it."""
    if not sys.stderr.isatty():
        yield lambda _done, _whole: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking", total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)


def _conclude(manifest: Manifest, folder: Path) -> None:
    left = manifest.left_out
    clips = len({picture.clip for picture in manifest.exported})
    _say(
        f"{folder}: {_counted(len(manifest.exported), 'picture')} of {_counted(clips, 'clip')} as "
        f"{manifest.wanted.format}, the hardest of {manifest.looked} that were looked at, of {manifest.asked}"
    )
    reasons = {
        "near-duplicates": left.near_duplicates,
        f"enough of their clip (--per-clip {manifest.wanted.per_clip})": left.crowded,
        "frames that do not decode": left.undecodable,
        f"boxes that {manifest.wanted.format} has no place for": left.boxes,
        "clips that cannot be read": len(left.clips),
    }
    if said := [f"{what}: {count}" for what, count in reasons.items() if count]:
        _say(f"left out: {'; '.join(said)}")
    for path, reason in list(left.clips.items())[:_NAMED]:
        _say(f"  {reason if reason.startswith(path) else f'{path}: {reason}'}")
    if len(left.clips) > _NAMED:
        _say(f"  and {len(left.clips) - _NAMED} more; all of them stand in {folder / 'export.json'}")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
