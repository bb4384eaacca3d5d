"""Which batch sizes a GPU's engine is prepared for."""

from __future__ import annotations

import pytest

from engines.flights import batch_ladder


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 32])
def test_the_ladder_of_batches_wastes_at_most_a_third(most: int) -> None:
    sizes = batch_ladder(most)
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[0] == most
    for count in range(1, most + 1):
        run = min(size for size in sizes if size >= count)
        assert (run - count) / run <= 1 / 3
    assert len(sizes) <= 2 * most.bit_length()
