"""Cameras for an hour: memory, threads, descriptors and age, as a table and a chart.

    python tests/benchmarks/soak.py [--seconds 3600] [--streams 4] [--rate 10] [--output soak]

Writes `<output>.csv` and `<output>.svg`. The cameras are sent by GStreamer's RTSP server in a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import engines
from pipeline.runtime import Runtime
from tests.benchmarks.overload import Ages, resident, run
from tests.footage import write_clip
from tests.pipeline.rtsp_server import Mount, RtspServer, missing, write_units

COLUMNS = ("seconds", "resident MB", "threads", "descriptors", "p50 age ms", "p99 age ms", "frames out")
WIDTH, PANEL, MARGIN = 900, 130, 70


def chart(rows: list[tuple[float, ...]]) -> str:
    """The columns over time as SVG, each from zero so that what is flat looks flat."""
    shown = COLUMNS[1:6]
    parts = []
    span = max(rows[-1][0], 1e-9)
    for place, name in enumerate(shown):
        column = COLUMNS.index(name)
        top, most = place * PANEL + 25, max([r[column] for r in rows if r[column] == r[column]], default=1.0) or 1.0
        points = " ".join(
            f"{MARGIN + r[0] / span * (WIDTH - MARGIN - 20):.1f},{top + (PANEL - 45) * (1 - r[column] / most):.1f}"
            for r in rows
            if r[column] == r[column]
        )
        base = top + PANEL - 45
        parts += [
            f'<text x="{MARGIN}" y="{top - 8}">{name}</text>',
            f'<text x="{MARGIN - 6}" y="{top + 4}" text-anchor="end">{most:.0f}</text>',
            f'<text x="{MARGIN - 6}" y="{base + 4}" text-anchor="end">0</text>',
            f'<line x1="{MARGIN}" y1="{base}" x2="{WIDTH - 20}" y2="{base}" stroke="#bbb"/>',
            f'<polyline points="{points}" fill="none" stroke="#06c" stroke-width="1.5"/>',
        ]
    height = len(shown) * PANEL + 30
    parts.append(f'<text x="{WIDTH - 20}" y="{height - 8}" text-anchor="end">{span:.0f} s</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="13"><rect width="100%" height="100%" fill="#fff"/>' + "".join(parts) + "</svg>\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--rate", type=float, default=10, help="frames a second of each camera")
    parser.add_argument("--every", type=float, default=5, help="seconds between rows")
    parser.add_argument("--model", default="cityscapes-unet")
    parser.add_argument("--output", type=Path, default=Path("soak"))
    options = parser.parse_args()
    if missing():
        print(missing())
        return 2
    rows: list[tuple[float, ...]] = []
    began = time.monotonic()

    def look(_runtime: Runtime, ages: Ages) -> None:
        recent = [age for kept in ages.ages.values() for age in kept]
        ages.ages.clear()
        p50 = statistics.median(recent) * 1000 if recent else float("nan")
        p99 = statistics.quantiles(recent, n=100)[98] * 1000 if len(recent) > 1 else float("nan")
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        rows.append(
            (time.monotonic() - began, resident(), threading.active_count(), descriptors, p50, p99, len(recent))
        )

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, frames=60, size=(640, 360), gop=30)
        units = write_units(clip, Path(folder) / "clip.units", options.rate)
        engine = engines.load(options.model, max_batch=min(8, options.streams))
        stack.callback(engine.close)
        paths = [f"/cam{n}" for n in range(options.streams)]
        server = stack.enter_context(RtspServer({p: Mount(units) for p in paths}))
        run(engine, server, paths, options.seconds, look, options.every)
    with options.output.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([f"{value:.3f}" for value in row] for row in rows)
    options.output.with_suffix(".svg").write_text(chart(rows))
    tenth = max(len(rows) // 10, 1)
    early, late = rows[tenth : 2 * tenth] or rows, rows[-tenth:]
    for name in COLUMNS[1:6]:
        column = COLUMNS.index(name)
        first, last = (statistics.median(r[column] for r in part) for part in (early, late))
        print(f"{name:12s} {first:8.1f} → {last:8.1f}")
    print(f"written: {options.output.with_suffix('.csv')}, {options.output.with_suffix('.svg')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
