"""Batches are a pure function of the step."""

from __future__ import annotations

import doctest
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import training.data.stepwise
import training.schedule
from training.data.augmentation import random_geometry, random_photometry
from training.data.stepwise import StepwiseBatches, batch_indices
from training.schedule import warmup_poly


@pytest.mark.parametrize("module", [training.data.stepwise, training.schedule])
def test_examples_in_the_docstrings(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]  # a module is one
    assert result.attempted > 0
    assert result.failed == 0


@given(size=st.integers(1, 40), batch=st.integers(1, 17), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_every_epoch_is_a_permutation(size: int, batch: int, seed: int) -> None:
    epochs = 3
    steps = -(-epochs * size // batch)
    order = [i for step in range(steps) for i in batch_indices(step, size, batch, seed)]
    assert len(order) == steps * batch
    for epoch in range(epochs):
        assert sorted(order[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_epochs_and_seeds_differ() -> None:
    first, second = batch_indices(0, 100, 100, 0), batch_indices(1, 100, 100, 0)
    assert first != second
    assert first != batch_indices(0, 100, 100, 1)


def view(index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return np.full((2, 2, 3), index, np.uint8), rng.integers(0, 256, (2, 2)).astype(np.uint8)


def take(first: int, last: int, *, rank: int = 0, world: int = 1, threads: int = 1) -> list[tuple]:
    batches = StepwiseBatches(view, 10, 4, 7, first, last, rank, world, threads)
    return [(p.numpy().tolist(), q.numpy().tolist()) for p, q in batches]


def test_from_the_middle_on_as_from_the_start() -> None:
    assert take(3, 9) == take(0, 9)[3:]


@pytest.mark.parametrize("threads", [2, 5])
def test_the_number_of_threads_changes_nothing(threads: int) -> None:
    assert take(0, 9, threads=threads) == take(0, 9)


def test_ranks_share_every_batch() -> None:
    whole, ranks = take(0, 5), [take(0, 5, rank=r, world=2) for r in range(2)]
    for step, (pictures, labels) in enumerate(whole):
        assert [ranks[i % 2][step][0][i // 2] for i in range(4)] == pictures
        assert [ranks[i % 2][step][1][i // 2] for i in range(4)] == labels


def test_leaving_early_leaves_no_thread_behind() -> None:
    import threading

    before = threading.active_count()
    iterator = iter(StepwiseBatches(view, 10, 4, 7, 0, 100, threads=3))
    assert len(list(islice(iterator, 2))) == 2
    iterator.close()  # type: ignore[attr-defined]  # it is a generator
    for thread in threading.enumerate():
        if thread.name.startswith("views"):
            thread.join(timeout=10)
    assert threading.active_count() == before


def test_a_failing_view_is_an_error_not_a_hang() -> None:
    def broken(index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        raise RuntimeError("no such picture")

    with pytest.raises(RuntimeError, match="no such picture"):
        next(iter(StepwiseBatches(broken, 10, 4, 7, 0, 3)))


# Schedule -----------------------------------------------------------------------------------------------------------


@given(total=st.integers(1, 5000), warmup=st.integers(0, 500))
@settings(max_examples=100, deadline=None)
def test_schedule_climbs_then_falls_to_nothing(total: int, warmup: int) -> None:
    factors = [warmup_poly(step, total + warmup, warmup) for step in range(total + warmup + 1)]
    assert all(0 <= f <= 1 for f in factors)
    assert np.all(np.diff(factors[:warmup]) > 0)
    assert np.all(np.diff(factors[warmup:]) < 0)
    assert factors[-1] == 0


# Views --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A picture whose red channel is ten times its label, in blocks of 32."""
    blocks = np.arange(64).reshape(8, 8) % 19
    label = np.kron(blocks, np.ones((32, 32))).astype(np.uint8)
    return np.stack([label * 10, label, label], axis=-1), label


@pytest.mark.parametrize("seed", range(8))
def test_picture_and_label_move_alike(scene: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    picture, label = scene
    view_, truth = random_geometry(picture, label, np.random.default_rng(seed), (0.75, 2.0), 0.2)
    assert view_.shape == picture.shape
    assert truth.shape == label.shape
    assert set(np.unique(truth)) <= set(range(19)) | {255}
    known = truth != 255
    assert known.mean() > 0.3
    # Equal but along the block edges, where the picture is interpolated.
    assert (view_[..., 0] == truth * 10)[known].mean() > 0.8


def test_views_are_a_function_of_the_generator(scene: tuple[np.ndarray, np.ndarray]) -> None:
    views = [random_geometry(*scene, np.random.default_rng(3), (0.75, 2.0), 0.2) for _ in range(2)]
    np.testing.assert_array_equal(views[0][0], views[1][0])
    np.testing.assert_array_equal(views[0][1], views[1][1])


def test_no_randomness_changes_at_most_left_and_right(scene: tuple[np.ndarray, np.ndarray]) -> None:
    picture, label = scene
    for seed in range(4):
        view_, truth = random_geometry(picture, label, np.random.default_rng(seed), (1.0, 1.0), 0.0)
        mirrored = not np.array_equal(truth, label)
        np.testing.assert_array_equal(truth, label[:, ::-1] if mirrored else label)
        np.testing.assert_array_equal(view_, picture[:, ::-1] if mirrored else picture)


def test_photometry_of_strength_zero_is_the_identity() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    np.testing.assert_array_equal(random_photometry(picture, np.random.default_rng(1), 0.0), picture)
    assert not torch.equal(
        torch.from_numpy(random_photometry(picture, np.random.default_rng(1), 1.0)), torch.from_numpy(picture)
    )
