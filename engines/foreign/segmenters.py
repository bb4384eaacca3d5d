"""Which output of a foreign graph is a segmenter's, and what it holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engines.errors import ModelError, UsageError
from engines.foreign.forms import PixelForm
from engines.foreign.original import Output
from engines.foreign.picture import PictureInput
from engines.foreign.told import How, Ledger, ScoreKind

_MOST_CLASSES = 255


def find_pixels(outputs: Sequence[Output], picture: PictureInput, ledger: Ledger) -> PixelForm | None:
    """The output of classes by pixel; None where there is none.

    Raises:
        ModelError: the one that was named is none.
        UsageError: there is no output of the name that was told.
    """
    named = ledger.told.take.get("class_map") or ledger.told.take.get("scores")
    if named is not None:
        chosen = [output for output in outputs if output.name == named]
        if not chosen:
            raise UsageError(f"There is no output `{named}`; there are {', '.join(o.name for o in outputs)}.")
        form = _form(chosen[0], picture, ledger)
        if form is None:
            raise ModelError(f"The output `{named}` ({shape(chosen[0])}) holds neither classes nor scores by pixel.")
        return _noted(form, ledger, "told", [])
    forms = [form for output in outputs if (form := _form(output, picture, ledger)) is not None]
    if not forms:
        return None
    fitting = [form for form in forms if ledger.classes and form.classes == len(ledger.classes)] or forms
    left_out = [output.name for output in outputs if output.name != fitting[0].output]
    return _noted(fitting[0], ledger, "measured", left_out)


def shape(output: Output) -> str:
    """`float32 1×19×64×128`."""
    return f"{output.answers[0].dtype} {'×'.join(str(size) for size in output.shape) or 'alone'}"


def _form(output: Output, picture: PictureInput, ledger: Ledger) -> PixelForm | None:
    """What an output is if it is one of pixels."""
    sizes = output.shape
    whole = output.is_whole and (not output.is_float or float(output.values.max(initial=0)) > 1)
    batched = len(sizes) > 2 and sizes[0] == 1
    inner = sizes[1:] if batched else sizes
    axis: int | None = None
    if len(inner) == 2:
        height, width, classes = *inner, 1
    elif len(inner) == 3 and _fits(inner[1], inner[2], picture):
        axis, (classes, height, width) = 1, inner
    elif len(inner) == 3 and _fits(inner[0], inner[1], picture):
        axis, (height, width, classes) = 3, inner
    else:
        return None
    if not _fits(height, width, picture) or classes > _MOST_CLASSES:
        return None
    if whole and classes == 1:
        kind: str = "map"
    elif not output.is_float:
        return None
    else:
        kind = "one" if classes == 1 else "scores"
    scores, level = _scores(output, kind, axis, ledger)
    return PixelForm(output.name, kind, batched, axis, classes, height, width, level, scores)


def _fits(height: int, width: int, picture: PictureInput) -> bool:
    """Whether a map of that size lies over the picture: as large, or a whole number of pixels a cell (rounded)."""
    if not 1 < height <= picture.height or not 1 < width <= picture.width:
        return False
    down, across = picture.height / height, picture.width / width
    return abs(down - across) <= 0.1 * max(down, across) and down <= 64


def _scores(output: Output, kind: str, axis: int | None, ledger: Ledger) -> tuple[ScoreKind, float]:
    values = output.values
    likely = bool(values.size and values.min() >= 0 and values.max() <= 1)
    told = ledger.told.scores
    threshold = ledger.told.threshold
    if kind == "one":
        probable = told == "probabilities" or (told is None and likely)
        return ("probabilities", threshold) if probable else ("sigmoid", math.log(threshold / (1 - threshold)))
    if told is not None:
        return told, threshold
    if likely and axis is not None:
        return "probabilities", threshold
    return "softmax", threshold


def _noted(form: PixelForm, ledger: Ledger, how: How, left_out: Sequence[str]) -> PixelForm:
    size = f"{form.width}×{form.height}"
    words = {
        "map": f"class ids, {size}",
        "one": f"one class by {'probability' if form.scores == 'probabilities' else 'logit'}, {size}, "
        f"from {form.level:g} on",
        "scores": f"{'logits' if form.scores != 'probabilities' else form.scores} of {form.classes} classes, {size}",
    }
    ledger.find("segmenter", f"`{form.output}`: {words[form.kind]}", how)
    if left_out:
        ledger.find("left out", ", ".join(f"`{name}`" for name in left_out), "measured")
    return form


def ids_of_channels(form: PixelForm, ledger: Ledger) -> tuple[int, ...]:
    """The class id of each channel, 255 for one that is nothing; of a `map` none are needed.

    Raises:
        UsageError: there are not as many classes as channels.
    """
    assert ledger.classes is not None
    ids = [info.id for info in ledger.classes]
    if form.kind == "map":
        return ()
    if form.kind == "one":
        if len(ids) not in {1, 2}:
            raise UsageError(
                f"The model gives one class against nothing, and {len(ids)} are named; name that one, or the "
                "background and it."
            )
        return (255, ids[0]) if len(ids) == 1 else (ids[0], ids[1])
    background = ledger.told.background
    if background in {"first", "last"} and form.classes == len(ids) + 1:
        return (255, *ids) if background == "first" else (*ids, 255)
    if form.classes != len(ids):
        one_more = "; if one is background, say --background first or last" if form.classes == len(ids) + 1 else ""
        raise UsageError(
            f"The model gives {form.classes} classes and {len(ids)} are named; name each one, in its order{one_more}."
        )
    return tuple(ids)


def strange_ids(outputs: Sequence[Output], form: PixelForm, ledger: Ledger) -> list[int]:
    """Ids in a class map that are no class, nor 255."""
    known = {info.id for info in ledger.classes or ()} | {255}
    answers = next(output.values for output in outputs if output.name == form.output)
    return sorted({int(value) for value in np.unique(answers)} - known)
