"""roadlens against the two loops people write today, on the same footage, in one run.

    python tests/benchmarks/compare.py FOOTAGE [--model cityscapes-unet] [--precision auto] [--preset veryfast]

Sides, each with the same model, precision and x264 settings, alternating, `--rounds` times:

- roadlens: the pipeline with class colours, outlines, tracked boxes and labels, as `roadlens run` makes them by
  default, into fragmented MP4;
- same picture: the pipeline with class colours alone, which is all that the loops draw;
- loop: cv2.VideoCapture → cv2.resize → OpenVINO, synchronous → palette → cv2.addWeighted → x264;
- supervision: the same with `supervision.MaskAnnotator` drawing the classes.

The loops compile the same file for the same precision by OpenVINO's own API, as they would be written.

The ratio printed is the median over the rounds of the ratio within a round. Efficiency is CPU time / (cores × wall
time). A short clip measures the pipeline's filling and emptying, too: give one of ten seconds or more.

CPU time by part comes from runs of their own, for asking costs time: the kernel is asked by thread fifty times a second
(Linux). The runtime's threads are split by the stage clock, the engine's threads are those that were there before the
run, the encoder's those that came with it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import av
import cv2
import supervision as sv

import engines
from engines.bundled import int8_file, resolve
from engines.engine import Engine
from engines.spec import read_spec
from pipeline.analysis.components import ComponentOptions
from pipeline.analysis.fuse import FuseOptions
from pipeline.drawing.overlay import OverlayStage, OverlayStyle
from pipeline.outputs.mp4 import VideoOptions, VideoWriter
from pipeline.runtime import LoadedModel, Runtime, StreamPlan
from pipeline.sources.resolve import resolve_source
from tests.benchmarks import loops

OUTSIDE_CODECS_AND_NETWORK = ("resize", "submit", "fuse", "overlay", "between stages")


@dataclass
class Round:
    """One side's run: frames, wall and CPU seconds, and CPU seconds by part where they are known."""

    frames: int
    wall: float
    cpu: float
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        return self.frames / self.wall


def thread_cpu() -> dict[int, float]:
    """CPU seconds of every thread of this process, by thread id (nanosecond counts of the Linux scheduler)."""
    result = {}
    tasks = Path("/proc/self/task")
    for task in tasks.iterdir() if tasks.is_dir() else ():
        try:
            result[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
        except OSError:
            continue  # ended meanwhile
    return result


def roadlens(
    footage: list[Path],
    folder: Path,
    engine: Engine,
    options: VideoOptions,
    *,
    things: bool = True,
    parts: bool = False,
) -> Round:
    """The pipeline over one or more files, each a stream of its own.

    Args:
        footage: the files.
        folder: for what is written.
        engine: that looks at the pictures.
        options: of the encoder.
        things: whether boxes and outlines are found and drawn.
        parts: whether CPU time is told by part.
    """
    style = OverlayStyle(opacity=loops.OPACITY, outlines=things, boxes=things)
    before = thread_cpu()
    plans, writers = [], []
    for number, path in enumerate(footage):
        source = resolve_source(str(path), f"bench-{number}")
        info = source.open()
        writers.append(VideoWriter(folder / f"roadlens-{number}.mp4", info, options))
        plans.append(StreamPlan(source, info, [OverlayStage(style)], [writers[-1]]))
    runtime = Runtime(plans, [LoadedModel(engine)], FuseOptions(ComponentOptions(enabled=things)))
    last: dict[int, float] = {}
    runtime.start()
    own = {t.native_id for t in threading.enumerate() if t.name.split()[0] in ("decode", "fuse", "emit", "batch")}
    while not runtime.wait(0.02 if parts else None):
        last.update(thread_cpu())  # a thread's time is gone when it ends
    result = runtime.result()
    for writer in writers:
        writer.close()
    if result.error is not None:
        raise result.error
    frames = sum(s.counts.emitted for s in result.streams)
    if not parts:
        return Round(frames, result.seconds, result.cpu_seconds)
    by_part = {name: times.cpu for name, times in result.stages.items()}
    here = threading.get_native_id()
    by_part["between stages"] = max(sum(t for i, t in last.items() if i in own) - sum(by_part.values()), 0.0)
    by_part["engine threads"] = sum(t - before[i] for i, t in last.items() if i in before and i != here)
    by_part["encoder threads"] = sum(t for i, t in last.items() if i not in before and i not in own)
    return Round(frames, result.seconds, result.cpu_seconds, by_part)


def described(model: str, precision: str) -> loops.Network:
    """A model as the loops take it."""
    path = resolve(model)
    if precision == "int8" and int8_file(path).is_file():
        path = int8_file(path)
    spec = read_spec(path)
    colors = {info.id: info.color for info in spec.classes}
    return loops.Network(
        str(path), spec.width, spec.height, spec.outputs["class_map"],
        [colors.get(number, (0, 0, 0)) for number in range(max(colors) + 1)], precision,
    )  # fmt: skip


def written_today(side: str, footage: Path, output: Path, model: loops.PlainOpenVINO, preset: str) -> Round:
    """One frame after the other: capture, resize, infer, draw at full size in BGR, encode."""
    return Round(**loops.run(side, footage, model, output, loops.Encoding(preset)))


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "cpu": f"{model}, {os.cpu_count()} cores", "python": platform.python_version(), "opencv": cv2.__version__,
        "av": av.__version__, "supervision": sv.__version__,
    }  # fmt: skip


