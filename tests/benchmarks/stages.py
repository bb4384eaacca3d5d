"""Single stages beside the tools that do one thing, in turn in one run.

    python -m tests.benchmarks.stages FOOTAGE [--rounds 7] [--record]

- decode: FOOTAGE to pictures of the network's size, by the sources of roadlens, by OpenCV's capture, and by torchcodec
  where it is installed;
- overlay: the colours of 14 classes on 1080p, by roadlens (in YUV), `cv2.addWeighted`, which has to have
  BGR, and supervision's annotator;
- mask: a class map of 512×256 with 14 classes, by roadlens as PNG and as run lengths, `cv2.imencode`, pycocotools;
- message: a header there and back, by roadlens as MessagePack and as JSON, by msgpack, by protobuf with a schema of
  these fields, and by json of Python;
- engine: one picture after the other through `cityscapes-unet` in fp32 and bf16, by roadlens, by OpenVINO's own API, by
  ONNX Runtime and by `torch.compile`;
- publish: messages to one subscriber over TCP, by roadlens' Publisher and Subscriber, and by plain pyzmq with the same
  encoding and decoding.

What is measured is CPU time of the whole process, all threads, of one item: of all figures the one that a busy machine
changes least. The ratio is the median over the rounds of that within a round. `--record` puts the table into
RESULTS.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import msgpack
import msgspec
import numpy as np
import onnxruntime
import zmq
from google import protobuf
from google.protobuf import descriptor_pb2, message_factory
from numpy.typing import NDArray
from pycocotools import mask as coco

import engines
from engines.bundled import resolve
from engines.classes import CITYSCAPES_CLASSES
from engines.pytorch.engine import TorchEngine
from engines.spec import read_spec
from pipeline.drawing.overlay import Overlay, OverlayStyle
from pipeline.frame import Frame
from pipeline.messages.composing import from_analysis
from pipeline.messages.masks import encode_png, encode_runs
from pipeline.messages.publish import Publisher
from pipeline.messages.subscriber import Subscriber
from pipeline.messages.wire import decode, decode_header, encode
from pipeline.pictures.colors import Colorimetry
from pipeline.pictures.picture import Picture
from pipeline.sources.resolve import resolve_source
from tests.benchmarks.compare import machine
from tests.benchmarks.loops import OPACITY, Network, PlainOpenVINO, palette_loop, supervision_loop
from tests.benchmarks.peers import RESULTS, commit
from tests.pipeline.fake_analysis import analysis
from tests.pipeline.messages.test_publish import until_subscribed

Stage = dict[str, Callable[[], int]]
"""The sides of a stage, roadlens first: each does its work and says how many items it did."""

SIZE = (256, 512)
CLASSES = 14


def class_map() -> NDArray[np.uint8]:
    """Fourteen classes in blobs with uneven edges, as networks give them."""
    random = np.random.default_rng(0)
    coarse = random.random((CLASSES, 8, 16)).astype(np.float32)
    scores = np.stack([cv2.resize(each, SIZE[::-1], interpolation=cv2.INTER_CUBIC) for each in coarse])
    return scores.argmax(0).astype(np.uint8)


SEEN = class_map()


def times(count: int, work: Callable[[], Any], items: int = 1) -> Callable[[], int]:
    """Work on so many items, so many times."""

    def repeat() -> int:
        for _ in range(count):
            work()
        return count * items

    return repeat


# The stages -----------------------------------------------------------------------------------------------------------
def decoding(footage: Path) -> Stage:
    height, width = SIZE

    def ours() -> int:
        source, frames = resolve_source(str(footage), "clip"), 0
        source.open()
        for item in source:
            if isinstance(item, Frame):
                Picture.of(item.image).network_input(height, width)
                frames += 1
        source.close()
        return frames

    def opencv() -> int:
        capture, frames = cv2.VideoCapture(str(footage)), 0
        while (read := capture.read())[0]:
            cv2.cvtColor(cv2.resize(read[1], (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
            frames += 1
        return frames

    sides: Stage = {"roadlens": ours, f"opencv-python {cv2.__version__}": opencv}
    if importlib.util.find_spec("torchcodec"):
        from torchcodec.decoders import VideoDecoder

        def torchcodec() -> int:
            frames = 0
            for picture in VideoDecoder(str(footage), dimension_order="NHWC"):
                cv2.resize(picture.numpy(), (width, height), interpolation=cv2.INTER_AREA)
                frames += 1
            return frames

        sides["torchcodec"] = torchcodec
    return sides


def overlay() -> Stage:
    import supervision

    picture = np.random.default_rng(1).integers(0, 256, (1080, 1920, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p")
    style = OverlayStyle(opacity=OPACITY, outlines=False, boxes=False)
    drawing = Overlay(style, CITYSCAPES_CLASSES, Colorimetry.of(frame))
    seen = analysis(0, class_map=SEEN, boxes=())
    seen.frame.image = frame
    network = Network("", SIZE[1], SIZE[0], "", [each.color for each in CITYSCAPES_CLASSES], "")
    blended, annotated = palette_loop(network), supervision_loop(network)

    def from_and_to_yuv() -> None:
        drawn = blended(frame.to_ndarray(format="bgr24"), SEEN)
        av.VideoFrame.from_ndarray(drawn, format="bgr24").reformat(format="yuv420p")

    return {
        "roadlens": times(40, lambda: drawing.draw(seen)),
        "cv2.addWeighted": times(20, lambda: blended(picture, SEEN)),
        "the same, from YUV and to YUV": times(10, from_and_to_yuv),
        f"supervision {supervision.__version__}": times(2, lambda: annotated(picture, SEEN)),
    }


def masks() -> Stage:
    def runs_of_coco() -> None:
        coco.encode(np.asfortranarray(np.stack([each == SEEN for each in range(CLASSES)], 2).astype(np.uint8)))

    return {
        "roadlens, PNG": times(100, lambda: encode_png(SEEN, CITYSCAPES_CLASSES)),
        "roadlens, run lengths": times(100, lambda: encode_runs(SEEN)),
        "cv2.imencode, PNG": times(100, lambda: cv2.imencode(".png", SEEN)),
        "pycocotools, a mask a class": times(20, runs_of_coco),
    }


def messages() -> Stage:
    header = from_analysis(analysis(3), 3, run="c0ffee")
    plain = msgspec.json.decode(msgspec.json.encode(header))  # lists, no tuples
    return {
        "roadlens, MessagePack": times(1000, lambda: decode_header(encode(header).parts[1])),
        "roadlens, JSON": times(1000, lambda: decode_header(encode(header, header="json").parts[1])),
        f"protobuf {protobuf.__version__}": times(1000, in_protobuf(plain)),
        "msgpack": times(1000, lambda: msgpack.unpackb(msgpack.packb(plain))),
        "json of Python": times(1000, lambda: json.loads(json.dumps(plain).encode())),
    }


def in_protobuf(plain: dict[str, Any]) -> Callable[[], Any]:
    """There and back as a message whose schema is made of what is in a header; what is null or empty is no field."""
    file = descriptor_pb2.FileDescriptorProto(name="header.proto", syntax="proto3")
    told = known(plain)
    describe(file.message_type.add(name="Header"), told)
    header = message_factory.GetMessages([file])["Header"]
    again = header.FromString(header(**told).SerializeToString())
    assert again.boxes[0].label == plain["boxes"][0]["label"]
    assert dict(again.area) == plain["area"]
    return lambda: header.FromString(header(**told).SerializeToString())


def known(plain: dict[str, Any]) -> dict[str, Any]:
    """Without what is null or empty, also in lists."""
    return {
        name: [known(each) if isinstance(each, dict) else each for each in value] if isinstance(value, list) else value
        for name, value in plain.items()
        if value not in (None, [], {})
    }


def describe(message: descriptor_pb2.DescriptorProto, plain: dict[str, Any]) -> None:
    """Fields of a message by the values of an example."""
    for name, value in plain.items():
        repeated = isinstance(value, list | dict)
        field = message.field.add(name=name, number=len(message.field) + 1, label=3 if repeated else 1)
        one = value[0] if isinstance(value, list) else value
        if isinstance(value, dict):  # a map is repeated entries of a key and a value
            kind = f"{name.title().replace('_', '')}Entry"
            entry = message.nested_type.add(name=kind)
            entry.options.map_entry = True
            describe(entry, {"key": "a name", "value": next(iter(value.values()))})
            field.type, field.type_name = field.TYPE_MESSAGE, kind
        elif isinstance(one, dict):
            describe(message.nested_type.add(name=f"One{name.title()}"), one)
            field.type, field.type_name = field.TYPE_MESSAGE, f"One{name.title()}"
        else:
            field.type = {bool: field.TYPE_BOOL, int: field.TYPE_INT64, float: field.TYPE_DOUBLE}.get(
                type(one), field.TYPE_STRING
            )


def engine(stack: ExitStack, precision: Literal["fp32", "bf16"]) -> Stage:
    path = resolve("cityscapes-unet")
    spec = read_spec(path)
    picture = np.random.default_rng(2).integers(0, 256, (spec.height, spec.width, 3), np.uint8)
    ours = stack.enter_context(closing(engines.load(path, "cpu", precision, 1)))
    plain = PlainOpenVINO(Network(str(path), spec.width, spec.height, spec.outputs["class_map"], [], precision))
    compiled = stack.enter_context(closing(TorchEngine(path, device="cpu", precision=precision, compiled=True)))
    sides: Stage = {
        "roadlens": times(40, lambda: ours(picture)),
        f"openvino {version('openvino')}": times(40, lambda: plain(picture[..., ::-1])),
        f"torch.compile {version('torch')}": times(20, lambda: compiled(picture)),
    }
    if precision == "fp32":  # it runs the file as it is
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        [name] = [each.name for each in session.get_inputs()]
        sides[f"onnxruntime {onnxruntime.__version__}"] = times(20, lambda: session.run(None, {name: picture[None]}))
    return sides


BURST = 4
"""Messages on their way at once: fewer than either side queues."""


def publishing(stack: ExitStack) -> Stage:
    many = [analysis(index, class_map=SEEN) for index in range(BURST)]
    publisher = stack.enter_context(Publisher("tcp://127.0.0.1:*"))
    subscriber = stack.enter_context(Subscriber(publisher.endpoint, timeout=60))
    context = stack.enter_context(zmq.Context())
    out, into = stack.enter_context(context.socket(zmq.PUB)), stack.enter_context(context.socket(zmq.SUB))
    out.bind("tcp://127.0.0.1:*")
    into.connect(out.getsockopt_string(zmq.LAST_ENDPOINT))
    into.setsockopt(zmq.SUBSCRIBE, b"roadlens/v1/")
    numbers = iter(range(1 << 30))

    def ours() -> None:
        for each in many:
            publisher.consume(each)
        for _ in many:
            subscriber.receive()

    def plain() -> None:
        for each in many:
            out.send_multipart(encode(from_analysis(each, next(numbers)), each.class_map, each.classes).parts)
        for _ in many:
            decode(into.recv_multipart())

    until_subscribed(publisher)
    time.sleep(1)  # the other one has no word of it
    return {"roadlens": times(20, ours, BURST), f"pyzmq {zmq.__version__}": times(20, plain, BURST)}


# Measuring ------------------------------------------------------------------------------------------------------------
def measured(sides: Stage, rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds of an item, of each side in each round."""
    took: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, work in sides.items():
            before = time.process_time()
            items = work()
            if number:  # the first round warms up
                took[name].append((time.process_time() - before) * 1000 / items)
    return took


