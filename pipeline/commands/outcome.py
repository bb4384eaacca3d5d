"""How a run went, as tables and lines for a person: streams, stages, and which frames the networks looked at."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table

from pipeline.analysis.carrying.cadence import Every
from pipeline.analysis.carrying.looks import said
from pipeline.frame import Analysis
from pipeline.runtime import RunResult
from pipeline.session import Session

STAGES = {
    "wait": "wait for the camera",
    "decode": "decode",
    "resize": "preprocess",
    "look": "motion",
    "submit": "batch",
    "fuse": "postprocess",
    "encode": "encode",
    "live_output": "live outputs",
    "side_car": "note for --resume",
}
"""Stages as the field calls them; one's own, and those with a name of the field's already, keep theirs."""


class Model(Protocol):
    """What is said of a model: its name, and at which frames it looks."""

    @property
    def name(self) -> str: ...
    @property
    def every(self) -> Every: ...


class Looks:
    """A sink that counts the frames which each network looked at, and how long the networks' answers took.

    Attributes:
        frames: analyses counted.
        by_model: those that a model looked at, by its name.
        carried: those that it did not look at, and to which what it says was carried from another frame.
        seconds: from giving the frames' batches to the networks until all of their answers were there, summed.
    """

    name = "looks"

    def __init__(self) -> None:
        self.frames = 0
        self.by_model: Counter[str] = Counter()
        self.carried: Counter[str] = Counter()
        self.seconds = 0.0
        self._lock = threading.Lock()  # each stream has a thread that emits

    def consume(self, analysis: Analysis) -> None:
        """Count a frame."""
        with self._lock:
            self.frames += 1
            self.by_model.update(analysis.models)
            self.carried.update(analysis.carried_from.keys())
            self.seconds += analysis.timings.get("engine", 0.0) / 1000


def skipped(models: Sequence[Model], looks: Looks) -> list[str]:
    """A line for each network that did not look at every frame."""
    lines = []
    for model in models:
        seen = looks.by_model[model.name]
        if seen < looks.frames:
            every = "" if model.every == 1 else f" (it looks at {said(model.every)})"
            rest = looks.frames - seen
            left = f"its findings carried to {rest}" if looks.carried[model.name] == rest else f"{rest} skipped"
            lines.append(f"{model.name}: looked at {seen} of {looks.frames} frames, {left}{every}")
    return lines


def stage_table(result: RunResult, looks: Looks) -> Table:
    """Time by stage and frame, the longest first. The network computes in threads of its own, whose CPU time nobody
    measures; its time is that from giving it a batch to having its answer.
    """
    frames = max(sum(s.counts.emitted for s in result.streams), 1)
    rows = [
        (STAGES.get(name, name), times.wall, f"{times.cpu * 1000 / frames:.2f}")
        for name, times in result.stages.items()
    ]
    if looks.frames:
        rows.append(("network", looks.seconds * frames / looks.frames, "–"))
    table = Table("stage", "ms per frame", "CPU ms per frame")
    for name, wall, cpu in sorted(rows, key=lambda row: -row[1]):
        table.add_row(name, f"{wall * 1000 / frames:.2f}", cpu)
    return table


def print_result(console: Console, session: Session, result: RunResult, looks: Looks) -> None:
    """Print the tables, the rate, and what was left out."""
    table = Table("stream", "frames in", "out", "dropped", "ended", "files")
    for s in result.streams:
        files = "\n".join(str(p) for p in session.files(s.stream))
        table.add_row(
            s.stream, str(s.counts.decoded), str(s.counts.emitted), str(sum(s.counts.dropped.values())), s.reason, files
        )
    console.print(table)
    console.print(stage_table(result, looks))
    frames = sum(s.counts.emitted for s in result.streams)
    rate = frames / result.seconds if result.seconds else 0.0
    console.print(f"{frames} frames in {result.seconds:.1f} s: {rate:.1f} fps")
    for line in skipped(session.models, looks):
        console.print(line, markup=False)
    for s in result.streams:
        if s.counts.put_off:
            console.print(f"{s.stream}: {s.counts.put_off} looks put off, the models did not keep up", markup=False)
        if s.own_outputs:
            console.print(f"{s.stream}: {s.own_outputs} videos of roadlens's own left out", markup=False)
        if s.skipped_clips:
            console.print(f"{s.stream}: {len(s.skipped_clips)} clips skipped", markup=False)
        if s.skipped:
            reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(s.skipped.items()))
            total = sum(s.skipped.values())
            console.print(f"{s.stream}: {total} of {s.packets} packets gave no frame ({reasons})", markup=False)
        if s.decode_errors:
            console.print(f"{s.stream}: {s.decode_errors} packets did not decode", markup=False)
    if result.not_stopped:
        console.print("did not stop: " + ", ".join(result.not_stopped), markup=False)
