"""How many cameras this machine holds: the most live 1080p30 H.264 streams that are segmented and published with a
99th percentile of the frame age within a bound.

    python tests/benchmarks/capacity.py [FOOTAGE] [--bound 0.1] [--seconds 10] [--device auto] [--most 64]

Every stream is the clip played in real time (`realtime`: the newest frame wins, and a frame's age counts from when it
was due, so that a decoder that comes late is seen), decoded, segmented, and published over ZeroMQ with its mask to a
subscriber in a process of its own. A number of streams is held when p99 age ≤ bound, at most 1 % of the frames were
dropped, and every stream gave frames. The number is found by doubling and halving; each is measured afresh.

Before anything is timed, class maps of the decoder, converter and engine that will be timed are compared with the
reference (decoded on the CPU, FFmpeg's scaler, OpenVINO in fp32): an engine that is fast and wrong does not count.

Without FOOTAGE a synthetic drive is encoded first. Printed at the end: the figures of every number tried and where the
limit is (decoding, network, or Python and the rest).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import av
import numpy as np

import engines
from engines.engine import Engine
from engines.loading import Building, Degraded
from pipeline.decoding import Decode, Decoding
from pipeline.frame import Analysis
from pipeline.overlay import OverlayStage, OverlayStyle
from pipeline.picture import network_input, network_inputs
from pipeline.publish import Publisher
from pipeline.realtime import RealtimeSource
from pipeline.runtime import LoadedModel, Runtime, StreamPlan
from pipeline.sources import AudioPacket, ClipSource
from pipeline.video_writer import VideoOptions, VideoWriter
from tests.footage import write_clip

DROPPED_AT_MOST = 0.01
AGREEMENT_AT_LEAST = 0.97
"""Share of pixels with the reference's class. Two scalers that differ by a level and half precision give 0.98 to 1."""

WARM_UP = 2.0
"""Seconds at the begin of a measurement that do not count."""

_DRAIN = """
import sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.subscribe(b"")
socket.connect(sys.argv[1])
print("ready", flush=True)
while True:
    socket.recv_multipart()
"""


@dataclass
class Measured:
    """One number of streams: ages in milliseconds, shares from 0 to 1, `cpu` in cores of this process and `busy` in
    cores of all processes."""

    streams: int
    held: bool
    frames: int
    frames_per_second: float
    age_p50: float
    age_p99: float
    dropped: float
    silent: int
    cpu: float
    busy: float
    stages: dict[str, float] = field(default_factory=dict)
    gpu: dict[str, float] = field(default_factory=dict)


def busy_seconds() -> float:
    """CPU seconds that all processes of this machine have used (Linux; elsewhere this one's)."""
    try:
        user, nice, system, _idle, _wait, *irq = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8])
    except (OSError, ValueError):
        return time.process_time()
    return (user + nice + system + sum(irq)) / os.sysconf("SC_CLK_TCK")


class Ages:
    """A sink that notes how old every frame is when it has been published."""

    def __init__(self, begin: float) -> None:
        self.begin, self.ages = begin, list[float]()

    def consume(self, analysis: Analysis) -> None:
        if time.monotonic() >= self.begin:
            self.ages.append(time.monotonic() - analysis.frame.arrived_at)


class Gpu:
    """Mean use of the GPU's parts while it is open, asked of `nvidia-smi` once a second; nothing without one."""

    def __init__(self) -> None:
        self._samples: list[list[float]] = []
        self._process: subprocess.Popen[str] | None = None
        if shutil.which("nvidia-smi"):
            query = "utilization.gpu,utilization.decoder,memory.used"
            command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", "-l", "1", "-i", "0"]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout if self._process and self._process.stdout else ():
            try:
                self._samples.append([float(part) for part in line.split(",")])
            except ValueError:
                continue  # a part that this GPU does not tell

    def close(self) -> dict[str, float]:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        names = ("sm", "decoder", "memory_mib")
        return {
            name: statistics.fmean(column)
            for name, column in zip(names, zip(*self._samples, strict=True), strict=False)
        }


def looped(footage: Path, path: Path, seconds: float) -> Path:
    """The clip again and again for some seconds, in one file: opening a file anew would be seen in the ages."""
    with av.open(str(path), "w") as target:
        stream, shift = None, 0
        while True:
            with av.open(str(footage)) as source:
                video = source.streams.video[0]
                stream = stream or target.add_stream_from_template(video)
                end = shift
                for packet in source.demux(video):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.stream = stream
                    target.mux(packet)
                unit = video.time_base
            if end == shift:
                sys.exit(f"{footage} holds no packets")
            shift = end
            if shift * unit >= seconds:
                break
    return path


