"""How far what is carried between looks agrees with looking at every frame, and what is saved by it.

    python -m tests.benchmarks.carrying agreement FOOTAGE… [--seeds 11 12 13] [--frames 250]
    python -m tests.benchmarks.carrying speed FOOTAGE [--rounds 4] [--preset veryfast]

*agreement* runs each clip through the whole runtime once with every frame looked at and once each with `every: auto`,
with every third frame carried by motion, and with every third frame repeated. Of each it prints the share of pixels
that are as they were with every frame looked at (outside a band of 2 pixels along the edges of classes; mean over all
frames, 5th percentile and worst frame), the mean IoU of boxes that are there both times, the share of boxes that are
there but once, and frames a look. *Same looks, repeated* shows each look of `auto` again until the next. The synthetic
drive has exact labels: there the mean IoU of classes is printed, in points.

The network is asked once for each picture and remembered, so that all sides get the same answers.

*speed* alternates in one run: roadlens with every frame looked at, with `auto`, and the loop that people write today
(OpenCV capture, resize, OpenVINO, one frame after the other); with x264 and, as *analysis*, with JSON lines alone.
Ratios are medians over the rounds of the ratio within a round.

The constants of `pipeline.analysis.carrying` were chosen on the class maps of `cityscapes-road-users` in the films and
the 540p highway of the development footage; the other clips and the synthetic drives had no part in it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import engines
from engines.boxes import iou_matrix
from engines.engine import Engine, Prediction
from pipeline.analysis.carrying.agreement import SAME, of_boxes, of_maps
from pipeline.analysis.carrying.cadence import CarryingOptions, Every
from pipeline.contracts import Source
from pipeline.drawing.overlay import OverlayStage, OverlayStyle
from pipeline.frame import Analysis, Box
from pipeline.messages.jsonlines import JsonLines
from pipeline.outputs.mp4 import VideoOptions, VideoWriter
from pipeline.runtime import LoadedModel, Runtime, StreamPlan
from pipeline.sources.resolve import resolve_source
from pipeline.sources.synthetic import SyntheticOptions, synthetic_frames
from tests.benchmarks import loops
from tests.benchmarks.compare import Round, described, machine, written_today

UInt8 = NDArray[np.uint8]
Sides = dict[str, tuple[Every, CarryingOptions]]

SIDES: Sides = {
    "auto": ("auto", CarryingOptions()),
    ":3 by motion": (3, CarryingOptions()),
    ":3 repeated": (3, CarryingOptions(by="repeat")),
}


class Remembering:
    """An engine that is asked once for each picture."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.spec, self.backend, self.precision = engine.spec, engine.backend, engine.precision
        self.device, self.max_batch, self.in_flight = engine.device, 1, engine.in_flight
        self._known: dict[bytes, Prediction] = {}

    def submit(self, images: Sequence[UInt8]) -> Future[list[Prediction]]:
        key = np.ascontiguousarray(images[0]).tobytes()
        if key not in self._known:
            self._known[key] = self._engine.submit(images).result()[0]
        done: Future[list[Prediction]] = Future()
        done.set_result([self._known[key]])
        return done

    def forget(self) -> None:
        self._known.clear()


class Kept:
    """A sink that keeps what is compared of each analysis."""

    def __init__(self) -> None:
        self.maps: list[UInt8] = []
        self.boxes: list[tuple[Box, ...]] = []
        self.looked: list[bool] = []

    def consume(self, analysis: Analysis) -> None:
        if analysis.class_map is not None:
            self.maps.append(analysis.class_map)
        self.boxes.append(analysis.boxes)
        self.looked.append(bool(analysis.models))


class First:
    """A source that ends after so many frames."""

    def __init__(self, source: Source, most: int) -> None:
        self._source, self._most = source, most
        self.id, self.address, self.mode, self.counts = source.id, source.address, source.mode, source.counts
        self.open, self.close = source.open, source.close

    def __iter__(self) -> Iterator[object]:
        for item in self._source:
            yield item
            if getattr(item, "index", 0) + 1 >= self._most:
                return


