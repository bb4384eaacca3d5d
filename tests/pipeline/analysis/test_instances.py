"""Which pixels of a class map are of which box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from pipeline.analysis.instances import AROUND, instance_map
from pipeline.analysis.tracking import family
from pipeline.frame import Box
from pipeline.scene.drive import SyntheticScene

ID = {info.name: info.id for info in CITYSCAPES_CLASSES}
LABELS = ("car", "truck", "person", "rider", "pole", "tram")
HEIGHT, WIDTH = 12, 20


def a_box(x1: float, y1: float, x2: float, y2: float, label: str = "car") -> Box:
    return Box(x1, y1, x2, y2, ID.get(label, 99), label, 0.9, "m")


def shared(class_map: NDArray[np.uint8], *boxes: Box, exact: bool = False) -> NDArray[np.uint16]:
    return instance_map(class_map, boxes, CITYSCAPES_CLASSES, (WIDTH * 4, HEIGHT * 2), exact=exact)


def one_by_one(class_map: NDArray[np.uint8], boxes: Sequence[Box], exact: bool) -> NDArray[np.uint16]:
    """The same from its description, a pixel at a time."""
    owners = np.zeros(class_map.shape, np.uint16)
    names = {info.id: info.name for info in CITYSCAPES_CLASSES}
    for y, x in np.ndindex(class_map.shape):
        seen, found = names.get(int(class_map[y, x]), ""), []
        for number, box in enumerate(boxes, 1):
            x1, x2, y1, y2 = box.x1 / 4, box.x2 / 4, box.y1 / 2, box.y2 / 2
            far_x, far_y = AROUND * (x2 - x1), AROUND * (y2 - y1)
            reached = x + 1 > x1 - far_x and x < x2 + far_x and y + 1 > y1 - far_y and y < y2 + far_y
            if box.label in ID and reached and (seen == box.label or (not exact and family(seen) == family(box.label))):
                away_x = abs(x + 0.5 - (x1 + x2) / 2) / max((x2 - x1) / 2, 0.5)
                away_y = abs(y + 0.5 - (y1 + y2) / 2) / max((y2 - y1) / 2, 0.5)
                found.append((seen != box.label, round(max(away_x, away_y), 4), number))
        owners[y, x] = min(found)[2] if found else 0
    return owners


# Corners on eighths of a pixel, so that no distance hangs on how a sum is rounded.
EIGHTHS = st.integers(-8, 8 * WIDTH * 4).map(lambda value: value / 8)
BOXES = st.lists(st.tuples(EIGHTHS, EIGHTHS, EIGHTHS, EIGHTHS, st.sampled_from(LABELS)), max_size=4)
MAPS = hnp.arrays(
    np.uint8, (HEIGHT, WIDTH), elements=st.sampled_from([*(ID[n] for n in LABELS if n in ID), ID["road"], IGNORE])
)


@given(MAPS, BOXES, st.booleans())
def test_every_pixel_goes_to_the_box_that_has_to_be_scaled_least(
    class_map: NDArray[np.uint8], drawn: list[tuple[float, float, float, float, str]], exact: bool
) -> None:
    boxes = [a_box(min(x, u), min(y, v), max(x, u) + 0.125, max(y, v) + 0.125, name) for x, y, u, v, name in drawn]
    np.testing.assert_array_equal(shared(class_map, *boxes, exact=exact), one_by_one(class_map, boxes, exact))


def test_two_cars_that_touch_are_parted_between_their_middles() -> None:
    class_map = np.full((HEIGHT, WIDTH), ID["road"], np.uint8)
    class_map[4:8, 2:18] = ID["car"]
    owners = shared(class_map, a_box(8, 8, 40, 16), a_box(40, 8, 72, 16))
    assert set(owners[4:8, 2:10].ravel()) == {1}
    assert set(owners[4:8, 10:18].ravel()) == {2}
    assert not owners[:4].any()
    assert not owners[8:].any()


def test_a_class_taken_for_another_counts_where_no_box_of_it_is() -> None:
    class_map = np.full((HEIGHT, WIDTH), ID["truck"], np.uint8)
    assert set(shared(class_map, a_box(0, 0, 80, 24)).ravel()) == {1}
    assert set(shared(class_map, a_box(0, 0, 80, 24), a_box(0, 0, 81, 25, "truck")).ravel()) == {2}
    assert not shared(class_map, a_box(0, 0, 80, 24), exact=True).any()
    assert not shared(class_map, a_box(0, 0, 80, 24, "person")).any()


@pytest.mark.seconds
@pytest.mark.parametrize("seed", [1, 2])
def test_exact_boxes_and_classes_of_a_drive_give_its_objects_again(seed: int) -> None:
    scene = SyntheticScene(640, 360, 25, seed, 16)
    overlaps = []
    for index in range(0, 200, 25):
        _, label, boxes = scene.frame(index)
        true, owners = scene.instances(index), instance_map(label, boxes, CITYSCAPES_CLASSES, (640, 360))
        for number, box in enumerate(boxes, 1):
            ours, theirs = owners == number, true == box.track
            if theirs.sum() >= 100:
                overlaps.append((ours & theirs).sum() / (ours | theirs).sum())
    assert len(overlaps) > 50
    assert np.mean(overlaps) > 0.8
