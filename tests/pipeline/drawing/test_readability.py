"""What is drawn can be told from what is below it, and read: looked at as pixels, in RGB, at every size."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import cv2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, ClassInfo
from pipeline.drawing.canvas import FONT, Canvas
from pipeline.drawing.contrast import line_color
from pipeline.drawing.overlay import Overlay, OverlayStage, OverlayStyle
from pipeline.frame import Analysis, Box, Frame
from pipeline.pictures.colors import Colorimetry
from pipeline.pictures.planes import plane

OF_OPENCV_5 = pytest.mark.skipif(
    int(cv2.__version__.partition(".")[0]) < 5,
    reason="OpenCV 4 draws other letters than 5, for which sizes were chosen: contrast 4.1 at 320 pixels for 4.5",
)

SIZES = [(640, 360), (1280, 720), (3840, 2160)]
SMALL = [*SIZES[:2], (512, 256), (360, 640), (1024, 256), (322, 182)]
"""Sizes of many scenes: Cityscapes' shape, a telephone held upright, two cameras side by side, one that is odd."""

NOTHING = OverlayStyle(opacity=0, outlines=False, boxes=False)
THINGS = [info for info in CITYSCAPES_CLASSES if info.thing]
Floats = NDArray[np.float64]


def picture(rgb: NDArray[np.uint8], pixel_format: str = "yuv420p") -> av.VideoFrame:
    """RGB as limited-range BT.709."""
    image = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    image = image.reformat(format=pixel_format, dst_colorspace=1, dst_color_range=1)
    image.colorspace, image.color_range = 1, 1
    return image


def rgb_of(image: av.VideoFrame) -> NDArray[np.uint8]:
    return image.reformat(format="rgb24", src_colorspace=1, src_color_range=1, dst_color_range=2).to_ndarray()


