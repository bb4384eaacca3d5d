"""Trips whose clips are of other colours, light, depth or shape than the first: what is written, as FFmpeg shows it.

Every clip shows the same three bars, kept without loss, in colours of its own. FFmpeg's own scaler, or zimg for light,
says what each is to look like.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.outputs.mp4 import VideoOptions
from pipeline.pictures.inputs import network_input
from pipeline.sources.resolve import resolve_source
from tests.pipeline.recordings import Kitchen, available
from tests.pipeline.sources.test_extras import asked, carried

pytestmark = pytest.mark.skipif(not available(), reason="ffmpeg and ffprobe are not installed")

WIDTH, HEIGHT = 96, 64
BARS = ((180, 60, 50), (128, 128, 128), (60, 90, 170))
FLAT = VideoOptions(encoder="libx264", preset="ultrafast", crf=0)

Levels = NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """How a clip says its colours: as FFmpeg's options have them."""

    matrix: str
    range: str = "tv"
    primaries: str = "bt709"
    transfer: str = "bt709"
    format: str = "yuv420p"
    size: tuple[int, int] = (WIDTH, HEIGHT)

    def made(self, path: Path, bars: Sequence[Sequence[float]] = BARS, frames: int = 3) -> Path:
        """A clip of three bars, 8-bit levels that may be fractions, coded by its matrix and range."""
        width, height = self.size
        picture = np.zeros((height, width, 3))
        for n, bar in enumerate(bars):
            picture[:, n * width // 3 : (n + 1) * width // 3] = bar
        raw = np.round(picture * 257).astype("<u2").tobytes() * frames
        scale = f"scale=out_color_matrix={self.matrix}:out_range={self.range}:flags=accurate_rnd+full_chroma_int"
        if self.format == "yuvj420p":
            scale = f"scale=out_color_matrix={self.matrix}"
        elif self.matrix == "rgb":
            scale = "null"
        codec = "mjpeg" if self.format == "yuvj420p" else "ffv1"
        spaces = {"bt601": "smpte170m", "bt2020": "bt2020nc"}
        command = [
            "ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", f"{width}x{height}",
            "-r", "25", "-i", "-", "-vf", f"{scale},format={self.format}", "-c:v", codec, "-q:v", "1",
            "-color_range", self.range,
            "-colorspace", spaces.get(self.matrix, self.matrix), "-color_primaries", self.primaries,
            "-color_trc", self.transfer, str(path),
        ]  # fmt: skip
        subprocess.run(command, input=raw, check=True, capture_output=True, timeout=60)
        return path


def shown(path: Path) -> list[Levels]:
    """What FFmpeg shows of each bar, by what the file says of itself: red, green and blue, frame by frame."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-vf", "scale=flags=accurate_rnd+full_chroma_int,format=rgb24",
               "-f", "rawvideo", "-"]  # fmt: skip
    data = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    return [bars_of(frame) for frame in np.frombuffer(data, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)]


def bars_of(picture: NDArray[np.uint8]) -> Levels:
    height, width, _ = picture.shape
    columns = [width * (2 * n + 1) // 6 for n in range(3)]
    middle = slice(height // 2 - 4, height // 2 + 4)
    return np.array([picture[middle, x - 3 : x + 3].mean((0, 1)) for x in columns])


def written(kitchen: Kitchen, out: Path, *kinds: Kind, bars: Sequence[Sequence[Sequence[float]]] = ()) -> Path:
    """The video of a trip of clips of these kinds, three frames each."""
    trip = kitchen.folder / "trip"
    trip.mkdir()
    for n, kind in enumerate(kinds):
        kind.made(trip / f"{n}.mkv", bars[n] if bars else BARS)
    return carried(trip, out, options=FLAT)


OLD = Kind("bt601", primaries="smpte170m", transfer="smpte170m")
NEW = Kind("bt709")
WIDE = Kind("bt2020", primaries="bt2020", transfer="bt2020-10", format="yuv420p10le")

MIXED = {
    "matrix": (OLD, Kind("bt709", primaries="smpte170m")),
    "matrix and range": (OLD, Kind("bt709", "pc", "smpte170m")),
    "range": (NEW, Kind("bt709", "pc")),
    "range, the other way": (Kind("bt709", "pc"), NEW),
    "JPEG pictures": (NEW, Kind("bt601", "pc", format="yuvj420p")),
    "ten bits": (NEW, Kind("bt709", format="yuv420p10le")),
    "ten bits first": (Kind("bt709", format="yuv420p10le"), NEW),
    "4:2:2": (NEW, Kind("bt709", format="yuv422p")),
    "4:2:2 first": (Kind("bt709", format="yuv422p"), NEW),
    "4:2:2 in ten bits": (NEW, Kind("bt601", format="yuv422p10le")),
    "4:4:4": (NEW, Kind("bt709", format="yuv444p")),
    "4:4:4 first": (Kind("bt601", format="yuv444p"), Kind("bt709", "pc", format="yuv420p")),
    "twelve bits": (NEW, Kind("bt709", format="yuv444p12le")),
    "RGB": (NEW, Kind("rgb", "pc", format="bgr0")),
    "size": (NEW, Kind("bt709", size=(192, 128))),
    "size and matrix": (OLD, Kind("bt709", "pc", "smpte170m", size=(288, 192))),
}


@pytest.mark.seconds
@pytest.mark.parametrize("name", MIXED)
def test_colours_are_those_of_each_clip(name: str, kitchen: Kitchen, tmp_path: Path) -> None:
    video = written(kitchen, tmp_path / "o.mp4", *MIXED[name])
    frames = shown(video)
    assert len(frames) == 6
    for number, frame in enumerate(frames):
        assert frame == pytest.approx(np.array(BARS), abs=4), f"frame {number}"


def by_zimg(path: Path, primaries: str, transfer: str) -> Levels:
    """What zimg makes of a clip's bars with other primaries; light, 1 at diffuse white, for `linear`."""
    light = f"zscale=t={transfer}:p={primaries}:npl=203,format=gbrpf32le"
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-vf", light, "-frames:v", "1", "-f", "rawvideo", "-"]
    data = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    green, blue, red = np.frombuffer(data, "<f4").reshape(3, HEIGHT, WIDTH)
    picture = np.stack([red, green, blue], -1)
    return np.array([picture[HEIGHT // 2, WIDTH * (2 * n + 1) // 6] for n in range(3)], np.float64)


def pq(nits: Sequence[float]) -> list[float]:
    """8-bit levels of light in cd/m² (SMPTE ST 2084)."""
    power = (np.array(nits) / 10_000) ** 0.1593017578125
    return [*(255 * ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)]


def hlg(levels: Sequence[float]) -> list[float]:
    """8-bit levels of light of a scene, 0 to 1 (ARIB STD-B67)."""
    scene = np.array(levels)
    return [
        *(
            255
            * np.where(scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073)
        )
    ]


HDR10 = Kind("bt2020", primaries="bt2020", transfer="smpte2084", format="yuv420p10le")
HLG = Kind("bt2020", primaries="bt2020", transfer="arib-std-b67", format="yuv420p10le")
BRIGHT = [pq((120, 60, 40)), pq((203, 203, 203)), pq((30, 45, 900))]
SCENE = [hlg((0.12, 0.06, 0.05)), hlg((0.2, 0.2, 0.2)), hlg((0.04, 0.05, 0.7))]


def rolled_off(light: Levels) -> Levels:
    """Light of BT.709 on a display of standard range, as RECORDINGS.md says."""
    light = np.maximum(light, 0)
    return np.asarray(255 * np.minimum(1.25 * light * (1 + light / 100) / (1 + light), 1) ** (1 / 2.2))


@pytest.mark.seconds
@pytest.mark.parametrize(("kind", "bars"), [(HDR10, BRIGHT), (HLG, SCENE)], ids=["PQ", "HLG"])
def test_hdr_is_marked_as_what_it_is_and_models_see_it_tone_mapped(
    kind: Kind, bars: list[list[float]], kitchen: Kitchen, tmp_path: Path
) -> None:
    clip = kind.made(kitchen.folder / "hdr.mkv", bars)
    video = carried(clip, tmp_path / "o.mp4", options=FLAT)
    header = asked(video, "-show_streams", "-select_streams", "v")["streams"][0]
    said = (header["color_transfer"], header["color_primaries"], header["color_space"], header["color_range"])
    assert said == (kind.transfer, "bt2020", "bt2020nc", "tv")
    assert shown(video)[0] == pytest.approx(shown(clip)[0], abs=3)  # the very values, in 8 bits
    source = resolve_source(str(clip), "x")
    source.open()
    frame = next(iter(source))
    seen = bars_of(network_input(frame.image, HEIGHT, WIDTH))
    source.close()
    assert seen == pytest.approx(rolled_off(by_zimg(clip, "bt709", "linear")), abs=7)


@pytest.mark.seconds
@pytest.mark.parametrize(("kind", "bars"), [(HDR10, BRIGHT), (HLG, SCENE)], ids=["PQ", "HLG"])
def test_hdr_behind_standard_range_is_tone_mapped(
    kind: Kind, bars: list[list[float]], kitchen: Kitchen, tmp_path: Path
) -> None:
    video = written(kitchen, tmp_path / "o.mp4", NEW, kind, bars=(BARS, bars))
    header = asked(video, "-show_streams", "-select_streams", "v")["streams"][0]
    assert (header["color_transfer"], header["color_primaries"]) == ("bt709", "bt709")
    light = by_zimg(kitchen.folder / "trip" / "1.mkv", "bt709", "linear")
    frames = shown(video)
    assert frames[2] == pytest.approx(np.array(BARS), abs=4)
    assert frames[3] == pytest.approx(rolled_off(light), abs=7)


def test_standard_range_behind_hdr_becomes_hdr(kitchen: Kitchen, tmp_path: Path) -> None:
    video = written(kitchen, tmp_path / "o.mp4", HDR10, NEW, bars=(BRIGHT, BARS))
    light = by_zimg_of_8_bits(video, 3)
    wanted = (np.array(BARS) / 255) ** 2.2
    assert light == pytest.approx(wanted, abs=0.05)


def by_zimg_of_8_bits(path: Path, frame: int) -> Levels:
    """Light of BT.709, 1 at diffuse white, of a frame of an HDR video."""
    still = path.with_suffix(".mkv")
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(path), "-vf", f"select=eq(n\\,{frame})", "-frames:v", "1",
               "-c:v", "ffv1", str(still)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return by_zimg(still, "bt709", "linear")


PRIMARIES = {
    "BT.601 behind BT.709": (NEW, OLD),
    "BT.709 behind BT.601": (OLD, NEW),
    "BT.2020 behind BT.709": (NEW, WIDE),
    "P3 behind BT.709": (NEW, Kind("bt709", primaries="smpte432")),
    "EBU behind BT.709": (NEW, Kind("bt709", primaries="bt470bg")),
}


@pytest.mark.seconds
@pytest.mark.parametrize("name", PRIMARIES)
def test_other_primaries_become_those_of_the_first(name: str, kitchen: Kitchen, tmp_path: Path) -> None:
    first, second = PRIMARIES[name]
    video = written(kitchen, tmp_path / "o.mp4", first, second)
    names = {"smpte170m": "170m", "bt709": "709"}
    wanted = np.clip(by_zimg(kitchen.folder / "trip" / "1.mkv", names[first.primaries], "linear"), 0, 1)
    # zimg takes standard range to light by BT.1886, 2.4; a display of 2.2 is taken here: they differ by little.
    frames = shown(video)
    assert frames[2] == pytest.approx(np.array(BARS), abs=4)
    assert frames[5] == pytest.approx(255 * wanted ** (1 / 2.4), abs=9)
    assert np.abs(frames[5] - frames[2]).max() > 3, "the same values would be other colours"


SHAPES = {  # the second clip's size, and how many columns at each side and rows above and below stay black
    "wider": ((192, 64), (0, 16)),
    "taller": ((96, 192), (32, 0)),
    "square": ((64, 64), (16, 0)),
    "portrait": ((36, 64), (30, 0)),
    "cinema": ((240, 100), (0, 12)),
}


@pytest.mark.seconds
@pytest.mark.parametrize("name", SHAPES)
def test_clips_of_another_shape_are_fitted(name: str, kitchen: Kitchen, tmp_path: Path) -> None:
    size, (beside, above) = SHAPES[name]
    video = written(kitchen, tmp_path / "o.mp4", NEW, Kind("bt709", "pc", size=size))
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert {frame.shape for frame in frames} == {(HEIGHT, WIDTH)}
    picture = frames[-1].astype(int)
    lit = picture > 40
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    assert (columns[0], WIDTH - 1 - columns[-1]) == pytest.approx((beside, beside), abs=2)
    assert (rows[0], HEIGHT - 1 - rows[-1]) == pytest.approx((above, above), abs=2)
    assert picture[~lit].max(initial=16) <= 24
    assert (frames[2] > 40).all()
