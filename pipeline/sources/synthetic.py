"""The `synthetic:` source: a procedural drive through a town, with exact labels, made while it is watched.

It feeds the demo (nothing to download) and the tests (every label and box is known). The world and its drawing are in
`pipeline.scene`; here are the address, the frames in order, and the folder of labelled pictures.

    >>> options = parse_synthetic("synthetic:?width=640&height=360&seconds=2&seed=3")
    >>> options.frames, options.time_base
    (50, Fraction(1, 25))
"""

from __future__ import annotations

import difflib
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self
from urllib.parse import parse_qsl

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray

from engines.errors import UsageError
from pipeline.contracts import AudioPacket, SourceCounts, StreamInfo
from pipeline.frame import Box, Frame, Mode
from pipeline.pictures.planes import plane
from pipeline.scene.drive import MAX_SIDE, MAX_TRAFFIC, MIN_SIDE, SyntheticScene
from pipeline.scene.places import Place
from pipeline.sources.normalizer import Normalizer
from pipeline.sources.reading import Reading

SCHEME = "synthetic:"
"""What an address of this source begins with."""


@dataclass(frozen=True, slots=True)
class SyntheticOptions:
    """What is drawn, how large, how long.

    Attributes:
        width, height: pixels, 16 to 8192.
        fps: frames a second, more than 0 and at most 240; `30000/1001` is exact.
        seconds: length, more than 0.
        seed: chooses the street: houses, trees, vehicles, people, bends.
        traffic: how many vehicles drive within sight, 0 to 16; parked ones come on top.
        incidents: whether something happens on the road ahead, 0 or 1 (`pipeline.scene.incidents`).
    """

    width: int = 1280
    height: int = 720
    fps: Fraction = Fraction(25)
    seconds: float = 10.0
    seed: int = 0
    traffic: int = 6
    incidents: bool = False

    @property
    def frames(self) -> int:
        """How many frames there are, at least one."""
        return max(1, round(self.seconds * self.fps))

    @property
    def time_base(self) -> Fraction:
        """Seconds a unit of pts; a frame lasts one unit."""
        return 1 / self.fps

    def scene(self) -> SyntheticScene:
        """The world to draw from."""
        return SyntheticScene(self.width, self.height, self.fps, self.seed, self.traffic, self.incidents)


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticFrame:
    """One drawn picture and what is in it.

    Attributes:
        index: place in the stream, from 0.
        pts: presentation time, in units of `SyntheticOptions.time_base`.
        picture: (H, W, 3) uint8 RGB.
        label: (H, W) uint8 trainIds of `CITYSCAPES_CLASSES`; every pixel has one.
        boxes: the visible part of every vehicle, person and bicycle, parked ones too; `track` names the object.
        places: where each of them truly is, in metres, hidden ones too, by `track`.
    """

    index: int
    pts: int
    picture: NDArray[np.uint8]
    label: NDArray[np.uint8]
    boxes: tuple[Box, ...]
    places: dict[int, Place]


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return read


def _rate(text: str) -> Fraction:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}|/[0-9]{1,9})?", text):
        raise ValueError("a rate such as 25, 29.97 or 30000/1001")
    try:
        rate = Fraction(text)
    except ZeroDivisionError:
        rate = Fraction(0)
    if not 0 < rate <= 240:
        raise ValueError("a rate above 0 and up to 240")
    return rate