def luminances(rgb: NDArray[np.uint8]) -> Floats:
    """Relative luminance as WCAG 2.2 has it."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ [0.2126, 0.7152, 0.0722])


def contrasts(one: Floats, other: Floats | float) -> Floats:
    return np.asarray((np.maximum(one, other) + 0.05) / (np.minimum(one, other) + 0.05))


def background(kind: str, width: int, height: int, random: np.random.Generator) -> NDArray[np.uint8]:
    if kind == "grey":
        return np.full((height, width, 3), random.integers(0, 256), np.uint8)
    if kind == "colour":
        return np.broadcast_to(random.integers(0, 256, 3).astype(np.uint8), (height, width, 3)).copy()
    if kind == "ramp":
        return np.repeat(np.linspace(0, 255, width).astype(np.uint8)[None, :, None].repeat(height, 0), 3, 2)
    coarse = random.integers(0, 256, (7, 12, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def analysis(
    image: av.VideoFrame,
    class_map: NDArray[np.uint8] | None = None,
    boxes: tuple[Box, ...] = (),
    time: float = 0,
    classes: tuple[ClassInfo, ...] = CITYSCAPES_CLASSES,
) -> Analysis:
    frame = Frame("drive", 0, round(time * 1000), Fraction(1, 1000), 0.0, 0.0, image)
    return Analysis(frame, "file", class_map=class_map, classes=classes, boxes=boxes)


def scene(random: np.random.Generator, width: int, height: int, count: int) -> tuple[Box, ...]:
    """Boxes as a street has them: many small ones along the horizon, a few large ones, some cut off by the edges."""
    boxes = []
    for track in range(count):
        high = height * float(np.exp(random.uniform(np.log(0.02), np.log(0.6))))
        wide = high * random.uniform(0.3, 2.5)
        x, bottom = random.uniform(-0.1, 1) * width, height * random.uniform(0.45, 0.65) + high / 2
        info = THINGS[random.integers(len(THINGS))]
        score, label = random.uniform(0.2, 1), "head" if track % 7 == 6 else info.name
        number = None if track % 5 == 4 else int(random.integers(2000))
        boxes.append(Box(x, bottom - high, x + wide, bottom, info.id, label, score, "test", number))
    return tuple(boxes)


def overlay(classes: tuple[ClassInfo, ...] = CITYSCAPES_CLASSES, **style: Any) -> Overlay:
    """One that draws nothing but what is asked for."""
    return Overlay(msgspec.structs.replace(NOTHING, **style), classes, Colorimetry("bt709", False))


# Lines --------------------------------------------------------------------------------------------------------------
@pytest.mark.seconds
@pytest.mark.parametrize("opacity", [0.0, 0.45])
@pytest.mark.parametrize(
    ("size", "kind"),
    [(size, kind) for size in SIZES[:2] for kind in ("grey", "colour", "ramp", "picture")]
    + [pytest.param(SIZES[2], "picture", marks=pytest.mark.slow)],
)
def test_lines_are_3_to_1_against_what_is_below_all_along(size, kind, opacity):
    width, height = size
    random = np.random.default_rng(len(kind) + width)
    for _ in range(4 if width < 2000 else 1):
        image = picture(background(kind, *size, random))
        class_map, thing = np.zeros((256, 512), np.uint8), THINGS[random.integers(len(THINGS))]
        cv2.ellipse(class_map, (150, 120), (90, 50), random.uniform(0, 180), 0, 360, thing.id, -1)
        x, y = random.uniform(0.55, 0.6) * width, random.uniform(0.2, 0.5) * height
        given = Box(x, y, x + 0.3 * width, y + 0.4 * height, thing.id, thing.name, 0.9, "test", 3)
        below = luminances(rgb_of(overlay(opacity=opacity).draw(analysis(image, class_map))))
        drawing = overlay(opacity=opacity, outlines=True, boxes=True)
        drawn = luminances(rgb_of(drawing.draw(analysis(image, class_map, (given,)))))
        found = (contrasts(drawn, below) >= 3).astype(np.uint8)
        # Of the box: everywhere along its sides, right across the line.
        line = round(height / 100) + 3
        left, top, right, bottom = (round(v) for v in (given.x1, given.y1, given.x2, given.y2))
        middle_x, middle_y = slice(left + 10, right - 10), slice(top + 10, bottom - 10)
        for across in (found[middle_y, left - line : left + line], found[middle_y, right - line : right + line]):
            assert across.any(1).all()
        for down in (found[top - line : top + line, middle_x], found[bottom - line : bottom + line, middle_x]):
            assert down.any(0).all()
        # Of the outline: everywhere along the edge of the thing, as far away as a pixel of the class map is large.
        mask = cv2.resize((class_map == thing.id).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        edge = mask - cv2.erode(mask, np.ones((3, 3), np.uint8))
        reach = 2 * (round(width / 512) + line) + 1
        near = cv2.dilate(found, np.ones((reach, reach), np.uint8))
        assert near[edge > 0].all()


@pytest.mark.seconds
@pytest.mark.parametrize(
    "hue", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (1, 1, 1), (255, 255, 0), (0, 90, 0), (9, 0, 9)]
)
def test_every_class_colour_makes_a_line_that_shows_on_any_grey(hue):
    lines = overlay((ClassInfo(18, "bicycle", hue, thing=True),), boxes=True)
    for level in range(0, 256, 5):
        image = picture(np.full((360, 640, 3), level, np.uint8))
        given = Box(301, 121, 501, 301, 18, "bicycle", 0.5, "test")
        across = rgb_of(lines.draw(analysis(image, boxes=(given,))))[150:250, 290:315]
        below = luminances(rgb_of(image))[0, 0]
        assert contrasts(luminances(across), below).max(1).min() >= 3
    assert luminances(np.array(line_color(hue), np.uint8)) >= 0.4


def test_a_line_keeps_the_hue_of_its_class():
    for info in THINGS:
        image = picture(np.full((720, 1280, 3), 90, np.uint8), "yuv444p")
        box = Box(400, 300, 800, 600, info.id, info.name, 0.9, "test")
        red, _, blue = rgb_of(overlay(boxes=True).draw(analysis(image, boxes=(box,))))[450, 401].astype(int)
        own_red, _, own_blue = info.color
        assert (red > blue + 20) == (own_red > own_blue)
        assert (blue > red + 20) == (own_blue > own_red)


# Labels -------------------------------------------------------------------------------------------------------------
class Written(list[tuple[int, int, str, int, float]]):
    """What was written on canvases, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = Canvas.text

        def text(canvas: Canvas, x: int, baseline: int, said: str, luma: int, size: float) -> None:
            self.append((x, baseline, said, luma, size))
            plain(canvas, x, baseline, said, luma, size)

        monkeypatch.setattr(Canvas, "text", text)

    def letters(self, size: tuple[int, int], index: int) -> NDArray[np.uint8]:
        """(height, width) uint8: how much a text covers each pixel of a picture, 0 to 255."""
        x, baseline, said, _, scale = self[index]
        sheet = np.zeros((size[1], size[0]), np.uint8)
        cv2.putText(sheet, said, (x, baseline), FONT, scale, (255,), max(1, round(scale * 2)), cv2.LINE_AA)
        return sheet


