"""roadlens beside what people take today, each a command of its own, on the same footage, in turn.

    python tests/benchmarks/peers.py FOOTAGE [--python peers/bin/python] [--without-video] [--record]

Every side runs the same network (`--model`) once a frame in the same precision and writes H.264 by libx264 with the
same settings, or lines of JSON without a video (`--without-video`: what those do who take messages):

- roadlens: `roadlens run`, with outlines, tracked boxes and labels;
- roadlens auto: the same with `--every auto`;
- opencv, supervision: the loops of `loops.py`, in this Python;
- inference, vidgear: roboflow's `InferencePipeline` and vidgear with the same work, in the Python of `--python`, where
  `pip install inference vidgear openvino av` was run: their packages want older ones than roadlens';
- ffmpeg: FFmpeg alone, decoding and encoding without a network: what is left when the analysis costs nothing.

Each measures itself from opening the footage to the closed output, its model loaded before; ffmpeg as a whole process.
The ratio printed is the median over `--rounds` of the ratio within a round. `--record` puts a row into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.compare import described, machine

RESULTS = Path(__file__).with_name("RESULTS.md")
HERE = ("roadlens", "roadlens auto", "opencv", "supervision")
ELSEWHERE = ("inference", "vidgear")


@dataclass(frozen=True)
class Figures:
    """One run of a side."""

    frames: int
    wall: float
    cpu: float
    version: str = ""


@dataclass(frozen=True)
class Task:
    """What every side does."""

    footage: Path
    folder: Path
    network: Path
    model: str
    precision: str
    preset: str
    video: bool
    elsewhere: Path | None

    def run(self, side: str) -> Figures:
        """One run of a side.

        Raises:
            SystemExit: it failed; what it said is in the sentence.
        """
        if side == "ffmpeg":
            return self._ffmpeg()
        if side.startswith("roadlens"):
            return self._roadlens(["--every", "auto"] if side == "roadlens auto" else [])
        python = sys.executable if side in HERE else str(self.elsewhere)
        output = ["--video", self.folder / f"{side}.mp4"] if self.video else ["--lines", self.folder / f"{side}.jsonl"]
        command = [python, ROOT / "tests/benchmarks/loops.py", side, self.footage, "--network", self.network]
        told = finished([*command, "--preset", self.preset, *output]).splitlines()[-1]
        return Figures(**json.loads(told))

    def _roadlens(self, options: list[str]) -> Figures:
        summary = self.folder / "summary.json"
        output = ["-o", self.folder / "roadlens.mp4"] if self.video else ["--jsonl", self.folder / "roadlens.jsonl"]
        command = [sys.executable, "-m", "pipeline.cli", "run", self.footage, "--model", self.model]
        settings = ["--precision", self.precision, "--preset", self.preset, "--summary", summary]
        Path(output[1]).unlink(missing_ok=True)  # it overwrites nothing
        finished([*command, *settings, *options, *output])
        told = json.loads(summary.read_text())
        return Figures(told["frames"], told["seconds"], told["cpu_seconds"], f"roadlens {commit()}")

    def _ffmpeg(self) -> Figures:
        settings = ["-c:v", "libx264", "-preset", self.preset, "-crf", "23", "-pix_fmt", "yuv420p"]
        before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        output = [*settings, self.folder / "ffmpeg.mp4"] if self.video else ["-f", "null", "-"]
        finished(["ffmpeg", "-y", "-v", "error", "-i", self.footage, "-an", *output])
        seconds, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Figures(frames_of(self.footage), seconds, cpu, finished(["ffmpeg", "-version"]).split(" Copyright")[0])


def finished(command: list[Any]) -> str:
    """What a command printed.

    Raises:
        SystemExit: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\nfailed: {done.stderr[-2000:]}")
    return done.stdout


