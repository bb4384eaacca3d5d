"""Circles: known overlaps, numeric integration, rendered masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.metrics.circles import circle_overlaps, render_circles, rendered_overlaps

place = st.floats(-30, 30)
radius = st.floats(0.01, 25)
circle = st.tuples(place, place, radius)


def circle_iou(circles: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union of pairs of circles; 0 where neither has an area."""
    intersection, union = circle_overlaps(circles, truth)
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def overlap_by_integration(first: np.ndarray, second: np.ndarray, columns: int = 20_000) -> float:
    """The intersection as the integral, over x, of the overlap of two chords (midpoint rule)."""
    low = max(first[0] - first[2], second[0] - second[2])
    high = min(first[0] + first[2], second[0] + second[2])
    if low >= high:
        return 0.0
    x = low + (np.arange(columns) + 0.5) * (high - low) / columns
    half = [np.sqrt(np.maximum(c[2] ** 2 - (x - c[0]) ** 2, 0)) for c in (first, second)]
    top = np.minimum(first[1] + half[0], second[1] + half[1])
    bottom = np.maximum(first[1] - half[0], second[1] - half[1])
    return float(np.maximum(top - bottom, 0).sum() * (high - low) / columns)


@given(circle, circle)
@settings(max_examples=150, deadline=None)
def test_the_overlap_is_that_of_numeric_integration(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    first, second = np.array(a), np.array(b)
    (intersection,), (union,) = circle_overlaps(first[None], second[None])
    wanted = overlap_by_integration(first, second)
    assert intersection == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    assert union == pytest.approx(np.pi * (a[2] ** 2 + b[2] ** 2) - wanted, rel=1e-4, abs=1e-4)


@given(circle, circle, place, place)
@settings(max_examples=100, deadline=None)
def test_iou_is_symmetric_between_0_and_1_and_moves_along(
    a: tuple[float, ...], b: tuple[float, ...], x: float, y: float
) -> None:
    first, second, moved = np.array([a]), np.array([b]), np.array([[x, y, 0]])
    (iou,) = circle_iou(first, second)
    assert 0 <= iou <= 1 + 1e-9
    assert circle_iou(second, first) == pytest.approx(iou, abs=1e-6)
    assert circle_iou(first + moved, second + moved) == pytest.approx(iou, abs=1e-6)
    assert circle_iou(first, first) == pytest.approx(1)


LENS = 2 * np.pi / 3 - np.sqrt(3) / 2  # of two unit circles at distance 1


@pytest.mark.parametrize(
    ("first", "second", "iou"),
    [
        ((0, 0, 1), (3, 0, 1), 0.0),
        ((0, 0, 1), (2, 0, 1), 0.0),  # touching from outside
        ((0, 0, 3), (1, 0, 1), 1 / 9),
        ((0, 0, 2), (1, 0, 1), 1 / 4),  # touching from inside
        ((0, 0, 1), (0, 1, 1), LENS / (2 * np.pi - LENS)),
        ((5, 5, 0), (5, 5, 0), 0.0),
        ((5, 5, 0), (5, 5, 2), 0.0),
        ((0, 0, 1), (1e-9, 0, 1), 1.0),
    ],
)
def test_known_overlaps(first: tuple[float, ...], second: tuple[float, ...], iou: float) -> None:
    assert circle_iou(np.array([first]), np.array([second])) == pytest.approx(iou, abs=1e-6)


def test_rendered_circles() -> None:
    masks = render_circles(np.array([[1.5, 1.5, 1], [0, 0, 0.8], [9, 9, 2]]), 3, 4)
    assert masks.astype(int).tolist() == [
        [[0, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0]],
        [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    ]


@given(st.tuples(st.floats(8, 20), st.floats(8, 20), st.floats(3, 8)), circle)
@settings(max_examples=60, deadline=None)
def test_finely_rendered_circles_overlap_as_the_formula_says(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    # Within the frame of 28 pixels, drawn sixteen times as large.
    first, second = np.array([a]), np.array([[b[0] / 10 + 14, b[1] / 10 + 14, 2 + b[2] / 5]])
    intersection, union = rendered_overlaps(first * 16, second * 16, 448, 448)
    (wanted,), (whole,) = circle_overlaps(first, second)
    assert intersection[0] / 256 == pytest.approx(wanted, abs=0.6)
    assert union[0] / 256 == pytest.approx(whole, abs=0.8)
