"""Compressed pictures for the tests of live outputs, and a destination that keeps what it gets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
from av.packet import Packet

from pipeline.contracts import StreamInfo
from pipeline.frame import Analysis, Frame, Mode
from pipeline.outputs.encoded import EncodedPicture, EncodedVideo
from pipeline.outputs.live.encoder import LiveEncoder, LiveEncoderOptions
from tests.pipeline.scripted_source import gray_image

DEADLINE = 60.0
FAST = LiveEncoderOptions(encoder="libx264", preset="ultrafast")
SIZE = (160, 90)


def info(size: tuple[int, int] = SIZE, pixel_format: str = "yuv420p") -> StreamInfo:
    return StreamInfo(*size, pixel_format, Fraction(1, 25), Fraction(25), None)


def analysis(index: int, mode: Mode = "live", size: tuple[int, int] = SIZE, level: int | None = None) -> Analysis:
    """Frame `index` of a stream at 25 frames a second, that arrives now."""
    image = gray_image(40 + index % 150 if level is None else level, *size)
    return Analysis(Frame("cam", index, index, Fraction(1, 25), time.time(), time.monotonic(), image, 1), mode)


def pictures(count: int, key_every: int = 10, at: float = 1_700_000_000.0) -> Iterator[EncodedPicture]:
    """Real H.264, 25 pictures a second."""
    encoder = LiveEncoder(info(), LiveEncoderOptions(encoder="libx264", preset="ultrafast", key_frame_seconds=10))
    for index in range(count):
        image = gray_image(40 + index % 150, *SIZE)
        yield from encoder.encode(image, index * 3600, at + index / 25, key=index % key_every == 0)


VIDEO = EncodedVideo(*SIZE, Fraction(25))


def decoded_levels(packets: list[EncodedPicture]) -> list[tuple[int, float]]:
    """What a player shows: pts and mean level of each picture."""
    decoder = av.CodecContext.create("h264", "r")
    shown = []
    for picture in [*packets, None]:
        packet = None
        if picture is not None:
            packet = Packet(picture.data)
            packet.pts = packet.dts = picture.pts
        shown += [(f.pts or 0, float(f.to_ndarray(format="gray").mean())) for f in decoder.decode(packet)]
    return shown


class Kept:
    """A destination that keeps everything."""

    name = "kept"

    def __init__(self) -> None:
        self.got: list[EncodedPicture] = []
        self.ended = False
        self.video: EncodedVideo | None = None

    def begin(self, video: EncodedVideo, want_key: Callable[[], None]) -> None:
        self.video, self.want_key = video, want_key

    def put(self, picture: EncodedPicture, wait: bool) -> None:
        self.got.append(picture)

    def end(self) -> None:
        self.ended = True

    def join(self, timeout: float) -> bool:
        return True

    def close(self) -> None:
        pass


class Stuck(Kept):
    """A destination whose `put` waits until it is let go, as none should."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def put(self, picture: EncodedPicture, wait: bool) -> None:
        self.let_go.wait(DEADLINE)
        super().put(picture, wait)


def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait for a condition, for as long as a busy machine may need."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what or "it did not come about"
        time.sleep(0.01)