def agreement(footage: Path, engine: Engine, model: str, decode: Decode, frames: int = 8) -> float:
    """Share of pixels to which the engine, by way of the decoder and converter that will be timed, gives the
    reference's class."""
    with closing(engines.load(model, device="cpu", precision="fp32", max_batch=1)) as reference:
        plain, own = ClipSource("reference", [footage]), ClipSource("own", [footage], decoding=Decoding("own", decode))
        plain.open(), own.open()
        shares = []
        try:
            for one, other in zip(plain, own, strict=True):
                if isinstance(one, AudioPacket) or isinstance(other, AudioPacket):
                    continue
                size = (engine.spec.height, engine.spec.width)
                expected = reference.submit([network_input(one.image, *size)]).result()[0].class_map
                stay = engine.backend in {"tensorrt", "torch"}
                found = engine.submit(network_inputs([other.image], *size, stay=stay)).result()[0].class_map
                shares.append(float((expected == found).mean()))
                if len(shares) == frames:
                    break
        finally:
            plain.close(), own.close()
    return statistics.fmean(shares)


def measure(
    count: int, footage: Path, engine: Engine, decode: Decode, seconds: float, bound: float, video: Path | None
) -> Measured:
    """Run `count` streams for `seconds` after warming up."""
    said: set[str] = set()

    def degraded(what: Degraded) -> None:
        if what.lacking not in said:
            said.add(what.lacking)
            print(f"  {what.sentence}")

    publisher = Publisher("tcp://127.0.0.1:0", "pub")
    drain = subprocess.Popen([sys.executable, "-c", _DRAIN, publisher.endpoint], stdout=subprocess.PIPE, text=True)
    assert drain.stdout is not None
    drain.stdout.readline()
    begin = time.monotonic() + WARM_UP
    plans, sinks, writers = [], [], []
    for number in range(count):
        name = f"camera-{number}"
        clip = ClipSource(name, [footage], decoding=Decoding(name, decode, degraded=degraded))
        source = RealtimeSource(clip, latency_bound=2.0)
        info = source.open()
        ages = Ages(begin)
        outputs: list[object] = [publisher, ages]
        stages = []
        if video is not None:
            writers.append(VideoWriter(video / f"{name}.mp4", info, VideoOptions(preset="ultrafast", audio=False)))
            outputs.insert(0, writers[-1])
            stages.append(OverlayStage(OverlayStyle()))
        plans.append(StreamPlan(source, info, stages, outputs))  # type: ignore[arg-type]  # a list of sinks
        sinks.append(ages)
    runtime = Runtime(plans, [LoadedModel(engine)])
    gpu = Gpu()
    runtime.start()
    time.sleep(max(begin - time.monotonic(), 0))
    dropped = {n: sum(c.dropped.values()) for n, c in runtime.counts().items()}
    wall, cpu, busy = time.monotonic(), time.process_time(), busy_seconds()
    time.sleep(seconds)
    wall, cpu, busy = time.monotonic() - wall, time.process_time() - cpu, busy_seconds() - busy
    late = sum(sum(c.dropped.values()) - dropped[n] for n, c in runtime.counts().items())
    taken = [list(sink.ages) for sink in sinks]
    runtime.abort()
    runtime.wait(10)
    result = runtime.result()
    used = gpu.close()
    for writer in writers:
        writer.close()
    drain.kill()
    drain.wait()
    publisher.close()
    ages_seen = np.array([age for each in taken for age in each] or [float("inf")]) * 1000
    frames, silent = sum(map(len, taken)), sum(not each for each in taken)
    share = late / max(late + frames, 1)
    p99 = float(np.percentile(ages_seen, 99))
    stages_used = {name: t.cpu / max(result.seconds, 1e-9) for name, t in result.stages.items()}
    held = p99 <= bound * 1000 and share <= DROPPED_AT_MOST and not silent
    return Measured(
        count, held, frames, frames / wall, float(np.percentile(ages_seen, 50)), p99, share, silent,
        cpu / wall, busy / wall, stages_used, used,
    )  # fmt: skip


