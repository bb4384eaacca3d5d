"""How far builds are, as a bar on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from engines.loading import Building, Degraded, Observe

_PHASE = 50
"""Most characters of a compiler's phase that are shown."""


@contextmanager
def build_bar(console: Console) -> Iterator[Observe]:
    """Something to tell builds to: there is a bar while one is under way, which is gone when the block is over."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0, visible=False)

        def observe(event: Building | Degraded) -> None:
            if isinstance(event, Building):
                shown = f"{event.model}: {event.phase[:_PHASE]}"
                bar.update(task, completed=event.fraction, description=shown, visible=event.fraction < 1)

        yield observe
