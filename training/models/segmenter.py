"""What every segmentation network of the house shares: an encoder, sub-pixel scores, any picture size."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.encoder import Encoder


class Segmenter(nn.Module):
    """A network that scores the pixels of each cell of a coarse map at once ("sub-pixel", Shi et al. 2016).

    A subclass gives `encoder`, `classes`, `cell` (the side of a cell in pixels) and `phases`. The head of a cell of r
    pixels has r²·C channels at 1/r of the resolution, so that neither the last decoder stage nor the arg-max ever
    runs at full resolution on float maps.

    Input: (N, 3, H, W) float, RGB/127.5 − 1. Output: (N, C, H, W) logits. Any H, W ≥ 1: what is not a multiple of
    32 is padded by repeating the edge, and the logits are cropped.
    """

    encoder: Encoder
    classes: int
    cell: int

    @abstractmethod
    def phases(self, x: Tensor) -> Tensor:
        """(N, 3, H, W), multiples of 32 → (N, C·r², H/r, W/r): channel (c·r + i)·r + j scores class c at the pixel
        (r·y + i, r·x + j) of cell (y, x)."""

    def to_pixels(self, phases: Tensor, x: Tensor) -> Tensor:
        """Scores by cell → (N, C, H, W) logits of the unpadded input `x`."""
        return F.pixel_shuffle(phases, self.cell)[..., : x.shape[-2], : x.shape[-1]]

    def class_map(self, phases: Tensor) -> Tensor:
        """Scores by cell → (N, r·h, r·w) uint8 class ids.

        The arg-max is taken over the scores of each cell *before* its pixels are put in their places, so that one small
        integer map is rearranged in place of C float maps: exact, and 3.5 of 18 ms of CPU time less for the U-Net
        (256×256, OpenVINO bf16, AMD EPYC).
        """
        return self._places(self.ids(self._by_class(phases).argmax(1).int())).to(torch.uint8)

    def ids(self, best: Tensor) -> Tensor:
        """The class ids of the likeliest places among the scores, int32."""
        return best

    def confidence(self, phases: Tensor) -> Tensor:
        """Scores by cell → (N, r·h, r·w) uint8, the probability of the likeliest class times 255."""
        # The softmax of the likeliest class alone: a third of the time of the whole softmax and its maximum.
        # In bfloat16 the 255.5 of a pixel that is certain would round to 256, which as a byte is 0.
        by_class = self._by_class(phases).float()
        best = by_class.topk(1, dim=1).values
        likeliest = 1 / (by_class - best).exp().sum(1)
        return self._places(likeliest * 255 + 0.5).to(torch.uint8)

    def _by_class(self, phases: Tensor) -> Tensor:
        """(N, C·r², h, w) → (N, C, r², h, w)"""
        number, _, height, width = phases.shape
        return phases.reshape(number, self.classes, self.cell**2, height, width)

    def _places(self, cells: Tensor) -> Tensor:
        """(N, r², h, w) → (N, r·h, r·w)"""
        number, _, height, width = cells.shape
        grid = cells.reshape(number, self.cell, self.cell, height, width).permute(0, 3, 1, 4, 2)
        return grid.reshape(number, height * self.cell, width * self.cell)

    def training_scores(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The output's logits, and those of an auxiliary head if there is one, at whatever resolution it has."""
        return self(x), None

    def forward(self, x: Tensor) -> Tensor:
        return self.to_pixels(self.phases(pad_to_multiple(x, 32)), x)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the right and bottom edge until height and width are multiples of `multiple`: (N, C, H, W) float."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
