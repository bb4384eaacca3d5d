"""A worker is killed: how soon its streams are back, and what the others notice.

    python tests/benchmarks/worker_death.py [--workers 2] [--streams 8] [--rate 10] [--seconds 15] [--rounds 3]

The workers' engines and cameras are the doubles of `gil.py`, so that what is seen is the house's own. One worker is
killed (SIGKILL). Printed for every round: seconds until each of its streams sends an analysis again, and the 99th
percentile of the frame age of all other streams before and after the kill; gaps of theirs; and the restarts counted.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("ROADLENS_LATENCY", "0.02")

from pipeline.config import Config, PublishConfig, StreamConfig
from pipeline.workers.fleet import Fleet
from tests.benchmarks.reader import Reader


def p99(ages: list[float]) -> float:
    return statistics.quantiles(ages, n=100)[98]


def kill_one(options: argparse.Namespace) -> None:
    names = [f"camera-{number}" for number in range(options.streams)]
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/pub"
        config = Config(
            streams=tuple(StreamConfig(f"paced:{options.rate}", name) for name in names), workers=options.workers,
            publish=(PublishConfig(endpoint, high_water=1000),),
        )  # fmt: skip
        fleet = Fleet(config, "tests.benchmarks.gil_worker")
        reader = Reader(endpoint)
        try:
            fleet.open()
            time.sleep(2 * options.seconds)  # the first half for the one in reserve
            worker = fleet.workers[0]
            if worker is None:
                raise SystemExit("the first worker is not there")
            dead = {name for name, placed in fleet.streams.items() if placed.berth.first == 0}
            killed = time.monotonic()
            os.kill(worker.process.pid, signal.SIGKILL)
            time.sleep(options.seconds)
        finally:
            fleet.finish()
    before = [head.age_ms for at, head in reader.seen if head.stream not in dead and 0 < killed - at < options.seconds]
    after = [head.age_ms for at, head in reader.seen if head.stream not in dead and 0 < at - killed < options.seconds]
    old = {head.stream: head.run for at, head in reader.seen if at < killed}
    back = [
        min(at for at, head in reader.seen if head.stream == name and head.run != old[name]) - killed for name in dead
    ]
    expected: dict[str, int] = {}
    missing = 0
    for _, head in reader.seen:
        if head.stream not in dead:
            missing += head.sequence - expected.get(head.stream, head.sequence)
            expected[head.stream] = head.sequence + 1
    print(f"{len(dead)} streams back after {min(back):.2f} to {max(back):.2f} s; of the others p99 age "
          f"{p99(before):.1f} ms before, {p99(after):.1f} ms after, {missing} messages missing; "
          f"{sum(fleet.restarts)} restart")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for _ in range(options.rounds):
        kill_one(options)


if __name__ == "__main__":
    main()
