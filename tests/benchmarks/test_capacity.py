"""The search of the capacity benchmark, and what it says of the limit."""

from __future__ import annotations

import pytest

from tests.benchmarks.capacity import Measured, limit, search


@pytest.mark.parametrize("most", [1, 2, 5, 8, 31])
@pytest.mark.parametrize("capacity", [0, 1, 2, 3, 4, 7, 8, 30, 99])
def test_the_largest_number_that_holds_is_found_and_none_is_tried_twice(capacity, most):
    tried = []

    def holds(count: int) -> bool:
        tried.append(count)
        return count <= capacity

    assert search(holds, most) == min(capacity, most)
    assert len(set(tried)) == len(tried)
    assert max(tried) <= most


@pytest.mark.parametrize(
    ("cpu", "busy", "stages", "gpu", "expected"),
    [
        (3.0, 3.1, {"decode": 0.5}, {"decoder": 99.0, "sm": 40.0}, "decoding: NVDEC"),
        (3.0, 3.1, {"decode": 0.5}, {"decoder": 50.0, "sm": 97.0}, "the network: the GPU"),
        (3.9, 4.0, {"decode": 3.0, "fuse": 0.3}, {}, "decoding and scaling"),
        (3.9, 4.0, {"decode": 0.5, "fuse": 0.3}, {}, "the network and encoders"),
        (3.9, 4.0, {"decode": 0.5, "fuse": 3.0}, {}, "Python and the rest"),
        (1.2, 1.4, {"decode": 0.5, "fuse": 0.3}, {"decoder": 20.0, "sm": 30.0}, "Python: one interpreter lock"),
        (1.2, 4.0, {"decode": 0.5, "fuse": 0.3}, {}, "other processes: they use 2.8 of 4 cores"),
    ],
)
def test_the_limit_is_what_is_full(cpu, busy, stages, gpu, expected):
    over = Measured(9, False, 100, 30.0, 50.0, 200.0, 0.0, 0, cpu, busy, stages, gpu)
    assert limit(over, 4).startswith(expected)
