"""`Familiar`: what a model says of the pictures that it was trained on, as a few figures that travel with it.

They stand in the model's spec, or in a file beside it, `drive.familiar.json` beside `drive.onnx` and its quantised
twins: that one counts where both are there, and the model file keeps its bytes, by which it is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from engines.errors import ModelError, OutputError

FEWEST = 100
"""Pictures that figures are made of at least: of so many, 7 in 100 others like them are beyond `limit` already."""

SUFFIX = ".familiar.json"
"""The ending of the file beside a model."""

CONFIDENCE = "mean confidence"
"""The name of the figure that is no class's."""

_TWINS = (".int8", ".fp8")

_Figure = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Correlation = Annotated[float, msgspec.Meta(ge=-1, le=1)]


class Familiar(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Figures of a model's answers to the pictures that it was trained on, or to others that it is to be at home with.

    Attributes:
        pictures: how many.
        source: which, in a clause, for people.
        figures: their names, see `engines.novelty.distance.figures`: the square root of each class's share of the
            picture, by the class's name, and `CONFIDENCE`, where the model gives one.
        means: of each figure, 0 to 1.
        spreads: its standard deviation, 0 to 1.
        correlations: of each figure with each one before it, row by row: K·(K − 1)/2 of K figures, −1 to 1.
        limit: the novelty that 99 of 100 of the pictures do not exceed.
    """

    pictures: Annotated[int, msgspec.Meta(ge=FEWEST)]
    source: str
    figures: tuple[str, ...]
    means: tuple[_Figure, ...]
    spreads: tuple[_Figure, ...]
    correlations: tuple[_Correlation, ...]
    limit: Annotated[float, msgspec.Meta(gt=0)]


def fault(familiar: Familiar, figures: tuple[str, ...]) -> str | None:
    """Why figures are not those of a model that gives these, as a clause; None where they are."""
    count = len(figures)
    if familiar.figures != figures:
        if not figures:
            return "the model gives no class map, of which its figures are made"
        own = next((name for name in familiar.figures if name not in figures), None)
        return f"it is of another model: {f'`{own}` is none of its figures' if own else 'figures are lacking in it'}"
    wanted = (count, count, count * (count - 1) // 2)
    found = tuple(map(len, (familiar.means, familiar.spreads, familiar.correlations)))
    if found != wanted:
        return f"it has {found} means, spreads and correlations where {wanted} are wanted"
    return None


def place_of(model: Path) -> Path:
    """Where the file beside a model is, one for both twins.

    >>> place_of(Path("a/drive.int8.onnx"))
    PosixPath('a/drive.familiar.json')
    """
    name = model.name.removesuffix(".onnx")
    for twin in _TWINS:
        name = name.removesuffix(twin)
    return model.with_name(name + SUFFIX)


def read_beside(model: Path) -> Familiar | None:
    """What lies beside a model; None where nothing does.

    Raises:
        ModelError: it cannot be read.
    """
    path = place_of(model)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Familiar)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or error
        raise ModelError(
            f"{path}, by which the novelty of pictures is told, cannot be read ({told}); take it away: "
            f"`roadlens models familiarize {model} --frames FOLDER` makes another."
        ) from None


def write_beside(model: Path, familiar: Familiar) -> Path:
    """Put the file of it beside a model, in the place of one that is there; its path.

    Raises:
        OutputError: it cannot be written.
    """
    path = place_of(model)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(msgspec.json.encode(familiar) + b"\n")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written ({error.strerror}); give a model in a folder that can") from None
    return path
