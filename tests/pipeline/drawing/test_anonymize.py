"""What is blurred, how much of it is left, and that the original does not leave in any output."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engines.classes import CITYSCAPES_CLASSES
from engines.errors import UsageError
from pipeline.contracts import StreamInfo
from pipeline.drawing.anonymize import (
    AnonymizeOptions,
    AnonymizeStage,
    check_segmenter,
    lower_part,
    private_parts,
    sensitive,
    widened,
)
from pipeline.drawing.blurring import blurred
from pipeline.frame import Box, Ignored, Rect
from pipeline.pictures.planes import CHROMA_SHIFT, plane
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
    expected[:5, 100:160] = True  # a head behind the car's roof
    np.testing.assert_array_equal(mask > 0, expected)


def parts(class_map: np.ndarray, *boxes: Box, size: tuple[int, int] = (1280, 768)) -> np.ndarray:
    return private_parts(class_map, CITYSCAPES_CLASSES, boxes, size, AnonymizeOptions()) > 0


def test_of_people_the_head_is_covered_and_not_the_rest() -> None:
    """By the class map alone, and by a box: 8 pixels of the frame to one of the map."""
    for mask in (
        parts(scene(person=(20, 10, 40, 70))),
        parts(scene(), Box(160, 80, 320, 560, 11, "person", 0.9, "road-users")),
    ):
        assert mask[10:26, 20:40].all()
        assert not mask[36:].any()
        assert mask.sum() < 0.75 * 20 * 60


def test_a_head_above_a_car_is_covered_whole() -> None:
    for mask in (
        parts(scene(person=(20, 10, 26, 18))),
        parts(scene(), Box(160, 80, 208, 144, 11, "person", 0.9, "road-users")),
    ):
        assert mask[10:18, 20:26].all()


def test_a_person_whom_no_box_tells_of_is_covered_by_the_class_map() -> None:
    class_map = scene(person=(20, 10, 40, 70)) | scene(rider=(100, 20, 120, 70))
    mask = parts(class_map, Box(160, 80, 320, 560, 11, "person", 0.9, "road-users"))
    assert mask[20:32, 100:120].all()


@pytest.mark.parametrize(("high", "covered"), [(160, True), (60, False)])
def test_a_plate_is_covered_where_it_can_be_read(high: int, covered: bool) -> None:
    box = Box(400, 200, 400 + high * 1.2, 200 + high, 13, "car", 0.9, "road-users")
    mask = parts(scene(), box)
    assert mask.any() == covered
    if covered:
        low = slice(round((200 + 0.4 * high) / 8), round((200 + 0.9 * high) / 8))
        assert mask[low, 50:74].all()


@pytest.mark.parametrize(("high", "covered"), [(20, True), (6, False)])
def test_a_vehicle_that_no_box_tells_of_is_covered_below_where_it_is_near(high: int, covered: bool) -> None:
    assert parts(scene(car=(20, 10, 50, 10 + high))).any() == covered


CAR = Box(400, 200, 600, 360, 13, "car", 0.9, "road-users")


@pytest.mark.parametrize("sparing", [True, False])
@pytest.mark.parametrize(
    ("car", "people", "roof_share", "covered"),
    [
        (CAR, ("person",), 0.2, True),
        (CAR, ("person",), 0.0, False),
        (CAR, (), 0.2, False),
        (replace(CAR, label="truck"), ("person",), 0.2, False),
        (replace(CAR, x2=470, y2=250), ("person",), 0.2, False),
    ],
    ids=["near", "not wanted", "people may be seen", "higher than people", "far"],
)
def test_above_the_roof_of_a_car_heads_are_covered(
    car: Box, people: tuple[str, ...], roof_share: float, covered: bool, sparing: bool
) -> None:
    options = AnonymizeOptions(sparing=sparing, people=people, roof_share=roof_share, margin=0.0)
    original = noise(width=1280, height=720)
    look = seen(scene(), image=original, boxes=(car,))
    where = changed(original, AnonymizeStage(options).process(look).frame.image)
    assert (where[172:198, round(car.x1) : round(car.x2)].mean() > 0.9) == covered
    assert not where[:160].any()


def test_nothing_is_blurred_in_what_is_ignored() -> None:
    ignored = np.zeros((192, 320), np.uint8)
    ignored[:, :60] = 255
    original = noise()
    look = seen(scene(person=(20, 10, 40, 60)), image=original)
    look.frame.ignored = Ignored(Rect(0, 0, 320, 192), (), ignored)
    where = changed(original, AnonymizeStage(OPTIONS).process(look).frame.image)
    assert not where[:, :56].any()
    assert where[20:120, 64:80].mean() > 0.9


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


def test_boxes_read_off_the_class_map_add_nothing_others_do() -> None:
    box = Box(40, 20, 80, 100, 0, "person", 0.9, "cityscapes-unet")
    for origin, expected in (("cityscapes-unet", False), ("faces", True)):
        original = noise()
        stage = AnonymizeStage(OPTIONS, "cityscapes-unet")
        result = stage.process(seen(scene(), boxes=(replace(box, origin=origin),), image=original))
        assert changed(original, result.frame.image).any() == expected


def pedestrian(x: float, score: float = 0.9) -> Box:
    return Box(x, 20, x + 40, 120, ID["person"], "person", score, "road-users")


def looked_ahead(stage: AnonymizeStage, boxes: list[tuple[Box, ...]], *, live: bool = False) -> list[np.ndarray]:
    """What is altered of each frame of a run: (H, W) bool; its stage looks as far ahead as the run is long."""
    looks = [seen(scene(), index, found) for index, found in enumerate(boxes)]
    for look in looks if not live else ():
        stage.foresee(look)
    originals = [look.frame.image for look in looks]
    return [changed(original, stage.process(look).frame.image) for original, look in zip(originals, looks, strict=True)]


def covers(where: np.ndarray, box: Box) -> bool:
    return bool(where[int(box.y1) + 8 : int(box.y2) - 8, int(box.x1) + 8 : int(box.x2) - 8].mean() > 0.9)


@pytest.mark.parametrize("gap", [1, 10, 24])
def test_of_a_file_no_frame_between_two_boxes_of_somebody_is_missed(gap: int) -> None:
    """On the way from the one to the other, for up to a second."""
    places = [pedestrian(20 + 5 * index) for index in range(gap + 10)]
    boxes = [() if 5 <= index < 5 + gap else (place,) for index, place in enumerate(places)]
    stage = AnonymizeStage(AnonymizeOptions(hold=0.0, hold_people=0.0), ahead=64)
    assert all(covers(where, place) for where, place in zip(looked_ahead(stage, boxes), places, strict=True))


def test_of_a_file_somebody_is_covered_before_they_are_seen_first() -> None:
    places = [pedestrian(20 + 5 * index) for index in range(40)]
    boxes = [(place,) if index in {30, 31} else () for index, place in enumerate(places)]
    options = AnonymizeOptions(hold_people=0.4)
    covered = [covers(w, p) for w, p in zip(looked_ahead(AnonymizeStage(options), boxes), places, strict=True)]
    assert covered == [False] * 20 + [True] * 20
    live = [covers(w, p) for w, p in zip(looked_ahead(AnonymizeStage(options), boxes, live=True), places, strict=True)]
    assert live == [False] * 30 + [True] * 10


@pytest.mark.parametrize(
    ("size", "rate", "ahead", "frames"),
    [
        ((1280, 720), 25, 1.0, 25),
        ((1280, 720), 30, 0.5, 15),
        ((1280, 720), 25, 0.0, 0),
        pytest.param((640, 360), 120, 1.0, 64, id="no more than 64"),
        pytest.param((3840, 2160), 60, 1.0, 20, id="no more than 256 MB"),
    ],
)
def test_how_far_a_file_is_looked_ahead_is_bounded(size: tuple[int, int], rate: int, ahead: float, frames: int) -> None:
    info = StreamInfo(*size, "yuv420p", Fraction(1, 90_000), Fraction(rate), None)
    assert AnonymizeOptions(ahead=ahead).frames_ahead(info) == frames


def test_pictures_of_a_folder_have_nothing_to_do_with_each_other() -> None:
    stage = AnonymizeStage(OPTIONS.of_stills())
    boxes = [(pedestrian(20),), (), (pedestrian(200),)]
    covered = [covers(where, pedestrian(20)) for where in looked_ahead(stage, boxes, live=True)]
    assert covered == [True, True, False]  # the one next to it always counts


# What it needs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name", "every", "said"),
    [
        (OPTIONS, "", 1, "needs a segmenter"),
        (OPTIONS, "unet", 3, "every frame"),
        (OPTIONS, "unet", "auto", "every frame"),
        (AnonymizeOptions(people=("human",)), "unet", 1, "cannot blur human: unet knows only road"),
        (AnonymizeOptions(vehicles=("tram",)), "unet", 1, "anonymize.vehicles"),
    ],
)
def test_a_run_that_cannot_keep_the_promise_is_refused(
    options: AnonymizeOptions, name: str, every: int | Literal["auto"], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        check_segmenter(options, name, CITYSCAPES_CLASSES, every)


def test_plates_alone_can_be_left_out() -> None:
    check_segmenter(AnonymizeOptions(vehicles=()), "unet", CITYSCAPES_CLASSES, 1)
