"""The networks, each readable in its own file."""

from __future__ import annotations

from importlib import import_module

from engines.errors import UsageError
from training.models.encoder import make_encoder
from training.models.pspnet import PSPNet
from training.models.segmenter import Segmenter
from training.models.unet import UNet
from training.modules import check_own_module
from training.recipe import ModelSettings, OwnSettings, PSPNetSettings, UNetSettings

__all__ = ["PSPNet", "Segmenter", "UNet", "build_model"]


def build_model(settings: ModelSettings, classes: int) -> Segmenter:
    """The network a recipe asks for, with random weights.

    Raises:
        UsageError: a network of somebody else's that cannot be made.
    """
    encoder = make_encoder(settings.encoder)
    match settings:
        case UNetSettings():
            return UNet(encoder, classes, settings.decoder, settings.refined)
        case PSPNetSettings():
            return PSPNet(encoder, classes, settings.stride, settings.pooled, settings.width, settings.detail)
        case OwnSettings():
            return _own(settings)(encoder, classes, **settings.options)


def _own(settings: OwnSettings) -> type[Segmenter]:
    path, _, name = settings.network.partition(":")
    check_own_module(path, "network")
    try:
        found = getattr(import_module(path), name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UsageError(
            f"the network {settings.network} cannot be used ({error}); give module:Class of a module Python finds, "
            "its folder in PYTHONPATH"
        ) from None
    if not (isinstance(found, type) and issubclass(found, Segmenter)):
        raise UsageError(f"{settings.network} is no class derived from training.models.segmenter.Segmenter; derive it")
    return found
