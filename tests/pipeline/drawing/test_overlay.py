"""Overlays: blended as arithmetic says, drawn where they belong and nowhere else, never on the decoder's planes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, ClassInfo
from pipeline.drawing.overlay import Overlay, OverlayStyle, once_each
from pipeline.frame import Analysis, Box, Frame
from pipeline.pictures.colors import Colorimetry, ColorTags
from pipeline.pictures.planes import CHROMA_SHIFT, plane
from tests.footage import write_clip
from tests.pipeline.fake_analysis import areas
from tests.pipeline.sample_pictures import noise, planes

UInt8 = NDArray[np.uint8]
PLAIN = OverlayStyle(outlines=False, boxes=False)
NOTHING = OverlayStyle(opacity=0, outlines=False, boxes=False)
BT709 = Colorimetry("bt709", False)
BIG, ODD = (96, 64), (81, 57)


def analysis(image: av.VideoFrame, class_map: UInt8 | None = None, boxes: tuple[Box, ...] = ()) -> Analysis:
    frame = Frame("drive", 0, 0, Fraction(1, 25), 0.0, 0.0, image)
    return Analysis(frame, "file", class_map=class_map, classes=CITYSCAPES_CLASSES, boxes=boxes)


def grey(pixel_format: str = "yuv420p", size: tuple[int, int] = (320, 180), level: int = 110) -> av.VideoFrame:
    image = av.VideoFrame(*size, pixel_format)
    for index in range(len(image.planes)):
        plane(image, index)[:] = level if index == 0 else 128
    return image


def box(x1: float, y1: float, x2: float, y2: float, label: str = "car", track: int | None = 7) -> Box:
    return Box(x1, y1, x2, y2, 13, label, 0.87, "test", track)


def changed(result: av.VideoFrame, source: av.VideoFrame) -> UInt8:
    """(height, width) bool: which pixels of the full-size picture differ in any plane."""
    across, down = CHROMA_SHIFT[source.format.name]
    height, width = source.height, source.width
    differs = plane(result, 0) != plane(source, 0)
    for index in range(1, len(source.planes)):
        small = plane(result, index) != plane(source, index)
        small = small.any(-1) if small.ndim == 3 else small
        differs |= small.repeat(1 << down, 0).repeat(1 << across, 1)[:height, :width]
    return differs


# Blending -----------------------------------------------------------------------------------------------------------
def bilinear(small: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Enlarged with pixel centres aligned and edges repeated, in float64."""

    def weights(count: int, own: int) -> NDArray[np.float64]:
        at = np.clip((np.arange(count) + 0.5) * own / count - 0.5, 0, own - 1)
        low = np.minimum(np.floor(at).astype(int), own - 1)
        matrix = np.zeros((count, own))
        matrix[np.arange(count), low] += 1 - (at - low)
        matrix[np.arange(count), np.minimum(low + 1, own - 1)] += at - low
        return matrix

    return weights(height, small.shape[0]) @ small @ weights(width, small.shape[1]).T


CASES = [(f, BIG) for f in CHROMA_SHIFT] + [("yuv444p", ODD), ("yuvj444p", ODD), ("yuv422p", (80, 57))]


@pytest.mark.seconds
@pytest.mark.parametrize("colorimetry", [Colorimetry(m, f) for m in ("bt601", "bt709") for f in (False, True)])
@pytest.mark.parametrize(("pixel_format", "size"), CASES)
@pytest.mark.parametrize("map_size", [(32, 48), (64, 96), (37, 29), (128, 192)])
def test_blending_against_float64(pixel_format, size, colorimetry, map_size):
    image, class_map = noise(pixel_format, *size), areas(*map_size, seed=3)
    class_map[class_map == 255] = 10
    before, opacity = planes(image), 0.45
    result = Overlay(PLAIN, CITYSCAPES_CLASSES, colorimetry).draw(analysis(image, class_map))
    assert (result.width, result.height, result.format.name) == (*size, pixel_format)
    levels = np.array([colorimetry.yuv(info.color) for info in CITYSCAPES_CLASSES], float)
    for index, own in enumerate(before):
        channels = [1, 2] if own.ndim == 3 else [index]
        for channel in channels:
            original = own[..., channel - 1] if own.ndim == 3 else own
            drawn = plane(result, index)[..., channel - 1] if own.ndim == 3 else plane(result, index)
            colors = bilinear(levels[:, channel][class_map], *original.shape)
            assert np.abs(drawn - ((1 - opacity) * original + opacity * colors)).max() <= 1


