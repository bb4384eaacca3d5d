"""U-Net (Ronneberger et al. 2015) over a classification encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.encoder import MobileNetV2Encoder


class DecoderStage(nn.Module):
    """Double the resolution, join the encoder's map of that resolution, two 3×3 convolutions.

    (N, C_in, h, w) and (N, C_skip, 2h, 2w) → (N, C_out, 2h, 2w)
    """

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.fuse = nn.Sequential(
            nn.Conv2d(inputs + skip, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )
        self.refine = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
        refined: Tensor = self.refine(self.fuse(torch.cat([x, skip], dim=1)))
        return refined


class UNet(nn.Module):
    """U-Net whose last step is sub-pixel: class scores at half resolution, four phases a cell.

    The encoder's finest map has stride 2, so a full-size decoder stage would see no finer detail. Predicting the four
    pixels of each cell from it (a 1×1 convolution to 4·C channels; Shi et al. 2016) costs a tenth of that stage and
    keeps lines a pixel wide.

    Input: (N, 3, H, W) float, RGB/127.5 − 1. Output: (N, C, H, W) logits. Any H, W ≥ 32: what is not a multiple of
    32 is padded by repeating the edge, and the logits are cropped.
    """

    def __init__(self, classes: int, decoder: Sequence[int] = (192, 128, 64, 32)) -> None:
        super().__init__()
        self.encoder = MobileNetV2Encoder()
        self.classes = classes
        *skips, width = self.encoder.channels
        stages = []
        for skip, outputs in zip(reversed(skips), decoder, strict=True):
            stages.append(DecoderStage(width, skip, outputs))
            width = outputs
        self.decoder = nn.ModuleList(stages)
        self.head = nn.Conv2d(width, 4 * classes, 1)

    def phases(self, x: Tensor) -> Tensor:
        """(N, 4·C, H/2, W/2): channel 4c + 2i + j scores class c at the pixel (2y + i, 2x + j)."""
        *skips, x = self.encoder(x)
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            x = stage(x, skip)
        scores: Tensor = self.head(x)
        return scores

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        bottom, right = -height % 32, -width % 32
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom), mode="replicate")
        return F.pixel_shuffle(self.phases(x), 2)[..., :height, :width]
