"""More cameras than the engine can look at: nobody's pictures get old, and everybody gets a share.

    python tests/benchmarks/overload.py [--seconds 300] [--streams 6] [--factor 3] [--model cityscapes-unet]

First the engine alone says how many frames a second it can look at. Then a GStreamer RTSP server in a process of its
own sends `--streams` cameras that together give `--factor` times as many; all are decoded, and messages with masks are
published to a subscriber in another process. The age of a frame is counted from its arrival at this machine (see
`pipeline.sources.clocks`) to behind the publisher. At last one camera alone at 30 frames a second. Reported: frames,
share and ages by stream, drops by stage and reason, memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import engines
from engines.engine import Engine
from pipeline.analysis.carrying.cadence import Every
from pipeline.frame import Analysis
from pipeline.messages.publish import Publisher
from pipeline.runtime import LoadedModel, Runtime, StreamPlan
from pipeline.sources.live.address import LiveOptions
from pipeline.sources.live.camera import Camera
from tests.footage import write_clip
from tests.pipeline.rtsp_server import Mount, RtspServer, missing, write_units

SETTLE_SECONDS = 5.0
MOST_GROWTH = 5.0
"""Megabytes that memory may grow between the second and the last tenth."""

_DRAIN = """
import sys, zmq
socket = zmq.Context.instance().socket(zmq.SUB)
socket.setsockopt(zmq.SUBSCRIBE, b"roadlens/v1/")
socket.connect(sys.argv[1])
while True:
    socket.recv_multipart()
"""


@dataclass
class Ages:
    """A sink behind the publisher: seconds from arrival to here, by stream."""

    ages: dict[str, list[float]] = field(default_factory=dict)

    def consume(self, analysis: Analysis) -> None:
        age = time.monotonic() - analysis.frame.arrived_at
        self.ages.setdefault(analysis.frame.stream, []).append(age)

    def percentiles(self, stream: str) -> tuple[float, float]:
        """p50 and p99 in milliseconds."""
        ages = self.ages.get(stream, [])
        if len(ages) < 2:
            return float("nan"), float("nan")
        return statistics.median(ages) * 1000, statistics.quantiles(ages, n=100)[98] * 1000


def capacity(engine: Engine, seconds: float = 4.0) -> float:
    """Frames a second of the engine alone."""
    picture = np.zeros((engine.spec.height, engine.spec.width, 3), np.uint8)
    engine.submit([picture]).result()
    began, frames, under_way = time.perf_counter(), 0, []
    while time.perf_counter() - began < seconds:
        under_way.append(engine.submit([picture]))
        frames += 1
        if len(under_way) > engine.in_flight:
            under_way.pop(0).result()
    for future in under_way:
        future.result()
    return frames / (time.perf_counter() - began)


def resident() -> float:
    """Megabytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


@contextmanager
def subscribed(endpoint: str) -> Iterator[None]:
    """Somebody reads all messages, in a process of their own."""
    reader = subprocess.Popen([sys.executable, "-c", _DRAIN, endpoint])
    try:
        yield
    finally:
        reader.kill()
        reader.wait()


@contextmanager
def watched(
    engine: Engine, urls: dict[str, str], options: LiveOptions, every: Every = 1
) -> Iterator[tuple[Runtime, Ages]]:
    """Cameras by name through the engine and a publisher that has a subscriber; the run, started, and its ages."""
    ages = Ages()
    with ExitStack() as stack:
        publisher = Publisher("tcp://127.0.0.1:0")
        stack.callback(publisher.close)
        stack.enter_context(subscribed(publisher.endpoint))
        plans = []
        for name, url in urls.items():
            source = Camera(name, url, options)
            stack.callback(source.close)
            plans.append(StreamPlan(source, source.open(), (), [publisher, ages]))
        runtime = Runtime(plans, [LoadedModel(engine, every)])
        stack.callback(runtime.close)
        runtime.start()
        yield runtime, ages
        runtime.stop()
        runtime.wait(5)


def run(
    engine: Engine, urls: dict[str, str], seconds: float,
    poll: Callable[[Runtime, Ages], None] = lambda _runtime, _ages: None, interval: float = 1.0, every: Every = 1,
) -> tuple[Runtime, Ages]:  # fmt: skip
    """Cameras by name for `seconds` after they have settled."""
    with watched(engine, urls, LiveOptions(open_timeout=30), every) as (runtime, ages):
        time.sleep(SETTLE_SECONDS)
        ages.ages.clear()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            runtime.wait(min(interval, max(end - time.monotonic(), 0.0)))
            poll(runtime, ages)
    return runtime, ages


