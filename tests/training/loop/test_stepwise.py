"""Batches are a pure function of the step."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.loop.stepwise import StepwiseBatches, batch_indices


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
