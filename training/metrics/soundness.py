"""Whether what a model says can be scored at all: its class ids are classes, its boxes and scores numbers in range.

An id beyond the classes would otherwise be counted somewhere: as a pixel of another true class, or not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE, ClassInfo
from engines.errors import ModelError, SourceError
from training.task import Outputs

_FAR = 1.0
"""How far, in sides of the picture, a raw box may reach outside it: one in pixels reaches further."""


def require_sound(outputs: Outputs, classes: Sequence[ClassInfo], model: str, pictures: Sequence[str]) -> None:
    """Refuse what is no answer.

    Args:
        outputs: by role, (n, …) each; names that are no roles are not looked at.
        classes: of the model.
        model: its name, for the sentence.
        pictures: names of the n pictures.

    Raises:
        ModelError: the first thing that is wrong, and on which picture.
    """
    known = np.zeros(256, bool)
    known[[info.id for info in classes]] = True
    for role in ("class_map", "labels"):
        if role in outputs:
            values = np.asarray(outputs[role])
            strange = (values < 0) | (values > 255) | ~known[np.clip(values, 0, 255)]
            if role == "class_map":
                strange &= values != IGNORE  # a pixel may be none of the classes, a box may not
            _refuse(
                strange, values, pictures, f"{model} says class",
                f"its classes are {in_words(classes)}; export it with the classes that it was trained for",
            )  # fmt: skip
    if "scores" in outputs:
        values = np.asarray(outputs["scores"])
        _refuse(
            ~((values >= 0) & (values <= 1)), values, pictures, f"{model} gives a score of",
            "a score is 0 to 1; put a sigmoid or softmax in front of it",
        )  # fmt: skip
    if "boxes" in outputs:
        values = np.asarray(outputs["boxes"])
        _refuse(
            ~((values >= -_FAR) & (values <= 1 + _FAR)), values, pictures, f"{model} gives a box with an edge at",
            "edges are fractions of the picture, 0 to 1; divide pixels by its sides",
        )  # fmt: skip


def _refuse(
    strange: NDArray[np.bool_], values: NDArray[Any], pictures: Sequence[str], what: str, wanted: str
) -> None:  # fmt: skip
    if strange.any():
        place = tuple(int(i) for i in np.argwhere(strange)[0])
        raise ModelError(f"{what} {values[place]:g} on {pictures[place[0]]}, and {wanted}")


def require_ids(label: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int) -> None:
    """Refuse ids that a confusion matrix of `classes` has no row or column for.

    Args:
        label: true ids, those that are ignored left out.
        prediction: what a model says.
        classes: C.

    Raises:
        SourceError: an id of the truth is not below C.
        ModelError: an id of the prediction is not.
    """
    if (largest := int(label.max(initial=0))) >= classes:
        raise SourceError(f"a label holds class {largest}, and there are {classes}, from 0 on; mend the label")
    if (largest := int(prediction.max(initial=0))) >= classes:
        raise ModelError(f"the model says class {largest}, and there are {classes}, from 0 on; is it another's model?")


def in_words(classes: Collection[ClassInfo]) -> str:
    """Ids and names, the middle ones of many left out."""
    each = [f"{info.id} {info.name}" for info in classes]
    return ", ".join(each if len(each) <= 6 else [*each[:2], "…", each[-1]])
