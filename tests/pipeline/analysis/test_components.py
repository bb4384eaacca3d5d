"""Boxes off a class map: one around every component of a thing, in the coordinates of the frame."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engines.classes import CITYSCAPES_CLASSES, ClassInfo
from pipeline.analysis.components import ComponentOptions, component_boxes
from pipeline.frame import Box

ALL = ComponentOptions(min_area=0)
THINGS = {c.id for c in CITYSCAPES_CLASSES if c.thing}


def boxes(class_map, confidence=None, frame=None, options=ALL, classes=CITYSCAPES_CLASSES) -> list[Box]:
    height, width = class_map.shape
    return component_boxes(class_map, confidence, classes, frame or (width, height), options, "unet")


def corners(box: Box) -> tuple[float, float, float, float]:
    return box.x1, box.y1, box.x2, box.y2


def flooded(class_map) -> set[tuple[int, tuple[float, float, float, float], int]]:
    """Class, box and area of every 8-connected component of a thing, by flooding: the independent reference."""
    left = {(int(y), int(x)) for y, x in np.argwhere(np.isin(class_map, list(THINGS)))}
    found = set()
    while left:
        seed = left.pop()
        inside, front = {seed}, [seed]
        while front:
            y, x = front.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            near = {p for p in near if class_map[p] == class_map[seed]}
            left -= near
            inside |= near
            front += near
        ys, xs = [p[0] for p in inside], [p[1] for p in inside]
        box = (float(min(xs)), float(min(ys)), float(max(xs) + 1), float(max(ys) + 1))
        found.add((int(class_map[seed]), box, len(inside)))
    return found


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 11, 13, 255]))
)
def test_every_component_of_a_thing_gets_its_box(class_map):
    found = boxes(class_map)
    expected = flooded(class_map)
    assert sorted((b.class_id, corners(b)) for b in found) == sorted((c, box) for c, box, _ in expected)
    areas = {(c, box): area for c, box, area in expected}
    for b in found:
        width, height = b.x2 - b.x1, b.y2 - b.y1
        # Two interlocking components may share a box; then either area is right.
        possible = [area for c, box, area in expected if (c, box) == (b.class_id, corners(b))]
        assert any(b.score == pytest.approx(area / (width * height)) for area in possible)
    if len(areas) == len(expected):
        order = [areas[b.class_id, corners(b)] for b in found]
        assert order == sorted(order, reverse=True)


def test_a_box_is_in_pixels_of_the_frame_with_exclusive_right_and_bottom_edges():
    class_map = np.zeros((64, 128), np.uint8)
    class_map[10:20, 30:50] = 13
    (box,) = boxes(class_map, frame=(1280, 720))
    assert corners(box) == (300, 112.5, 500, 225)
    assert (box.class_id, box.label, box.origin, box.track) == (13, "car", "unet", None)
    assert box.score == 1


def test_a_thing_that_fills_the_picture_has_a_box_of_its_size():
    (box,) = boxes(np.full((4, 6), 13, np.uint8), frame=(61, 41))
    assert corners(box) == (0, 0, 61, 41)


def test_the_score_is_the_mean_confidence_inside_the_component_only():
    class_map = np.zeros((8, 8), np.uint8)
    class_map[2:6, 2:6] = 13
    class_map[3, 3] = 0
    confidence = np.full((8, 8), 255, np.uint8)
    confidence[2:6, 2:6] = 204
    confidence[3, 3] = 255
    (box,) = boxes(class_map, confidence)
    assert box.score == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("min_area", "kept"),
    [(0.0, [20, 5, 1]), (0.002, [20, 5]), (0.0049, [20, 5]), (0.0051, [20]), (0.02, [20]), (0.0201, []), (1.0, [])],
)
def test_small_components_are_left_out_by_their_share_of_the_picture(min_area, kept):
    class_map = np.zeros((25, 40), np.uint8)  # 1000 pixels
    class_map[2:6, 2:7] = class_map[10, 10:15] = class_map[20, 20] = 11
    found = boxes(class_map, options=ComponentOptions(min_area=min_area))
    assert [round(b.score * (b.x2 - b.x1) * (b.y2 - b.y1)) for b in found] == kept


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (None, ["car", "person"]),
        (("car",), ["car"]),
        (("road", "person"), ["road", "person"]),
        ((), []),
        (("tram",), []),
    ],
)
def test_the_classes_are_the_things_or_those_named(classes, expected):
    class_map = np.zeros((20, 20), np.uint8)
    class_map[2:8, 2:8], class_map[12:16, 12:16], class_map[0] = 13, 11, 10
    found = boxes(class_map, options=msgspec.structs.replace(ALL, classes=classes))
    assert [b.label for b in found] == expected


def test_no_boxes_when_they_are_switched_off():
    assert boxes(np.full((4, 4), 13, np.uint8), options=ComponentOptions(enabled=False)) == []


def test_ids_beyond_the_label_set_and_unlabelled_pixels_have_no_boxes():
    class_map = np.array([[255, 255, 40], [40, 200, 19]], np.uint8)
    assert boxes(class_map) == []


def test_the_highest_class_id_is_found():
    classes = (ClassInfo(254, "sign", (1, 2, 3), thing=True),)
    assert [b.label for b in boxes(np.full((3, 3), 254, np.uint8), classes=classes)] == ["sign"]


def test_a_noisy_map_of_two_megapixels_has_more_components_than_16_bits_count():
    class_map = np.zeros((1024, 2048), np.uint8)
    class_map[::2, ::2] = 13  # half a million single pixels
    class_map[100:200, 100:200] = 13
    found = boxes(class_map, options=ComponentOptions())
    assert [corners(b) for b in found] == [(100, 100, 201, 201)]


def test_a_component_the_model_is_unsure_of_gives_no_box() -> None:
    class_map = np.zeros((40, 40), np.uint8)
    class_map[5:15, 5:15] = class_map[25:35, 25:35] = 13
    confidence = np.full((40, 40), 255, np.uint8)
    confidence[25:35, 25:35] = 100
    options = ComponentOptions(min_area=0.001)
    boxes = component_boxes(class_map, confidence, CITYSCAPES_CLASSES, (40, 40), options, "unet")
    assert [(b.x1, b.y1, b.score) for b in boxes] == [(5.0, 5.0, 1.0)]