@pytest.mark.parametrize("pixel_format", CHROMA_SHIFT)
def test_opacity_one_paints_and_opacity_zero_copies(pixel_format):
    image, class_map = noise(pixel_format, *BIG), np.full((8, 8), 8, np.uint8)
    painted = Overlay(OverlayStyle(1.0, False, False), CITYSCAPES_CLASSES, BT709).draw(analysis(image, class_map))
    y, cb, cr = BT709.yuv(CITYSCAPES_CLASSES[8].color)
    expected = [{y}, {cb, cr}] if pixel_format == "nv12" else [{y}, {cb}, {cr}]
    assert [set(np.unique(p)) for p in planes(painted)] == expected
    copied = Overlay(NOTHING, CITYSCAPES_CLASSES, BT709).draw(analysis(image, class_map))
    assert not changed(copied, image).any()


@pytest.mark.parametrize("class_map", [None, np.full((8, 8), 255, np.uint8), np.full((8, 8), 19, np.uint8)])
def test_without_classes_in_the_picture_it_is_a_copy(class_map):
    image = noise("yuv420p", *BIG)
    style = OverlayStyle(outlines=True, boxes=True)
    assert not changed(Overlay(style, CITYSCAPES_CLASSES, BT709).draw(analysis(image, class_map)), image).any()


@pytest.mark.parametrize("pixel_format", CHROMA_SHIFT)
@pytest.mark.parametrize("hide", [("road",), ("road", "car"), tuple(c.name for c in CITYSCAPES_CLASSES)])
def test_hidden_and_unlabelled_classes_leave_pixels_untouched(pixel_format, hide):
    class_map = np.full((32, 48), 10, np.uint8)
    class_map[8:24, 8:16], class_map[8:24, 16:24], class_map[8:24, 24:32], class_map[8:24, 32:40] = 0, 13, 255, 40
    hidden = np.isin(class_map, [c.id for c in CITYSCAPES_CLASSES if c.name in hide] + [255, 40])
    image = noise(pixel_format, *BIG)
    style = msgspec.structs.replace(PLAIN, opacity=1.0, hide=hide)
    result = Overlay(style, CITYSCAPES_CLASSES, BT709).draw(analysis(image, class_map))
    differs, mask = changed(result, image), hidden.repeat(2, 0).repeat(2, 1)
    assert not differs[mask].any()
    assert hidden.all() or differs[~mask].mean() > 0.9


def test_a_label_set_with_gaps_shows_its_classes_and_no_other():
    classes = (ClassInfo(3, "lane", (255, 0, 0)), ClassInfo(200, "sign", (0, 0, 255)))
    class_map = np.repeat(np.array([[0, 3, 200, 255]], np.uint8), 4, 0)
    image = grey(size=(64, 64))
    differs = changed(Overlay(PLAIN, classes, BT709).draw(analysis(image, class_map)), image)
    assert [bool(differs[:, x].any()) for x in (8, 24, 40, 56)] == [False, True, True, False]


# The decoder's picture ----------------------------------------------------------------------------------------------
EVERYTHING = OverlayStyle(opacity=0.7, outlines=True, boxes=True, legend=True, heads_up=True)


@pytest.mark.parametrize("pixel_format", CHROMA_SHIFT)
def test_nothing_is_drawn_on_the_decoders_planes(pixel_format):
    image = noise(pixel_format, 320, 180)
    before = planes(image)
    given = analysis(image, areas(90, 160), (box(20, 20, 100, 90),))
    result = Overlay(EVERYTHING, CITYSCAPES_CLASSES, BT709).draw(given, "drive")
    assert all(np.array_equal(a, b) for a, b in zip(before, planes(image), strict=True))
    assert not any(
        np.shares_memory(plane(result, i), plane(image, j))
        for i in range(len(image.planes))
        for j in range(len(image.planes))
    )


