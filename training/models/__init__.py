"""The networks, each readable in its own file."""

from __future__ import annotations

from training.models.encoder import make_encoder
from training.models.pspnet import PSPNet
from training.models.segmenter import Segmenter
from training.models.unet import UNet
from training.recipe import ModelSettings, PSPNetSettings, UNetSettings

__all__ = ["PSPNet", "Segmenter", "UNet", "build_model"]


def build_model(settings: ModelSettings, classes: int) -> Segmenter:
    """The network a recipe asks for, with random weights."""
    encoder = make_encoder(settings.encoder)
    match settings:
        case UNetSettings():
            return UNet(encoder, classes, settings.decoder)
        case PSPNetSettings():
            return PSPNet(encoder, classes, settings.stride, settings.pooled, settings.width, settings.detail)
