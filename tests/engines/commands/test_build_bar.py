"""How far a build is: lines of tenths, or a bar on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from engines.commands.build_bar import build_bar
from engines.loading import Building, Degraded, in_tenths


def test_each_tenth_is_said_once() -> None:
    said: list[str] = []
    observe = in_tenths(said.append)
    for fraction in (0.0, 0.09, 0.1, 0.15, 0.15, 0.42, 0.42, 1.0):
        observe(Building("drive", "tensorrt", "Tactics", fraction))
    observe(Building("other", "tensorrt", "Parsing", 0.1))
    observe(Degraded("drive", "tensorrt", "torch", "library", "No."))
    assert said == [
        "drive: 10 % built (Tactics)", "drive: 40 % built (Tactics)", "drive: 100 % built (Tactics)",
        "other: 10 % built (Parsing)",
    ]  # fmt: skip


def test_a_terminal_shows_a_bar_while_something_is_built() -> None:
    file = io.StringIO()
    with build_bar(Console(file=file, force_terminal=True, width=100)) as observe:
        assert "drive" not in file.getvalue()
        observe(Building("drive", "tensorrt", "[Tactics] " * 20, 0.5))
        observe(Degraded("drive", "plan cache", "memory", "cache", "Full."))
    shown = file.getvalue()
    assert "drive: [Tactics] [Tactics]" in shown
    assert "50 %" in shown
    assert "\x1b[?25h" in shown, "the cursor is back"
