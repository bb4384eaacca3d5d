"""What people write or take today, each with our network: nothing of roadlens is imported here.

    python tests/benchmarks/loops.py SIDE FOOTAGE --network network.json --video out.mp4 | --lines out.jsonl

Sides: `opencv` (cv2.VideoCapture and a loop), `supervision` (the same, with `supervision.MaskAnnotator` drawing),
`inference` (roboflow's `InferencePipeline` with logic of one's own) and `vidgear` (CamGear; WriteGear writes). Each
runs in the Python that has its packages, and prints a line of JSON: frames, wall and CPU seconds, with those of
processes that it starts.

The network is a file for OpenVINO, compiled by OpenVINO's own API and asked for one picture at a time. Its description
is a JSON object: `path`, `width`, `height`, `output` (the class map's name), `colors` (RGB, one a class), `precision`.
A picture goes into H.264 by libx264 with the classes over it, or becomes a line of JSON with each class' share.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray

Draw = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]]
"""(picture, class map) → the picture with the classes on it, BGR."""

OPACITY = 0.45


@dataclass
class Network:
    """What is asked about each picture; see the module's head."""

    path: str
    width: int
    height: int
    output: str
    colors: list[tuple[int, int, int]]
    precision: str

    @classmethod
    def read(cls, path: Path) -> Network:
        return cls(**json.loads(path.read_text()))


@dataclass(frozen=True)
class Encoding:
    """Settings of libx264."""

    preset: str = "veryfast"
    crf: int = 23


class PlainOpenVINO:
    """The model by OpenVINO's own API, one picture at a time."""

    def __init__(self, network: Network) -> None:
        self.network = network
        core = ov.Core()
        model = core.read_model(network.path)
        model.reshape([1, network.height, network.width, 3])
        hint = {"fp32": "f32"}.get(network.precision, "bf16")
        self._compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        self._class_map = self._compiled.output(network.output)
        self(np.zeros((network.height, network.width, 3), np.uint8))

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The class map of a picture of any size, BGR."""
        small = cv2.resize(picture, (self.network.width, self.network.height), interpolation=cv2.INTER_AREA)
        class_map: NDArray[np.uint8] = self._compiled([cv2.cvtColor(small, cv2.COLOR_BGR2RGB)[None]])[self._class_map][
            0
        ]
        return class_map


class Sink(Protocol):
    """What becomes of a picture and its class map."""

    def put(self, picture: NDArray[np.uint8], class_map: NDArray[np.uint8]) -> None: ...
    def close(self) -> None: ...


class Video:
    """Drawn and encoded."""

    def __init__(self, path: Path, size: tuple[int, int], rate: float, draw: Draw, encoding: Encoding) -> None:
        import av

        self._av, self._draw = av, draw
        self._container = av.open(str(path), "w")
        self._stream = self._container.add_stream("libx264", rate=round(rate))
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt, self._stream.gop_size = "yuv420p", round(2 * rate)
        self._stream.options = {"preset": encoding.preset, "crf": str(encoding.crf)}

    def put(self, picture: NDArray[np.uint8], class_map: NDArray[np.uint8]) -> None:
        drawn = self._draw(picture, class_map)
        self._container.mux(self._stream.encode(self._av.VideoFrame.from_ndarray(drawn, format="bgr24")))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


class GearVideo:
    """Drawn, and written by vidgear's WriteGear."""

    def __init__(self, path: Path, rate: float, draw: Draw, encoding: Encoding) -> None:
        from vidgear.gears import WriteGear

        self._draw = draw
        self._writer = WriteGear(
            str(path), compression_mode=True, custom_ffmpeg="/usr/bin/ffmpeg",
            **{
                "-input_framerate": rate, "-vcodec": "libx264", "-preset": encoding.preset, "-crf": encoding.crf,
                "-g": round(2 * rate), "-pix_fmt": "yuv420p",
            },
        )  # fmt: skip

    def put(self, picture: NDArray[np.uint8], class_map: NDArray[np.uint8]) -> None:
        self._writer.write(self._draw(picture, class_map))

    def close(self) -> None:
        self._writer.close()


class Lines:
    """A line of JSON a picture: its number and each class' share."""

    def __init__(self, path: Path, classes: int) -> None:
        self._file, self._classes, self._number = path.open("w"), classes, 0

    def put(self, picture: NDArray[np.uint8], class_map: NDArray[np.uint8]) -> None:
        counts = np.bincount(class_map.ravel(), minlength=self._classes) / class_map.size
        shares = {str(k): round(float(share), 4) for k, share in enumerate(counts) if share}
        self._file.write(json.dumps({"frame": self._number, "area": shares}) + "\n")
        self._number += 1

    def close(self) -> None:
        self._file.close()


