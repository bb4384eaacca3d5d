"""Batches as a pure function of the step: the reason a resumed run sees exactly the pictures it would have seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

UInt8 = NDArray[np.uint8]
View = Callable[[int, np.random.Generator], tuple[UInt8, UInt8]]


def batch_indices(step: int, size: int, batch: int, seed: int) -> list[int]:
    """The samples of one step: epoch after epoch of seeded permutations, laid end to end.

    >>> sorted(batch_indices(0, 4, 2, 0) + batch_indices(1, 4, 2, 0))
    [0, 1, 2, 3]
    """
    indices = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, offset = divmod(position, size)
        indices.append(int(np.random.default_rng((seed, epoch)).permutation(size)[offset]))
    return indices


class StepwiseBatches(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches from `first_step` on; randomness depends on (seed, step, place in the batch) and nothing else.

    Yields (N, H, W, 3) uint8 pictures and (N, H, W) uint8 labels. With several processes (DDP) rank r of R takes
    every R-th place of the batch.
    """

    def __init__(
        self, view: View, size: int, batch: int, seed: int, first_step: int, last_step: int, rank: int = 0, world: int = 1
    ) -> None:
        self.view, self.size, self.batch, self.seed = view, size, batch, seed
        self.first_step, self.last_step, self.rank, self.world = first_step, last_step, rank, world

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(self.first_step, self.last_step):
            places = list(enumerate(batch_indices(step, self.size, self.batch, self.seed)))[self.rank :: self.world]
            views = [self.view(index, np.random.default_rng((self.seed, step, place))) for place, index in places]
            yield torch.from_numpy(np.stack([v[0] for v in views])), torch.from_numpy(np.stack([v[1] for v in views]))
