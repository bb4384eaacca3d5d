"""Modules of one's own that a recipe names: they are looked at before they are run.

A recipe stands in checkpoints and exported models, too, which come from others. Python runs a module that is imported,
so what such a file names must be one that was written for this package: it imports something of it.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from engines.errors import UsageError


def check_own_module(path: str, what: str) -> None:
    """Refuse a module that cannot hold what is looked for in it. One that is not there is for its import to name.

    Args:
        path: dotted, as of `import`.
        what: that it is to hold, in words.

    Raises:
        UsageError: the module imports nothing of `training`.
    """
    if path.partition(".")[0] in {"training", "engines", "pipeline"}:
        return
    spec = _found(path)
    if spec is None:
        return
    if not _imports_training(spec.origin):
        raise UsageError(
            f"the module {path} imports nothing of `training`, so that it holds no {what}, and it is not run; name one "
            "that does, and use files that name modules only where they come from somebody you trust"
        )


def _found(path: str) -> ModuleSpec | None:
    """Where a module is. `importlib.util.find_spec` would run the packages that it is in."""
    places: Sequence[str] | None = None
    spec = None
    parts = path.split(".")
    for number in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: number + 1]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return spec


def _imports_training(origin: str | None) -> bool:
    if origin is None or not origin.endswith(".py"):
        return False
    try:
        tree = ast.parse(Path(origin).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return True  # its import says what is wrong; nothing of it runs before
    named: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            named.append(node.module or "")
        elif isinstance(node, ast.Import):
            named += [alias.name for alias in node.names]
    return any(name.partition(".")[0] == "training" for name in named)
