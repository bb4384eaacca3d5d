"""One object of a picture: its box, whether it is there, and its classes, from an encoder whose grid is kept.

A box head that flattens the grid has to learn anew for every place what a corner looks like, and a pooled one has lost
the place. Here every cell of the grid says where it believes the four edges are, counted from its own centre (as FCOS
does, Tian et al. 2019, arXiv:1904.01355), and how much it is to be believed; the box is the mean of these votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.encoder import Encoder
from training.models.unet import DecoderStage

Head = Literal["votes", "objectness"]


class Localization(NamedTuple):
    """What a `Localizer` says of N pictures. Boxes are xyxy, fractions of the picture, right and bottom exclusive.

    Attributes:
        boxes: (N, 4) float.
        objectness: (N, h, w) logits: how much a cell is believed (`votes`), or that it lies in the box (`objectness`).
        cell_boxes: (N, h, w, 4), the box that each cell votes for; None where the boxes are read off the map.
        presence: (N,) logits that the object is there; None without that head.
        classes: for each class head (N, C) logits.
    """

    boxes: Tensor
    objectness: Tensor
    cell_boxes: Tensor | None
    presence: Tensor | None
    classes: tuple[Tensor, ...]


class Localizer(nn.Module):
    """An encoder, a small decoder up to the grid's stride, and heads on it.

    Args:
        encoder: any; only the stages it keeps are used.
        stride: of the grid, in pixels; between it and the encoder's coarsest map lie `DecoderStage`s.
        width: channels of the grid.
        head: `votes`, boxes from the votes of the cells; `objectness`, boxes read off a map of where the object is.
        presence: whether there is a head that says if the object is there at all.
        classes: sizes of the class heads.
        dropout: in front of the presence and class heads.

    Input: (N, 3, H, W) float, RGB/127.5 − 1, H and W multiples of the encoder's coarsest stride.
    """

    def __init__(
        self, encoder: Encoder, *, stride: Literal[4, 8, 16, 32] = 16, width: int = 96, head: Head = "votes",
        presence: bool = False, classes: Sequence[int] = (), dropout: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = encoder
        if 2**encoder.kept < stride:
            raise ValueError(f"a grid of stride {stride} is coarser than the encoder's last map of {2**encoder.kept}")
        features = encoder.channels[-1]
        self.reduce = nn.Sequential(
            nn.Conv2d(features, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        steps = encoder.kept - (stride.bit_length() - 1)
        skips = encoder.channels[: encoder.kept - 1][::-1][:steps]
        self.decoder = nn.ModuleList(DecoderStage(width, skip, width) for skip in skips)
        self.refine = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.votes = BoxVotes(width) if head == "votes" else None
        self.objectness = nn.Conv2d(width, 1, 1) if head == "objectness" else None
        self.dropout = nn.Dropout(dropout)
        self.presence = nn.Linear(features, 1) if presence else None
        self.classifiers = nn.ModuleList(nn.Linear(features, size) for size in classes)

    def grid(self, maps: Sequence[Tensor]) -> Tensor:
        """The encoder's maps, from fine to coarse → (N, width, h, w) at the grid's stride."""
        *finer, coarsest = maps[: self.encoder.kept]
        x: Tensor = self.reduce(coarsest)
        for stage, skip in zip(self.decoder, reversed(finer), strict=False):
            x = stage(x, skip)
        refined: Tensor = self.refine(x)
        return refined

    def forward(self, x: Tensor) -> Localization:
        maps = self.encoder(x)
        grid = self.grid(maps)
        if self.votes is not None:
            boxes, objectness, cell_boxes = self.votes(grid)
        else:
            assert self.objectness is not None
            objectness, cell_boxes = self.objectness(grid).float().squeeze(1), None
            boxes = read_box(objectness.sigmoid())
        pooled = self.dropout(maps[-1].float().mean((2, 3)))
        presence = None if self.presence is None else self.presence(pooled).squeeze(1)
        return Localization(
            boxes, objectness, cell_boxes, presence, tuple(classifier(pooled) for classifier in self.classifiers)
        )


class BoxVotes(nn.Module):
    """Boxes as the mean of what the cells of a grid believe, weighted by the softmax of how much each is believed.

    A cell says how far left, up, right and down of its centre the edges lie (softplus: never negative, so that every
    box is one). The computation after the last convolution is in float32.

    (N, C, h, w) → boxes (N, 4), weights' logits (N, h, w), boxes of the cells (N, h, w, 4)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.predict = nn.Conv2d(channels, 5, 1)
        nn.init.normal_(self.predict.weight, std=0.01)
        assert self.predict.bias is not None
        nn.init.zeros_(self.predict.bias)

    def forward(self, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.predict(grid).float()
        # At first every edge lies 0.2 of the picture away: softplus(−1.5).
        left, up, right, down = F.softplus(found[:, :4] - 1.5).unbind(1)
        y, x = cell_centres(found)
        cell_boxes = torch.stack([x - left, y - up, x + right, y + down], dim=-1)
        logits = found[:, 4]
        return vote(cell_boxes, logits), logits, cell_boxes


def vote(values: Tensor, logits: Tensor) -> Tensor:
    """Mean of what the cells say, weighted by the softmax of `logits`: (N, h, w, K) and (N, h, w) → (N, K)."""
    weights = logits.flatten(1).softmax(1)
    # A product and a sum: a batched matrix product of one row is slower, and int8 tools would quantise it.
    return (values.flatten(1, 2) * weights.unsqueeze(-1)).sum(1)


def cell_centres(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Centres of the cells as fractions of the picture: y (h, 1) and x (1, w) of an (N, C, h, w) grid."""
    height, width = grid.shape[-2:]
    y = (torch.arange(height, device=grid.device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=grid.device, dtype=torch.float32) + 0.5) / width
    return y[:, None], x[None, :]


READ_QUANTILE = 0.1
"""Which quantile of the mass along an axis `read_box` looks at, from either end."""


def read_box(probability: Tensor, quantile: float = READ_QUANTILE) -> Tensor:
    """The box of one object, read off a map of where it is: (N, h, w) in 0 to 1 → (N, 4) xyxy fractions.

    Cells below one half do not count, unless none is above. Along each axis the mass between the two quantiles q and
    1 − q spans 1 − 2q of a uniformly filled box, whose edges follow. Unlike the outermost cells these move by parts
    of a cell and hardly at all for a lone cell elsewhere; unlike connected components they can stand in a graph.
    """
    certain = (probability >= 0.5).to(probability)
    none = 1 - certain.amax((1, 2), keepdim=True)
    mass = probability * (certain + none)
    edges = []
    for axis in (1, 2):
        profile = mass.sum(axis)
        profile = profile / profile.sum(1, keepdim=True).clamp_min(1e-6)
        before = profile.cumsum(1) - profile
        # A cell counts as a whole if it lies before the quantile, in part if it holds it.
        low, high = (
            ((q - before) / profile.clamp_min(1e-6)).clamp(0, 1).sum(1) / profile.shape[1]
            for q in (quantile, 1 - quantile)
        )
        margin = (high - low) * quantile / (1 - 2 * quantile)
        edges.append((low - margin, high + margin))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], dim=1).clamp(0, 1)
