"""Footage made to order for the tests: a short clip of the synthetic drive in any shape that a camera may write."""

from __future__ import annotations

import functools
import itertools
import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray

from pipeline.scene.drive import SyntheticScene

MARK_BITS = 16


def write_clip(
    path: Path,
    *,
    frames: int = 25,
    size: tuple[int, int] = (320, 180),
    fps: Fraction | int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    bframes: int = 0,
    gop: int = 12,
    vfr: bool = False,
    audio: bool = False,
    rotation: int | None = None,
    start_pts: int = 0,
    time_base: Fraction | None = None,
    numbered: bool = False,
    fragmented: bool = False,
    full_range: bool = False,
    seed: int = 0,
    pictures: Iterable[NDArray[np.uint8]] | None = None,
    encoder_options: dict[str, str] | None = None,
) -> list[int]:
    """Write a clip of the synthetic drive; the file's ending chooses the container.

    Args:
        frames: how many.
        size: (width, height) in pixels. libx264 takes odd ones as yuv444p; ffv1 in .mkv as yuv420p.
        fps: nominal rate.
        codec: an encoder's name: libx264, mpeg4, mjpeg, ffv1, libvpx-vp9 …
        pix_fmt: the encoder's pixel format; `yuv420p10le` for 10 bit.
        bframes: greatest number of consecutive B-frames (made exact: no adaptive placement).
        gop: key-frame distance in frames.
        vfr: durations alternate between 0.5, 1 and 2.5 nominal ones instead of one.
        audio: add a 440 Hz sine as AAC, 48 kHz mono, as long as the video.
        rotation: degrees (90, 180, 270) that a player turns the picture clockwise; MP4 and MOV only.
        start_pts: pts of the first frame. A transport stream with B-frames needs one (its clock has no negative
            numbers, so that it would be shifted).
        time_base: unit of the pts, 1/90000 s unless given (mpeg4: 1/30000, as it knows no finer). MP4, MOV and TS keep
            it; Matroska rounds to 1/1000, AVI to whole frames.
        numbered: draw each frame's index into it, for `read_number`.
        fragmented: fragmented MP4, a fragment per key frame.
        full_range: encode with full (0 to 255) instead of limited range, and say so.
        seed: of the synthetic drive.
        pictures: RGB pictures to use instead of the synthetic drive; `frames` of them are taken.
        encoder_options: passed to the encoder last.

    Returns:
        The pts of the frames in display order, in units of `time_base`.
    """
    time_base = time_base or Fraction(1, 30_000 if codec == "mpeg4" else 90_000)
    options = {"preset": "veryfast", "threads": "1"} if codec == "libx264" else {}
    if codec == "libx264" and bframes:
        options |= {"b-adapt": "0", "x264-params": "b-pyramid=none:scenecut=0"}
    options |= encoder_options or {}
    muxer = {"movflags": "frag_keyframe+delay_moov+default_base_moof"} if fragmented else {}
    source = iter(pictures) if pictures is not None else _drive(size, Fraction(fps), seed)
    written = _timestamps(frames, Fraction(fps), time_base, start_pts, vfr)
    with av.open(str(path), "w", options=muxer) as container:
        video = container.add_stream(codec, rate=Fraction(fps), options=options)
        assert isinstance(video, av.VideoStream), f"{codec} is no video encoder"
        video.width, video.height = size
        video.pix_fmt = pix_fmt
        video.gop_size = gop
        video.max_b_frames = bframes
        video.time_base = video.codec_context.time_base = time_base
        video.codec_context.colorspace = Colorspace.ITU709
        video.codec_context.color_range = ColorRange.JPEG if full_range else ColorRange.MPEG
        video.codec_context.color_primaries = ColorPrimaries.BT709
        video.codec_context.color_trc = ColorTrc.BT709
        sound = container.add_stream("aac", rate=48_000, layout="mono") if audio else None
        last = written[-1] + round(1 / (Fraction(fps) * time_base))
        packets = _sine(sound, float(start_pts * time_base), float(last * time_base)) if sound else iter(())
        for index, pts in enumerate(written):
            picture = next(source)
            if numbered:
                picture = draw_number(picture, index)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
                format=pix_fmt,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
            )
            frame.pts, frame.time_base = pts, time_base
            container.mux(video.encode(frame))
            for packet in packets:
                container.mux(packet)
                if packet.pts is not None and packet.pts * packet.time_base > pts * time_base:
                    break
        container.mux(video.encode(None))
        for packet in packets:
            container.mux(packet)
    if rotation:
        _turn(path, rotation)
    return written


