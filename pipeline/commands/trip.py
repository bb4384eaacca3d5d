"""`roadlens trip`: tell a trip of an archive on one page.

Only typer is imported here; pyarrow, FFmpeg and Jinja2 are loaded by the command.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.process import visible

MEGABYTES = 48
"""Of clips on a page: what a browser opens at once, and what may be sent by mail in a pinch."""


def trip(
    archive: Annotated[Path, typer.Argument(help="What `roadlens archive` made.")],
    which: Annotated[
        str | None,
        typer.Argument(metavar="[DAY|TRIP]", help="2026-11-29, a trip's name, or `unknown`; the latest trip."),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path("trip.html"),
    megabytes: Annotated[
        float, typer.Option(min=0, max=2000, help="Clips on the page, all together; 0 for none.")
    ] = MEGABYTES,
) -> None:
    """Tell a trip on one page that needs no network: what was seen, whom one met, what happened.

    Clips of events are cut without encoding and play in the page. See pipeline/archive/ARCHIVE.md.
    """
    from pipeline.archive.reading import Archive
    from pipeline.archive.trip.choosing import choose
    from pipeline.archive.trip.page import render, tell, write

    opened = Archive(archive)
    chosen = choose(opened, which)
    told = tell(opened, chosen, round(megabytes * 1e6))
    page = render(opened, told)
    write(page, output)
    clips = sum(bool(scene.video) for one in told for scene in one.scenes)
    events = sum(len(one.story.events) for one in told)
    print(
        f"{output}: {chosen.name}, {events} events, {clips} of them with their clips, {len(page) / 1e6:.1f} MB",
        file=sys.stderr,
    )
    for scene in (scene for one in told for scene in one.scenes if megabytes and not scene.video):
        event = scene.event
        said = f"without a clip: {event.kind} at {event.start:.1f} s of {event.clip.path}: {scene.left_out}"
        print(visible(said), file=sys.stderr)
    if which is None and chosen.others:
        last = ", ".join(chosen.others[-5:])
        print(f"other trips: {'… ' if len(chosen.others) > 5 else ''}{last}", file=sys.stderr)
