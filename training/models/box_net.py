"""Boxes alone: the encoder, the decoder and the heads of objects of `RoadUserNet`, without its classes of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch.nn.functional as F
from torch import Tensor, nn

from training.models.encoder import Encoder
from training.models.road_users import RARE, REACH, object_head, seen_together
from training.models.unet import decoder_stages


class BoxNet(nn.Module):
    """See `training.models.road_users`; modules bear its names, so that its weights load.

    Args:
        encoder: any.
        things: classes of objects, T.
        decoder: channels at strides 16, 8 and 4.
        width: channels of the map that the heads look at.
        refined: how many of the stages have a second convolution.
    """

    def __init__(
        self, encoder: Encoder, things: int, decoder: Sequence[int], width: int = 96, refined: int = 4
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder_stages(encoder, decoder, refined)
        self.laterals = nn.ModuleList([nn.Conv2d(channels, width, 1) for channels in decoder])
        self.heat = object_head(width, 64, things)
        self.sides = object_head(width, 64, 4)
        nn.init.constant_(self.heat[-1].bias, -log(1 / RARE - 1))  # type: ignore[arg-type]  # a Module to torch's types

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) float, RGB/127.5 − 1, multiples of 32 → heat (N, T, H/4, W/4), sides (N, 4, H/4, W/4); see
        `training.models.road_users.Scene`."""
        *skips, x = self.encoder(x)
        maps = []
        for stage, skip in zip(self.decoder, reversed(skips), strict=False):
            x = stage(x, skip)
            maps.append(x)
        seen = seen_together(self.laterals, maps)
        return self.heat(seen), F.softplus(self.sides(seen).float()) * REACH