def search(holds: Callable[[int], bool], most: int) -> int:
    """The largest number from 0 to `most` that holds, taking it that every smaller one does."""
    low, step = 0, 1
    while step <= most and holds(step):
        low, step = step, step * 2
    high = min(step, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def limit(over: Measured, cores: int) -> str:
    """What gave out first, from the figures of the smallest number that was not held."""
    if over.gpu.get("decoder", 0) > 90:
        return "decoding: NVDEC is busy all the time"
    if over.gpu.get("sm", 0) > 90:
        return "the network: the GPU is busy all the time"
    decoding = over.stages.get("decode", 0) + over.stages.get("wait", 0) + over.stages.get("resize", 0)
    if over.cpu > 0.85 * cores:
        # What the stages' own threads did not use, the engine's, the encoder's and NumPy's did.
        engine = over.cpu - sum(over.stages.values())
        parts = {"decoding and scaling": decoding, "the network and encoders": engine}
        parts["Python and the rest"] = over.cpu - decoding - engine
        name, share = max(parts.items(), key=lambda item: item[1])
        return f"{name}: the CPU is full ({over.cpu:.1f} of {cores} cores), {share / over.cpu:.0%} of it by this"
    if over.busy > 0.9 * cores:
        return f"other processes: they use {over.busy - over.cpu:.1f} of {cores} cores; measure on an idle machine"
    return f"Python: one interpreter lock, with {over.cpu:.1f} of {cores} cores in use and no device full"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("footage", type=Path, nargs="?", help="1080p30 H.264; a synthetic drive without")
    parser.add_argument("--model", default="cityscapes-unet")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--decode", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--bound", type=float, default=0.1, help="seconds, of the 99th percentile of the frame age")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--most", type=int, default=256, help="streams beyond which it is not tried")
    parser.add_argument("--size", default="1920x1080", help="of the synthetic drive")
    parser.add_argument("--video", action="store_true", help="draw the overlay and encode every stream, too")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args()
    lacking: list[str] = []

    def observe(what: Building | Degraded) -> None:
        if isinstance(what, Degraded):
            lacking.append(what.sentence)

    with tempfile.TemporaryDirectory() as temporary:
        footage = given.footage
        if footage is None:
            footage = Path(temporary) / "drive.mp4"
            width, height = (int(part) for part in given.size.split("x"))
            write_clip(footage, frames=90, size=(width, height), fps=Fraction(30), gop=30)
        with av.open(str(footage)) as container:
            video = container.streams.video[0]
            what = (
                f"{video.width}×{video.height} {video.codec_context.name} at {float(video.average_rate or 0):.0f} fps"
            )
        batch = max(1, min(32, given.most))
        footage = looped(footage, Path(temporary) / "looped.mp4", given.seconds + 2 * WARM_UP + 10)
        loaded = engines.load(
            given.model, device=given.device, precision=given.precision, max_batch=batch, hint="latency",
            observe=observe,
        )  # fmt: skip
        with closing(loaded) as engine:
            decode: Decode = "cpu" if given.decode == "auto" and engine.backend == "openvino" else given.decode
            right = agreement(footage, engine, given.model, decode)
            print(f"{what}; {given.model} {engine.precision} by {engine.backend} on {engine.device}")
            print(f"class maps agree with the reference at {right:.4f} of the pixels")
            if right < AGREEMENT_AT_LEAST:
                sys.exit(f"below {AGREEMENT_AT_LEAST}: nothing is timed")
            tried: dict[int, Measured] = {}

            def holds(count: int) -> bool:
                place = Path(temporary) if given.video else None
                one = tried[count] = measure(count, footage, engine, decode, given.seconds, given.bound, place)
                print(
                    f"{count:4d} streams {'held    ' if one.held else 'not held'} {one.frames_per_second:7.1f} fps, "
                    f"age p50 {one.age_p50:6.1f} ms p99 {one.age_p99:7.1f} ms, dropped {one.dropped:.1%}, "
                    f"{one.cpu:.1f} of {one.busy:.1f} busy cores"
                    + "".join(f", {k} {v:.0f}" for k, v in one.gpu.items()),
                    flush=True,
                )
                return one.held

            capacity = search(holds, given.most)
            over = [one for one in tried.values() if one.streams > capacity]
            cores = len(os.sched_getaffinity(0))
            reason = limit(min(over, key=lambda one: one.streams), cores) if over else "not reached"
            machine = {"cpu": platform.processor() or platform.machine(), "cores": cores, "device": engine.device}
            print(f"\ncapacity: {capacity} streams of {what} with p99 age ≤ {given.bound * 1000:.0f} ms")
            print(f"limit: {reason}")
            for sentence in lacking:
                print(f"without: {sentence}")
            if given.json:
                figures = {
                    "capacity": capacity, "bound": given.bound, "footage": what, "model": given.model,
                    "backend": engine.backend, "precision": engine.precision, "decode": decode, "agreement": right,
                    "limit": reason, "machine": machine, "lacking": lacking,
                    "measured": [asdict(one) for one in sorted(tried.values(), key=lambda one: one.streams)],
                }  # fmt: skip
                given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