@pytest.mark.seconds
@pytest.mark.parametrize("size", [*SMALL, pytest.param(SIZES[2], marks=pytest.mark.slow)])
def test_labels_are_whole_and_inside_and_never_over_another(monkeypatch, size):
    width, height = size
    written, random = Written(monkeypatch), np.random.default_rng(width)
    class_map = np.tile(np.arange(19, dtype=np.uint8), (8, 4))
    for number in range(10 if width < 1000 else 2):
        drawing = overlay(boxes=True, legend=True, heads_up=True)
        boxes = scene(random, *size, count=int(random.integers(1, 60)))
        for time in (0.0, 0.04):  # the second remembers the first
            written.clear()
            given = analysis(picture(background("picture", *size, random)), class_map, boxes, number + time)
            given.notes = {"weather": "rain", "lanes": "keep left"}
            lumas = plane(drawing.draw(given, "front 12.0 s"), 0)
            covered = np.zeros((height, width), np.uint8)
            assert any(said.startswith(("car", "person", "truck", "bus", "head", "tr", "mo", "ri", "bi"))
                       for _, _, said, _, _ in written)  # fmt: skip
            for index, (x, baseline, said, luma, scale) in enumerate(written):
                letters = written.letters(size, index)
                (wide, high), _ = cv2.getTextSize(said, FONT, scale, max(1, round(scale * 2)))
                assert x >= 0, said
                assert x + wide <= width, said
                assert high * 0.6 <= baseline < height, said
                assert not (covered[letters > 0]).any(), said
                covered[letters > 0] = 1
                whole = letters > 250
                assert not whole.any() or np.abs(lumas[whole].astype(int) - luma).max() < 12, f"{said} is written over"


@OF_OPENCV_5
@pytest.mark.parametrize("size", SIZES)
def test_labels_can_be_read_in_a_tile_of_320_pixels(monkeypatch, size):
    written, random = Written(monkeypatch), np.random.default_rng(3)
    boxes = scene(random, *size, count=12)
    drawn = rgb_of(overlay(boxes=True).draw(analysis(picture(background("picture", *size, random)), boxes=boxes)))
    tile = luminances(cv2.resize(drawn, (320, 180), interpolation=cv2.INTER_AREA))
    shrink = 320 / size[0]
    assert written
    for index in range(len(written)):
        letters = written.letters(size, index)
        rows, columns = np.flatnonzero(letters.any(1)), np.flatnonzero(letters.any(0))
        assert (rows[-1] - rows[0]) * shrink >= 4.5, "height of what is written, capitals or ascenders"
        small = tile[
            int(rows[0] * shrink) : int(rows[-1] * shrink) + 1, int(columns[0] * shrink) : int(columns[-1] * shrink) + 1
        ]
        assert contrasts(np.percentile(small, 90), np.percentile(small, 5)) >= 4.5


def test_a_label_stays_where_it_is_while_other_boxes_move(monkeypatch):
    written, drawing = Written(monkeypatch), overlay(boxes=True)
    image = picture(np.full((360, 640, 3), 90, np.uint8))
    still, places = Box(300, 200, 360, 240, 13, "car", 0.9, "test", 1), []
    for step in range(60):
        x = step * 8
        passing = Box(x, 120, x + 100, 195, 14, "truck", 0.9, "test", 2)
        written.clear()
        drawing.draw(analysis(image, boxes=(still, passing), time=step / 25))
        places.append(next((x, baseline) for x, baseline, said, _, _ in written if said.startswith("car")))
    assert sum(a != b for a, b in itertools.pairwise(places)) <= 2, "aside only for the truck and its label"


# The legend ---------------------------------------------------------------------------------------------------------
def mapped(*classes: int) -> NDArray[np.uint8]:
    """A class map of equal stripes."""
    return np.array(classes, np.uint8).repeat(16)[None].repeat(64, 0)


def listed(written: Written) -> list[str]:
    return [said for _, _, said, _, _ in written]


@OF_OPENCV_5
@pytest.mark.parametrize("size", [*SMALL, SIZES[2]])
def test_the_legend_is_low_and_lists_what_is_present(monkeypatch, size):
    written = Written(monkeypatch)
    image = picture(np.full((size[1], size[0], 3), 127, np.uint8))
    for classes in ((0,), (0, 10, 13), tuple(range(19))):
        written.clear()
        drawn = rgb_of(overlay(legend=True).draw(analysis(image, mapped(*classes))))
        assert listed(written) == [CITYSCAPES_CLASSES[i].name for i in classes]
        rows = np.flatnonzero((drawn != rgb_of(image)).any((1, 2)))
        assert size[1] - rows[0] <= 0.25 * size[1] + 3
        assert rows[-1] >= size[1] - 2, "along the lower edge"


