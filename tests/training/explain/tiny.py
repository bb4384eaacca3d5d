"""Networks small enough to know what their explanations must be."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from training.explain.networks.network import Head, Network, to_tensor

HEIGHT, WIDTH = 64, 96
PATCH = (16, 56, 32, 72)
"""Top, left, bottom, right of what `OnePatch` looks at, in pixels."""


class Linear(nn.Module):
    """Every class is a weighted sum of the input."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    weights: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", x, self.weights)


class OnePatch(nn.Module):
    """A convolutional network whose answer hangs on one patch of the picture and on nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bend = nn.ReLU(inplace=True)
        nn.init.constant_(self.look.weight, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        top, left, bottom, right = PATCH
        seen = self.bend(self.look(x))
        mask = torch.zeros_like(seen)
        mask[..., top + 1 : bottom - 1, left + 1 : right - 1] = 1
        bright = (seen * mask).sum((1, 2, 3)) / mask[0].sum()
        return torch.stack([bright, -bright], dim=1)


class Skip(nn.Module):
    """A block with a way around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.bend = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.bend(self.conv(x)))


class Gate(nn.Module):
    """Squeeze and excitation: every place feels the whole picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x.mean((2, 3), keepdim=True)).sigmoid()


def chain(*, gate: bool = False) -> nn.Sequential:
    """A classifier of 5 classes: strides, padding, pooling, a skip, and where asked for a gate in its second stage."""
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(8)
    for values in ("running_mean", "running_var", "weight", "bias"):
        nn.init.uniform_(getattr(norm, values), 0.5, 1.5)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), norm, nn.ReLU(inplace=True), Skip(8), *([Gate(8)] if gate else []),
        nn.Conv2d(8, 8, 5, padding=2), nn.MaxPool2d(2), Skip(8), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def classifier(body: nn.Module, classes: int = 5, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Network:
    return Network("tiny", body, {"class": Head("class", tuple("abcdefgh"[:classes]))}, *size)


def lit_patch() -> Tensor:
    """(1, 3, H, W) float32: a bright patch where `OnePatch` looks, dark elsewhere, some noise."""
    top, left, bottom, right = PATCH
    lit = 40 + picture(3) / 20
    lit[..., top:bottom, left:right] += 160
    return lit


def picture(seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Tensor:
    """(1, 3, H, W) float32: noise."""
    return to_tensor(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))