def _length(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 86_400:
        raise ValueError("a number of seconds above 0 and up to 86400")
    return seconds


_READERS: dict[str, Callable[[str], Any]] = {
    "width": _whole(MIN_SIDE, MAX_SIDE),
    "height": _whole(MIN_SIDE, MAX_SIDE),
    "fps": _rate,
    "seconds": _length,
    "seed": _whole(0, 2**63 - 1),
    "traffic": _whole(0, MAX_TRAFFIC),
    "incidents": lambda text: bool(_whole(0, 1)(text)),
}


def parse_synthetic(address: str) -> SyntheticOptions:
    """Read an address such as `synthetic:`, `synthetic:?width=640&height=360` or `synthetic:?seconds=3&seed=7`.

    Keys are the fields of `SyntheticOptions`; what is left out has its default.

    Raises:
        UsageError: not such an address, an unknown or doubled key, or a value out of its range.
    """
    rest = address.removeprefix(SCHEME)
    if rest == address or (rest and not rest.startswith("?")):
        raise UsageError(
            f"{address!r} is no address of a synthetic drive; write one as {SCHEME}?width=1280&seconds=10."
        )
    given: dict[str, Any] = {}
    for key, text in parse_qsl(rest[1:], keep_blank_values=True):
        if key not in _READERS:
            near = difflib.get_close_matches(key.lower(), _READERS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(_READERS)}."
            raise UsageError(f"{address!r} has the unknown key {key!r}; {hint}")
        if key in given:
            raise UsageError(f"{address!r} gives {key!r} twice; keep one.")
        try:
            given[key] = _READERS[key](text)
        except ValueError as wanted:
            raise UsageError(f"{address!r} gives {key}={text!r}; it takes {wanted}.") from None
    return SyntheticOptions(**given)


def synthetic_frames(options: SyntheticOptions, start: int = 0) -> Iterator[SyntheticFrame]:
    """Draw the frames from `start` to the last one, in order. The arrays of each are its own to keep."""
    scene = options.scene()
    for index in range(start, options.frames):
        picture, label, boxes = scene.frame(index)
        yield SyntheticFrame(index, index, picture, label, boxes, scene.places(index))


def _to_yuv() -> NDArray[np.float64]:
    """(3, 4): R, G, B and 1, 0 to 255 → Y', Cb, Cr in limited range (ITU-R BT.709-6, 3.2 and 4.1)."""
    red, green, blue = np.eye(3)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    shares = np.stack((219 * luma, 224 * (blue - luma) / 1.8556, 224 * (red - luma) / 1.5748)) / 255
    return np.column_stack((shares, (16, 128, 128)))


_TO_YUV = _to_yuv()


def as_video_frame(picture: NDArray[np.uint8]) -> av.VideoFrame:
    """A picture, (H, W, 3) uint8 RGB, as the frame a decoder would give: yuv420p, BT.709, limited range, and saying so.

    pts and time base are left for the caller to set. A third of the time that swscale takes, which sets itself up anew
    for every frame; as near to the exact values.
    """
    height, width = picture.shape[:2]
    frame = av.VideoFrame(width, height, "yuv420p")
    half = cv2.resize(picture, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
    full, small = cv2.transform(picture, _TO_YUV), cv2.transform(half, _TO_YUV)
    for index, pixels in enumerate((full, small, small)):
        plane(frame, index)[:] = cv2.extractChannel(pixels, index)
    frame.colorspace = Colorspace.ITU709
    frame.color_range = ColorRange.MPEG
    frame.color_primaries = ColorPrimaries.BT709
    frame.color_trc = ColorTrc.BT709
    return frame


class SyntheticSource:
    """A procedural drive as a stream; see `pipeline.sources.synthetic`."""

    mode: Mode = "file"

    def __init__(self, stream_id: str, options: SyntheticOptions) -> None:
        self.id, self.address, self.options = stream_id, SCHEME, options
        self.counts = SourceCounts()
        self._normalize = Normalizer(stream_id)

    @classmethod
    def from_address(cls, stream_id: str, address: str, _reading: Reading) -> Self:
        """The drive that a `synthetic:` address describes.

        Raises:
            UsageError: it has a wrong key.
        """
        return cls(stream_id, parse_synthetic(address))

    def open(self) -> StreamInfo:
        options = self.options
        first = self._normalize(as_video_frame(np.zeros((options.height, options.width, 3), np.uint8)))
        return StreamInfo.of(first, options.time_base, options.fps, options.frames)

    def __iter__(self) -> Iterator[Frame | AudioPacket]:
        scene = self.options.scene()
        for index in range(self.options.frames):
            image = self._normalize(as_video_frame(scene.picture(index)))
            yield Frame(self.id, index, index, self.options.time_base, time.time(), time.monotonic(), image, 1)

    def close(self) -> None:
        """Nothing is open."""
