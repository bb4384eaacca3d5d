"""What a person reads when a run is over."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich.console import Console

from pipeline.analysis.carrying.cadence import Every
from pipeline.commands.outcome import Looks, skipped, stage_table
from pipeline.runtime import RunResult
from pipeline.runtime.result import StreamCounts, StreamResult
from pipeline.runtime.stageclock import StageTime
from tests.pipeline.fake_analysis import analysis


@dataclass
class _Model:
    name: str
    every: Every


def looked(*frames: tuple[str, ...]) -> Looks:
    """Frames, by the names of the models that looked at them; each answer took 12 ms."""
    looks = Looks()
    for index, models in enumerate(frames):
        seen = analysis(index)
        seen.models, seen.timings = models, {"engine": 12.0}
        looks.consume(seen)
    return looks


def test_what_was_carried_is_said_of_the_networks_that_look_as_asked_for() -> None:
    looks = Looks()
    for index, models in enumerate([("a",), (), (), ("a",)]):
        looks.consume(analysis(index, models=models, carried_from={} if models else {"a": 0}))
    assert skipped([_Model("a", "auto")], looks) == [
        "a: looked at 2 of 4 frames, its findings carried to 2 (it looks at as many frames as the content asks for)"
    ]


def test_skipped_looks_are_said_of_the_networks_that_skipped() -> None:
    looks = looked(("a", "b"), ("a",), ("a",), ("a", "b"), ("a",))
    assert skipped([_Model("a", 1), _Model("b", 3)], looks) == [
        "b: looked at 2 of 5 frames, 3 skipped (it looks at one frame in 3)"
    ]


def test_the_network_has_a_row_of_its_own_among_the_stages() -> None:
    stream = StreamResult("s", "file", StreamCounts(2, 2), "complete", None, 0, [])
    stages = {"decode": StageTime(2, 0.010, 0.008), "resize": StageTime(2, 0.002, 0.002), "mine": StageTime(2, 0.04, 0)}
    table = stage_table(RunResult([stream], stages, 1.0, 1.0, []), looked(("a",), ("a",)))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.export_text().splitlines()]
    assert [row for row in rows if row] == [
        ["mine", "20.00", "0.00"], ["network", "12.00", "–"], ["decode", "5.00", "4.00"],
        ["preprocess", "1.00", "1.00"],
    ]  # fmt: skip
