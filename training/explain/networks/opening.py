"""Whatever `--model` names, as a network to explain."""

from __future__ import annotations

from pathlib import Path

from engines import bundled
from engines.errors import ModelError, UsageError
from engines.settings import nearest
from training.explain.networks.network import Network


def open_network(
    model: str, weights: str | None = None, normalisation: str | None = None, size: int | None = None
) -> Network:
    """A checkpoint (`.ckpt`), an exported model (`.onnx`), a bundled model's or a torchvision classifier's name.

    Args:
        model: of which.
        weights, normalisation, size: of a torchvision classifier, see `training.explain.networks.classifiers`.

    Raises:
        ModelError: there is no such model, or it cannot be opened.
        UsageError: an option of classifiers for another model.
    """
    from training.explain.networks import classifiers

    if model in classifiers.classifier_names():
        return classifiers.open_classifier(
            model, weights or classifiers.IMAGENET, "symmetric" if normalisation == "symmetric" else "imagenet", size
        )
    given = {"--weights": weights, "--input": normalisation, "--size": size}
    if odd := [option for option, value in given.items() if value is not None]:
        raise UsageError(f"{odd[0]} is for torchvision's classifiers; {model} says itself what it is made of")
    if model.endswith(".ckpt"):
        from training.explain.networks.checkpoints import open_checkpoint_network

        return open_checkpoint_network(Path(model))
    if model.endswith(".onnx") or model in bundled.names():
        from training.explain.networks.graphs import open_graph

        return open_graph(bundled.resolve(model))
    close = nearest(model, [*classifiers.classifier_names(), *bundled.names()])
    raise ModelError(
        f"there is no model {model}{f', the nearest is {close}' if close else ''}; give a .ckpt, an .onnx, a bundled "
        f"model ({', '.join(bundled.names())}) or the name of a classifier of torchvision, such as vgg16"
    )
