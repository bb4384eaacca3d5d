"""What a camera notices of another one's outage, and how soon the lost one is back.

    python tests/benchmarks/outage.py [--rounds 3] [--seconds 20] [--rate 15]

Two cameras, each sent by an RTSP server (GStreamer's) in a process of its own, through one engine to a publisher with a
subscriber. In every round both run, then one server is frozen (SIGSTOP: silent, its connections open), thawed, killed
and started again. Frames of the neighbour are sorted by what went on meanwhile; calm and troubled spans alternate, so
that what else the machine does falls on both. Wanted: the neighbour's p99 age moves by less than 20 ms, and the lost
camera is back within 2 s of its server's return.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import engines
from pipeline.sources.live.address import LiveOptions
from tests.benchmarks.overload import Ages, watched
from tests.footage import write_clip
from tests.pipeline.rtsp_server import Mount, RtspServer, missing, write_units

SICK, WELL = "sick", "well"
READ_TIMEOUT = 2.0


def percentiles(ages: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds, and of how many."""
    if len(ages) < 2:
        return {"frames": len(ages), "p50_ms": float("nan"), "p99_ms": float("nan")}
    return {
        "frames": len(ages), "p50_ms": statistics.median(ages) * 1000,
        "p99_ms": statistics.quantiles(ages, n=100)[98] * 1000,
    }  # fmt: skip


def frames(ages: Ages) -> int:
    return len(ages.ages.get(SICK, []))


def back_after(ages: Ages, act: Callable[[], None]) -> float:
    """Seconds from an act to the next picture of the sick camera."""
    before = frames(ages)
    act()
    began = time.monotonic()
    while frames(ages) <= before:
        if time.monotonic() > began + 60:
            return float("inf")
        time.sleep(0.01)
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of each span: calm, frozen, calm, away")
    parser.add_argument("--rate", type=float, default=15, help="frames a second of each camera")
    parser.add_argument("--model", default="cityscapes-unet")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if missing():
        print(missing())
        return 2
    spans: dict[str, list[float]] = {"calm": [], "frozen": [], "away": []}
    returns: dict[str, list[float]] = {"thawed": [], "restarted": []}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        write_clip(Path(folder) / "clip.mp4", frames=60, size=(640, 360), gop=15)
        units = write_units(Path(folder) / "clip.mp4", Path(folder) / "clip.units", options.rate)
        engine = engines.load(options.model, max_batch=2)
        stack.callback(engine.close)
        servers = {name: stack.enter_context(RtspServer({"/cam": Mount(units)})) for name in (SICK, WELL)}
        urls = {name: server.url("/cam") for name, server in servers.items()}
        live = LiveOptions(open_timeout=30, read_timeout=READ_TIMEOUT)
        runtime, ages = stack.enter_context(watched(engine, urls, live))
        sick = servers[SICK]

        def span(name: str) -> None:
            """The neighbour's next `--seconds`."""
            begin = len(ages.ages.get(WELL, []))
            time.sleep(options.seconds)
            spans[name] += ages.ages.get(WELL, [])[begin:]

        patience = time.monotonic() + 60
        while min(len(ages.ages.get(name, [])) for name in (SICK, WELL)) < 20 and time.monotonic() < patience:
            time.sleep(0.1)
        for _ in range(options.rounds):
            span("calm")
            sick.freeze()
            span("frozen")
            returns["thawed"].append(back_after(ages, sick.thaw))
            span("calm")
            sick.kill()
            span("away")
            returns["restarted"].append(back_after(ages, sick.start))
        lost = [s.error for s in runtime.result().streams if s.error is not None]
    figures = {name: percentiles(kept) for name, kept in spans.items()}
    for name, found in figures.items():
        print(f"the neighbour while the other is {name:7s} {found['frames']:6.0f} frames, p50 {found['p50_ms']:6.1f} ms"
              f", p99 {found['p99_ms']:6.1f} ms")  # fmt: skip
    shifts = {name: figures[name]["p99_ms"] - figures["calm"]["p99_ms"] for name in ("frozen", "away")}
    for name, seconds in returns.items():
        print(f"back after it was {name}: " + ", ".join(f"{s:.2f} s" for s in seconds))
    good = max(shifts.values()) < 20 and max(returns["restarted"]) <= 2 and not lost
    print(
        f"{'good' if good else 'NOT GOOD'}: p99 moves by {shifts['frozen']:+.1f} ms while frozen and "
        f"{shifts['away']:+.1f} ms while away (20); load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    )
    if options.json is not None:
        options.json.write_text(json.dumps({"spans": figures, "shift_ms": shifts, "back_s": returns}, indent=2) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
