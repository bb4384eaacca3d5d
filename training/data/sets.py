"""Data sets as `roadlens data` meets them: one module each, found by its file name and asked about a folder.

The face of a data set is the module `training/data/inspection/<set>.py`, or any other module with the same names,
given as the path that Python imports it by.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from engines.errors import SourceError, UsageError
from engines.settings import nearest
from engines.tools.pictures import is_folder, listed
from training.data.nesting import lies_below


class Inspection(Protocol):
    """What looking over a folder found; a msgspec struct, so that it can be printed as JSON."""

    def markdown(self) -> str:
        """The findings as a page."""
        ...

    def raise_if_bad(self, folder: Path) -> None:
        """Raise CheckFailed where the folder cannot be trained on as it is."""
        ...


class DataSet(Protocol):
    """What a data set's module holds. `fetch(folder) -> Path` is one more function where it can be downloaded,
    `publish_split(folder, path, seed) -> dict[str, int]` one where the parts are ours to choose. A set
    that is one among many of its form has `GENERAL = True`: another that knows a folder for its own goes before it.
    One whose layout others may have, too, has `LIKE_OTHERS = True`, and is not looked for in folders below."""

    NAME: str
    """What the command line calls it."""

    SPLITS: Sequence[str]
    """Its parts, the one to look at first first."""

    def recognises(self, folder: Path) -> bool:
        """Whether the set lies in a folder, by its layout alone."""
        ...

    def inspect(self, folder: Path) -> Inspection:
        """Read everything that training would read."""
        ...

    def draw_contact_sheet(self, folder: Path, split: str, number: int) -> NDArray[np.uint8]:
        """Samples spread evenly over a split, with what is true of them: (H, W, 3) uint8 RGB."""
        ...


def data_sets() -> dict[str, DataSet]:
    """The data sets of the house, by name."""
    import training.data.inspection as faces

    found = [
        cast("DataSet", importlib.import_module(f"{faces.__name__}.{module.name}"))
        for module in pkgutil.iter_modules(faces.__path__)
    ]
    return {data_set.NAME: data_set for data_set in found}


def data_set_in(folder: Path, name: str | None = None) -> DataSet:
    """The data set that lies in a folder.

    Args:
        folder: to look at.
        name: of a set of the house, or the path of a module; None asks every set of the house.

    Raises:
        UsageError: no set has that name.
        SourceError: there is no such folder, or no set or several know it for their own.
    """
    if name is not None:
        return named(name)
    if not is_folder(folder):
        raise SourceError(f"there is no folder {folder}; give the folder of a data set")
    listed(folder)  # what cannot be read is said, and not taken for empty
    known = data_sets()
    general = [data_set for data_set in known.values() if getattr(data_set, "GENERAL", False)]
    special = [data_set for data_set in known.values() if data_set not in general]
    found = _knowing(folder, special)
    if not found:
        # Unpacked a folder too deep, a set would else be taken for anybody's pictures with labels.
        clear = [data_set for data_set in special if not getattr(data_set, "LIKE_OTHERS", False)]
        if below := lies_below(folder, lambda path: bool(_knowing(path, clear))):
            raise SourceError(f"{folder} is none of the data sets that are known ({', '.join(known)}){below}")
        found = _knowing(folder, general)
    if len(found) == 1:
        return found[0]
    if not found:
        below = lies_below(folder, lambda path: bool(_knowing(path, known.values())))
        raise SourceError(
            f"{folder} is none of the data sets that are known ({', '.join(known)})"
            + (below or "; give the folder that holds one, or say with --set which one it is")
        )
    raise SourceError(f"{folder} may be {' or '.join(s.NAME for s in found)}; say with --set which one it is")


def _knowing(folder: Path, known: Iterable[DataSet]) -> list[DataSet]:
    """The sets that know a folder for their own.

    Raises:
        SourceError: a folder in it cannot be read.
    """
    try:
        return [data_set for data_set in known if data_set.recognises(folder)]
    except OSError as error:
        raise SourceError(f"{error.filename or folder} cannot be read ({error.strerror}); mend its rights") from None


def named(name: str) -> DataSet:
    """A data set of the house by its name, or of somebody else's by the path of its module.

    Raises:
        UsageError: there is none.
    """
    known = data_sets()
    if name in known:
        return known[name]
    close = nearest(name, known)
    hint = f"the nearest is {close}" if close else f"known are {', '.join(known)}"
    try:
        module = importlib.import_module(name)
    except (ModuleNotFoundError, ValueError, TypeError):
        raise UsageError(f"there is no data set {name!r}; {hint}, or the path of a module that Python finds") from None
    missing = [part for part in ("NAME", "SPLITS", "inspect", "draw_contact_sheet") if not hasattr(module, part)]
    if missing:
        raise UsageError(f"the module {name} is no data set: it has no `{missing[0]}` (see training.data.sets.DataSet)")
    return cast("DataSet", module)
