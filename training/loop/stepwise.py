"""Batches as a pure function of the step: the reason a resumed run sees exactly the pictures it would have seen."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from training.task import View


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(size)


def batch_indices(step: int, size: int, batch: int, seed: int) -> list[int]:
    """The samples of one step: epoch after epoch of seeded permutations, laid end to end.

    >>> sorted(batch_indices(0, 4, 2, 0) + batch_indices(1, 4, 2, 0))
    [0, 1, 2, 3]
    """
    indices = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, offset = divmod(position, size)
        indices.append(int(_permutation(seed, epoch, size)[offset]))
    return indices


class StepwiseBatches(IterableDataset[tuple[Tensor, ...]]):
    """Batches from `first_step` on; randomness depends on (seed, step, place in the batch) and nothing else.

    Yields the arrays of N views, stacked: (N, H, W, 3) uint8 pictures and whatever goes with them. With several
    processes (DDP) rank r of R takes every R-th place of the batch; with several parts each is yielded by itself. A
    picture's view depends on neither.

    Views are made ahead by threads: OpenCV lets go of the interpreter while it works, and threads share the decoded
    data, where worker processes would each hold a copy (or fork after OpenCV's and torch's threads started).

    Args:
        view: makes one random view of a sample; called from several threads at once.
        size: number of samples.
        batch: samples of a step, over all ranks.
        seed: of the run.
        first_step, last_step: the steps to yield, the last one exclusive.
        rank, world: this process among all.
        threads: that prepare views.
        parts: that a batch is cut into, all of one size.
    """

    def __init__(
        self, view: View, size: int, batch: int, seed: int, first_step: int, last_step: int, rank: int = 0,
        world: int = 1, threads: int = 1, parts: int = 1,
    ) -> None:  # fmt: skip
        self.view, self.size, self.batch, self.seed = view, size, batch, seed
        self.first_step, self.last_step, self.rank, self.world = first_step, last_step, rank, world
        self.threads, self.parts = threads, parts

    def _submit(
        self, pool: ThreadPoolExecutor, step: int, part: int
    ) -> list[Future[tuple[NDArray[Any] | np.generic, ...]]]:
        places = list(enumerate(batch_indices(step, self.size, self.batch, self.seed)))
        own = places[part * self.batch // self.parts : (part + 1) * self.batch // self.parts][self.rank :: self.world]
        return [pool.submit(self.view, index, np.random.default_rng((self.seed, step, place))) for place, index in own]

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        with ThreadPoolExecutor(self.threads, "views") as pool:
            ahead: deque[list[Future[tuple[NDArray[Any] | np.generic, ...]]]] = deque()
            try:
                for number in range(self.first_step * self.parts, self.last_step * self.parts):
                    while len(ahead) < 3 and number + len(ahead) < self.last_step * self.parts:
                        ahead.append(self._submit(pool, *divmod(number + len(ahead), self.parts)))
                    views = [future.result() for future in ahead.popleft()]
                    yield tuple(torch.from_numpy(np.stack(arrays)) for arrays in zip(*views, strict=True))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
