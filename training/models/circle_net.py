"""A digit's class and the smallest circle around its ink."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.compact_unet import GreyLevels, convolutions


class Encircled(NamedTuple):
    """What a `CircleNet` says of N pictures.

    Attributes:
        classes: (N, C) logits, float32.
        circles: (N, 3) centre x and y, radius, in pixels, float32; the circle may reach beyond the frame.
        ink: (N, H, W) logits of the foreground, float32.
    """

    classes: Tensor
    circles: Tensor
    ink: Tensor


class CircleNet(nn.Module):
    """Convolutions on cells of 2×2 pixels, a class from the coarsest grid, a circle from the finer ones.

    The smallest circle hangs on two or three outermost pixels and on whether these are ink at all, so
    - the fine grid is told the grey levels of the picture, and learns from a loss of its own which pixels are ink;
    - the circle's head sees, besides the kept coarse grid, how far the ink reaches: a maximum over all cells of a
      learned sum of features and coordinates. With ink as the feature and direction (a, b) as the coordinates' weights
      this is the support function of the ink, which determines the circle. A mean, or a stride, would blur it.

    Args:
        side: H and W of the pictures, a multiple of 4.
        classes: C.
        widths: channels at strides 2, 4 and 8.
        reaches: how many maxima.

    Input: (N, 1, H, W) float in [−1, 1].
    """

    cell = 2

    def __init__(
        self, side: int = 28, classes: int = 10, widths: tuple[int, int, int] = (48, 96, 128), reaches: int = 64
    ) -> None:
        super().__init__()
        self.side = side
        pixels, (fine, middle, coarse) = self.cell**2, widths
        self.stem = nn.Sequential(
            nn.Conv2d(pixels, fine, 3, padding=1, bias=False), nn.BatchNorm2d(fine), nn.ReLU(inplace=True)
        )
        self.levels = GreyLevels(32, fine)
        self.join = nn.Conv2d(fine + pixels, fine, 1)
        self.fine = convolutions(fine, fine)
        self.ink = nn.Conv2d(fine, pixels, 1)
        self.middle = convolutions(fine, middle)
        self.coarse = convolutions(middle, coarse)
        cells = -(-side // 8)
        self.classify = nn.Sequential(nn.Dropout(0.3), nn.Linear(coarse * cells**2, classes))
        self.keep = nn.Conv2d(middle, 32, 1)
        self.reach = nn.Conv2d(fine + 2 * pixels, reaches, 1)
        self.direction = nn.Conv2d(2, reaches, 1, bias=False)
        self.conclude = nn.Sequential(
            nn.Linear(32 * (side // 4) ** 2 + reaches, 256), nn.ReLU(inplace=True),
            nn.Linear(256, 128), nn.ReLU(inplace=True), nn.Linear(128, 3),
        )  # fmt: skip
        # At first every circle is the same, in the middle of the frame: sigmoid(0) is one half.
        last = self.conclude[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        place = (torch.arange(side // self.cell) + 0.5) * (2 * self.cell / side) - 1
        places = torch.stack(torch.meshgrid(place, place, indexing="xy"))
        self.register_buffer("places", places.unsqueeze(0), persistent=False)
        # No circle around pixels of the frame is larger than the one through its corners.
        self.register_buffer("scale", torch.tensor([1.0, 1.0, 0.5**0.5]) * side, persistent=False)

    places: Tensor
    scale: Tensor

    def forward(self, x: Tensor) -> Encircled:
        cells = F.pixel_unshuffle(x, self.cell)
        stem = self.stem(cells)
        fine = self.fine(F.relu(self.join(torch.cat([stem, cells.to(stem.dtype)], dim=1)) + self.levels(x)))
        middle = self.middle(F.max_pool2d(fine, 2))
        coarse = self.coarse(F.max_pool2d(middle, 2, ceil_mode=True))
        classes = self.classify(coarse.flatten(1)).float()
        # In bfloat16 a coordinate of this frame is good to a tenth of a pixel only.
        with torch.autocast(x.device.type, enabled=False):
            ink = self.ink(fine.float())
            features = torch.cat([fine.float(), cells, ink.clamp(-8, 8)], dim=1)
            reach = (self.reach(features) + self.direction(self.places)).amax((2, 3))
            kept = F.relu(self.keep(middle.float())).flatten(1)
            circles = self.conclude(torch.cat([kept, reach], dim=1)).sigmoid() * self.scale
        return Encircled(classes, circles, F.pixel_shuffle(ink, self.cell).squeeze(1))
