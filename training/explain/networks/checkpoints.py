"""Checkpoints of training runs as networks to explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from engines.errors import ModelError
from training.checkpoint import open_checkpoint
from training.explain.networks.network import Answers, Head, Network
from training.models import Segmenter
from training.models.localizer import Localization, Localizer

BOX = Head("coordinates", ("x0", "y0", "x1", "y1"))
PRESENCE = Head("presence", ("presence",))


def open_checkpoint_network(path: Path) -> Network:
    """The averaged network of a checkpoint, at the size that it was trained at.

    Raises:
        ModelError: not a checkpoint, or one whose network is neither a `Segmenter` nor a `Localizer`.
        UsageError: the checkpoint does not say which recipe made it.
    """
    task, model = open_checkpoint(path)
    recipe = task.recipe
    spec = task.spec(recipe.height, recipe.width, "", ())
    classes = tuple(entry.name for entry in spec.classes)
    return as_network(recipe.name, model, classes, recipe.height, recipe.width, task.class_heads())


def as_network(
    name: str,
    model: nn.Module,
    classes: Sequence[str],
    height: int,
    width: int,
    class_heads: Mapping[str, Sequence[str]] | None = None,
) -> Network:
    """A segmenter or localizer of the house as a network to explain.

    Args:
        name: for people.
        model: the network.
        classes: their names, where the network has that many.
        height: of its input.
        width: of its input.
        class_heads: names of a localizer's class heads and of their classes, in order; numbers where left out.

    Raises:
        ModelError: it is neither.
    """
    if isinstance(model, Segmenter):
        return Network(name, model, {"pixels": Head("pixels", _names(classes, model.classes))}, height, width)
    if not isinstance(model, Localizer):
        raise ModelError(
            f"{name} is a {type(model).__name__}, and of checkpoints only segmenters and localizers are explained; "
            f"export it with `roadlens export` and explain the .onnx"
        )
    heads = {"box": BOX}
    if model.presence is not None:
        heads["presence"] = PRESENCE
    sizes = [classifier.out_features for classifier in model.classifiers if isinstance(classifier, nn.Linear)]
    stated = [*(class_heads or {}).items()]
    for number, size in enumerate(sizes):
        head = "class" if len(sizes) == 1 else f"class{number + 1}"
        head, names = stated[number] if number < len(stated) else (head, classes)
        heads[head] = Head("class", _names(names, size))

    def answers(found: Localization) -> Answers:
        named: dict[str, Tensor] = {"box": found.boxes}
        if found.presence is not None:
            named["presence"] = found.presence[:, None]
        class_heads = (head for head, content in heads.items() if content.kind == "class")
        return named | dict(zip(class_heads, found.classes, strict=True))

    return Network(name, model, heads, height, width, answers)


def _names(classes: Sequence[str], number: int) -> tuple[str, ...]:
    return tuple(classes) if len(classes) == number else tuple(map(str, range(number)))
