"""torchvision's classifiers by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torchvision import models

from engines.errors import ModelError
from training.explain.networks.network import Head, Network
from training.weights import read_weights

Normalisation = Literal["imagenet", "symmetric"]
"""What the weights were trained on: RGB less ImageNet's mean over its deviation, or RGB/127.5 − 1."""

IMAGENET = "imagenet"
RANDOM = "random"


def classifier_names() -> list[str]:
    """Every classifier of the installed torchvision: `alexnet`, …, `wide_resnet50_2`."""
    names: list[str] = models.list_models(module=models)
    return names


def open_classifier(
    name: str, weights: str = IMAGENET, normalisation: Normalisation = "imagenet", size: int | None = None
) -> Network:
    """A classifier of torchvision, at the picture size that its published weights were evaluated at.

    Args:
        name: of `classifier_names`.
        weights: `imagenet` (torchvision's, from its cache or by download), `random`, or a file of a state dict. A file
            with another number of classes than ImageNet's names them by number.
        normalisation: of the input that the weights were trained on.
        size: of the square input, in pixels; None for the published one.

    Raises:
        ModelError: the weights are not to be had, or do not fit.
    """
    published: Any = models.get_model_weights(name).DEFAULT
    transforms = published.transforms()
    classes = tuple(published.meta["categories"])
    if weights == IMAGENET:
        body = _downloaded(name, published)
    else:
        state = None if weights == RANDOM else read_weights(Path(weights))
        if state is not None:
            # The last layer's bias; whatever else stands last is no classifier's, and `_load` says so.
            number = next((len(last) for last in reversed(state.values()) if last.ndim), len(classes))
            classes = classes if number == len(classes) else tuple(map(str, range(number)))
        body = _fresh(name, len(classes))
        if state is not None:
            _load(body, state, name, weights)
    mean, deviation = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if normalisation == "imagenet":
        mean, deviation = transforms.mean, transforms.std
        if weights not in (IMAGENET, RANDOM) and hasattr(body, "transform_input"):
            # torchvision's Inception and GoogLeNet bring the input to their own scale.
            body.transform_input = True  # type: ignore[assignment]  # torch types every attribute as Tensor or Module
    side = size or transforms.crop_size[0]
    return Network(
        name, body, {"class": Head("class", classes)}, side, side, mean=_levels(mean), deviation=_levels(deviation)
    )


def _levels(shares: tuple[float, float, float]) -> tuple[float, float, float]:
    red, green, blue = (255 * share for share in shares)
    return red, green, blue


def _fresh(name: str, classes: int) -> nn.Module:
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # of builders whose defaults will change
        torch.manual_seed(0)
        model: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return model


def _downloaded(name: str, published: Any) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: nn.Module = models.get_model(name, weights=published)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"torchvision's weights of {name} cannot be downloaded ({error}); give a file of them with --weights FILE, "
            f"or --weights random"
        ) from None
    return model


def _load(body: nn.Module, state: dict[str, torch.Tensor], name: str, file: str) -> None:
    try:
        body.load_state_dict(state)
    except RuntimeError as error:
        line = str(error).splitlines()[1].strip().split(", ")[0].rstrip(".")
        raise ModelError(f"{file} does not fit {name}: {line} …; give a state dict of torchvision's {name}") from None
