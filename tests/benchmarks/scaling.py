"""How what a frame costs grows with streams, the size of pictures, classes and subscribers.

    python tests/benchmarks/scaling.py [--rounds 3] [--frames 60] [--axis streams …]

Everything but the network is real: files are decoded, made a model's input of, fused, drawn into, encoded by x264
(veryfast) into MP4 and published with masks. The engine is a double that answers at once with a class map in which all
of its classes are: what a network costs grows with its own size, and would hide the rest.

Printed is the CPU time of this process, which other processes disturb less than frames a second, and the exponent k of
cost ∝ nᵏ: the slope of a line through the logarithms (least squares) of all CPU time against the number of streams,
pixels, classes, or subscribers. 1 is linear. Points of an axis alternate; medians over the rounds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from engines.classes import ClassInfo
from engines.engine import Prediction
from engines.spec import ModelSpec
from pipeline.drawing.overlay import OverlayStage, OverlayStyle
from pipeline.messages.publish import Publisher
from pipeline.outputs.mp4 import VideoOptions, VideoWriter
from pipeline.runtime import LoadedModel, Runtime, StreamPlan
from pipeline.sources.resolve import resolve_source
from tests.footage import write_clip

SIDE, BLOCK = 256, 16

Point = dict[str, int]

USUAL: Point = {"streams": 1, "height": 360, "classes": 19, "subscribers": 1}

AXES = {
    "streams": (1, 2, 4, 8, 16),
    "height": (360, 540, 720, 1080, 2160),
    "classes": (2, 8, 19, 50, 150),
    "subscribers": (1, 5, 15, 50),
}
"""What varies, the rest being as usual; pictures are 16:9."""

_READ = """
import sys, zmq
context = zmq.Context()
sockets = [context.socket(zmq.SUB) for _ in range(int(sys.argv[2]))]
for socket in sockets:
    socket.rcvhwm = 0
    socket.subscribe(b"roadlens/v1/")
    socket.connect(sys.argv[1])
poller = zmq.Poller()
for socket in sockets:
    poller.register(socket, zmq.POLLIN)
while True:
    for socket, _ in poller.poll():
        socket.recv_multipart()
"""


class Double:
    """An engine that answers at once; every class has blocks of 16 pixels in its class map, one in eight is a
    thing: of 19 classes some 25 boxes."""

    backend, precision, device = "double", "fp32", "none"
    in_flight, max_batch = 2, 8

    def __init__(self, classes: int) -> None:
        infos = tuple(ClassInfo(n, f"class {n}", (n, 255 - n, n), thing=n % 8 == 5) for n in range(classes))
        self.spec = ModelSpec(
            name="double", version="1", task="segmentation", height=SIDE, width=SIDE, classes=infos,
            outputs={"class_map": "class_map"},
        )  # fmt: skip
        blocks = np.arange((SIDE // BLOCK) ** 2).reshape(SIDE // BLOCK, -1) % classes
        self._prediction = Prediction(class_map=np.kron(blocks, np.ones((BLOCK, BLOCK))).astype(np.uint8))

    def submit(self, images: Sequence[Any]) -> Future[list[Prediction]]:
        done: Future[list[Prediction]] = Future()
        done.set_result([self._prediction] * len(images))
        return done

    def __call__(self, _image: Any) -> Prediction:
        return self._prediction

    def close(self) -> None:
        """Nothing is open."""


def measure(point: Point, footage: Path, frames: int) -> tuple[float, float]:
    """CPU seconds of this process, and frames a second, of all streams together."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        publisher = stack.enter_context(Publisher(f"ipc://{folder}/pub", high_water=100_000))
        readers = subprocess.Popen([sys.executable, "-c", _READ, publisher.endpoint, str(point["subscribers"])])
        stack.callback(readers.wait)
        stack.callback(readers.kill)
        time.sleep(1)  # until they have subscribed
        plans = []
        for number in range(point["streams"]):
            source = resolve_source(str(footage), f"clip-{number}")
            info = source.open()
            writer = VideoWriter(folder / f"{number}.mp4", info, VideoOptions(preset="veryfast"))
            stack.callback(writer.close)
            plans.append(StreamPlan(source, info, [OverlayStage(OverlayStyle())], [writer, publisher]))
        cpu, began = time.process_time(), time.monotonic()
        runtime = Runtime(plans, [LoadedModel(Double(point["classes"]))])
        runtime.start()
        runtime.wait()
        took = time.monotonic() - began
        emitted = sum(counts.emitted for counts in runtime.counts().values())
        if emitted != frames * point["streams"]:
            raise RuntimeError(f"{emitted} frames came out of {frames * point['streams']}")
    return time.process_time() - cpu, emitted / took


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """k of cost ∝ nᵏ, by least squares of the logarithms.

    >>> round(exponent([1, 10, 100], [3, 30, 300]), 6)
    1.0
    """
    slope, _ = np.polyfit(np.log(sizes), np.log(costs), 1)
    return float(slope)


def axis(name: str, clips: dict[int, Path], frames: int, rounds: int) -> None:
    """Measure and print one."""
    points = [{**USUAL, name: value} for value in AXES[name]]
    found: list[list[tuple[float, float]]] = [[] for _ in points]
    for _ in range(rounds):
        for point, results in zip(points, found, strict=True):
            results.append(measure(point, clips[point["height"]], frames))
    costs = [statistics.median(cpu for cpu, _ in results) for results in found]
    print(f"\n| {name} | CPU ms a frame | frames/s |\n|---|---|---|")
    for point, cost, results in zip(points, costs, found, strict=True):
        each = cost / (frames * point["streams"]) * 1000
        print(f"| {point[name]} | {each:.2f} | {statistics.median(rate for _, rate in results):.1f} |")
    sizes = [point[name] ** 2 if name == "height" else point[name] for point in points]
    print(f"{'pixels' if name == 'height' else name}: exponent {exponent(sizes, costs):.2f}, "
          f"from the last but one to the last {math.log(costs[-1] / costs[-2]) / math.log(sizes[-1] / sizes[-2]):.2f}",
          flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=60, help="of each file")
    parser.add_argument("--axis", choices=AXES, nargs="+", default=list(AXES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        heights = AXES["height"] if "height" in options.axis else (USUAL["height"],)
        clips = {height: Path(folder) / f"{height}.mp4" for height in heights}
        for height, path in clips.items():
            write_clip(path, frames=options.frames, size=(height * 16 // 9, height))
        measure(USUAL, clips[USUAL["height"]], options.frames)  # what is loaded once
        for name in options.axis:
            axis(name, clips, options.frames, options.rounds)


if __name__ == "__main__":
    main()
