"""What is blurred, how much of it is left, and that the original does not leave in any output."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engines.classes import CITYSCAPES_CLASSES
from engines.errors import UsageError
from pipeline.anonymize import (
    AnonymizeOptions,
    AnonymizeStage,
    blurred,
    check_segmenter,
    lower_part,
    sensitive,
    widened,
)
from pipeline.frame import Box
from pipeline.picture import CHROMA_SHIFT, plane
from tests.pipeline.fake_analysis import analysis

ID = {info.name: info.id for info in CITYSCAPES_CLASSES}
OPTIONS = AnonymizeOptions()


def noise(pixel_format: str = "yuv420p", width: int = 320, height: int = 192, seed: int = 0) -> av.VideoFrame:
    """A picture in which nothing repeats: the worst for a blur that leaves something."""
    image = av.VideoFrame(width, height, pixel_format)
    random = np.random.default_rng(seed)
    for index in range(len(image.planes)):
        target = plane(image, index)
        target[:] = random.integers(0, 256, target.shape, np.uint8)
    image.pts, image.time_base = 7, Fraction(1, 25)
    return image


def planes(image: av.VideoFrame) -> list[np.ndarray]:
    return [plane(image, index).copy() for index in range(len(image.planes))]


def scene(**areas: tuple[int, int, int, int]) -> np.ndarray:
    """A class map of road, 96×160, with rectangles x1 y1 x2 y2 of classes."""
    class_map = np.zeros((96, 160), np.uint8)
    for name, (x1, y1, x2, y2) in areas.items():
        class_map[y1:y2, x1:x2] = ID[name]
    return class_map


def seen(class_map: np.ndarray | None, index: int = 0, boxes: tuple[Box, ...] = (), image: Any = None) -> Any:
    result = analysis(index, class_map=class_map, boxes=boxes)
    result.frame = replace(result.frame, image=image or noise(seed=index))
    return result


# Where ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["person", "rider"])
def test_people_are_covered_whole(name: str) -> None:
    class_map = scene(**{name: (20, 10, 40, 60)})
    np.testing.assert_array_equal(sensitive(class_map, CITYSCAPES_CLASSES, (), (320, 192), OPTIONS) > 0, class_map > 0)


@pytest.mark.parametrize("name", ["car", "truck", "bus", "motorcycle"])
def test_of_vehicles_the_lower_part_is_covered(name: str) -> None:
    mask = sensitive(scene(**{name: (20, 10, 60, 60)}), CITYSCAPES_CLASSES, (), (320, 192), OPTIONS)
    expected = np.zeros_like(mask, bool)
    expected[30:60, 20:60] = True
    np.testing.assert_array_equal(mask > 0, expected)


def test_what_is_neither_is_left_alone() -> None:
    class_map = scene(building=(0, 0, 160, 50), bicycle=(20, 50, 60, 80))
    assert not sensitive(class_map, CITYSCAPES_CLASSES, (), (320, 192), OPTIONS).any()


def test_of_two_cars_in_one_component_each_is_covered_below() -> None:
    """A far car beside a near one: the component's lower part would not reach up to the far one's plate."""
    mask = sensitive(
        scene(truck=(0, 0, 1, 1), car=(20, 20, 60, 80)) | scene(car=(60, 20, 90, 40)),
        CITYSCAPES_CLASSES, (), (320, 192), OPTIONS,
    )  # fmt: skip
    assert mask[32:40, 60:90].all()
    assert mask[56:80, 20:60].all()


def test_boxes_of_other_models_are_covered_in_pixels_of_the_frame() -> None:
    boxes = (Box(40, 20, 80, 100, 0, "person", 0.9, "other"), Box(200, 0, 400, 100, 0, "car", 0.9, "other"))
    mask = sensitive(scene(), CITYSCAPES_CLASSES, boxes, (320, 192), OPTIONS)
    expected = np.zeros_like(mask, bool)
    expected[10:50, 20:40] = True
    expected[20:50, 100:160] = True
    np.testing.assert_array_equal(mask > 0, expected)


@settings(deadline=None)
@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 6))), st.sampled_from([0.0, 0.25, 0.6, 1.0]))
def test_the_lower_part_of_a_run_is_as_a_loop_says(mask: np.ndarray, share: float) -> None:
    expected = np.zeros_like(mask)
    for x in range(mask.shape[1]):
        y = 0
        while y < len(mask):
            end = y
            while end < len(mask) and mask[end, x]:
                end += 1
            for row in range(y, end):
                expected[row, x] = (row + 1 - y) > (1 - share) * (end - y)
            y = max(end, y + 1)
    np.testing.assert_array_equal(lower_part(mask, share), expected)


def test_regions_are_widened_on_all_sides() -> None:
    mask = np.zeros((100, 200), np.uint8)
    mask[50, 100] = 255
    assert cv2.boundingRect(widened(mask, 0.02)) == (96, 48, 9, 5)
    assert cv2.boundingRect(widened(mask, 0.0)) == (100, 50, 1, 1)


# How much is left -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixel_format", sorted(CHROMA_SHIFT))
def test_outside_nothing_changes_and_inside_little_is_left(pixel_format: str) -> None:
    image = noise(pixel_format)
    before = planes(image)
    mask = np.zeros((96, 160), np.uint8)
    mask[20:60, 40:100] = 255
    result = blurred(image, mask)
    assert (result.width, result.height, result.format.name) == (image.width, image.height, pixel_format)
    assert (result.pts, result.time_base) == (7, Fraction(1, 25))
    for original, untouched, covered in zip(before, planes(image), planes(result), strict=True):
        np.testing.assert_array_equal(untouched, original)  # the decoder predicts from it
        rows, columns = original.shape[:2]
        inside = cv2.resize(mask, (columns, rows), interpolation=cv2.INTER_NEAREST) > 0
        np.testing.assert_array_equal(covered[~inside], original[~inside])
        was, now = original[inside].astype(float), covered[inside].astype(float)
        assert abs(np.corrcoef(was.ravel(), now.ravel())[0, 1]) < 0.2
        assert now.std() < 0.2 * was.std()


def test_what_is_left_of_a_region_are_a_few_numbers() -> None:
    """Two pictures whose block means round alike come out the same: what tells them apart is gone, not hidden."""
    base = av.VideoFrame(320, 192, "yuv420p")
    for index in range(3):
        plane(base, index)[:] = 100
    other = av.VideoFrame(320, 192, "yuv420p")
    for index in range(3):
        plane(other, index)[:] = 100
    face = np.where(np.indices((192, 320)).sum(0) % 2, 40, 160).astype(np.uint8)
    plane(other, 0)[:] = face
    mask = np.full((96, 160), 255, np.uint8)
    for first, second in zip(planes(blurred(base, mask)), planes(blurred(other, mask)), strict=True):
        np.testing.assert_array_equal(first, second)


@settings(max_examples=30, deadline=None)
@given(
    mask=hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.sampled_from([0, 255])),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    blocks=st.integers(1, 16),
)
def test_any_mask_fits_any_picture(mask: np.ndarray, size: tuple[int, int], blocks: int) -> None:
    image = noise("yuv420p", 2 * size[0], 2 * size[1])
    result = blurred(image, mask, blocks)
    assert (result is image) == (not mask.any())
    assert (result.width, result.height) == (image.width, image.height)


def test_a_format_that_cannot_be_blended_is_converted() -> None:
    image = noise().reformat(format="yuv420p10le")
    assert blurred(image, np.full((2, 2), 255, np.uint8)).format.name == "yuv420p"


# In the stream --------------------------------------------------------------------------------------------------------


def changed(before: av.VideoFrame, after: av.VideoFrame) -> np.ndarray:
    return plane(before, 0) != plane(after, 0)


def test_the_blurred_picture_takes_the_place_of_the_frames_own() -> None:
    original = noise()
    result = AnonymizeStage(OPTIONS).process(seen(scene(person=(20, 10, 40, 60)), image=original))
    assert result.anonymized
    assert result.frame.image is not original
    assert result.picture is None
    where = changed(original, result.frame.image)
    assert where[20:120, 40:80].mean() > 0.9
    assert not where[:, 120:].any()


def test_a_person_missed_once_stays_covered() -> None:
    stage = AnonymizeStage(AnonymizeOptions(hold=0.0))
    person, nothing = scene(person=(20, 10, 40, 60)), scene()
    covered = []
    for index, class_map in enumerate([person, nothing, nothing]):
        original = noise(seed=index)
        result = stage.process(seen(class_map, index, image=original))
        covered.append(changed(original, result.frame.image)[20:120, 40:80].mean() > 0.9)
    assert covered == [True, True, False]


def test_a_person_missed_in_the_first_frame_of_a_resumed_run_stays_covered() -> None:
    stage, original = AnonymizeStage(OPTIONS), noise()
    stage.remember(seen(scene(person=(20, 10, 40, 60)), 0))
    result = stage.process(seen(scene(), 1, image=original))
    assert changed(original, result.frame.image)[20:120, 40:80].mean() > 0.9


def test_a_region_is_held_for_its_time() -> None:
    stage = AnonymizeStage(AnonymizeOptions(hold=0.2))
    covered = []
    for index in range(9):  # 25 frames a second
        original = noise(seed=index)
        result = stage.process(seen(scene(person=(20, 10, 40, 60)) if index == 0 else scene(), index, image=original))
        covered.append(bool(changed(original, result.frame.image)[20:120, 40:80].mean() > 0.9))
    assert covered == [True] * 6 + [False] * 3


def test_without_a_class_map_all_of_it_is_covered() -> None:
    original = noise()
    result = AnonymizeStage(OPTIONS).process(seen(None, image=original))
    assert changed(original, result.frame.image).mean() > 0.9
    assert result.anonymized


def test_boxes_of_the_segmenter_add_nothing_those_of_others_do() -> None:
    box = Box(40, 20, 80, 100, 0, "person", 0.9, "cityscapes-unet")
    for origin, expected in (("cityscapes-unet", False), ("faces", True)):
        original = noise()
        stage = AnonymizeStage(OPTIONS, "cityscapes-unet")
        result = stage.process(seen(scene(), boxes=(replace(box, origin=origin),), image=original))
        assert changed(original, result.frame.image).any() == expected


# What it needs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name", "every", "said"),
    [
        (OPTIONS, "", 1, "needs a segmenter"),
        (OPTIONS, "unet", 3, "every frame"),
        (AnonymizeOptions(people=("human",)), "unet", 1, "cannot blur human: unet knows only road"),
        (AnonymizeOptions(vehicles=("tram",)), "unet", 1, "anonymize.vehicles"),
    ],
)
def test_a_run_that_cannot_keep_the_promise_is_refused(
    options: AnonymizeOptions, name: str, every: int, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        check_segmenter(options, name, CITYSCAPES_CLASSES, every)


def test_plates_alone_can_be_left_out() -> None:
    check_segmenter(AnonymizeOptions(vehicles=()), "unet", CITYSCAPES_CLASSES, 1)