def test_pictures_predicted_from_an_overlaid_one_are_those_of_a_plain_decoder(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=12, size=(160, 96), bframes=2)
    with av.open(str(path)) as container:
        plain = [planes(image) for image in container.decode(video=0)]
    overlay = Overlay(EVERYTHING, CITYSCAPES_CLASSES, BT709)
    with av.open(str(path)) as container:
        for image, expected in zip(container.decode(video=0), plain, strict=True):
            overlay.draw(analysis(image, areas(48, 80)), "drive")
            assert all(np.array_equal(a, b) for a, b in zip(planes(image), expected, strict=True))


def test_time_and_color_properties_go_along():
    image = noise("yuv420p", *BIG)
    image.pts, image.time_base, image.colorspace, image.color_range = 1234, Fraction(1, 90_000), 9, 2
    image.color_primaries, image.color_trc = 9, 16
    result = Overlay(EVERYTHING, CITYSCAPES_CLASSES, BT709).draw(analysis(image, areas()), "drive")
    assert (result.pts, result.time_base) == (1234, Fraction(1, 90_000))
    assert ColorTags.of(result) == ColorTags(matrix=9, range=2, primaries=9, transfer=16)


# What is drawn on top -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pixel_format", CHROMA_SHIFT)
def test_a_box_changes_its_border_and_label_and_nothing_else(pixel_format):
    image, x1, y1, x2, y2 = grey(pixel_format), 60, 80, 180, 150
    style = msgspec.structs.replace(NOTHING, boxes=True)
    result = Overlay(style, CITYSCAPES_CLASSES, BT709).draw(analysis(image, boxes=(box(x1, y1, x2, y2),)))
    differs = changed(result, image)
    allowed = np.zeros_like(differs)
    allowed[y1 - 3 : y2 + 3, x1 - 3 : x2 + 3] = True
    allowed[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3] = False
    label = np.zeros_like(differs)
    label[y1 - 24 : y1, x1 - 1 : x1 + 110] = True
    assert not differs[~(allowed | label)].any()
    border = np.zeros_like(differs)
    border[[y1, y2 - 1], x1:x2] = border[y1:y2, [x1, x2 - 1]] = True
    assert differs[border].all()
    assert differs[label].mean() > 0.2
    if pixel_format == "yuv444p":  # a pale blue, of which the label's ground is, too
        side, label_ground = (y1 + y2) // 2, (y1 - 6, x1 + 1)
        assert int(plane(result, 1)[side, x1]) >= 128 + 20
        assert int(plane(result, 2)[side, x1]) <= 128
        assert int(plane(result, 0)[label_ground]) == int(plane(result, 0)[side, x1]) > 170


@pytest.mark.parametrize(
    ("what", "corners", "visible"),
    [
        ("over the left edge", (-40, 60, 40, 120), True),
        ("over the upper edge", (100, -30, 180, 40), True),
        ("over the right and lower edge", (300, 150, 400, 260), True),
        ("around the whole picture", (-50, -50, 400, 300), False),
        ("left of it", (-80, 20, -10, 90), False),
        ("above it", (50, -80, 120, -10), False),
        ("right of it", (330, 20, 400, 90), False),
        ("below it", (50, 190, 90, 220), False),
        ("far out", (1e12, 1e12, 2e12, 2e12), False),
        ("from far out to far out", (-1e30, -1e30, 1e30, 1e30), False),
        ("nowhere", (float("nan"), 20, 90, float("nan")), False),
        ("as thin as a hair", (100, 60, 100.01, 120), True),
        ("in the upper left corner", (0, 0, 30, 30), True),
        ("the whole picture", (0, 0, 320, 180), True),
    ],
)
def test_boxes_across_and_outside_the_edges(what, corners, visible):
    image = grey("nv12")
    style = msgspec.structs.replace(NOTHING, boxes=True)
    result = Overlay(style, CITYSCAPES_CLASSES, BT709).draw(analysis(image, boxes=(box(*corners),)))
    differs = changed(result, image)
    edges = differs[30:, 130:].any() if what == "the whole picture" else differs.any()
    if visible:
        assert edges, what
        x1, y1, x2, y2 = (int(np.clip(v, 0, limit)) for v, limit in zip(corners, (320, 180, 320, 180), strict=True))
        assert differs[max(y1 - 24, 0) : y2 + 24, max(x1 - 110, 0) : x2 + 110].sum() == differs.sum()
    elif "around" not in what and "from far" not in what:
        assert not differs.any()