def analysed(address: str, most: int, engine: Remembering, every: Every, options: CarryingOptions) -> Kept:
    """A clip through the whole runtime."""
    kept, source = Kept(), First(resolve_source(address, "bench"), most)
    plan = StreamPlan(source, source.open(), (), [kept])
    runtime = Runtime([plan], [LoadedModel(engine, every)], carrying=options)  # type: ignore[arg-type]  # no `close`
    runtime.start()
    runtime.wait()
    error = runtime.result().error
    if error is not None:
        raise error
    return kept


def alone(seen: Sequence[Box], carried: Sequence[Box]) -> int:
    """Boxes of either side without a partner of the same class on the other."""
    if not seen or not carried:
        return len(seen) + len(carried)
    corners = [np.array([(b.x1, b.y1, b.x2, b.y2) for b in each]) for each in (seen, carried)]
    overlap = iou_matrix(*corners) * np.array([[a.label == b.label for b in carried] for a in seen])
    return int((overlap.max(0) < SAME).sum() + (overlap.max(1) < SAME).sum())


def compared(name: str, every: Kept, side: Kept) -> str:
    """A side in figures, against looking at every frame."""
    shares = np.array([of_maps(a, b) for a, b in zip(every.maps, side.maps, strict=True)])
    pairs = list(zip(every.boxes, side.boxes, strict=True))
    overlaps = [share for a, b in pairs if (share := of_boxes(a, b)) is not None]
    total = sum(len(a) + len(b) for a, b in pairs)
    lonely = sum(alone(a, b) for a, b in pairs) / total if total else 0.0
    overlap = f"{np.mean(overlaps):.3f}" if overlaps else "  –  "
    return (
        f"  {name:22} pixels {shares.mean():7.2%} (5 %: {np.percentile(shares, 5):6.1%}, least {shares.min():6.1%})"
        f"  boxes' IoU {overlap}, on one side {lonely:4.0%}  {len(side.looked) / sum(side.looked):4.2f} frames a look"
    )


def repeated(every: Kept, looks: Kept) -> Kept:
    """Each look shown again until the next one."""
    result, last = Kept(), 0
    for index, looked in enumerate(looks.looked):
        last = index if looked else last
        result.maps.append(every.maps[last])
        result.boxes.append(every.boxes[last])
    result.looked = looks.looked
    return result


def mean_iou(maps: Sequence[UInt8], truth: Sequence[UInt8]) -> float:
    """Over the classes that are there, of all frames together."""
    table = np.zeros((256, 256), np.int64)
    for found, label in zip(maps, truth, strict=True):
        known = label != 255
        np.add.at(table, (label[known], found[known]), 1)
    right, there = np.diag(table), table.sum(1) > 0
    return float((right[there] / (table.sum(0) + table.sum(1) - right)[there]).mean())


def agreement(given: argparse.Namespace) -> None:
    """Print how far each side agrees with looking at every frame."""
    with closing(engines.load(given.model, precision=given.precision, max_batch=1)) as engine:
        remembering = Remembering(engine)
        print(f"{given.model} {engine.precision}; {machine()}", flush=True)
        drives = [f"synthetic:?seconds={given.seconds:g}&seed={seed}" for seed in given.seeds]
        for address in [*given.footage, *drives]:
            remembering.forget()
            every = analysed(address, given.frames, remembering, 1, CarryingOptions())
            print(f"{Path(address).stem[:60]}, {len(every.maps)} frames", flush=True)
            sides = {name: analysed(address, given.frames, remembering, *side) for name, side in SIDES.items()}
            sides["same looks, repeated"] = repeated(every, sides["auto"])
            truth = list[UInt8]()
            if address in drives:
                size = (engine.spec.width, engine.spec.height)
                options = SyntheticOptions(seconds=given.seconds, seed=given.seeds[drives.index(address)])
                for drawn in synthetic_frames(options):
                    label = cv2.resize(drawn.label, size, interpolation=cv2.INTER_NEAREST_EXACT)
                    truth.append(np.asarray(label, np.uint8))
                truth = truth[: given.frames]
                print(f"  {'every frame':22} mean IoU {mean_iou(every.maps, truth) * 100:.2f} points")
            for name, side in sides.items():
                points = f", mean IoU {mean_iou(side.maps, truth) * 100:.2f}" if truth else ""
                print(compared(name, every, side) + points, flush=True)


