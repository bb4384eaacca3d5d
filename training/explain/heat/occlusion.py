"""Occlusion (Zeiler & Fergus 2014): a grey square slides over the picture; the heat is by how much the answer falls.

A pixel's heat is the mean over all places of the square that cover it, as captum's `Occlusion` has it. The places are
answered in batches, and where the network allows it only what a square changes is computed
(`training.explain.heat.incremental`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.errors import UsageError
from training.explain.heat.incremental import Incremental, incremental
from training.explain.networks.network import Network
from training.explain.targets import Target


@dataclass(frozen=True)
class Occlusion:
    """The grid of places.

    Attributes:
        window: side of the square, in pixels of the network's input.
        stride: between places, in pixels of the network's input, down and across.
        fill: grey level of the square, 0 to 255.
        batch: places answered at once.
        exact_parts: compute only what a square changes, where the network is found to allow it; the answers are the
            same but for rounding.
    """

    window: int = 25
    stride: int = 5
    fill: float = 127.5
    batch: int = 8
    exact_parts: bool = True


def places(size: int, window: int, stride: int) -> list[int]:
    """Where the square starts along an axis: every `stride` pixels until its end reaches the picture's.

    The last may reach over the edge, of which only the part inside counts.
    """
    return [step * stride for step in range(-(-max(size - window, 0) // stride) + 1)]


def occlusion_map(network: Network, picture: Tensor, target: Target, grid: Occlusion) -> NDArray[np.float32]:
    """(H, W) float32: by how much the target falls where a pixel is covered.

    Args:
        network: to explain.
        picture: (1, 3, H, W) float32 RGB, 0 to 255.
        target: the number.
        grid: of places.

    Raises:
        UsageError: the window is larger than the picture, or the stride than the window, which leaves pixels out.
    """
    height, width = picture.shape[-2:]
    if not 1 <= grid.window <= min(height, width):
        raise UsageError(f"a window of {grid.window} pixels does not fit into {width}×{height}; give a smaller one")
    if not 1 <= grid.stride <= grid.window:
        raise UsageError(
            f"a stride of {grid.stride} pixels leaves out what lies between windows of {grid.window}; give one from 1 "
            f"to {grid.window}"
        )
    rows, columns = (places(size, grid.window, grid.stride) for size in (height, width))
    corners = [(y, x) for y in rows for x in columns]
    with torch.inference_mode():
        whole = float(target.score(network(picture)))
        scores = place_scores(network, picture, target, grid, corners)
    heat, covered = np.zeros((height, width)), np.zeros((height, width))
    for (y, x), score in zip(corners, scores, strict=True):
        here = slice(y, y + grid.window), slice(x, x + grid.window)
        heat[here] += whole - score
        covered[here] += 1
    return (heat / covered).astype(np.float32)


def place_scores(
    network: Network, picture: Tensor, target: Target, grid: Occlusion, corners: Sequence[tuple[int, int]]
) -> NDArray[np.float64]:
    """(len(corners),) float64: the target's score with the square at each place, whose first pixel is (y, x)."""
    picture = picture.contiguous(memory_format=torch.channels_last)
    parts = incremental(network, picture) if grid.exact_parts else None
    found = []
    for start in range(0, len(corners), grid.batch):
        group = corners[start : start + grid.batch]
        found.append(target.score(_covered(network, picture, grid, group, parts)))
    return torch.cat(found).double().numpy()


def _covered(
    network: Network, picture: Tensor, grid: Occlusion, corners: Sequence[tuple[int, int]], parts: Incremental | None
) -> dict[str, Tensor]:
    if parts is not None:
        return network.named(parts(corners, grid.window, grid.fill))
    pictures = picture.expand(len(corners), -1, -1, -1).clone(memory_format=torch.channels_last)
    for one, (y, x) in zip(pictures, corners, strict=True):
        one[:, y : y + grid.window, x : x + grid.window] = grid.fill
    return network(pictures)  # type: ignore[no-any-return]  # a module's call is untyped
