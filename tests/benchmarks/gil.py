"""How long Python's lock is held for a frame, and how much more two processes do than one.

    python tests/benchmarks/gil.py [--against CHECKOUT] [--streams 60] [--rate 15] [--rounds 3]
    python tests/benchmarks/gil.py --workers 2 [--rounds 3]

Only the house's own code is measured: pictures are made before, and the engine is a double that waits as long as an
engine computes, without the lock. What is left for a frame is Python: source, slot, batch, fuse, metrics, and messages
with masks to a subscriber in a process of its own.

Two figures are printed. *Held*: a thread of C (`gil_held.c`, compiled for the Python that runs; wants a C compiler)
looks at the lock some 15,000 times a second; the share of looks that found it taken, times the seconds, over the
frames. A thread that a busy machine stops while it has the lock counts. *At most*: the CPU time of all Python threads,
by their own clocks, less that in the two calls that compute without the lock, the model's input and the mask's PNG:
what a busy machine does beside does not count, but what the kernel and other calls do without the lock does.
`--against` names another checkout of this repository; both are measured in turn.

`--workers N` compares the frames a second of N processes behind one address with those of one process, `--streams`
files of which there is always another frame. A subscriber at that address counts what comes and what is missing; what
the metrics say, summed over the processes, is compared with what it got. N processes that Python keeps busy need N
cores that nobody else wants, and some for the subscriber; with a `--latency` as of a real engine the cores do not
decide.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, os.environ.get("ROADLENS_CHECKOUT", str(ROOT)))

import av
import numpy as np

from engines.classes import CITYSCAPES_CLASSES
from engines.engine import Prediction
from engines.spec import ModelSpec
from pipeline.config import Config, PublishConfig, StreamConfig
from pipeline.frame import Frame
from pipeline.metrics import Metrics
from pipeline.runtime import LoadedModel, Runtime, StreamPlan

if not TYPE_CHECKING and "contracts" not in {path.stem for path in Path(sys.modules["pipeline"].__path__[0]).iterdir()}:
    # A checkout from before the house was redrawn, in November 2026: what is needed of it has other names.
    from pipeline.publish import Publisher

    from pipeline import messages as wire
    from pipeline import runtime as picture
    from pipeline.sources import SourceCounts, StreamInfo
else:
    from pipeline.contracts import SourceCounts, StreamInfo
    from pipeline.messages import wire
    from pipeline.messages.publish import Publisher
    from pipeline.pictures import picture
    from tests.benchmarks.reader import Reader

SIZE = 256
WARM_UP = 3.0

_DRAIN = """
import sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.rcvhwm = 100_000
socket.subscribe(b"roadlens/v1/")
socket.connect(sys.argv[1])
while True:
    socket.recv_multipart()
