"""Outlines filled again are the mask, whatever its holes and specks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipeline.archive.labels.formats.outlines import outlines
from pipeline.archive.labels.formats.runs import run_lengths

MASKS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.integers(0, 1))


def filled(rings: list[NDArray[np.int32]], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    canvas = np.zeros(shape, np.uint8)
    for ring in rings:
        cv2.fillPoly(canvas, [ring], 1)
    return canvas


@given(MASKS)
def test_filled_again_they_are_the_mask_and_each_is_a_part_of_it(mask: NDArray[np.uint8]) -> None:
    rings = outlines(mask)
    np.testing.assert_array_equal(filled(rings, mask.shape), mask)
    count, parts = cv2.connectedComponents(mask, connectivity=8)
    assert len(rings) == count - 1
    assert all(len(ring) >= 3 for ring in rings)
    for ring in rings:
        part = parts == parts[ring[0, 1], ring[0, 0]]
        np.testing.assert_array_equal(filled([ring], mask.shape), part)


def test_a_hole_is_left_open_and_what_lies_in_it_is_a_part_of_its_own() -> None:
    mask = np.zeros((9, 11), np.uint8)
    mask[1:8, 1:10], mask[3:6, 3:8], mask[4, 5] = 1, 0, 1
    large, small = outlines(mask)
    assert filled([large], mask.shape).sum() == 7 * 9 - 3 * 5
    assert filled([small], mask.shape).sum() == 1
    assert small.tolist() == [[5, 4]] * 3


@pytest.mark.parametrize("flipped", [False, True])
def test_the_way_into_a_hole_leads_through_no_other_one(flipped: bool) -> None:
    mask = np.ones((20, 20), np.uint8)
    mask[4:14, 4:7] = 0  # the left one reaches above and below the right one's
    mask[6:8, 14:17] = mask[8:12, 10:15] = 0
    higher = np.ones((20, 20), np.uint8)
    higher[6:13, 4:7] = 0
    higher[5:7, 14:17] = higher[7:11, 10:15] = 0
    for each in (mask, higher):
        turned = each[::-1].copy() if flipped else each
        (ring,) = outlines(turned)
        np.testing.assert_array_equal(filled([ring], turned.shape), turned)


def test_corners_alone_are_written() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[2:18, 3:27] = 1
    (ring,) = outlines(mask)
    assert {tuple(point) for point in ring.tolist()} == {(3, 2), (26, 2), (26, 17), (3, 17)}
    assert len(ring) == 4
    assert outlines(np.zeros((4, 4), np.uint8)) == []


@pytest.mark.parametrize(
    ("flat", "runs"),
    [([0, 0, 1], [2, 1]), ([1, 1, 0], [0, 2, 1]), ([1], [0, 1]), ([0], [1]), ([0, 1, 0, 1], [1, 1, 1, 1])],
)
def test_runs_begin_with_what_is_outside(flat: list[int], runs: list[int]) -> None:
    assert run_lengths(np.array(flat, np.bool_)) == runs