def rows(stage: str, took: dict[str, list[float]]) -> list[str]:
    first = next(iter(took.values()))
    made = []
    for name, each in took.items():
        ratio = statistics.median(other / ours for ours, other in zip(first, each, strict=True))
        made.append(
            f"| {stage} | {name} | {statistics.median(each):.3g} | {'' if each is first else f'{ratio:.2f}×'} |"
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("footage", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--stages", nargs="*", help="these alone")
    parser.add_argument("--record", action="store_true", help="put the figures into RESULTS.md")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    table = ["| stage | side | CPU ms | times roadlens' first |", "|---|---|---|---|"]
    with ExitStack() as stack:
        stages: dict[str, Callable[[], Stage]] = {
            "decode": lambda: decoding(arguments.footage), "overlay": overlay, "mask": masks, "message": messages,
            "publish": lambda: publishing(stack), "engine, fp32": lambda: engine(stack, "fp32"),
            "engine, bf16": lambda: engine(stack, "bf16"),
        }  # fmt: skip
        for name, sides in stages.items():
            if not arguments.stages or name in arguments.stages:
                made = rows(name, measured(sides(), arguments.rounds))
                print("\n".join(made), flush=True)
                table += made
    if arguments.record:
        told = machine()
        title = f"## {datetime.now(UTC):%Y-%m-%d}, {commit()}: stages"
        on = f"Decoded: {arguments.footage.name}. Medians of {arguments.rounds} rounds; {told['cpu']}, "
        on += f"load {os.getloadavg()[1]:.1f}."
        with RESULTS.open("a") as file:
            file.write("\n".join(["", title, "", on, "", *table, ""]))


if __name__ == "__main__":
    main()
