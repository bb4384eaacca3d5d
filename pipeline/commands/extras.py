"""Which extra of the distribution a library belongs to that is not installed."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

_OF = re.compile(r"""^(?P<name>[\w.-]+).*;.*\bextra\s*==\s*["'](?P<extra>[\w-]+)["']""")
_FOR_PEOPLE = ("serve", "mcap", "archive", "quantize", "train", "gpu")
"""Extras that commands need; of a library that several have, the first one is meant, or that of the command."""


def missing_extra(module: str | None, preferred: str = "") -> str | None:
    """The sentence about a module that could not be imported; None where it is of no extra.

    Args:
        module: its name, such as `cuda.bindings`.
        preferred: the extra that is meant where several have the library.
    """
    top = (module or "").partition(".")[0].lower()
    if not top:
        return None
    extras = {match["extra"] for text in _requirements() if (match := _OF.match(text)) and _is_of(match["name"], top)}
    found = [extra for extra in (preferred, *_FOR_PEOPLE) if extra in extras]
    if not found:
        return None
    return (
        f"this needs the package {top}, which is not installed; install what belongs to it, in the folder of roadlens, "
        f"with: pip install '.[{found[0]}]'"
    )


def _requirements() -> list[str]:
    try:
        return requires("roadlens") or []
    except PackageNotFoundError:  # run from its sources
        return []


def _is_of(distribution: str, module: str) -> bool:
    """Whether a distribution has a module; `cuda-bindings` has `cuda`."""
    name = distribution.lower().replace("-", "_")
    return name == module or name.startswith(f"{module}_")
