"""COCO's run lengths, overlapping polygons, and where pixels' edges lie."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.own.shapes import Drawn, Shape, run_lengths


def encoded(counts: list[int]) -> str:
    """Run lengths as `rleToString` of cocoapi's maskApi.c writes them."""
    text = ""
    for place, count in enumerate(counts):
        value = count - (counts[place - 2] if place > 2 else 0)
        more = True
        while more:
            piece = value & 0x1F
            value >>= 5
            more = value != -1 if piece & 0x10 else value != 0
            text += chr((piece | 0x20 if more else piece) + 48)
    return text


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_give_the_mask_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((13, 9)) < 0.4
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    if flat[0]:
        counts.insert(0, 0)
    np.testing.assert_array_equal(run_lengths(counts, 13, 9), mask)
    np.testing.assert_array_equal(run_lengths(encoded(counts), 13, 9), mask)


def square(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def test_a_polygon_covers_the_pixels_between_its_edges_and_what_comes_later_lies_before() -> None:
    shapes = (
        Shape("a", None, (square(1, 1, 5, 5), square(4, 4, 8, 8)), (1, 1, 8, 8)),
        Shape("b", None, (square(2, 2, 3, 3),), (2, 2, 3, 3)),
    )
    label = Drawn(shapes, (10, 10)).label(10, 10, lambda shape: "ab".index(shape.name), 9)
    assert (label == 0)[4, 4], "two polygons of one thing are all of both"
    assert (label == 1)[2, 2]
    assert abs(int((label == 0).sum()) - (16 + 16 - 1 - 1)) <= 18  # OpenCV counts a polygon's outline as inside
    assert (label[0] == 9).all()


def test_shares_of_the_picture_are_scaled() -> None:
    drawn = Drawn((Shape("", 0, (), (0.25, 0.5, 0.75, 1.0)),), None, fractions=True)
    ((_, box),) = drawn.boxes(200, 100)
    np.testing.assert_allclose(box, [50, 50, 150, 100])
    drawn = Drawn((Shape("a", None, (), (10, 20, 30, 40)),), (100, 50))
    ((_, box),) = drawn.boxes(200, 100)
    np.testing.assert_allclose(box, [20, 40, 60, 80])