def probed(footage: Path, *entries: str) -> list[str]:
    """What ffprobe says of the pictures, every one decoded."""
    asked = ["-count_frames", "-show_entries", f"stream={','.join(entries)}", "-of", "csv=p=0"]
    told = finished(["ffprobe", "-v", "error", "-select_streams", "v:0", *asked, footage])
    return told.strip(", \n").split(",")


def frames_of(footage: Path) -> int:
    return int(probed(footage, "nb_read_frames")[0])


def commit() -> str:
    return finished(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]).strip()


def table(sides: dict[str, list[Figures]]) -> list[str]:
    """Frames a second, CPU milliseconds a frame, and how many times as fast roadlens is, for each side."""
    lines = ["| side | frames a second | CPU ms a frame | roadlens is | roadlens auto is |", "|---|---|---|---|---|"]
    for side, rounds in sides.items():
        fps = statistics.median(one.frames / one.wall for one in rounds)
        cpu = statistics.median(one.cpu * 1000 / one.frames for one in rounds)
        cells = [side if side.startswith("roadlens") else rounds[-1].version, f"{fps:.1f}", f"{cpu:.1f}"]
        for ours in ("roadlens", "roadlens auto"):
            cells.append(
                f"{ratio(sides, ours, side):.2f}×" if ours in sides and not side.startswith("roadlens") else ""
            )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def ratio(sides: dict[str, list[Figures]], ours: str, other: str) -> float:
    """Frames a second of one side over those of another, median over the rounds."""
    pairs = zip(sides[ours], sides[other], strict=True)
    return statistics.median((one.frames / one.wall) / (two.frames / two.wall) for one, two in pairs)


def record(task: Task, sides: dict[str, list[Figures]]) -> None:
    """Put what was measured at the end of RESULTS.md."""
    width, height = probed(task.footage, "width", "height")[:2]
    what = f"x264 {task.preset}" if task.video else "lines of JSON, no video"
    rounds, load = len(next(iter(sides.values()))), os.getloadavg()[2]
    title = f"## {datetime.now(UTC):%Y-%m-%d}, {commit()}: {what}, {width}×{height}, {task.precision}"
    footage = f"`{task.model}`, {frames_of(task.footage)} frames, medians of {rounds} rounds"
    on = f"{footage}; {machine()['cpu']}, load {load:.1f}"
    with RESULTS.open("a") as file:
        file.write("\n".join(["", title, "", f"{on}.", "", *table(sides), ""]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("footage", type=Path)
    parser.add_argument("--python", type=Path, help="of the environment that has inference and vidgear")
    parser.add_argument("--model", default="cityscapes-unet")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-video", action="store_true", help="lines of JSON alone")
    parser.add_argument("--sides", nargs="*", help="these alone")
    parser.add_argument("--record", action="store_true", help="put the figures into RESULTS.md")
    arguments = parser.parse_args()
    names = [*HERE, *(ELSEWHERE if arguments.python else ()), "ffmpeg"]
    if not arguments.python:
        print(f"not run: {', '.join(ELSEWHERE)}; --python names the Python that has them")
    names = [name for name in names if not arguments.sides or name in arguments.sides]
    sides: dict[str, list[Figures]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / "network.json"
        network.write_text(json.dumps(asdict(described(arguments.model, arguments.precision))))
        task = Task(
            arguments.footage.resolve(), Path(folder), network, arguments.model, arguments.precision, arguments.preset,
            not arguments.without_video, arguments.python and arguments.python.absolute(),
        )  # fmt: skip
        for number in range(arguments.rounds + 1):
            results = {name: task.run(name) for name in names}
            if number == 0:
                continue  # the first round warms caches up
            for name, figures in results.items():
                sides[name].append(figures)
            print("  ".join(f"{name} {one.frames / one.wall:.1f} fps" for name, one in results.items()), flush=True)
        print("\n".join(table(sides)))
        if arguments.record:
            record(task, sides)


if __name__ == "__main__":
    main()
