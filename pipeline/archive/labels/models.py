"""The models of an archive, found again by their content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engines.bundled import file_for, resolve
from engines.errors import ModelError
from pipeline.archive.terms import ModelTerms, Terms, sha256_of


def files_of(terms: Terms, models: Sequence[str]) -> list[Path]:
    """The files of an archive's models, known by their content.

    Args:
        terms: of the archive.
        models: names or files that may be some of them; for the others those that come with roadlens are.

    Raises:
        ModelError: one is not there, or one of `models` is none of them.
    """
    unused = list(models)
    found = []
    for wanted in terms.models:
        given = next((name for name in unused if _content(name, wanted) == wanted.sha256), None)
        if given is not None:
            unused.remove(given)
        elif not _comes_with_roadlens(wanted):
            raise ModelError(
                f"the archive was made with {_said(wanted)}, which {_instead(wanted)}; give the file that it was made "
                "with by --model, or index the archive anew with --again"
            )
        found.append(file_for(resolve(given or wanted.name), wanted.precision))
    if unused:
        there = " and ".join(map(_said, terms.models))
        raise ModelError(f"--model {unused[0]} is none of the models of the archive, which was made with {there}")
    return found


def _said(wanted: ModelTerms) -> str:
    return f"{wanted.name} ({wanted.sha256[:12]})"


def _content(model: str, wanted: ModelTerms) -> str:
    return sha256_of(file_for(resolve(model), wanted.precision))


def _comes_with_roadlens(wanted: ModelTerms) -> bool:
    try:
        return _content(wanted.name, wanted) == wanted.sha256
    except ModelError:
        return False


def _instead(wanted: ModelTerms) -> str:
    try:
        return f"is another one now ({_content(wanted.name, wanted)[:12]})"
    except ModelError:
        return "does not come with roadlens"
