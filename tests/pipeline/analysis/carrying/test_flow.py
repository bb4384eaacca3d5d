"""What moved between two pictures, and along which way maps and boxes are carried by it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.analysis.carrying.flow import HEIGHT, WIDTH, is_cut, motion

MAP_HEIGHT, MAP_WIDTH = 256, 320
"""Twice as wide as the small luma, and not twice as high."""


def picture(right: float = 0.0, down: float = 0.0, seed: int = 0) -> NDArray[np.uint8]:
    """A small luma with structure everywhere, moved by so many pixels."""
    noise = np.random.default_rng(seed).integers(0, 255, (HEIGHT + 64, WIDTH + 64)).astype(np.float32)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 20, 235, cv2.NORM_MINMAX)
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float32)
    moved = cv2.warpAffine(smooth, matrix, (WIDTH + 64, HEIGHT + 64), borderMode=cv2.BORDER_REFLECT)
    return np.ascontiguousarray(moved[32:-32, 32:-32].astype(np.uint8))


def disc(x: float, y: float) -> NDArray[np.uint8]:
    """A class map with a disc of class 13 about a place given in pixels of the small luma."""
    rows, columns = np.mgrid[0:MAP_HEIGHT, 0:MAP_WIDTH]
    inside = (columns - x * MAP_WIDTH / WIDTH) ** 2 + (rows - y * MAP_HEIGHT / HEIGHT) ** 2 < 40**2
    return np.where(inside, 13, 0).astype(np.uint8)


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize(("right", "down"), [(3, 0), (-3, 0), (0, 3), (0, -3), (4, 2)])
def test_a_map_goes_where_the_picture_went(right: int, down: int) -> None:
    then, now = picture(), picture(right, down)
    (carried,) = motion(now, then).carry([disc(80, 48)])
    assert carried is not None
    there = disc(80 + right, 48 + down) == 13
    assert overlap(carried == 13, there) > 0.95
    assert overlap(disc(80, 48) == 13, there) < 0.87  # where it was, repeated


@pytest.mark.parametrize(("right", "down"), [(4, 0), (0, -3), (-2, 3)])
def test_a_part_goes_where_the_picture_went(right: int, down: int) -> None:
    moved = motion(picture(right, down), picture())
    assert moved.shift(0.3, 0.3, 0.7, 0.7) == pytest.approx((right / WIDTH, down / HEIGHT), abs=0.5 / HEIGHT)


def test_where_nothing_moves_maps_stay_the_very_same() -> None:
    seen = disc(80, 48)
    moved = motion(picture(), picture())
    assert moved.carry([seen, None]) == [seen, None]
    assert moved.shift(0, 0, 1, 1) == (0, 0)


def test_what_has_nothing_to_do_with_the_picture_before_is_not_moved_to_and_fro() -> None:
    """Of pure noise no motion explains the other; what does not explain it better than standing still is none."""
    flat = np.full((HEIGHT, WIDTH), 100, np.uint8)
    lighter = np.full((HEIGHT, WIDTH), 110, np.uint8)
    seen = disc(80, 48)
    assert motion(lighter, flat).carry([seen])[0] is seen


def test_what_is_not_looked_at_stays_where_it_is() -> None:
    seen = disc(80, 48)
    seen[:, :60] = 255
    hidden = np.where(seen == 255, 255, 0).astype(np.uint8)
    (carried,) = motion(picture(6, 0), picture()).carry([seen], hidden)
    assert carried is not None
    np.testing.assert_array_equal(carried == 255, seen == 255)


def test_all_maps_of_a_frame_go_the_same_way() -> None:
    seen = disc(80, 48)
    first, missing, second = motion(picture(3, 0), picture()).carry([seen, None, seen.copy()])
    assert missing is None
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("now", "cut"),
    [(picture(), False), (picture(3, 2), False), (picture(seed=1), True), (255 - picture(), True)],
    ids=["the same", "moved", "another picture", "its negative"],
)
def test_a_cut_is_seen_and_motion_is_none(now: NDArray[np.uint8], cut: bool) -> None:
    assert is_cut(now, picture()) is cut