def test_a_label_stays_readable_at_the_edges():
    style = msgspec.structs.replace(NOTHING, boxes=True)
    areas_changed = []
    for corners in ((100, 80, 140, 120), (-30, 80, 10, 120), (300, 80, 340, 120), (100, -20, 140, 30)):
        image = grey()
        result = Overlay(style, CITYSCAPES_CLASSES, BT709).draw(analysis(image, boxes=(box(*corners),)))
        areas_changed.append(int((plane(result, 0) > 170).sum()))
    assert min(areas_changed) > 0.6 * max(areas_changed)


def test_the_color_of_a_box_is_that_of_its_label_not_of_another_models_class_id():
    """A head found by a localizer has class id 0 of its own label set, which is not the road's purple."""
    style = msgspec.structs.replace(NOTHING, boxes=True)
    overlay = Overlay(style, CITYSCAPES_CLASSES, BT709)
    shades = []
    for label, class_id in (("head", 0), ("car", 0), ("car", 13)):
        given = Box(50, 50, 120, 120, class_id, label, 0.9, "localizer")
        result = overlay.draw(analysis(grey("yuv444p"), boxes=(given,)))
        shades.append(tuple(int(p[85, 50]) for p in planes(result))[1:])
    assert shades[1] == shades[2]
    yellow = BT709.yuv((255, 255, 0))[1:]
    assert max(abs(a - b) for a, b in zip(shades[0], yellow, strict=True)) <= 2


@pytest.mark.parametrize("pixel_format", CHROMA_SHIFT)
def test_outlines_follow_the_edge_of_things_only(pixel_format):
    class_map = np.zeros((90, 160), np.uint8)
    class_map[30:60, 40:90] = 13  # a car: thing
    class_map[:20] = 10  # sky: not a thing
    image = grey(pixel_format)
    style = msgspec.structs.replace(NOTHING, outlines=True)
    result = Overlay(style, CITYSCAPES_CLASSES, BT709).draw(analysis(image, class_map))
    differs = changed(result, image)
    allowed = np.zeros_like(differs)
    allowed[57:123, 77:183] = True
    allowed[66:114, 86:174] = False
    assert not differs[~allowed].any()
    assert differs[90, 78:86].any()
    assert differs[90, 174:183].any()
    assert differs[58:64, 130].any()


@pytest.mark.parametrize("hide", [("car",), ()])
def test_a_hidden_thing_has_no_outline_and_a_single_pixel_none_either(hide):
    class_map = np.zeros((90, 160), np.uint8)
    class_map[30:60, 40:90] = 13 if hide else 0
    class_map[10, 10] = 11
    image = grey()
    style = OverlayStyle(0.0, True, False, hide=hide)
    assert not changed(Overlay(style, CITYSCAPES_CLASSES, BT709).draw(analysis(image, class_map)), image).any()


@pytest.mark.parametrize("pixel_format", CHROMA_SHIFT)
def test_the_legend_stands_at_the_lower_left(pixel_format):
    image = grey(pixel_format, (640, 400))
    style = msgspec.structs.replace(NOTHING, legend=True)
    class_map = np.array([[0, 13]], np.uint8).repeat(8, 1)
    differs = changed(Overlay(style, CITYSCAPES_CLASSES, BT709).draw(analysis(image, class_map)), image)
    assert not differs[:370].any()
    assert not differs[:, 200:].any()
    assert differs[386:, :80].mean() > 0.8


@pytest.mark.parametrize("hide", [(), ("car",), ("road", "car")])
def test_the_legend_leaves_out_what_is_hidden(hide):
    style = msgspec.structs.replace(NOTHING, legend=True, hide=hide)
    image, class_map = grey(size=(640, 400)), np.array([[0, 13]], np.uint8).repeat(8, 1)
    differs = changed(Overlay(style, CITYSCAPES_CLASSES, BT709).draw(analysis(image, class_map)), image)
    right = int(np.flatnonzero(differs.any(0)).max(initial=-1)) + 1
    widths = {(): range(80, 200), ("car",): range(30, 80), ("road", "car"): range(1)}
    assert right in widths[hide]


