"""The road ahead against the synthetic drive, whose distances, speeds and incidents are exact.

    python -m tests.benchmarks.ahead incidents [--seconds 80] [--fps 10] [--seed 3] [--boxes true] [--width 640]
    python -m tests.benchmarks.ahead quiet --seconds 600
    python -m tests.benchmarks.ahead overhead

`incidents` prints how far off distances (within 40 m) and contacts (true ones of 1 to 4 s) are, with true boxes and end
to end with the default model, and the events found beside those staged. `quiet` prints the events of a drive in which
nothing happens: there should be none. `overhead` prints the CPU milliseconds a frame that the stage takes, beside those
of the tracker on the same boxes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import engines
from engines.bundled import DEFAULT, resolve
from pipeline.analysis.ahead.happenings import Event, Lead, finding_of
from pipeline.analysis.ahead.stage import AheadOptions
from pipeline.analysis.fuse import FuseOptions, Fuser
from pipeline.analysis.tracking import Tracker, TrackingOptions
from pipeline.frame import Analysis, Box, Frame
from pipeline.pictures.inputs import network_input
from pipeline.scene.canvas import CAMERA_HEIGHT
from pipeline.scene.incidents import staged
from pipeline.scene.places import Place
from pipeline.sources.synthetic import SyntheticFrame, SyntheticOptions, as_video_frame, synthetic_frames

LEADING = range(300_000_000, 400_000_000)
"""Track numbers of what drives ahead of the camera."""

LANE = 1.3
NEAR = 40.0


@dataclass
class Sums:
    """What was found with one kind of boxes."""

    near: int = 0
    distances: list[float] = field(default_factory=list)
    urgent: int = 0
    contacts: list[float] = field(default_factory=list)
    events: dict[str, Event] = field(default_factory=dict)

    def add(self, lead: Lead | None, true: Place | None) -> None:
        """Compare the lead vehicle of a frame with the true one."""
        if true is None:
            return
        if true.distance <= NEAR:
            self.near += 1
            if lead is not None and lead.distance_m is not None:
                self.distances.append(abs(lead.distance_m - true.distance) / true.distance)
        if 1 <= true.contact <= 4:
            self.urgent += 1
            if lead is not None and lead.contact_s is not None:
                self.contacts.append(abs(lead.contact_s - true.contact))

    def row(self, name: str) -> str:
        """A row of the table."""
        distances, contacts = sorted(self.distances), sorted(self.contacts)
        return (
            f"| {name} | {len(distances)} of {self.near} | {_percent(distances, 0.5)} | {_percent(distances, 0.9)} "
            f"| {len(contacts)} of {self.urgent} | {_at(contacts, 0.5):.2f} s "
            f"| {sum(off <= 0.5 for off in contacts) / max(len(contacts), 1):.0%} |"
        )


def _at(values: list[float], share: float) -> float:
    return values[int(share * (len(values) - 1))] if values else math.nan


def _percent(values: list[float], share: float) -> str:
    return f"{100 * _at(values, share):.1f} %"


def nearest(made: SyntheticFrame) -> Place | None:
    """The nearest vehicle before the camera, of those that drive ahead of it and are seen."""
    seen = {box.track for box in made.boxes}
    places = [p for track, p in made.places.items() if track in LEADING and track in seen and abs(p.across) < LANE]
    return min(places, key=lambda place: place.distance, default=None)


def analyses(options: SyntheticOptions, kinds: list[str]) -> Iterator[tuple[SyntheticFrame, dict[str, Analysis]]]:
    """The frames of a drive, each analysed with every kind of boxes."""
    engine = engines.load(DEFAULT) if "model" in kinds else None
    fuser = None if engine is None else Fuser([engine.spec], FuseOptions())
    for made in synthetic_frames(options):
        image = as_video_frame(made.picture)
        frame = Frame("drive", made.index, made.pts, options.time_base, 0.0, 0.0, image)
        found = {}
        if "true" in kinds:
            found["true"] = Analysis(frame, "file", models=("synthetic",), boxes=made.boxes)
        if engine is not None and fuser is not None:
            spec = engine.spec
            (prediction,) = engine.submit([network_input(image, spec.height, spec.width)]).result()
            found["model"] = fuser.fuse(frame, "file", {spec.name: prediction})
        yield made, found


def looks(options: SyntheticOptions) -> AheadOptions:
    """What is known of the synthetic camera: its height and its field of view, not its horizon."""
    focal = options.scene().focal
    view = 2 * math.degrees(math.atan(0.5 * options.width / focal))
    return AheadOptions(camera_height=CAMERA_HEIGHT, field_of_view=view)


def measure(options: SyntheticOptions, kinds: list[str]) -> dict[str, Sums]:
    """Drive, look, and compare."""
    stages = {kind: looks(options).stage() for kind in kinds}
    sums = {kind: Sums() for kind in kinds}
    for made, found in analyses(options, kinds):
        for kind, analysis in found.items():
            finding = finding_of(stages[kind].process(analysis).notes)
            sums[kind].add(finding.lead, nearest(made))
            sums[kind].events |= {event.id: event for event in finding.events}
    return sums


def print_events(sums: Sums, name: str, *, incidents: bool) -> None:
    """The events, each with what was staged when it began."""
    print(f"\nevents with boxes of: {name} ({len(sums.events)})")
    for event in sorted(sums.events.values(), key=lambda event: event.start):
        what = f"staged: {staged(event.start).incident}" if incidents else "nothing was staged"
        end = "…" if event.end is None else f"{event.end:.1f}"
        print(f"  {event.start:7.1f} to {end:>6} s  {event.kind:15} {event.confidence:.2f}  {event.text}  ({what})")


def overhead() -> None:
    """CPU milliseconds a frame, the smallest of some rounds, beside the tracker's."""
    boxes = [
        [Box(40.0 + 110 * k + i, 330, 120.0 + 110 * k + i, 400 + 8 * k, 13, "car", 0.9, "model") for k in range(10)]
        for i in range(250)
    ]
    boxes = [[*row, Box(560 - i / 4, 300 - i / 4, 720 + i / 4, 420 + i / 4, 13, "car", 0.9, "model")] for i, row in
             enumerate(boxes)]  # fmt: skip
    made = next(synthetic_frames(SyntheticOptions(1280, 720, seconds=1)))
    image, tracking, ahead = as_video_frame(made.picture), [], []
    for _ in range(5):
        tracker, stage = Tracker(TrackingOptions()), AheadOptions(camera_height=1.3, field_of_view=60).stage()
        begun = time.thread_time()
        tracked = [tuple(tracker.update(row, index / 25)) for index, row in enumerate(boxes)]
        tracking.append((time.thread_time() - begun) / len(boxes) * 1000)
        frames = [Frame("drive", i, i, Fraction(1, 25), 0.0, 0.0, image) for i in range(len(boxes))]
        of = [Analysis(f, "file", models=("model",), boxes=row) for f, row in zip(frames, tracked, strict=True)]
        begun = time.thread_time()
        for analysis in of:
            stage.process(analysis)
        ahead.append((time.thread_time() - begun) / len(boxes) * 1000)
    ratio = statistics.median(a / t for a, t in zip(ahead, tracking, strict=True))
    print(f"ahead {min(ahead):.3f} ms a frame of 11 tracks, tracker {min(tracking):.3f} ms, ratio {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("incidents", "quiet", "overhead"))
    parser.add_argument("--seconds", type=float, default=80.0)
    parser.add_argument("--fps", type=Fraction, default=Fraction(10))
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--boxes", action="append", choices=("true", "model"), help="default: both")
    asked = parser.parse_args()
    if asked.what == "overhead":
        overhead()
        return
    incidents, kinds = asked.what == "incidents", asked.boxes or ["true", "model"]
    traffic = 2 if incidents else 6
    size = asked.width, asked.width * 9 // 16
    options = SyntheticOptions(*size, asked.fps, asked.seconds, asked.seed, traffic, incidents)
    sums = measure(options, kinds)
    print(
        f"{asked.what}, {asked.seconds:g} s at {float(asked.fps):g} fps, {size[0]}×{size[1]}, {resolve(DEFAULT).name}"
    )
    print("| boxes | distances ≤ 40 m | median off | nine in ten | contacts of 1 to 4 s | median off | within 0.5 s |")
    print("|---|---|---|---|---|---|---|")
    for kind, found in sums.items():
        print(found.row(kind))
    for kind, found in sums.items():
        print_events(found, kind, incidents=incidents)


if __name__ == "__main__":
    main()
