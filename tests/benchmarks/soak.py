"""Cameras for an hour: memory, threads, descriptors and age, as a table and a chart.

    python tests/benchmarks/soak.py [--seconds 3600] [--streams 4] [--rate 10] [--output soak]

The whole way of a frame: RTSP in (from GStreamer's server, in a process of its own), network, overlay, messages to a
subscriber in another process, HLS, and a recording in segments of which only the newest are kept. Writes `<output>.csv`
while it runs, `<output>.svg` once a minute, and `<output>.json` at the end: what changed between the second and the
last tenth. Flat is less than 5 MB, and not a thread or descriptor more than open files come and go by.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipeline.config import Config, ModelConfig, PublishConfig, StreamConfig
from pipeline.outputs.live.hls import HlsOptions
from pipeline.outputs.live.opening import OutputOptions
from pipeline.outputs.live.segments import RecordingOptions
from pipeline.runtime import Runtime
from pipeline.session import Session
from pipeline.sources.live.address import LiveOptions
from tests.benchmarks.overload import MOST_GROWTH, Ages, resident, subscribed
from tests.footage import write_clip
from tests.pipeline.rtsp_server import Mount, RtspServer, missing, write_units

COLUMNS = ("seconds", "resident MB", "threads", "descriptors", "p50 age ms", "p99 age ms", "frames out")
WIDTH, PANEL, MARGIN = 900, 130, 70
MOST_MORE = 4
"""Threads or descriptors by which two moments may differ: a segment is being closed, a file removed."""


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


def look(ages: Ages, seconds: float) -> tuple[float, ...]:
    """A row of the table."""
    recent = [age for kept in ages.ages.values() for age in kept]
    ages.ages.clear()
    p50 = statistics.median(recent) * 1000 if recent else float("nan")
    p99 = statistics.quantiles(recent, n=100)[98] * 1000 if len(recent) > 1 else float("nan")
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return seconds, resident(), threading.active_count(), descriptors, p50, p99, len(recent)


def verdict(rows: list[tuple[float, ...]]) -> dict[str, object]:
    """What changed between the second and the last tenth, by medians."""
    tenth = max(len(rows) // 10, 1)
    early, late = rows[tenth : 2 * tenth] or rows, rows[-tenth:]
    changes: dict[str, list[float]] = {}
    for name in COLUMNS[1:6]:
        column = COLUMNS.index(name)
        kept = [[r[column] for r in part if r[column] == r[column]] or [0.0] for part in (early, late)]
        changes[name] = [statistics.median(values) for values in kept]
        print(f"{name:12s} {changes[name][0]:8.1f} → {changes[name][1]:8.1f}")
    grown = {name: after - before for name, (before, after) in changes.items()}
    flat = grown["resident MB"] < MOST_GROWTH and max(grown["threads"], grown["descriptors"]) <= MOST_MORE
    print("flat" if flat else "NOT FLAT")
    return {
        "seconds": rows[-1][0], "frames": sum(r[6] for r in rows), "flat": flat, "second_and_last_tenth": changes,
        "load_average": os.getloadavg()[1],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--rate", type=float, default=10, help="frames a second of each camera")
    parser.add_argument("--bound", type=float, default=0.2, help="seconds: how old a frame may get")
    parser.add_argument("--every", type=float, default=5, help="seconds between rows")
    parser.add_argument("--model", default="cityscapes-unet")
    parser.add_argument("--output", type=Path, default=Path("soak"))
    options = parser.parse_args()
    if missing():
        print(missing())
        return 2
    rows: list[tuple[float, ...]] = []
    ages = Ages()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        table = stack.enter_context(options.output.with_suffix(".csv").open("w", newline="", buffering=1))
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        began = due = 0.0

        def poll(runtime: Runtime) -> None:
            nonlocal due
            seconds = time.monotonic() - began
            if seconds >= options.seconds:
                runtime.stop()
            elif seconds >= due:
                due = max(due + options.every, seconds)
                rows.append(look(ages, seconds))
                writer.writerow([f"{value:.3f}" for value in rows[-1]])
                if len(rows) % max(1, round(60 / options.every)) == 0:
                    options.output.with_suffix(".svg").write_text(chart(rows))

        write_clip(folder / "clip.mp4", frames=60, size=(640, 360), gop=30)
        units = write_units(folder / "clip.mp4", folder / "clip.units", options.rate)
        paths = [f"/cam{n}" for n in range(options.streams)]
        server = stack.enter_context(RtspServer({p: Mount(units) for p in paths}))
        live = LiveOptions(open_timeout=60, latency_bound=options.bound)
        endpoint = f"ipc://{folder}/messages"
        config = Config(
            streams=tuple(StreamConfig(server.url(p), p.strip("/"), live=live) for p in paths),
            models=(ModelConfig(options.model),),
            publish=(PublishConfig(endpoint),),
            outputs=OutputOptions(
                hls=HlsOptions(folder / "hls"),
                record=RecordingOptions(folder / "recording", segment_seconds=30, keep_hours=0.05),
            ),
        )
        session = stack.enter_context(Session(config, sinks=[ages]))
        stack.enter_context(subscribed(endpoint))
        began, due = time.monotonic(), options.every
        result = session.run(poll, 0.2)
    options.output.with_suffix(".svg").write_text(chart(rows))
    found = verdict(rows)
    found |= {
        "streams": {
            s.stream: {"in": s.counts.decoded, "out": s.counts.emitted, "error": s.error and str(s.error)}
            for s in result.streams
        },
        "not_stopped": result.not_stopped,
    }
    options.output.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")
    print("written: " + ", ".join(str(options.output.with_suffix(s)) for s in (".csv", ".svg", ".json")))
    return 0 if found["flat"] else 1


if __name__ == "__main__":
    sys.exit(main())