def palette_loop(network: Network) -> Draw:
    """Colours by a palette at full size, blended by cv2.addWeighted."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(network.colors)] = [color[::-1] for color in network.colors]

    def draw(picture: NDArray[np.uint8], class_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
        colors = palette[class_map]
        colors = cv2.resize(colors, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_NEAREST)
        return cv2.addWeighted(picture, 1 - OPACITY, colors, OPACITY, 0)

    return draw


def supervision_loop(network: Network) -> Draw:
    """A mask a class, handed to supervision's annotator."""
    import supervision as sv

    palette = sv.ColorPalette([sv.Color(*color) for color in network.colors])
    annotator = sv.MaskAnnotator(color=palette, opacity=OPACITY, color_lookup=sv.ColorLookup.CLASS)

    def draw(picture: NDArray[np.uint8], class_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
        full = cv2.resize(class_map, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_NEAREST)
        present = np.unique(full)
        masks = np.stack([full == class_id for class_id in present])
        detections = sv.Detections(xyxy=sv.mask_to_xyxy(masks), mask=masks, class_id=present.astype(int))
        return annotator.annotate(picture.copy(), detections)

    return draw


def measure(footage: Path) -> tuple[tuple[int, int], float]:
    """Width and height, and frames a second."""
    capture = cv2.VideoCapture(str(footage))
    size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    return size, capture.get(cv2.CAP_PROP_FPS)


def by_opencv(footage: Path, model: PlainOpenVINO, sink: Sink) -> int:
    """One frame after the other, all in one thread."""
    capture, frames = cv2.VideoCapture(str(footage)), 0
    while True:
        good, picture = capture.read()
        if not good:
            return frames
        sink.put(picture, model(picture))
        frames += 1


def by_vidgear(footage: Path, model: PlainOpenVINO, sink: Sink) -> int:
    """CamGear decodes in a thread of its own."""
    from vidgear.gears import CamGear

    stream, frames = CamGear(source=str(footage)).start(), 0
    while (picture := stream.read()) is not None:
        sink.put(picture, model(picture))
        frames += 1
    stream.stop()
    return frames


def by_inference(footage: Path, model: PlainOpenVINO, sink: Sink) -> int:
    """roboflow's InferencePipeline: decoding, inference and the sink have a thread each."""
    from inference import InferencePipeline

    frames = 0

    def look(video_frames: list[Any]) -> list[NDArray[np.uint8]]:
        return [model(frame.image) for frame in video_frames]

    def take(found: Any, frame: Any) -> None:
        nonlocal frames
        sink.put(frame.image, found)
        frames += 1

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=str(footage), on_video_frame=look, on_prediction=take
    )
    pipeline.start(use_main_thread=True)
    pipeline.join()
    return frames


SIDES = {"opencv": by_opencv, "supervision": by_opencv, "inference": by_inference, "vidgear": by_vidgear}
PACKAGES = {"opencv": "opencv-python", "supervision": "supervision", "inference": "inference", "vidgear": "vidgear"}


LIBRARIES = {"inference": ("inference", "InferencePipeline"), "vidgear": ("vidgear.gears", "CamGear")}
"""What a side imports of a library that takes seconds to import: before the clock runs, as the model is loaded."""


def cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(
        resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def run(side: str, footage: Path, model: PlainOpenVINO, output: Path, encoding: Encoding | None) -> dict[str, float]:
    """Frames, wall and CPU seconds of a side, from opening the footage to the closed output.

    Args:
        side: one of `SIDES`.
        footage: a video file.
        model: asked about each picture; loaded before.
        output: a video, or lines of JSON where there is no encoding.
        encoding: of the video.
    """
    if side in LIBRARIES:
        module, name = LIBRARIES[side]
        getattr(importlib.import_module(module), name)
    size, rate = measure(footage)
    draw = supervision_loop(model.network) if side == "supervision" else palette_loop(model.network)
    wall, cpu = time.perf_counter(), cpu_seconds()
    sink: Sink
    if encoding is None:
        sink = Lines(output, len(model.network.colors))
    elif side == "vidgear":
        sink = GearVideo(output, rate, draw, encoding)
    else:
        sink = Video(output, size, rate, draw, encoding)
    frames = SIDES[side](footage, model, sink)
    sink.close()
    return {"frames": frames, "wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("footage", type=Path)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--preset", default="veryfast")
    output = parser.add_mutually_exclusive_group(required=True)
    output.add_argument("--video", type=Path)
    output.add_argument("--lines", type=Path)
    arguments = parser.parse_args()
    model = PlainOpenVINO(Network.read(arguments.network))
    encoding = None if arguments.video is None else Encoding(arguments.preset)
    figures = run(arguments.side, arguments.footage, model, arguments.video or arguments.lines, encoding)
    package = PACKAGES[arguments.side]
    print(json.dumps({**figures, "version": f"{package} {version(package)}"}))


if __name__ == "__main__":
    main()