def write_changing_clip(path: Path, sizes: Sequence[tuple[int, int]], frames: int = 12, **options: Any) -> list[int]:
    """Write one MPEG transport stream (`.ts`) whose picture size changes after every `frames` frames.

    Returns:
        The pts of all frames, in units of 1/90000 s.
    """
    joined, written = b"", []
    for part, size in enumerate(sizes):
        piece = path.with_name(f"{path.stem}-{part}.ts")
        start = round(part * frames * 90_000 / Fraction(options.get("fps", 25)))
        written += write_clip(piece, frames=frames, size=size, start_pts=start, **options)
        joined += piece.read_bytes()
        piece.unlink()
    path.write_bytes(joined)
    return written


def cut_off(path: Path, keep: float) -> None:
    """Keep only the first share `keep` (0 to 1) of the file, as a killed recorder or a full card leaves it."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def entitle(path: Path, title: bytes) -> None:
    """Give a Matroska clip a title of these bytes, in whatever encoding; FFmpeg's own writer takes UTF-8 only."""
    stand_in, other = "t" * len(title), path.with_name(f"entitled-{path.name}")
    with av.open(path) as source, av.open(other, "w") as target:
        target.metadata["title"] = stand_in
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = other.read_bytes()
    assert content.count(stand_in.encode()) == 1
    path.write_bytes(content.replace(stand_in.encode(), title))
    other.unlink()


def damage(path: Path, spots: int = 8, length: int = 64, start: float = 0.3, end: float = 0.7, seed: int = 0) -> None:
    """Overwrite `spots` runs of `length` bytes between the shares `start` and `end` of the file with noise."""
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    for _ in range(spots):
        at = int(len(data) * chance.uniform(start, end))
        data[at : at + length] = chance.randbytes(len(data[at : at + length]))
    path.write_bytes(data)


def draw_number(picture: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """A copy of the picture, (H, W, 3), with `number` (below 65536) as 16 black or white blocks along its top."""
    marked = picture.copy()
    height, width = picture.shape[:2]
    edges = np.linspace(0, width, MARK_BITS + 1).astype(int)
    for bit in range(MARK_BITS):
        marked[: max(height // 10, 4), edges[bit] : edges[bit + 1]] = 235 if number >> bit & 1 else 20
    return marked


def read_number(picture: NDArray[np.uint8]) -> int:
    """The number that `draw_number` drew, read from a decoded picture, (H, W, 3) or (H, W) uint8 of any size."""
    height, width = picture.shape[:2]
    row = picture[: max(height // 10, 4)].reshape(max(height // 10, 4), width, -1).mean(axis=(0, 2))
    edges = np.linspace(0, width, MARK_BITS + 1).astype(int)
    return sum(int(row[edges[bit] : edges[bit + 1]].mean() > 128) << bit for bit in range(MARK_BITS))


def _drive(size: tuple[int, int], fps: Fraction, seed: int) -> Iterator[NDArray[np.uint8]]:
    return (_drawn(size, fps, seed, index) for index in itertools.count())


@functools.lru_cache(maxsize=192)
def _drawn(size: tuple[int, int], fps: Fraction, seed: int, index: int) -> NDArray[np.uint8]:
    """A picture of the drive; kept, for most clips of a test run are of the same one, and drawing is what costs."""
    picture = _scene(size, fps, seed).picture(index)
    picture.flags.writeable = False
    return picture


@functools.lru_cache(maxsize=4)
def _scene(size: tuple[int, int], fps: Fraction, seed: int) -> SyntheticScene:
    return SyntheticScene(*size, fps, seed=seed)


def _timestamps(frames: int, fps: Fraction, time_base: Fraction, start: int, vfr: bool) -> list[int]:
    shares = (Fraction(1, 2), Fraction(1), Fraction(5, 2)) if vfr else (Fraction(1),)
    elapsed, written = Fraction(0), []
    for index in range(frames):
        written.append(start + round(elapsed / time_base))
        elapsed += shares[index % len(shares)] / fps
    return written


def _sine(stream: av.AudioStream, begin: float, end: float) -> Iterator[av.Packet[Any]]:
    at = round(begin * 48_000)
    while at < end * 48_000:
        count = min(1024, round(end * 48_000) - at)
        wave = 0.3 * np.sin(2 * np.pi * 440 / 48_000 * np.arange(at, at + count))
        frame = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, at, Fraction(1, 48_000)
        yield from stream.encode(frame)
        at += count
    yield from stream.encode(None)


def _turn(path: Path, degrees: int) -> None:
    """Write the display matrix into the first track's header: PyAV cannot, and it is nine numbers (ISO 14496-12)."""
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    matrix = header + (52 if data[header] == 1 else 40)
    data[matrix : matrix + 36] = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
