"""What a process indexes with. It must be the same in all processes of a crew, or clips would not be indexed alike."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import msgspec

from engines.errors import ModelError
from pipeline.archive.terms import Terms

_PACKAGES = ("roadlens", "av", "numpy", "opencv-python", "openvino")
"""What decodes, looks and rounds."""


class Equipment(msgspec.Struct, frozen=True):
    """What a process indexes with.

    Attributes:
        machine: where it is.
        engines: what computes, for people: of each model its name, precision, backend and device.
        models: name and SHA-256 of each model's file.
        precisions: that the models compute in.
        packages: versions by name.
        familiar: by what each model tells novelty, a digest; empty for one that does not.
    """

    machine: str
    engines: tuple[str, ...]
    models: tuple[tuple[str, str], ...]
    precisions: tuple[str, ...]
    packages: dict[str, str]
    familiar: tuple[str, ...] = ()


def equipment(
    engines: Sequence[str], precisions: tuple[str, ...], terms: Terms, familiar: tuple[str, ...] = ()
) -> Equipment:
    """That of this process, by what its engines are and by the terms that its configuration means here."""
    models = tuple((model.name, model.sha256) for model in terms.models)
    packages = {name: _version(name) for name in _PACKAGES}
    return Equipment(platform.node(), tuple(engines), models, precisions, packages, familiar)


def check_models(wanted: Terms, found: Equipment) -> None:
    """See that a process has the models by which the archive is made.

    Raises:
        ModelError: it has others.
    """
    for model, (name, sha256) in zip(wanted.models, found.models, strict=True):
        if (model.name, model.sha256) != (name, sha256):
            raise ModelError(
                f"{found.machine} has the model {name} ({sha256[:12]}), and the archive is made with {model.name} "
                f"({model.sha256[:12]}); install the same roadlens on all machines, or give a model file that all of "
                "them have under the same path"
            )


def check_alike(one: Equipment, other: Equipment) -> None:
    """See that two processes index alike.

    Raises:
        ModelError: they do not.
    """
    if one.precisions != other.precisions:
        raise ModelError(
            f"one process computes in {', '.join(other.precisions)} and another one in {', '.join(one.precisions)}, so "
            "that clips would not be indexed alike; name one precision with --precision"
        )
    if one.familiar != other.familiar:
        raise ModelError(
            f"what is familiar to the model differs between {one.machine} and {other.machine}, so that novelty would "
            "not be told alike; lay the same .familiar.json beside the model on all machines"
        )
    for name, number in one.packages.items():
        if other.packages.get(name) != number:
            raise ModelError(
                f"{one.machine} has {name} {number} and {other.machine} has {other.packages.get(name)}, so that clips "
                "would not be indexed alike; install the same version on all machines"
            )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"
