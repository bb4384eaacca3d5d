"""Which pixels are of which road user."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from engines.classes import IGNORE, ClassInfo
from engines.spec import ModelSpec
from pipeline.archive.labels.labelled import Area, Labelled, areas, full_size, label_set
from pipeline.frame import Box

CLASSES = (
    ClassInfo(0, "road", (128, 64, 128)), ClassInfo(3, "car", (0, 0, 142), thing=True),
    ClassInfo(7, "person", (220, 20, 60), thing=True),
)  # fmt: skip
ROAD, CAR, PERSON = (info.id for info in CLASSES)


def a_box(x1: float, y1: float, x2: float, y2: float, label: str = "car", score: float = 0.9) -> Box:
    return Box(x1, y1, x2, y2, 0, label, score, "m")


def labelled(class_map: NDArray[np.uint8] | None, *boxes: Box) -> Labelled:
    height, width = (20, 30) if class_map is None else class_map.shape
    return Labelled("trip_00000.jpg", width, height, class_map, boxes)


def found(what: Labelled) -> list[Area]:
    return list(areas(what, CLASSES))


def test_the_nearer_of_two_boxes_has_what_both_cover_and_the_rest_is_of_nobody() -> None:
    class_map = np.full((20, 30), ROAD, np.uint8)
    class_map[5:15, 2:24] = CAR
    boxes = a_box(10, 5, 20, 15), a_box(2, 5, 14, 12)
    first, second, road, rest = found(labelled(class_map, *boxes))
    assert (first.box, first.place, first.score) == ((10, 5, 20, 15), 1, 0.9)
    assert (second.box, second.place) == ((2, 5, 14, 12), 1)
    assert (road.place, road.box) == (0, None)
    assert (rest.place, rest.box) == (1, None)
    assert first.region is not None
    assert second.region is not None
    assert rest.region is not None
    # A tenth around them; what both reach is nearer, in halves of their sides, to one of their middles.
    far, near = np.zeros((20, 30), np.bool_), np.zeros((20, 30), np.bool_)
    far[5:13, 2:16] = near[5:16, 9:21] = True
    across, down = np.arange(30) + 0.5, np.arange(20)[:, None] + 0.5
    to_far = np.maximum(abs(across - 8) / 6, abs(down - 8.5) / 3.5)
    to_near = np.maximum(abs(across - 15) / 5, abs(down - 10) / 5)
    cars = class_map == CAR
    both = far & near
    np.testing.assert_array_equal(first.region.whole(30, 20), cars & near & ~(both & (to_far <= to_near)))
    np.testing.assert_array_equal(second.region.whole(30, 20), cars & far & ~(both & (to_far > to_near)))
    assert rest.region.pixels == 10 * 22 - first.region.pixels - second.region.pixels


def test_a_box_without_its_class_in_it_has_no_pixels_and_one_of_no_class_is_none() -> None:
    class_map = np.full((20, 30), IGNORE, np.uint8)
    (person,) = found(labelled(class_map, a_box(2, 2, 8, 8, "person"), a_box(2, 2, 8, 8, "tram")))
    assert (person.place, person.region, person.box) == (2, None, (2, 2, 8, 8))


def test_without_a_class_map_there_are_boxes_alone() -> None:
    assert found(labelled(None, a_box(1, 2, 3, 4, "person", 0.4))) == [Area(2, None, (1, 2, 3, 4), 0.4)]


BOXES = st.lists(
    st.tuples(
        st.floats(-2, 30), st.floats(-2, 20), st.floats(0.1, 20), st.floats(0.1, 20), st.sampled_from(("car", "person"))
    ),
    max_size=4,
)  # fmt: skip
MAPS = hnp.arrays(np.uint8, (20, 30), elements=st.sampled_from([ROAD, CAR, PERSON, IGNORE]))


@given(MAPS, BOXES)
def test_every_labelled_pixel_is_of_exactly_one_piece(class_map: NDArray[np.uint8], drawn: list) -> None:
    boxes = [a_box(x, y, min(x + w, 30), min(y + h, 20), label) for x, y, w, h, label in drawn]
    again = np.full_like(class_map, IGNORE)
    pieces = found(labelled(class_map, *boxes))
    assert [piece.box for piece in pieces if piece.box is not None] == [(b.x1, b.y1, b.x2, b.y2) for b in boxes]
    for piece in pieces:
        if piece.region is not None:
            assert piece.region.mask.any(axis=0)[[0, -1]].all()
            assert piece.region.mask.any(axis=1)[[0, -1]].all()
            whole = piece.region.whole(30, 20)
            assert whole.sum() == piece.region.pixels
            assert (again[whole] == IGNORE).all()
            again[whole] = CLASSES[piece.place].id
    np.testing.assert_array_equal(again, class_map)


def test_classes_of_other_models_come_behind_with_ids_of_their_own() -> None:
    spec = ModelSpec(
        name="m", version="1", task="segmentation", height=8, width=8, classes=CLASSES, outputs={"class_map": "m"},
    )  # fmt: skip
    boxed = replace_classes(spec, (ClassInfo(0, "car", (1, 2, 3)), ClassInfo(1, "tram", (4, 5, 6))))
    assert label_set([boxed, spec]) == (*CLASSES, ClassInfo(8, "tram", (4, 5, 6), thing=True))
    assert label_set([boxed]) == (
        ClassInfo(0, "car", (1, 2, 3), thing=True), ClassInfo(1, "tram", (4, 5, 6), thing=True),
    )  # fmt: skip


def replace_classes(spec: ModelSpec, classes: tuple[ClassInfo, ...]) -> ModelSpec:
    return msgspec.structs.replace(
        spec, task="localization", classes=classes, outputs={"boxes": "b", "scores": "s"}
    )  # fmt: skip


def test_a_pixel_has_the_class_of_the_one_that_covers_it() -> None:
    class_map = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(full_size(class_map, 9, 4), np.kron(class_map, np.ones((2, 3), np.uint8)))
    assert replace(labelled(None), name="a.b.jpg").stem == "a.b"