"""


class Double:
    """An engine that waits; its class map is of a street."""

    backend, precision, device = "double", "fp32", "none"
    in_flight = 2

    def __init__(self, latency: float, max_batch: int = 32) -> None:
        self._latency, self.max_batch = latency, max_batch
        self.spec = ModelSpec(
            name="double", version="1", task="segmentation", height=SIZE, width=SIZE, classes=CITYSCAPES_CLASSES,
            outputs={"class_map": "class_map"},
        )  # fmt: skip
        class_map = np.full((SIZE, SIZE), 10, np.uint8)
        class_map[SIZE // 2 :] = 0
        for number, class_id in enumerate((2, 8, 13, 13, 11, 5)):
            class_map[100 + 5 * number : 140 + 5 * number, 40 * number : 40 * number + 30] = class_id
        self._prediction = Prediction(class_map=class_map)
        self._pool = ThreadPoolExecutor(self.in_flight)

    def submit(self, images: Sequence[Any]) -> Future[list[Prediction]]:
        return self._pool.submit(self._wait, len(images))

    def _wait(self, count: int) -> list[Prediction]:
        time.sleep(self._latency)
        return [self._prediction] * count

    def __call__(self, _image: Any) -> Prediction:
        return self._prediction

    def close(self) -> None:
        self._pool.shutdown()


class Paced:
    """A camera whose picture is there already, `rate` times a second."""

    mode, address = "live", "paced"

    def __init__(self, name: str, rate: float, phase: float) -> None:
        self.id, self._rate, self._phase = name, rate, phase
        self.counts = SourceCounts()
        self._stopped = threading.Event()

    @classmethod
    def from_address(cls, name: str, address: str, _reading: object) -> Paced:
        number = int("".join(filter(str.isdigit, name)) or 0)
        return cls(name, float(address.partition(":")[2]), number * 0.618 % 1)

    def open(self) -> StreamInfo:
        return StreamInfo(SIZE, SIZE, "yuv420p", Fraction(1, 90000), Fraction(self._rate), None, latency_bound=1.0)

    def __iter__(self) -> Iterator[Frame]:
        image = av.VideoFrame(SIZE, SIZE, "yuv420p")
        image.time_base = Fraction(1, 90000)
        index, due = 0, time.monotonic() + self._phase / self._rate
        while not self._stopped.wait(max(due - time.monotonic(), 0)):
            yield Frame(self.id, index, index * 3000, image.time_base, time.time(), time.monotonic(), image, 1)
            index, due = index + 1, due + 1 / self._rate

    def stop(self) -> None:
        self._stopped.set()

    def pause(self) -> None:
        """Cameras of a benchmark do not rest."""

    resume = pause

    def close(self) -> None:
        self._stopped.set()


class Made:
    """A file whose pictures are there already and never end."""

    mode, address = "file", "made:"

    def __init__(self, name: str) -> None:
        self.id = name
        self.counts = SourceCounts()

    @classmethod
    def from_address(cls, name: str, _address: str, _reading: object) -> Made:
        return cls(name)

    def open(self) -> StreamInfo:
        return StreamInfo(SIZE, SIZE, "yuv420p", Fraction(1, 25), Fraction(25), None)

    def __iter__(self) -> Iterator[Frame]:
        image = av.VideoFrame(SIZE, SIZE, "yuv420p")
        image.time_base = Fraction(1, 25)
        index = 0
        while True:
            yield Frame(self.id, index, index, image.time_base, time.time(), time.monotonic(), image, 1)
            index += 1

    def close(self) -> None:
        """Nothing is open."""


def double_everything() -> None:
    """Let every model of this process be an engine's double, and `made:` and `paced:RATE` addresses."""
    latency = float(os.environ["ROADLENS_LATENCY"])
    import engines
    from pipeline.sources import resolve

    engines.load = lambda _model, *, max_batch, **_options: Double(latency, max_batch)  # type: ignore[assignment, return-value]
    resolve.SCHEMES |= {"made:": Made, "paced:": Paced}  # type: ignore[dict-item]


class Unlocked:
    """Adds up the CPU time of a call that computes without the lock."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call, self.seconds = call, 0.0

    def __call__(self, *arguments: Any) -> Any:
        began = time.thread_time()
        try:
            return self._call(*arguments)
        finally:
            self.seconds += time.thread_time() - began


def python_seconds() -> dict[int, float]:
    """CPU seconds of each of Python's threads so far."""
    found = {}
    for thread in threading.enumerate():
        if thread.ident is not None:
            found[thread.ident] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return found


class Look:
    """Looks at the lock from a thread that does without it."""

    def __init__(self) -> None:
        self.possible = False
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "gil_held.so"
            source = Path(__file__).with_name("gil_held.c")
            command = ["cc", "-O2", "-shared", "-fPIC", f"-I{sysconfig.get_paths()['include']}", "-o", library, source]
            try:
                subprocess.run([*command, "-lpthread"], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"the lock is not looked at: {error}", file=sys.stderr)
                return
            self._with_lock, self._without = ctypes.PyDLL(str(library)), ctypes.CDLL(str(library))
        self._without.end.restype = ctypes.c_double
        self.possible = True

    def share(self, seconds: float) -> float:
        """Of so many seconds from now on, the part in which a thread holds it; NaN where no compiler made the look."""
        if not self.possible:
            time.sleep(seconds)
            return math.nan
        self._with_lock.begin()
        time.sleep(seconds)
        return float(self._without.end())


def measure(streams: int, rate: float, seconds: float, latency: float) -> dict[str, float]:
    """Milliseconds of the lock a frame, in this process."""
    look = Look()
    unlocked = [Unlocked(picture.network_input), Unlocked(wire.encode_png)]
    picture.network_input, wire.encode_png = unlocked
    with tempfile.TemporaryDirectory() as folder, Publisher(f"ipc://{folder}/pub", high_water=1000) as publisher:
        drain = subprocess.Popen([sys.executable, "-c", _DRAIN, publisher.endpoint])
        plans = []
        for number in range(streams):
            source = Paced(f"camera-{number}", rate, number / streams)
            plans.append(StreamPlan(source, source.open(), [], [publisher]))
        runtime = Runtime(plans, [LoadedModel(Double(latency))], metrics=Metrics())
        try:
            runtime.start()
            time.sleep(WARM_UP)
            began, frames = python_seconds(), sum(c.emitted for c in runtime.counts().values())
            outside = sum(each.seconds for each in unlocked)
            held = look.share(seconds) * seconds
            ended, frames = python_seconds(), sum(c.emitted for c in runtime.counts().values()) - frames
            outside = sum(each.seconds for each in unlocked) - outside
        finally:
            runtime.abort()
            runtime.wait(10)
            drain.kill()
    cpu = sum(seconds - began.get(ident, 0.0) for ident, seconds in ended.items())
    return {
        "held_ms": held / frames * 1000, "most_ms": (cpu - outside) / frames * 1000,
        "frames_per_second": frames / seconds,
    }  # fmt: skip