def test_the_legend_is_as_large_a_part_of_every_size():
    shares = []
    for size in SIZES:
        image = picture(np.full((size[1], size[0], 3), 127, np.uint8))
        drawn = rgb_of(overlay(legend=True).draw(analysis(image, mapped(*range(14)))))
        shares.append(float((drawn != rgb_of(image)).any(2).mean()))
    assert max(shares) < 0.12
    assert max(shares) < 1.25 * min(shares)


def test_every_swatch_is_3_to_1_against_what_is_around_it():
    image = picture(np.full((720, 1280, 3), 127, np.uint8), "yuv444p")
    for info in CITYSCAPES_CLASSES:
        drawn = rgb_of(overlay(legend=True).draw(analysis(image, mapped(info.id))))
        strip = drawn[680:, :60].astype(int)
        swatch = (np.abs(strip - info.color).max(2) <= 4).astype(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(swatch)
        largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        swatch = (labels == largest).astype(np.uint8)
        assert swatch.sum() >= 100, info.name
        around = cv2.dilate(swatch, np.ones((3, 3), np.uint8)) - swatch
        ratio = contrasts(luminances(drawn[680:, :60])[around > 0], luminances(np.array(info.color)))
        assert ratio.min() >= 3, info.name


def test_the_legend_does_not_flicker(monkeypatch):
    written, drawing = Written(monkeypatch), overlay(legend=True)
    image = picture(np.full((360, 640, 3), 127, np.uint8))

    def look(time: float, *classes: int) -> list[str]:
        written.clear()
        drawing.draw(analysis(image, mapped(*classes), time=time))
        return listed(written)

    assert look(0, 0, 13) == ["road", "car"]
    for step in range(1, 101):  # a car that is seen in every other picture, a bus that is seen once
        seen = (0, 13) if step % 2 else (0, 15) if step == 50 else (0,)
        assert look(step / 25, *seen) == ["road", "car"]
    after = [look(4 + step / 25, 0, 11) for step in range(1, 151)]
    changes = sum(a != b for a, b in itertools.pairwise(after))
    assert after[-1] == ["road", "person"]
    assert changes == 2, "one comes, one goes"


def test_a_label_set_that_does_not_fit_says_how_many_there_are_besides(monkeypatch):
    written = Written(monkeypatch)
    classes = tuple(ClassInfo(i, f"something {i}", (200, i, 90)) for i in range(150))
    image = picture(np.full((360, 640, 3), 127, np.uint8))
    class_map = np.arange(150, dtype=np.uint8).repeat(4)[None].repeat(8, 0)
    drawing = overlay(classes, legend=True)
    drawn = rgb_of(drawing.draw(analysis(image, class_map, classes=classes)))
    assert (drawn[: 360 * 3 // 4] == rgb_of(image)[: 360 * 3 // 4]).all()
    *names, rest = listed(written)
    assert rest == f"+{150 - len(names)}"
    assert len(names) > 10


# What is left out ---------------------------------------------------------------------------------------------------
@OF_OPENCV_5
def test_a_hidden_class_has_no_box_either(monkeypatch):
    written = Written(monkeypatch)
    image = picture(np.full((360, 640, 3), 127, np.uint8))
    boxes = (Box(50, 100, 200, 220, 13, "car", 0.9, "test", 1), Box(400, 100, 500, 300, 11, "person", 0.9, "test", 2))
    drawn = rgb_of(overlay(boxes=True, legend=True, hide=("car",)).draw(analysis(image, mapped(0, 13), boxes)))
    assert (drawn[:300, :300] == rgb_of(image)[:300, :300]).all()
    assert listed(written) == ["person 2 0.90", "road", "person"]


def test_an_archived_picture_is_the_same_however_fast_it_was_made():
    image = picture(np.full((360, 640, 3), 127, np.uint8))
    style = OverlayStyle(heads_up=True)

    def second(archived: bool, period: float, age: float) -> NDArray[np.uint8]:
        stage = OverlayStage(style, archived=archived)
        for number in range(2):
            given = analysis(image, time=number / 25)
            given.frame, given.age = replace(given.frame, arrived_at=number * period), age
            drawn = stage.process(given).picture
        assert drawn is not None
        return rgb_of(drawn)

    assert (second(True, 0.04, 0.01) == second(True, 2.0, 0.3)).all()
    assert (second(False, 0.04, 0.01) != second(False, 2.0, 0.3)).any(), "live, both are shown"
