"""Pictures as decoders leave them: planes, colours, orientation, and the one small conversion for the networks."""

from __future__ import annotations

import itertools
import math
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.pictures.colors import Colorimetry, ColorTags
from pipeline.pictures.conversion import blendable_format, converted, display_matrix, oriented
from pipeline.pictures.inputs import network_input
from pipeline.pictures.planes import CHROMA_SHIFT, plane
from tests.footage import write_clip
from tests.pipeline.sample_pictures import noise, of_color, planes

UInt8 = NDArray[np.uint8]
FORMATS = sorted(CHROMA_SHIFT)
SCALER = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709, "bt2020": Colorspace.BT2020}
COLORIMETRIES = [Colorimetry(matrix, full) for matrix in SCALER for full in (False, True)]
PRIMARIES = {  # luma coefficients of red and blue, as printed in the recommendations
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
colors = st.tuples(*[st.integers(0, 255)] * 3)


def upright(image: av.VideoFrame) -> av.VideoFrame:
    return oriented(image, *display_matrix(image))


def rotated(image: av.VideoFrame, degrees: float) -> av.VideoFrame:
    """Turned counter-clockwise, as the display matrix of such a turn has it (libavutil/display.h)."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return oriented(image, cosine, -sine, sine, cosine)


# Planes -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize(("width", "height"), [(64, 48), (66, 34), (2, 2), (130, 2)])
def test_planes_are_views_of_every_pixel_and_of_nothing_else(pixel_format, width, height):
    image = av.VideoFrame(width, height, pixel_format)
    across, down = CHROMA_SHIFT[pixel_format]
    for index in range(len(image.planes)):
        view = plane(image, index)
        expected = (height, width) if index == 0 else (height >> down, width >> across)
        assert view.shape == (expected if pixel_format != "nv12" or index == 0 else (*expected, 2))
        assert view.dtype == np.uint8
        assert view.base is not None
        view[:] = 40 + index
    assert [int(plane(image, i).max()) for i in range(len(image.planes))] == [40 + i for i in range(len(image.planes))]


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuvj444p"])
@pytest.mark.parametrize(("width", "height"), [(63, 47), (1, 1), (5, 2)])
def test_odd_sizes_have_full_planes_in_444(pixel_format, width, height):
    assert [p.shape for p in planes(av.VideoFrame(width, height, pixel_format))] == [(height, width)] * 3


def test_rows_are_read_past_their_padding():
    image = av.VideoFrame(50, 4, "yuv420p")
    assert image.planes[0].line_size > 50, "this test is about padded rows"
    expected = np.arange(200, dtype=np.uint8).reshape(4, 50)
    plane(image, 0)[:] = expected
    assert np.array_equal(image.to_ndarray()[:4], expected)


def test_the_two_chroma_channels_of_nv12_are_cb_and_cr():
    image = of_color((0, 0, 255)).reformat(format="nv12")
    cb, cr = plane(image, 1)[0, 0]
    assert cb > 200
    assert cr < 128


# Colours ------------------------------------------------------------------------------------------------------------
@given(rgb=colors, colorimetry=st.sampled_from(COLORIMETRIES))
def test_yuv_against_the_recommendations(rgb, colorimetry):
    kr, kb = PRIMARIES[colorimetry.matrix]
    to_yuv = np.array(
        [
            [kr, 1 - kr - kb, kb],
            [-kr / (2 - 2 * kb), -(1 - kr - kb) / (2 - 2 * kb), 0.5],
            [0.5, -(1 - kr - kb) / (2 - 2 * kr), -kb / (2 - 2 * kr)],
        ]
    )
    scale, offset = ([255, 255, 255], [0, 128, 128]) if colorimetry.full_range else ([219, 224, 224], [16, 128, 128])
    exact = to_yuv @ (np.array(rgb, np.float64) / 255) * scale + offset
    assert np.abs(np.array(colorimetry.yuv(rgb)) - np.clip(exact, 0, 255)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("colorimetry", "rgb", "expected"),
    [
        (Colorimetry("bt709", False), (255, 255, 255), (235, 128, 128)),
        (Colorimetry("bt709", False), (0, 0, 0), (16, 128, 128)),
        (Colorimetry("bt601", True), (255, 255, 255), (255, 128, 128)),
        (Colorimetry("bt601", False), (255, 0, 0), (81, 90, 240)),  # the colour bars' red
        (Colorimetry("bt709", False), (255, 0, 0), (63, 102, 240)),
        (Colorimetry("bt601", True), (0, 0, 255), (29, 255, 107)),  # 255.5 does not fit
    ],
)
def test_known_colors(colorimetry, rgb, expected):
    assert colorimetry.yuv(rgb) == expected


@settings(max_examples=40, deadline=None)
@given(rgb=colors, colorimetry=st.sampled_from(COLORIMETRIES))
def test_yuv_agrees_with_ffmpegs_conversion_both_ways(rgb, colorimetry):
    color_range = ColorRange.JPEG if colorimetry.full_range else ColorRange.MPEG
    theirs = of_color(rgb).reformat(
        format="yuv444p", dst_colorspace=SCALER[colorimetry.matrix], dst_color_range=color_range
    )
    ours = colorimetry.yuv(rgb)
    assert max(abs(int(plane(theirs, i)[8, 8]) - ours[i]) for i in range(3)) <= 2
    painted = av.VideoFrame(32, 16, "yuv444p")
    for index in range(3):
        plane(painted, index)[:] = ours[index]
    back = painted.reformat(format="rgb24", src_colorspace=SCALER[colorimetry.matrix], src_color_range=color_range)
    # A level of limited-range chroma is two of blue; rounding to whole levels is half of that to each side.
    assert np.abs(back.to_ndarray()[8, 8].astype(int) - rgb).max() <= 3


@pytest.mark.parametrize(
    ("tag", "height", "matrix"),
    [
        (1, 180, "bt709"),
        (5, 1080, "bt601"),
        (6, 1080, "bt601"),
        (4, 1080, "bt601"),
        (7, 180, "bt709"),
        (9, 720, "bt2020"),
        (10, 720, "bt2020"),
        (2, 718, "bt601"),
        (2, 720, "bt709"),
        (0, 720, "bt709"),
    ],
)
def test_the_matrix_is_what_the_picture_says_or_the_usual_one_of_its_size(tag, height, matrix):
    image = av.VideoFrame(16, height, "yuv420p")
    image.colorspace = tag
    assert Colorimetry.of(image) == Colorimetry(matrix, False)


@pytest.mark.parametrize(
    ("pixel_format", "tag", "full"),
    [("yuv420p", 0, False), ("yuv420p", 1, False), ("yuv420p", 2, True), ("yuvj420p", 0, True), ("nv12", 2, True)],
)
def test_the_range_is_what_the_picture_says_and_limited_when_it_does_not(pixel_format, tag, full):
    image = av.VideoFrame(16, 16, pixel_format)
    image.color_range = tag
    assert Colorimetry.of(image).full_range is full


# Conversions --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pixel_format", "width", "height", "expected"),
    [
        *[(f, 64, 48, f) for f in FORMATS],
        ("yuv420p", 63, 48, "yuv444p"),
        ("yuv420p", 64, 47, "yuv444p"),
        ("nv12", 63, 47, "yuv444p"),
        ("yuvj420p", 63, 48, "yuvj444p"),
        ("yuv422p", 63, 48, "yuv444p"),
        ("yuv422p", 64, 47, "yuv422p"),
        ("yuvj422p", 63, 47, "yuvj444p"),
        ("yuv444p", 63, 47, "yuv444p"),
        ("yuv420p10le", 64, 48, "yuv420p"),
        ("yuv420p10le", 63, 48, "yuv444p"),
        ("p010le", 64, 48, "yuv420p"),
        ("yuv411p", 64, 48, "yuv420p"),
        ("gray", 64, 48, "yuv420p"),
        ("rgb24", 63, 47, "yuv444p"),
        ("pal8", 64, 48, "yuv420p"),
    ],
)
def test_blendable_formats(pixel_format, width, height, expected):
    assert blendable_format(pixel_format, width, height) == expected
    av.VideoFrame(width, height, expected)  # it exists


@pytest.mark.parametrize("height", [64, 720])
@pytest.mark.parametrize("source", ["rgb24", "bgra", "gbrp", "rgb8"])
@pytest.mark.parametrize("target", ["yuv420p", "yuvj420p", "yuv444p", "nv12"])
def test_what_is_no_yuv_becomes_yuv_as_colorimetry_reads_it_back(source, target, height):
    rgb = (255, 0, 0)
    result = converted(of_color(rgb, 32, height).reformat(format=source), target)
    assert Colorimetry.of(result) == Colorimetry("bt709" if height == 720 else "bt601", target.startswith("yuvj"))
    expected, chroma = Colorimetry.of(result).yuv(rgb), plane(result, 1)[4, 4]
    assert abs(int(plane(result, 0)[4, 4]) - expected[0]) <= 2
    assert abs(int(chroma[0] if target == "nv12" else chroma) - expected[1]) <= 2
    assert result.colorspace in (1, 6)


def test_grey_is_full_range_in_and_limited_out():
    grey = av.VideoFrame.from_ndarray(np.full((48, 64), 255, np.uint8), format="gray")
    result = converted(grey, "yuv420p")
    assert [int(p.max()) for p in planes(result)] == [235, 128, 128]


@pytest.mark.parametrize("colorimetry", COLORIMETRIES)
@pytest.mark.parametrize("said", [True, False])
def test_ten_bits_keep_their_colors_and_what_was_said_of_them(colorimetry, said):
    rgb = (200, 90, 30)
    color_range = ColorRange.JPEG if colorimetry.full_range else ColorRange.MPEG
    image = of_color(rgb).reformat(
        format="yuv420p10le", dst_colorspace=SCALER[colorimetry.matrix], dst_color_range=color_range
    )
    image.pts, image.time_base = 77, Fraction(1, 90_000)
    if not said:
        image.colorspace, image.color_range = 2, 0
    result = converted(image, "yuv420p")
    assert result.format.name == "yuv420p"
    assert np.abs(np.array([p[4, 4] for p in planes(result)], int) - colorimetry.yuv(rgb)).max() <= 1
    assert ColorTags.of(result) == ColorTags.of(image)
    assert (result.pts, result.time_base) == (77, Fraction(1, 90_000))


@pytest.mark.parametrize(("own", "wanted"), list(itertools.permutations(COLORIMETRIES, 2)))
def test_one_colorimetry_becomes_another(own, wanted):
    rgb = (60, 140, 220)
    image = av.VideoFrame(32, 16, "yuv444p")
    for index, level in enumerate(own.yuv(rgb)):
        plane(image, index)[:] = level
    image.colorspace = {"bt601": 6, "bt709": 1, "bt2020": 9}[own.matrix]
    image.color_range = 2 if own.full_range else 1
    result = converted(image, "yuv444p", colors=wanted)
    assert Colorimetry.of(result) == wanted
    assert np.abs(np.array([p[4, 4] for p in planes(result)], int) - wanted.yuv(rgb)).max() <= 3
    assert Colorimetry.of(image) == own, "the picture itself is left alone"


def test_yuvj_stays_full_range_in_a_format_whose_name_does_not_say_so():
    image = av.VideoFrame(32, 16, "yuvj420p")
    for index, level in enumerate((255, 128, 128)):
        plane(image, index)[:] = level
    result = converted(image, "yuv444p")
    assert Colorimetry.of(result).full_range
    assert int(plane(result, 0).min()) == 255


def test_another_size_keeps_time_and_content():
    image = noise("yuv420p", 64, 48)
    image.pts, image.time_base = 5, Fraction(1, 25)
    for index in range(3):
        plane(image, index)[:] = 90
    result = converted(image, "yuv420p", 128, 32)
    assert (result.width, result.height, result.pts) == (128, 32, 5)
    assert {int(p.min()) for p in planes(result)} == {int(p.max()) for p in planes(result)} == {90}


# Orientation --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("degrees", [90, 180, 270, -90, -180, 450, 89.9, -178.5])
@pytest.mark.parametrize(
    ("pixel_format", "width", "height"),
    [
        *[(f, 64, 48) for f in FORMATS if CHROMA_SHIFT[f] != (1, 0)],
        ("yuv420p", 66, 34),
        ("yuv444p", 63, 47),
        ("yuvj444p", 5, 2),
    ],
)
def test_turned_planes_are_what_rot90_makes_of_them(pixel_format, width, height, degrees):
    image = noise(pixel_format, width, height)
    image.pts, image.time_base, image.colorspace, image.color_range = 9, Fraction(1, 30), 1, 2
    before = planes(image)
    result = rotated(image, degrees)
    quarters = round(degrees / 90)
    assert result.format.name == pixel_format
    assert (result.width, result.height) == ((height, width) if quarters % 2 else (width, height))
    for own, turned in zip(before, planes(result), strict=True):
        assert np.array_equal(np.rot90(own, quarters), turned)
    assert (result.pts, result.time_base, result.colorspace, result.color_range) == (9, Fraction(1, 30), 1, 2)
    assert all(np.array_equal(a, b) for a, b in zip(before, planes(image), strict=True)), "shared with the decoder"


@pytest.mark.parametrize("degrees", [0, 360, -360, 720, 3, -10])
def test_what_is_upright_is_not_copied(degrees):
    image = noise("yuv420p", 64, 48)
    assert rotated(image, degrees) is image


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize(
    ("pixel_format", "size"),
    [
        ("yuv422p", (64, 48)),
        ("yuvj422p", (64, 48)),
        ("yuv420p10le", (64, 48)),
        ("rgb24", (64, 48)),
        ("gray", (64, 48)),
        ("yuv420p", (63, 47)),
        ("nv12", (63, 48)),
        ("yuv411p", (64, 48)),
    ],
)
def test_what_cannot_be_turned_as_it_is_is_turned_in_a_format_near_it(pixel_format, size, degrees):
    rgb = np.zeros((size[1], size[0], 3), np.uint8)
    rgb[: size[1] // 3, : size[0] // 3] = (250, 30, 30)
    image = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixel_format)
    result = rotated(image, degrees)
    assert result.format.name in CHROMA_SHIFT
    assert Colorimetry.of(result).full_range is (pixel_format == "yuvj422p")
    expected = np.rot90(image.to_ndarray(format="rgb24"), degrees // 90).astype(int)
    difference = np.abs(result.to_ndarray(format="rgb24").astype(int) - expected).mean(axis=-1)
    assert float(np.median(difference)) <= 3
    assert float((difference > 40).mean()) < 0.08, "only chroma at edges may differ"


MIRRORINGS = {
    "upright": ((1, 0, 0, 1), lambda p: p),
    "turned clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "upside down": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "turned counter-clockwise": ((0, -1, 1, 0), lambda p: np.rot90(p)),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "flipped": ((1, 0, 0, -1), lambda p: p[::-1]),
    "transposed": ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda p: p[::-1, ::-1].swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", MIRRORINGS)
def test_the_display_matrix_of_a_file_is_obeyed(tmp_path: Path, name: str):
    matrix, expected = MIRRORINGS[name]
    path = tmp_path / "clip.mp4"
    corner = np.full((96, 160, 3), 60, np.uint8)
    corner[:32, :48] = 230
    corner[:16, 48:] = 140
    write_clip(path, frames=1, size=(160, 96), pictures=[corner])
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # version 0: ISO/IEC 14496-12, 8.3.2
    a, b, c, d = (number << 16 for number in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        image = next(container.decode(video=0))
        shown = upright(image)
        assert np.array_equal(plane(shown, 0), expected(plane(image, 0)))


@pytest.mark.parametrize(("orientation", "quarters"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_exif_orientation_of_a_photo_is_obeyed(tmp_path: Path, orientation: int, quarters: int):
    """Of the mirrored orientations PyAV shows only the angle, and no camera writes them."""
    corner = np.full((96, 160, 3), 60, np.uint8)
    corner[:32, :48] = 230
    path = tmp_path / "photo.jpg"
    write_clip(path, frames=1, size=(160, 96), codec="mjpeg", pix_fmt="yuvj420p", pictures=[corner])
    jpeg = path.read_bytes()
    entry = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(entry) + 2) + entry + jpeg[2:])
    with av.open(str(path)) as container:
        image = next(container.decode(video=0))
        assert np.array_equal(plane(upright(image), 0), np.rot90(plane(image, 0), quarters))


# The networks' input ------------------------------------------------------------------------------------------------
def smooth(width: int, height: int) -> UInt8:
    y, x = np.mgrid[0:height, 0:width]
    red = 128 + 90 * np.sin(x / width * 7) * np.cos(y / height * 5)
    return np.stack([red, 255 * x / width, 255 * y / height], -1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("colorimetry", COLORIMETRIES)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "nv12", "yuv422p", "yuv444p"])
def test_shrinking_averages_areas(pixel_format, colorimetry):
    rgb, factor = smooth(256, 128), 4
    color_range = ColorRange.JPEG if colorimetry.full_range else ColorRange.MPEG
    image = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format=pixel_format, dst_colorspace=SCALER[colorimetry.matrix], dst_color_range=color_range
    )
    result = network_input(image, 128 // factor, 256 // factor)
    assert result.shape == (32, 64, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    expected = rgb.reshape(32, factor, 64, factor, 3).astype(float).mean(axis=(1, 3))
    difference = np.abs(result - expected)
    assert difference.mean() < 1
    assert np.percentile(difference, 99) <= 4


def test_thin_lines_survive_shrinking_at_their_share():
    rgb = np.zeros((128, 256, 3), np.uint8)
    rgb[:, 100] = 255  # a pole one pixel wide
    image = converted(av.VideoFrame.from_ndarray(rgb, format="rgb24"), "yuv444p")
    column = network_input(image, 32, 64)[:, 25, 1]
    assert np.abs(column.astype(int) - 255 // 4).max() <= 4


@pytest.mark.parametrize("pixel_format", [*FORMATS, "rgb24", "bgr24", "yuv420p10le", "gbrp", "rgb8", "bgra"])
@pytest.mark.parametrize("size", [(16, 32), (64, 64), (200, 100)])
def test_the_channels_are_red_green_blue_whatever_the_format(pixel_format, size):
    for rgb in ((230, 20, 20), (20, 230, 20), (20, 20, 230)):
        source = of_color(rgb, 96, 64)
        image = source if pixel_format == "rgb24" else source.reformat(format=pixel_format)
        result = network_input(image, *size)
        assert result.shape == (*size, 3)
        # Blue has two bits in rgb8: a dithered pixel is at the level below or above, which are 85 apart.
        assert np.abs(result.reshape(-1, 3).astype(int) - rgb).max() <= (85 if pixel_format == "rgb8" else 4)


@pytest.mark.parametrize(("height", "matrix"), [(360, "bt601"), (720, "bt709")])
def test_colors_that_are_not_tagged_are_read_as_the_overlay_reads_them(height, matrix):
    """FFmpeg's own default is BT.601 at every size, which turns the greens of untagged 720p by up to 30 levels."""
    rgb = (30, 200, 60)
    image = av.VideoFrame(64, height, "yuv420p")
    for index, level in enumerate(Colorimetry(matrix, False).yuv(rgb)):
        plane(image, index)[:] = level
    assert np.abs(network_input(image, 32, 32).reshape(-1, 3).astype(int) - rgb).max() <= 3


def test_the_whole_picture_is_squashed_into_the_input():
    rgb = np.zeros((90, 160, 3), np.uint8)
    rgb[:45, :80], rgb[45:, 80:] = (255, 0, 0), (0, 0, 255)
    image = converted(av.VideoFrame.from_ndarray(rgb, format="rgb24"), "yuv444p")
    small = network_input(image, 32, 32)
    assert small[4, 4, 0] > 240
    assert small[28, 28, 2] > 240
    assert small[4, 28].max() < 15
    assert small[28, 4].max() < 15
