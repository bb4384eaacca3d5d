"""How many cameras this machine holds: the most live 1080p30 H.264 streams that are segmented and published with a
99th percentile of the frame age within a bound.

    python tests/benchmarks/capacity.py [FOOTAGE] [--bound 0.1] [--seconds 10] [--device auto] [--most 64]

Every stream is the clip played in real time (`realtime`: the newest frame wins, and a frame's age counts from when it
was due, so that a decoder that comes late is seen), decoded, segmented, and published over ZeroMQ with its mask to a
subscriber of the analyses in a process of its own. The clock starts when all stream, and they start apart, as cameras
do: neither their pictures nor their key frames come at once. A number of streams is held when p99 age ≤ bound, at most
1 % of the frames were dropped, the subscriber received 99 % of what was published in sequence, and every stream gave
frames. The number is found by doubling and halving; each is measured afresh.

Before anything is timed, class maps of the decoder, converter and engine that will be timed are compared with the
reference (decoded on the CPU, FFmpeg's scaler, PyTorch on the CPU in fp32, OpenVINO where it is not installed): an
engine that is fast and wrong does not count.

Without FOOTAGE a synthetic drive is encoded first. Printed at the end: the figures of every number tried, where the
limit is (decoding, network, or Python and the rest), and what could not be had. With --json the file is whole after
every number tried.
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
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import av
import numpy as np

import engines
from engines.engine import Backend, Engine
from engines.errors import RoadlensError
from engines.loading import Building, Degraded
from pipeline.contracts import AudioPacket
from pipeline.drawing.overlay import OverlayStage, OverlayStyle
from pipeline.frame import Analysis, Frame
from pipeline.messages.publish import Publisher
from pipeline.messages.topics import topic
from pipeline.outputs.mp4 import VideoOptions, VideoWriter
from pipeline.pictures.inputs import network_input
from pipeline.pictures.picture import network_inputs
from pipeline.runtime import LoadedModel, Runtime, StreamPlan
from pipeline.sources.clips import ClipSource
from pipeline.sources.decoding import Decode, Decoding
from pipeline.sources.realtime import RealtimeSource
from tests.footage import write_clip

DROPPED_AT_MOST = 0.01
AGREEMENT_AT_LEAST = 0.97
"""Share of pixels with the reference's class. Two scalers that differ by a level and half precision give 0.98 to 1."""

WARM_UP = 2.0
"""Seconds at the begin of a measurement that do not count."""

RECEIVED_AT_LEAST = 0.99
"""Share of the published analyses that must reach a subscriber in sequence."""

STARTED_WITHIN = 60.0
"""Seconds in which every stream must have given a frame."""

GOP = Fraction(1)
"""Seconds between key frames, of the synthetic drive."""

_DRAIN = """
import sys, msgspec, zmq
class Header(msgspec.Struct):
    stream: str
    sequence: int
decode = msgspec.msgpack.Decoder(Header).decode
socket = zmq.Context().socket(zmq.SUB)
socket.rcvhwm = 100_000
for topic in sys.argv[2:]:
    socket.subscribe(topic.encode())
socket.connect(sys.argv[1])
poller = zmq.Poller()
poller.register(socket, zmq.POLLIN)
poller.register(sys.stdin, zmq.POLLIN)
print("ready", flush=True)
last, in_sequence = {}, 0
while True:
    ready = dict(poller.poll())
    while True:
        try:
            header = decode(socket.recv_multipart(zmq.NOBLOCK)[1])
        except zmq.Again:
            break
        in_sequence += header.sequence == last.get(header.stream, header.sequence - 1) + 1
        last[header.stream] = header.sequence
        if sys.stdin.fileno() in ready:
            break
    if sys.stdin.fileno() in ready:
        if not sys.stdin.readline():
            break
        print(in_sequence, flush=True)
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
    received: float = 1.0
    took: float = 0.0
    degraded: list[str] = field(default_factory=list)


class OutOfTime(Exception):  # noqa: N818  # no error: what there is is reported
    """There is no time left to measure another number of streams."""


def busy_seconds() -> float:
    """CPU seconds that all processes of this machine have used (Linux; elsewhere this one's)."""
    try:
        user, nice, system, _idle, _wait, *irq = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8])
    except (OSError, ValueError):
        return time.process_time()
    return (user + nice + system + sum(irq)) / os.sysconf("SC_CLK_TCK")


class Ages:
    """A sink that notes when every frame has been published, and how old it is then."""

    def __init__(self) -> None:
        self.noted = list[tuple[float, float]]()

    def consume(self, analysis: Analysis) -> None:
        now = time.monotonic()
        self.noted.append((now, now - analysis.frame.arrived_at))

    def between(self, begin: float, end: float) -> list[float]:
        """Ages of the frames that were published in a span."""
        return [age for at, age in self.noted if begin <= at < end]