def show_parts(rounds: list[Round]) -> dict[str, float]:
    """Print the CPU milliseconds a frame by part, median over the rounds."""
    names = dict.fromkeys(name for r in rounds for name in r.parts)
    parts = {n: statistics.median(r.parts.get(n, 0.0) * 1000 / r.frames for r in rounds) for n in names}
    for name, value in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"  {name:16s} {value:7.2f} ms CPU a frame")
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("footage", type=Path)
    parser.add_argument("--model", default="cityscapes-unet")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=4, help="how many files at once are compared with one")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    options = VideoOptions(encoder="libx264", preset=arguments.preset)
    footage, many = arguments.footage, arguments.streams
    names = ("roadlens", "same picture", "loop", "supervision", f"{many} files")
    sides: dict[str, list[Round]] = {name: [] for name in names}
    split: dict[int, list[Round]] = {1: [], many: []}
    load = partial(engines.load, arguments.model, precision=arguments.precision, hint="throughput")
    with (
        tempfile.TemporaryDirectory() as temporary,
        closing(load(max_batch=1)) as one,
        closing(load(max_batch=many)) as several,
    ):
        folder = Path(temporary)
        plain = loops.PlainOpenVINO(described(arguments.model, one.precision))
        for number in range(arguments.rounds + 1):
            results = {
                "roadlens": roadlens([footage], folder, one, options),
                "same picture": roadlens([footage], folder, one, options, things=False),
                "loop": written_today("opencv", footage, folder / "loop.mp4", plain, arguments.preset),
                "supervision": written_today("supervision", footage, folder / "sv.mp4", plain, arguments.preset),
                f"{many} files": roadlens([footage] * many, folder, several, options),
            }
            if number == 0:
                continue  # the first round warms caches up
            for side, result in results.items():
                sides[side].append(result)
            split[1].append(roadlens([footage], folder, one, options, parts=True))
            split[many].append(roadlens([footage] * many, folder, several, options, parts=True))
            print("  ".join(f"{side} {result.fps:.1f} fps" for side, result in results.items()), flush=True)
        precision = one.precision
    ratios = {
        f"{ours} / {other}": statistics.median(r.fps / o.fps for r, o in zip(sides[ours], sides[other], strict=True))
        for ours in ("roadlens", "same picture")
        for other in ("loop", "supervision")
    }
    ours = sides["roadlens"]
    cores = os.cpu_count() or 1
    efficiency = statistics.median(r.cpu / cores / r.wall for r in ours)
    per_frame = {side: statistics.median(r.cpu * 1000 / r.frames for r in rounds) for side, rounds in sides.items()}
    several_cost = per_frame[f"{many} files"] / per_frame["roadlens"]
    print(f"\n{footage.name}, {arguments.model} {precision}, x264 {arguments.preset}; {machine()}")
    print("roadlens, one file:")
    parts = show_parts(split[1])
    print(f"roadlens, {many} files:")
    show_parts(split[many])
    outside = sum(parts.get(name, 0.0) for name in OUTSIDE_CODECS_AND_NETWORK)
    for side, rounds in sides.items():
        fps = statistics.median(r.fps for r in rounds)
        print(f"{side:24s} {fps:6.1f} fps, {per_frame[side]:6.2f} ms CPU a frame")
    for pair, ratio in ratios.items():
        print(f"{pair:26s} {ratio:5.2f}×")
    print(f"efficiency                 {efficiency:.2f}")
    print(f"outside codecs, network    {outside:.2f} ms CPU a frame")
    print(f"{many} files / one file        {several_cost:.2f}× CPU a frame")
    if arguments.json:
        figures = {
            "machine": machine(), "precision": precision, "preset": arguments.preset, "ratios": ratios,
            "efficiency": efficiency, "cpu_ms_per_frame": per_frame, "parts": parts, "outside": outside,
            "several": several_cost,
        }  # fmt: skip
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
