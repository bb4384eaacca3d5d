"""PSPNet (Zhao et al. 2017): pyramid pooling over a dilated classification encoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training.models.encoder import Encoder
from training.models.segmenter import Segmenter, pad_to_multiple


@cache
def average_matrix(bins: int, size: int) -> NDArray[np.float32]:
    """(bins, size) float32 R such that R·x is adaptive average pooling of x along an axis of length `size`.

    Bin i is the mean of the places from ⌊i·size/bins⌋ up to, not including, ⌈(i+1)·size/bins⌉, as PyTorch's
    `adaptive_avg_pool2d` has it.
    """
    matrix = np.zeros((bins, size), np.float32)
    for i in range(bins):
        first, last = i * size // bins, -(-(i + 1) * size // bins)
        matrix[i, first:last] = 1 / (last - first)
    return matrix


@cache
def bilinear_matrix(bins: int, size: int) -> NDArray[np.float32]:
    """(size, bins) float32 U such that U·y is linear interpolation of y from `bins` to `size` places (half-pixel
    centres, edges repeated: PyTorch's `align_corners=False`)."""
    place = np.clip((np.arange(size) + 0.5) * bins / size - 0.5, 0, bins - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, bins - 1)
    matrix = np.zeros((size, bins), np.float64)
    np.add.at(matrix, (np.arange(size), low), 1 - (place - low))
    np.add.at(matrix, (np.arange(size), high), place - low)
    return matrix.astype(np.float32)


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """A convolution that keeps the size, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class PyramidPooling(nn.Module):
    """The feature map beside its own averages over 1×1, 2×2, 3×3 … bins, each reduced and spread out again.

    (N, C, h, w) → (N, C + P·len(bins), h, w).

    For a fixed h×w, adaptive average pooling is two constant matrix products, R·x·Cᵀ, and so is the spreading out.
    That is exact, and exports as a handful of products where `adaptive_avg_pool2d` unrolls into thousands of nodes or
    gives wrong numbers at other sizes (pytorch#42653). The matrices of all the bins are stacked: two products pool all
    levels at once, and the blocks on the diagonal are the levels.
    """

    def __init__(self, channels: int, pooled: int, bins: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.levels = nn.ModuleList(convolution(channels, pooled, 1) for _ in bins)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        rows = _constant(np.concatenate([average_matrix(b, height) for b in self.bins]), x)
        columns = _constant(np.concatenate([average_matrix(b, width) for b in self.bins]).T, x)
        pooled = rows @ (x @ columns)
        maps, start = [x], 0
        for bins, level in zip(self.bins, self.levels, strict=True):
            y = level(pooled[..., start : start + bins, start : start + bins])
            up, across = _constant(bilinear_matrix(bins, height), x), _constant(bilinear_matrix(bins, width).T, x)
            maps.append(up @ y @ across)
            start += bins
        return torch.cat(maps, dim=1)


def _constant(matrix: NDArray[np.float32], like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(matrix)).to(like)


class PSPNet(Segmenter):
    """Pyramid pooling, one 3×3 convolution, and sub-pixel scores of cells of `cell` × `cell` pixels.

    The published net scores at stride 8 and interpolates. With MobileNetV2 stride 8 takes two and a half times the
    time of stride 16 on a CPU (encoder alone, 256×256, bf16: 10.1 against 4.0 ms of CPU time), more than the whole
    net may cost. So the fast variant pools at stride 16 and adds the encoder's stride-4 map before it scores cells of
    4×4 pixels: poles and lights are thinner than a cell of 16. `detail=False` with `stride=8` is the plain PSPNet.

    Args:
        encoder: taken over and dilated to `stride`.
        classes: number of classes.
        stride: of the map that is pooled, 8 or 16.
        pooled: channels of each pyramid level.
        width: channels after the 3×3 convolution that joins the pyramid.
        detail: whether the stride-4 map is added.
    """

    def __init__(
        self, encoder: Encoder, classes: int, stride: Literal[8, 16] = 16, pooled: int = 64, width: int = 96,
        detail: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        encoder.dilate(stride)
        self.encoder = encoder
        self.classes = classes
        self.pyramid = PyramidPooling(encoder.channels[-1], pooled)
        self.join = convolution(encoder.channels[-1] + pooled * len(self.pyramid.bins), width, 3)
        self.cell = 4 if detail else stride
        self.detail = convolution(encoder.channels[1], width, 1) if detail else None
        self.fuse = convolution(width, width, 3) if detail else None
        self.head = nn.Conv2d(width, self.cell**2 * classes, 1)
        self.auxiliary = nn.Sequential(convolution(encoder.channels[3], 64, 3), nn.Conv2d(64, classes, 1))

    def phases(self, x: Tensor) -> Tensor:
        return self._phases(self.encoder(x))

    def _phases(self, maps: list[Tensor]) -> Tensor:
        x = self.join(self.pyramid(maps[-1]))
        if self.detail is not None and self.fuse is not None:
            detail = self.detail(maps[1])
            x = self.fuse(F.interpolate(x, scale_factor=detail.shape[-1] // x.shape[-1], mode="nearest") + detail)
        scores: Tensor = self.head(x)
        return scores

    def training_scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output's logits, and those of the auxiliary head on the encoder's fourth map, (N, C, H/s, W/s)."""
        maps = self.encoder(pad_to_multiple(x, 32))
        return self.to_pixels(self._phases(maps), x), self.auxiliary(maps[3])