def test_the_heads_up_line_stands_at_the_upper_left_and_needs_a_text():
    image = grey("yuv420p", (640, 360))
    overlay = Overlay(msgspec.structs.replace(NOTHING, heads_up=True), CITYSCAPES_CLASSES, BT709)
    differs = changed(overlay.draw(analysis(image), "drive 1.0 s"), image)
    assert differs[:15, :80].mean() > 0.8
    assert not differs[30:].any()
    assert not differs[:, 200:].any()
    assert not changed(overlay.draw(analysis(image)), image).any()


def test_notes_in_words_are_lines_below_each_other_and_others_are_not_drawn():
    image = grey("yuv420p", (640, 360))
    overlay = Overlay(msgspec.structs.replace(NOTHING, heads_up=True, notes=True), CITYSCAPES_CLASSES, BT709)

    def drawn(heads_up: str = "", **notes: object) -> UInt8:
        given = analysis(image)
        given.notes = dict(notes)
        return changed(overlay.draw(given, heads_up), image)

    line = 16  # pixels a line of a picture of this height
    one, two = drawn(lanes="keep left"), drawn(lanes={"text": "keep left"}, weather="rain")
    assert one[: line - 1, :80].mean() > 0.8
    assert not one[line + 1 :].any()
    assert (two[: line - 1] == one[: line - 1]).all()
    assert two[line : 2 * line, :60].mean() > 0.8
    below = drawn("drive 1.0 s", weather="rain")
    assert below[: 2 * line, :60].mean() > 0.8, "below the heads-up line"
    assert not drawn(offset=0.5, glare=None, track=["text"]).any()
    assert drawn(many="word " * 100_000, **{str(row): "x" for row in range(1000)}).shape == (360, 640)


def test_notes_are_not_drawn_where_the_style_says_so():
    given = analysis(image := grey("yuv420p", (640, 360)))
    given.notes = {"weather": "rain"}
    silent = msgspec.structs.replace(NOTHING, notes=False)
    assert not changed(Overlay(silent, CITYSCAPES_CLASSES, BT709).draw(given), image).any()


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (3, 200), (2, 2)])
def test_tiny_pictures_take_everything(size):
    pixel_format = "yuv420p" if size[0] % 2 == 0 and size[1] % 2 == 0 else "yuv444p"
    given = analysis(noise(pixel_format, *size), areas(32, 64), (box(0, 0, *size), box(-5, -5, 2, 2)))
    result = Overlay(EVERYTHING, CITYSCAPES_CLASSES, BT709).draw(given, "a long line of text")
    assert (result.width, result.height) == size


@pytest.mark.parametrize("opacity", [-0.1, 1.1, "half"])
def test_an_opacity_that_is_none_is_refused(opacity):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"opacity": opacity}, OverlayStyle)


@pytest.mark.parametrize(
    ("boxes", "drawn"),
    [
        pytest.param([(10, 10, 50, 50, "unet"), (12, 11, 52, 49, "lead")], ["lead"], id="one car, two models"),
        pytest.param([(12, 11, 52, 49, "lead"), (10, 10, 50, 50, "unet")], ["unet"], id="the later model's stays"),
        pytest.param([(10, 10, 50, 50, "unet"), (40, 10, 90, 50, "lead")], ["unet", "lead"], id="two cars"),
        pytest.param([(10, 10, 50, 50, "unet"), (12, 11, 52, 49, "unet")], ["unet", "unet"], id="one model"),
        pytest.param(
            [(0, 0, 100, 50, "unet"), (10, 10, 40, 50, "lead")], ["unet", "lead"], id="a row of cars, one of it"
        ),
        pytest.param([], [], id="nothing"),
    ],
)
def test_an_object_of_two_models_is_drawn_once(boxes, drawn):
    found = once_each([Box(x1, y1, x2, y2, 13, "car", 0.9, origin) for x1, y1, x2, y2, origin in boxes])
    assert [box.origin for box in found] == drawn