# Speed ----------------------------------------------------------------------------------------------------------------
def roadlens(footage: Path, folder: Path, engine: Engine, every: Every, video: VideoOptions | None) -> Round:
    """The pipeline over a file; without `video`, into JSON lines alone."""
    source = resolve_source(str(footage), "bench")
    info = source.open()
    if video is None:
        lines = JsonLines(folder / "ours.jsonl")
        plan, sink = StreamPlan(source, info, [], [lines]), lines
    else:
        writer = VideoWriter(folder / "ours.mp4", info, video)
        plan, sink = StreamPlan(source, info, [OverlayStage(OverlayStyle(opacity=loops.OPACITY))], [writer]), writer
    runtime = Runtime([plan], [LoadedModel(engine, every)])
    runtime.start()
    runtime.wait()
    result = runtime.result()
    sink.close()
    if result.error is not None:
        raise result.error
    return Round(result.streams[0].counts.emitted, result.seconds, result.cpu_seconds)


def speed(given: argparse.Namespace) -> None:
    """Print frames a second, and ratios to the loop and to looking at every frame."""
    video, footage = VideoOptions(encoder="libx264", preset=given.preset), Path(given.footage[0])
    rounds: dict[str, list[Round]] = {}
    with (
        tempfile.TemporaryDirectory() as temporary,
        closing(engines.load(given.model, precision=given.precision, hint="throughput", max_batch=1)) as engine,
    ):
        folder, plain = Path(temporary), loops.PlainOpenVINO(described(given.model, engine.precision))
        lines = folder / "loop.jsonl"
        for number in range(given.rounds + 1):
            results = {
                "every frame": roadlens(footage, folder, engine, 1, video),
                "auto": roadlens(footage, folder, engine, "auto", video),
                "loop": written_today("opencv", footage, folder / "loop.mp4", plain, given.preset),
                "analysis, every frame": roadlens(footage, folder, engine, 1, None),
                "analysis, auto": roadlens(footage, folder, engine, "auto", None),
                "analysis, loop": Round(**loops.run("opencv", footage, plain, lines, None)),
            }
            if number:  # the first round warms caches up
                for name, result in results.items():
                    rounds.setdefault(name, []).append(result)
                print("  ".join(f"{name} {result.fps:.1f}" for name, result in results.items()), flush=True)
        print(f"\n{footage.name}, {given.model} {engine.precision}, x264 {given.preset}; {machine()}")
    for name, each in rounds.items():
        cpu = statistics.median(r.cpu * 1000 / r.frames for r in each)
        print(f"{name:24} {statistics.median(r.fps for r in each):6.1f} frames/s {cpu:6.2f} ms CPU a frame")
    for ours, other in (
        ("auto", "loop"), ("auto", "every frame"), ("every frame", "loop"), ("analysis, auto", "analysis, loop"),
        ("analysis, auto", "analysis, every frame"), ("analysis, every frame", "analysis, loop"),
    ):  # fmt: skip
        pairs = list(zip(rounds[ours], rounds[other], strict=True))
        ratio = statistics.median(a.fps / b.fps for a, b in pairs)
        saved = statistics.median((b.cpu / b.frames) / (a.cpu / a.frames) for a, b in pairs)
        print(f"{ours + ' / ' + other:46} {ratio:5.2f}× frames a second, {saved:5.2f}× frames a CPU second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("agreement", "speed"))
    parser.add_argument("footage", nargs="*")
    parser.add_argument("--model", default="cityscapes-road-users")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--frames", type=int, default=250, help="most of a clip")
    parser.add_argument("--seeds", type=int, nargs="*", default=[11, 12, 13])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each synthetic drive")
    given = parser.parse_args()
    (agreement if given.what == "agreement" else speed)(given)


if __name__ == "__main__":
    main()
