"""A U-Net (Ronneberger et al. 2015) for small pictures: no encoder trained elsewhere, cells in place of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.unet import DecoderStage


def convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3×3 convolutions that keep the size, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [
            nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        ]  # fmt: skip
    return nn.Sequential(*layers)


def grey_input(pictures: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 RGB, or (N, H, W) uint8 grey → (N, 1, H, W) float32 in [−1, 1]."""
    # TensorRT takes uint8 at an input only with a cast right behind it.
    values = pictures.float()
    grey = values.mean(3) if values.ndim == 4 else values
    return grey.unsqueeze(1) / 127.5 - 1


class GreyLevels(nn.Module):
    """What the grey levels of a whole picture are like, whatever stands where: (N, 1, H, W) → (N, C, 1, 1).

    The mean of ReLUs of the pixels says how much of the picture lies how far above or below a level, a soft histogram
    as it were; two layers make of it what is needed. A threshold that depends on the whole picture, such as Otsu's, is
    a function of just this. Pictures differ little in these means, so they are normalised first: without it the
    threshold of MNIST's digits is learned to 4.2 grey levels, with it to 3.0, in as many steps. Computed in float32: a
    grey level in 256 is as fine as bfloat16 goes.
    """

    def __init__(self, levels: int, outputs: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(1, levels, 1)
        self.conclude = nn.Sequential(
            nn.BatchNorm1d(levels), nn.Linear(levels, 2 * levels), nn.ReLU(inplace=True), nn.Linear(2 * levels, outputs)
        )
        assert self.look.bias is not None
        with torch.no_grad():
            # The levels are spread evenly to begin with, and looked at from above and from below in turn.
            signs = torch.where(torch.arange(levels) % 2 == 0, 2.0, -2.0)
            self.look.weight.copy_(signs[:, None, None, None])
            self.look.bias.copy_(-signs * torch.linspace(-1, 1, levels))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            found: Tensor = self.conclude(F.relu(self.look(x.float())).mean((2, 3)))
        return found[:, :, None, None]


class CompactUNet(nn.Module):
    """U-Net on cells of 2×2 pixels, with the grey levels of the whole picture in front of the last layer.

    A mask is scored as the sum of the U-Net's logit and of how far a pixel is above a threshold that the grey levels
    give: pixels within a few levels of it decide the last percent, and a slope of their own teaches it quickly.

    All convolutions run at half resolution, where a cell's four pixels are channels, and the last one scores the four
    pixels of a cell: for 28×28 pictures 3.5 times as many a second as the same channels at full resolution
    (forward and backward, 2 cores of an AMD EPYC).

    Args:
        classes: C; 1 for a mask.
        widths: channels from fine to coarse, at strides 2, 4 …
        levels: of `GreyLevels`.
        head: channels in front of the last layer.

    Input: (N, 1, H, W) float in [−1, 1], H and W multiples of 2^len(widths). Output: (N, C, H, W) logits, float32.
    """

    cell = 2

    def __init__(self, classes: int, widths: Sequence[int] = (32, 64), levels: int = 32, head: int = 32) -> None:
        super().__init__()
        pixels = self.cell**2
        self.encoder = nn.ModuleList(
            convolutions(inputs, outputs) for inputs, outputs in zip((pixels, *widths), widths, strict=False)
        )
        self.decoder = nn.ModuleList(
            DecoderStage(coarse, fine, fine) for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        mask = classes == 1
        self.levels = GreyLevels(levels, head + 1 if mask else head)
        # One grey level in 256 is 0.16 of the logit to begin with.
        self.log_slope = nn.Parameter(torch.tensor(3.0)) if mask else None
        self.join = nn.Conv2d(widths[0] + pixels, head, 1)
        self.head = nn.Conv2d(head, classes * pixels, 1)

    def forward(self, x: Tensor) -> Tensor:
        cells = F.pixel_unshuffle(x, self.cell)
        maps: list[Tensor] = []
        y = cells
        for stage in self.encoder:
            y = stage(F.max_pool2d(y, 2) if maps else y)
            maps.append(y)
        for stage, skip in zip(self.decoder, maps[-2::-1], strict=True):
            y = stage(y, skip)
        levels = self.levels(x)
        joined = self.join(torch.cat([y, cells.to(y.dtype)], dim=1)) + levels[:, : self.join.out_channels]
        logits: Tensor = F.pixel_shuffle(self.head(F.relu(joined)).float(), self.cell)
        if self.log_slope is None:
            return logits
        above: Tensor = self.log_slope.exp() * (x - levels[:, -1:])
        return logits + above
