"""Views that keep the box: what is drawn inside a box is inside the view's box, too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.box_augmentation import BoxViews, _random_crop, random_box_view

STILL = BoxViews(crop=(1.0, 1.0), aspect=0, turn=0, photometry=0)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in a picture of 96×64."""
    left, top = draw(st.integers(0, 80)), draw(st.integers(0, 48))
    return left, top, draw(st.integers(left + 12, 96)), draw(st.integers(top + 12, 64))


def drawn(box: tuple[int, int, int, int]) -> np.ndarray:
    picture = np.zeros((64, 96, 3), np.uint8)
    left, top, right, bottom = box
    picture[top:bottom, left:right] = 255
    return picture


def fractions(box: tuple[int, int, int, int]) -> np.ndarray:
    return (np.array(box) / [96, 64, 96, 64]).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(boxes(), st.integers(0, 2**31))
def test_a_box_is_around_what_it_was_around(box: tuple[int, int, int, int], seed: int) -> None:
    options = BoxViews(crop=(0.3, 1.3), aspect=0.5, turn=0, photometry=0)
    view, seen = random_box_view(drawn(box), fractions(box), np.random.default_rng(seed), options, 128, 160)
    rows, columns = np.nonzero(view[..., 1] > 200)  # less than this is the grey around a small picture
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / [160, 128, 160, 128]
    # A pixel of the source may be several of the view, half of one is smeared on either side.
    magnified = np.array([160 / 96, 128 / 64]) * (seen[2:] - seen[:2]) / (fractions(box)[2:] - fractions(box)[:2])
    allowed = (magnified * [96 / 160, 64 / 128] + 1) / [160, 128]
    assert (np.abs(found - seen) <= np.tile(allowed, 2) + 1e-6).all()


@settings(deadline=None, max_examples=60)
@given(boxes(), st.integers(0, 2**31))
def test_the_whole_box_stays_in_the_view(box: tuple[int, int, int, int], seed: int) -> None:
    options = BoxViews(crop=(0.2, 1.3), aspect=0.5, turn=0, photometry=0)
    left, top, across, down = _random_crop(fractions(box).astype(float), np.random.default_rng(seed), options)
    low, high = np.array([left, top]), np.array([left + across, top + down])
    assert (low <= fractions(box)[:2] + 1e-6).all()
    assert (high >= fractions(box)[2:] - 1e-6).all()
    _, seen = random_box_view(drawn(box), fractions(box), np.random.default_rng(seed), options, 64, 64)
    assert ((seen >= 0) & (seen <= 1)).all()


def test_nothing_random_changes_nothing_but_the_mirror() -> None:
    box = (20, 10, 50, 40)
    views = [
        random_box_view(drawn(box), fractions(box), np.random.default_rng(seed), STILL, 64, 96) for seed in range(8)
    ]
    mirrored = np.array([46, 10, 76, 40]) / [96, 64, 96, 64]
    kinds = set()
    for view, seen in views:
        flipped = seen == pytest.approx(mirrored, abs=1e-6)
        assert flipped or seen == pytest.approx(fractions(box), abs=1e-6)
        picture = drawn(box)[:, ::-1] if flipped else drawn(box)
        assert np.abs(view.astype(int) - picture).max() <= 1
        kinds.add(flipped)
    assert kinds == {True, False}


def test_a_turned_disc_stays_in_its_box() -> None:
    y, x = np.mgrid[:64, :64] + 0.5
    disc = np.repeat((((x - 32) ** 2 + (y - 32) ** 2 < 15**2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    options = BoxViews(crop=(1.0, 1.0), aspect=0, turn=40, photometry=0)
    box = np.array([17, 17, 47, 47], np.float32) / 64
    for seed in range(6):
        view, seen = random_box_view(disc, box, np.random.default_rng(seed), options, 128, 128)
        rows, columns = np.nonzero(view[..., 1] > 200)
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 128
        assert found == pytest.approx(seen, abs=2 / 64)


def test_a_picture_without_a_box_has_none_in_the_view() -> None:
    view, seen = random_box_view(drawn((0, 0, 96, 64)), None, np.random.default_rng(0), BoxViews(), 32, 48)
    assert view.shape == (32, 48, 3)
    assert np.isnan(seen).all()


def test_a_view_is_a_function_of_the_generator() -> None:
    box = (20, 10, 50, 40)
    first, second = (
        random_box_view(drawn(box), fractions(box), np.random.default_rng(5), BoxViews(erase=1.0), 64, 64)
        for _ in range(2)
    )
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()
