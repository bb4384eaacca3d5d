"""From a folder to overlaid video by three commands, in four layouts: how good it gets, and how long it takes.

    python -m tests.benchmarks.own_layouts -o /tmp/own-layouts

draws 40 pictures of five synthetic drives with three classes, writes them in each layout (numbers, palette, colours,
polygons of COCO), runs `data check`, `train own` and `run` on each as a user does, and prints one table. One drive is
held out. What stands behind the options is given to `train own`, such as `steps=60 height=128 width=192`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from tests.training.own_folders import LAYOUTS, drive

SIZE = (288, 192)


def roadlens(*words: object) -> tuple[float, float]:
    """Run a command: seconds, and seconds of CPU."""
    program = Path(sys.executable).with_name("roadlens")
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([program, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, used


def measured(layout: str, folder: Path, settings: list[str]) -> str:
    """A line of the table."""
    data, run = folder / "set", folder / "run"
    data.mkdir(parents=True)
    LAYOUTS[layout](data, drive(5, 8, *SIZE))
    times = [
        roadlens("data", "check", data),
        roadlens("train", "own", "--data", data, "-o", run, *settings),
        roadlens(
            "run", f"synthetic:?width={SIZE[0]}&height={SIZE[1]}&seconds=1&seed=9", "--model", run / "own.onnx",
            "-o", folder / "overlay.mp4",
        ),
    ]  # fmt: skip
    found = json.loads((run / "evaluation.json").read_text())["figures"]["mean_iou"]["value"]
    return f"| {layout} | {found:.3f} | {sum(wall for wall, _ in times):.0f} s | {sum(cpu for _, cpu in times):.0f} s |"


def main() -> None:
    """Write, check, train, run; four times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("own-layouts"))
    parser.add_argument("--layout", choices=list(LAYOUTS), action="append", help="One alone. Repeatable.")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    given = parser.parse_args()
    rows = [measured(layout, given.output / layout, given.settings) for layout in given.layout or LAYOUTS]
    print("| layout | mIoU held out | time | of CPU |\n|---|---:|---:|---:|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