class Drain:
    """A subscriber of the analyses of all streams, in a process of its own."""

    def __init__(self, endpoint: str, names: list[str]) -> None:
        topics = [topic(name, "analysis").decode() for name in names]
        command = [sys.executable, "-c", _DRAIN, endpoint, *topics]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def received(self) -> int:
        """How many came in sequence until now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Camera(ClipSource):
    """A clip that begins some time after it is asked for its first picture."""

    delay = 0.0

    def __iter__(self) -> Iterator[Frame | AudioPacket]:
        time.sleep(self.delay)
        yield from super().__iter__()


def delays(count: int, rate: Fraction) -> list[float]:
    """When each of some streams begins, seconds: key frames are spread over the pictures between two of them, and
    pictures over the time of one."""
    pictures = rate * GOP
    return [float((number * pictures // count + Fraction(number, count)) / rate) for number in range(count)]


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
    backend: Backend = "torch" if find_spec("torch") else "openvino"
    with closing(engines.load(model, device="cpu", precision="fp32", max_batch=1, backend=backend)) as reference:
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


def plans_of(
    count: int,
    footage: Path,
    decode: Decode,
    publisher: Publisher,
    video: Path | None,
    degraded: Callable[[Degraded], None],
) -> tuple[list[StreamPlan], list[Ages], list[VideoWriter]]:
    """Streams of the clip, open, with what notes their ages and writes their video."""
    plans, sinks, writers = list[StreamPlan](), list[Ages](), list[VideoWriter]()
    for number in range(count):
        name = f"camera-{number}"
        clip = Camera(name, [footage], decoding=Decoding(name, decode, degraded=degraded))
        source = RealtimeSource(clip, latency_bound=2.0)
        info = source.open()
        clip.delay = delays(count, info.rate)[number]
        sinks.append(Ages())
        outputs: list[object] = [publisher, sinks[-1]]
        stages = []
        if video is not None:
            writers.append(VideoWriter(video / f"{name}.mp4", info, VideoOptions(preset="ultrafast", audio=False)))
            outputs.insert(0, writers[-1])
            stages.append(OverlayStage(OverlayStyle()))
        plans.append(StreamPlan(source, info, stages, outputs))  # type: ignore[arg-type]  # a list of sinks
    return plans, sinks, writers


def measure(
    count: int, footage: Path, engine: Engine, decode: Decode, seconds: float, bound: float, video: Path | None
) -> Measured:
    """Run `count` streams for `seconds` after all have begun and warmed up."""
    said: dict[str, str] = {}

    def degraded(what: Degraded) -> None:
        if what.lacking not in said:
            said[what.lacking] = what.sentence
            print(f"  {what.sentence}")

    publisher = Publisher("tcp://127.0.0.1:0", "pub")
    drain = Drain(publisher.endpoint, [f"camera-{number}" for number in range(count)])
    plans, sinks, writers = plans_of(count, footage, decode, publisher, video, degraded)
    runtime = Runtime(plans, [LoadedModel(engine)], degraded=degraded)
    gpu = Gpu()
    runtime.start()
    patience = time.monotonic() + STARTED_WITHIN
    while not all(sink.noted for sink in sinks) and time.monotonic() < patience:
        time.sleep(0.02)
    time.sleep(WARM_UP)
    dropped = {n: sum(c.dropped.values()) for n, c in runtime.counts().items()}
    begin, cpu, busy, received = time.monotonic(), time.process_time(), busy_seconds(), drain.received()
    time.sleep(seconds)
    end, received = time.monotonic(), drain.received() - received
    wall, cpu, busy = end - begin, time.process_time() - cpu, busy_seconds() - busy
    late = sum(sum(c.dropped.values()) - dropped[n] for n, c in runtime.counts().items())
    runtime.abort()
    runtime.wait(10)
    result = runtime.result()
    used = gpu.close()
    for writer in writers:
        writer.close()
    drain.close()
    publisher.close()
    taken = [sink.between(begin, end) for sink in sinks]
    ages_seen = np.array([age for each in taken for age in each] or [float("inf")]) * 1000
    frames, silent = sum(map(len, taken)), sum(not each for each in taken)
    share, arrived = late / max(late + frames, 1), min(received / max(frames, 1), 1.0)
    p99 = float(np.percentile(ages_seen, 99))
    stages_used = {name: t.cpu / max(result.seconds, 1e-9) for name, t in result.stages.items()}
    held = p99 <= bound * 1000 and share <= DROPPED_AT_MOST and arrived >= RECEIVED_AT_LEAST and not silent
    return Measured(
        count, held, frames, frames / wall, float(np.percentile(ages_seen, 50)), p99, share, silent,
        cpu / wall, busy / wall, stages_used, used, arrived, degraded=list(said.values()),
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
    if over.received < RECEIVED_AT_LEAST:
        return f"the subscriber: {over.received:.1%} of what was published reached it in sequence"
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
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds in which it ends by itself")
    given = parser.parse_args()
    started = time.monotonic()
    lacking: list[str] = []

    def observe(what: Building | Degraded) -> None:
        if isinstance(what, Degraded):
            lacking.append(what.sentence)

    with tempfile.TemporaryDirectory() as temporary:
        footage = given.footage
        if footage is None:
            footage = Path(temporary) / "drive.mp4"
            width, height = (int(part) for part in given.size.split("x"))
            write_clip(footage, frames=90, size=(width, height), fps=Fraction(30), gop=round(30 * GOP))
        with av.open(str(footage)) as container:
            video = container.streams.video[0]
            what = (
                f"{video.width}×{video.height} {video.codec_context.name} at {float(video.average_rate or 0):.0f} fps"
            )
        batch = max(1, min(32, given.most))
        footage = looped(footage, Path(temporary) / "looped.mp4", given.seconds + WARM_UP + STARTED_WITHIN)
        try:
            loaded = engines.load(
                given.model, device=given.device, precision=given.precision, max_batch=batch, hint="latency",
                observe=observe,
            )  # fmt: skip
        except RoadlensError as error:
            sys.exit(str(error))
        with closing(loaded) as engine:
            decode: Decode = "cpu" if given.decode == "auto" and engine.backend == "openvino" else given.decode
            right = agreement(footage, engine, given.model, decode)
            print(f"{what}; {given.model} {engine.precision} by {engine.backend} on {engine.device}")
            print(f"class maps agree with the reference at {right:.4f} of the pixels")
            if right < AGREEMENT_AT_LEAST:
                sys.exit(f"below {AGREEMENT_AT_LEAST}: nothing is timed")
            tried: dict[int, Measured] = {}
            about = {
                "bound": given.bound, "footage": what, "model": given.model, "backend": engine.backend,
                "precision": engine.precision, "decode": decode, "agreement": right, "machine": machine(engine),
            }  # fmt: skip

            def holds(count: int) -> bool:
                longest = max((one.took for one in tried.values()), default=given.seconds + WARM_UP)
                if time.monotonic() - started + longest * 1.3 > given.limit:
                    raise OutOfTime
                place, began = Path(temporary) if given.video else None, time.monotonic()
                one = tried[count] = measure(count, footage, engine, decode, given.seconds, given.bound, place)
                one.took = time.monotonic() - began
                print(line(one), flush=True)
                lacking.extend(sentence for sentence in one.degraded if sentence not in lacking)
                if given.json:
                    write(given.json, about | {"finished": False, "lacking": lacking}, tried)
                return one.held

            try:
                capacity, finished = search(holds, given.most), True
            except OutOfTime:
                capacity, finished = max((one.streams for one in tried.values() if one.held), default=0), False
            reason = reached(tried, capacity)
            print(
                f"\ncapacity: {capacity} streams of {what} with p99 age ≤ {given.bound * 1000:.0f} ms"
                + ("" if finished else f" or more: the {given.limit:.0f} s are over")
            )
            print(f"limit: {reason}")
            for sentence in lacking:
                print(f"without: {sentence}")
            if given.json:
                found = {"capacity": capacity, "finished": finished, "limit": reason, "lacking": lacking}
                write(given.json, about | found, tried)


def machine(engine: Engine) -> dict[str, object]:
    """What is measured on."""
    cores = len(os.sched_getaffinity(0))
    return {"cpu": platform.processor() or platform.machine(), "cores": cores, "device": engine.device}


def line(one: Measured) -> str:
    """A number of streams and what came of it."""
    return (
        f"{one.streams:4d} streams {'held    ' if one.held else 'not held'} {one.frames_per_second:7.1f} fps, "
        f"age p50 {one.age_p50:6.1f} ms p99 {one.age_p99:7.1f} ms, dropped {one.dropped:.1%}, "
        f"received {one.received:.1%}, {one.cpu:.1f} of {one.busy:.1f} busy cores"
        + "".join(f", {k} {v:.0f}" for k, v in one.gpu.items())
    )


def reached(tried: dict[int, Measured], capacity: int) -> str:
    """What gave out first at the smallest number that was not held."""
    over = [one for one in tried.values() if one.streams > capacity]
    if not over:
        return "not reached"
    return limit(min(over, key=lambda one: one.streams), len(os.sched_getaffinity(0)))


def write(path: Path, figures: dict[str, object], tried: dict[int, Measured]) -> None:
    """All that is known so far, in place of what was: a run that is cut off leaves a whole file."""
    measured = [asdict(one) for one in sorted(tried.values(), key=lambda one: one.streams)]
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(figures | {"measured": measured}, indent=2) + "\n")
    partial.replace(path)


if __name__ == "__main__":
    main()
