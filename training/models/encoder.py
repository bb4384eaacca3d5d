"""Classification networks of torchvision cut into five stages, each at half the resolution of the one before."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
import torchvision
from torch import Tensor, nn

from engines.errors import ModelError


class MobileNetV2Encoder(nn.Module):
    """MobileNetV2 (Sandler et al. 2018) at strides 2, 4, 8, 16, 32 with 16, 24, 32, 96, 320 channels.

    Input: (N, 3, H, W) float, normalised as RGB/127.5 − 1, H and W multiples of 32.
    """

    channels = (16, 24, 32, 96, 320)

    def __init__(self) -> None:
        super().__init__()
        # torchvision's key names (`features.N…`) are kept, so that its weight files load as they are. The last 1×1
        # convolution to 1280 channels (features.18) serves the classifier only.
        self.features = torchvision.models.mobilenet_v2().features[:18]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps from fine to coarse: 5 × (N, C_i, H/2^(i+1), W/2^(i+1))."""
        maps = []
        for first, last in ((0, 2), (2, 4), (4, 7), (7, 14), (14, 18)):
            for layer in self.features[first:last]:
                x = layer(x)
            maps.append(x)
        return maps

    def stage_parameters(self, stages: int) -> list[nn.Parameter]:
        """The parameters of the first `stages` stages (0 to 5), the ones a frozen start leaves alone."""
        last = (0, 2, 4, 7, 14, 18)[stages]
        return [p for layer in self.features[:last] for p in layer.parameters()]


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Load torchvision-named weights from a file; the classifier and what lies behind the cut are left out.

    Raises:
        ModelError: no such file, or its keys are not this encoder's.
    """
    if not path.exists():
        raise ModelError(f"encoder weights {path} do not exist; give a torchvision state dict, or leave the key out")
    state = cast("dict[str, Tensor]", torch.load(path, map_location="cpu", weights_only=True))
    wanted = encoder.state_dict()
    missing = [key for key in wanted if key not in state]
    if missing:
        raise ModelError(f"{path} does not hold this encoder: {missing[0]} and {len(missing) - 1} more keys are missing")
    encoder.load_state_dict({key: state[key] for key in wanted})