def throughput(workers: int, streams: int, seconds: float) -> dict[str, float]:
    """Frames a second of a server of so many processes; this process is its parent, or the server where it is one."""
    double_everything()
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/pub"
        config = Config(
            streams=tuple(StreamConfig("made:", f"file-{number}") for number in range(streams)), workers=workers,
            publish=(PublishConfig(endpoint, mask="none", high_water=100_000),),
        )  # fmt: skip
        # Not in every checkout that is measured against.
        from pipeline.session import ServingSession
        from pipeline.workers.fleet import Fleet

        fleet = Fleet(config, "tests.benchmarks.gil_worker") if workers > 1 else None
        session = ServingSession(config) if fleet is None else None
        reader = Reader(endpoint)
        if fleet is not None:
            fleet.open()
        elif session is not None:
            session.start()
        registry = fleet.registry if fleet is not None else session.metrics.registry  # type: ignore[union-attr]

        def emitted() -> float:
            return sum(
                sample.value for family in registry.collect() for sample in family.samples
                if sample.name == "roadlens_frames_emitted_total"
            )  # fmt: skip

        time.sleep(WARM_UP)
        began, before, counted = time.monotonic(), len(reader.seen), emitted()
        time.sleep(seconds)
        took, came, counted = time.monotonic() - began, len(reader.seen) - before, emitted() - counted
        if fleet is not None:
            fleet.finish()
        elif session is not None:
            session.close()
    return {"frames_per_second": came / took, "missing": reader.missing, "metrics": counted, "received": came}


def compared(options: argparse.Namespace) -> None:
    """Print frames a second of one process and of several, in turn."""
    rates: dict[int, list[float]] = {1: [], options.workers: []}
    for _ in range(options.rounds):
        for workers, found in rates.items():
            one = inside(ROOT, options, "--throughput", str(workers))
            found.append(one["frames_per_second"])
            print(f"{workers} processes: {one['frames_per_second']:.0f} frames/s, {one['missing']:.0f} missing, "
                  f"{one['received']:.0f} received while the metrics counted {one['metrics']:.0f}")  # fmt: skip
    one, several = (statistics.median(found) for found in rates.values())
    print(f"{options.workers} processes do {several / one:.2f} times as much as one (medians of {options.rounds})")


def inside(checkout: Path, options: argparse.Namespace, *further: str) -> dict[str, float]:
    """A measurement in a process of its own, with the code of a checkout."""
    command = [
        sys.executable, __file__, "--inside", "--streams", str(options.streams), "--rate", str(options.rate),
        "--seconds", str(options.seconds), "--latency", str(options.latency), *further,
    ]  # fmt: skip
    environment = {**os.environ, "ROADLENS_CHECKOUT": str(checkout), "PYTHONPATH": str(checkout),
                   "ROADLENS_LATENCY": str(options.latency)}  # fmt: skip

    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--streams", type=int, default=60)
    parser.add_argument("--rate", type=float, default=15.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.008, help="seconds that the engine's double takes a batch")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--throughput", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.throughput:
        print(json.dumps(throughput(options.throughput, options.streams, options.seconds)))
        return
    if options.workers > 1:
        compared(options)
        return
    if options.inside:
        print(json.dumps(measure(options.streams, options.rate, options.seconds, options.latency)))
        return
    sides = [ROOT, *([options.against] if options.against else [])]
    found: dict[Path, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side in sides:
            found[side].append(inside(side, options))
    for side, rounds in found.items():
        held, most = ([each[name] for each in rounds] for name in ("held_ms", "most_ms"))
        rate = statistics.median(each["frames_per_second"] for each in rounds)
        print(f"{side}: the lock held {statistics.median(held):.3f} ms a frame ({min(held):.3f} to {max(held):.3f}), "
              f"at most {statistics.median(most):.3f}; {options.streams} streams, {rate:.0f} frames/s")  # fmt: skip


if __name__ == "__main__":
    main()
