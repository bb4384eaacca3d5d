"""U-Net (Ronneberger et al. 2015) over a classification encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.encoder import Encoder
from training.models.segmenter import Segmenter


class DecoderStage(nn.Module):
    """Double the resolution, join the encoder's map of that resolution, two 3×3 convolutions, or one.

    (N, C_in, h, w) and (N, C_skip, 2h, 2w) → (N, C_out, 2h, 2w)
    """

    def __init__(self, inputs: int, skip: int, outputs: int, refined: bool = True) -> None:
        super().__init__()
        self.fuse = nn.Sequential(
            nn.Conv2d(inputs + skip, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )
        second = [
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        ]  # fmt: skip
        self.refine = nn.Sequential(*second if refined else ())

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        refined: Tensor = self.refine(self.fuse(torch.cat([x, skip], dim=1)))
        return refined


def decoder_stages(encoder: Encoder, outputs: Sequence[int], refined: int) -> nn.ModuleList:
    """Stages of these channels, from coarse to fine, behind an encoder; the first `refined` have both convolutions."""
    *skips, width = encoder.channels
    inputs = (width, *outputs)
    sizes = zip(inputs, reversed(skips), outputs, strict=False)
    return nn.ModuleList([DecoderStage(*size, place < refined) for place, size in enumerate(sizes)])


class UNet(Segmenter):
    """U-Net whose last step is sub-pixel: class scores at half resolution, four pixels a cell.

    The encoder's finest map has stride 2, so a full-size decoder stage would see no finer detail. Predicting the four
    pixels of each cell from it (a 1×1 convolution to 4·C channels) costs a tenth of that stage and keeps lines a
    pixel wide.
    """

    cell = 2

    def __init__(
        self, encoder: Encoder, classes: int, decoder: Sequence[int] = (192, 128, 64, 32), refined: int = 4
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.classes = classes
        self.decoder = decoder_stages(encoder, decoder, refined)
        self.head = nn.Conv2d(decoder[-1], self.cell**2 * classes, 1)

    def phases(self, x: Tensor) -> Tensor:
        *skips, x = self.encoder(x)
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            x = stage(x, skip)
        scores: Tensor = self.head(x)
        return scores
