"""A U-Net with eyes for objects: the class of each pixel, and the centre and the four sides of each road user.

Centres are peaks of a heat map for each class (CenterNet, Zhou et al. 2019); the cells around a centre tell how far
the sides of the box are (TTFNet, Liu et al. 2020). Everything is read off one encoder and one decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.classes import IGNORE
from training.models.encoder import Encoder
from training.models.segmenter import pad_to_multiple
from training.models.unet import UNet

STRIDE = 4
"""Pixels of a cell of the heat map."""

REACH = 8.0
"""Pixels of a distance of one, as the network gives it before it is made positive and large."""

CANDIDATES = 8192
"""Objects a picture that are more than an untrained network's peaks."""

RARE = 0.01
"""Share of cells that a fresh heat map takes for centres, so that the many that are none do not drown the start."""


class Scene(NamedTuple):
    """What the network says of N pictures of H×W pixels, for C classes of pixels and T classes of objects.

    Attributes:
        phases: (N, C·4, H/2, W/2) scores of the pixels by cell; see `Segmenter.phases`.
        heat: (N, T, H/4, W/4) logits that a cell is the centre of an object.
        sides: (N, 4, H/4, W/4) distances from the cell's centre to left, top, right and bottom, in pixels.
    """

    phases: Tensor
    heat: Tensor
    sides: Tensor


class RoadUserNet(UNet):
    """See the module; as a `Segmenter` it gives the logits of the pixels, `scene` gives everything.

    Args:
        encoder: any.
        classes: of pixels.
        things: classes of objects.
        decoder: channels at strides 16, 8, 4 and 2.
        width: channels of the map that the heads of the objects look at.
        refined: how many of the decoder's stages have a second convolution.
        void: whether one more class of pixels is told apart, for what is no picture of the road; where it is the
            likeliest the class map says 255.
    """

    def __init__(
        self, encoder: Encoder, classes: int, things: int, decoder: Sequence[int] = (192, 128, 64, 32),
        width: int = 96, refined: int = 4, void: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(encoder, classes + void, decoder, refined)
        self.void = classes if void else None
        self.laterals = nn.ModuleList([nn.Conv2d(channels, width, 1) for channels in decoder[:3]])
        self.heat = object_head(width, 64, things)
        self.sides = object_head(width, 64, 4)
        nn.init.constant_(self.heat[-1].bias, -log(1 / RARE - 1))  # type: ignore[arg-type]  # a Module to torch's types

    def ids(self, best: Tensor) -> Tensor:
        # Whole numbers of 32 bits: not every engine chooses between bytes.
        return best if self.void is None else torch.where(best == self.void, IGNORE, best)

    def add_to_scores(self, biases: Tensor) -> None:
        """Add (C,) numbers to the logits of the pixels' classes, for good; the place for void stays as it is."""
        assert self.head.bias is not None
        added = biases.repeat_interleave(self.cell**2)
        self.head.bias.data[: len(added)] += added

    def scene(self, x: Tensor) -> Scene:
        """(N, 3, H, W) float, RGB/127.5 − 1, any size → everything, of the picture padded to multiples of 32."""
        *skips, x = self.encoder(pad_to_multiple(x, 32))
        maps = []
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            x = stage(x, skip)
            maps.append(x)
        seen = seen_together(self.laterals, maps[:3])
        return Scene(self.head(x), self.heat(seen), F.softplus(self.sides(seen).float()) * REACH)


def seen_together(laterals: nn.ModuleList, maps: Sequence[Tensor]) -> Tensor:
    """The map that the heads of the objects look at: the decoder's at strides 16, 8 and 4, (N, C_i, …), joined at 4."""
    first, *others = laterals
    seen: Tensor = first(maps[0])
    for lateral, finer in zip(others, maps[1:], strict=True):
        seen = F.interpolate(seen, scale_factor=2, mode="nearest") + lateral(finer)
    return F.relu(seen)


def object_head(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """Two convolutions: (N, inputs, h, w) → (N, outputs, h, w)."""
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 3, padding=1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(inplace=True),
        nn.Conv2d(middle, outputs, 1),
    )  # fmt: skip


def boxes_of_cells(sides: Tensor) -> Tensor:
    """The box that each cell tells of: (N, 4, h, w) distances in pixels → (N, 4, h, w) xyxy in pixels."""
    height, width = sides.shape[-2:]
    x = (torch.arange(width, device=sides.device, dtype=sides.dtype) + 0.5) * STRIDE
    y = ((torch.arange(height, device=sides.device, dtype=sides.dtype) + 0.5) * STRIDE)[:, None]
    left, top, right, bottom = sides.unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], 1)


def decode(heat: Tensor, sides: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest objects: a cell is one where no neighbour of the same class is likelier.

    Made of maxima, top-K and gathers alone, so that it exports as it is.

    Args:
        heat: (N, T, h, w) logits.
        sides: (N, 4, h, w) distances in pixels.
        count: objects a picture, K; no more than there are cells for all classes.

    Returns:
        (N, K, 4) float32 boxes, xyxy as fractions of the picture, (N, K) float32 scores in falling order and
        (N, K) int64 numbers of classes.
    """
    classes, height, width = heat.shape[1:]
    likely = heat.float().sigmoid()
    peaks = likely * (F.max_pool2d(likely, 3, 1, 1) == likely)
    scores, places = peaks.flatten(1).topk(count, 1)
    # Whole numbers are compared: engines lack a remainder, and a division in bf16 would come out in the wrong class.
    firsts = torch.arange(1, classes, device=places.device) * (height * width)
    # A sum over no class at all is not 0 to every engine.
    labels = (places[..., None] >= firsts).sum(-1) if classes > 1 else torch.zeros_like(places)
    cells = (places - labels * (height * width))[:, None]
    size = torch.tensor([width, height, width, height], device=sides.device)[:, None] * STRIDE
    boxes = (boxes_of_cells(sides).flatten(2) / size).clamp(0, 1)
    # Joined and not expanded, for which the graph would have to ask for its number of pictures.
    chosen = boxes.gather(2, torch.cat([cells] * 4, 1)).transpose(1, 2)
    return chosen, scores, labels