def report(runtime: Runtime, ages: Ages, seconds: float) -> tuple[float, float]:
    """Print what became of each stream; the worst p99 in ms and the greatest distance from the fair share."""
    emitted = {s.stream: len(ages.ages.get(s.stream, [])) for s in runtime.result().streams}
    fair = sum(emitted.values()) / max(len(emitted), 1)
    worst_age = worst_share = 0.0
    drops: Counter[str] = Counter()
    print("stream   in/s  out/s  of fair share   p50 ms   p99 ms")
    for stream in runtime.result().streams:
        p50, p99 = ages.percentiles(stream.stream)
        share = emitted[stream.stream] / fair if fair else 0.0
        worst_age, worst_share = max(worst_age, p99), max(worst_share, abs(share - 1))
        rate_in = stream.counts.decoded / (seconds + SETTLE_SECONDS)
        rate_out = emitted[stream.stream] / seconds
        print(f"{stream.stream:7s} {rate_in:5.1f} {rate_out:6.1f} {share:14.1%} {p50:8.1f} {p99:8.1f}")
        drops.update({f"{stage}/{reason}": n for (stage, reason), n in stream.counts.dropped.items()})
        drops["looks put off, not dropped"] += stream.counts.put_off
        whole = stream.counts.decoded == stream.counts.emitted + sum(stream.counts.dropped.values())
        if not whole:
            print(f"{stream.stream}: frames are lost without being counted")
    print("dropped: " + (", ".join(f"{name} {n}" for name, n in drops.most_common()) or "nothing"))
    return worst_age, worst_share


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--streams", type=int, default=6)
    parser.add_argument("--factor", type=float, default=3)
    parser.add_argument("--model", default="cityscapes-unet")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--auto", action="store_true", help="let the cadence give way before frames are dropped")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 360), metavar=("WIDTH", "HEIGHT"))
    options = parser.parse_args()
    if missing():
        print(missing())
        return 2
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, frames=60, size=tuple(options.size), gop=30)
        engine = engines.load(options.model, max_batch=min(8, options.streams))
        stack.callback(engine.close)
        able = capacity(engine)
        rate = options.factor * able / options.streams
        print(f"the engine alone: {able:.1f} frames a second; {options.streams} cameras at {rate:.1f} each")
        crowd = write_units(clip, Path(folder) / "crowd.units", rate)
        alone = write_units(clip, Path(folder) / "alone.units", 30)
        paths = [f"/cam{n}" for n in range(options.streams)]
        server = stack.enter_context(RtspServer({**{p: Mount(crowd) for p in paths}, "/alone": Mount(alone)}))
        memory: list[float] = []
        runtime, ages = run(
            engine, {p.strip("/"): server.url(p) for p in paths}, options.seconds,
            lambda _r, _a: memory.append(resident()), every="auto" if options.auto else 1,
        )  # fmt: skip
        worst_age, worst_share = report(runtime, ages, options.seconds)
        tenth = max(len(memory) // 10, 1)
        grown = statistics.median(memory[-tenth:]) - statistics.median(memory[tenth : 2 * tenth] or memory)
        print(f"resident: {memory[-1]:.0f} MB, {grown:+.1f} MB since the second tenth")
        print("one camera alone at 30 frames a second:")
        single, lone = run(engine, {"alone": server.url("/alone")}, min(options.seconds, 20))
        report(single, lone, min(options.seconds, 20))
        calm, _ = lone.percentiles("alone")
        good = worst_age <= 250 and worst_share <= 0.1 and calm <= 60 and grown < MOST_GROWTH
        print(
            f"{'good' if good else 'NOT GOOD'}: worst p99 {worst_age:.0f} ms (250), furthest from a fair share "
            f"{worst_share:.1%} (10 %), memory {grown:+.1f} MB ({MOST_GROWTH:g}), alone p50 {calm:.0f} ms (60); load "
            f"average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
        )
        if options.json is not None:
            figures = {
                "seconds": options.seconds, "streams": options.streams, "capacity_fps": able, "offered_fps": rate,
                "worst_p99_ms": worst_age, "worst_share_error": worst_share, "grown_mb": grown, "alone_p50_ms": calm,
            }  # fmt: skip
            options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
