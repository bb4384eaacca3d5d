"""The terms of an archive: by which models and at which cadence all of its clips are indexed; and the file of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from engines.bundled import file_for, resolve
from engines.errors import SourceError, UsageError
from pipeline.config import Config, ModelConfig
from pipeline.files import partial_name

FILE = "archive.json"
FORMAT = 1
"""Columns and files may be added within a format; what a column means never changes within it."""

_DECIDING = ("boxes", "min_score", "hold_score", "tracking", "smoothing")
"""Keys of a configuration that decide what is found, beside the models and those that ask for a stage."""


class ModelTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model, known by its content.

    Attributes:
        name: as it calls itself.
        sha256: of its file.
        precision: as asked for.
        every: it looks at every n-th frame.
        areas: classes of which it gives the share of the picture.
        things: labels of which it gives boxes.
    """

    name: str
    sha256: str
    precision: str
    every: int
    areas: tuple[str, ...]
    things: tuple[str, ...]


class Terms(msgspec.Struct, frozen=True):
    """What all clips of an archive are indexed by.

    Attributes:
        models: the models.
        options: what else decides what is found, as JSON has it.
        format: of the archive.
        kind: what the file says that it is.
    """

    models: tuple[ModelTerms, ...]
    options: dict[str, Any]
    format: Annotated[int, msgspec.Meta(ge=1)] = FORMAT
    kind: Literal["roadlens archive"] = "roadlens archive"

    @property
    def areas(self) -> tuple[str, ...]:
        """The classes that have a share of the picture."""
        return tuple(dict.fromkeys(name for model in self.models for name in model.areas))

    @property
    def things(self) -> tuple[str, ...]:
        """The labels that boxes have."""
        return tuple(dict.fromkeys(name for model in self.models for name in model.things))


def terms_of(config: Config, archive: Path | None = None) -> Terms:
    """The terms that a configuration means.

    Args:
        config: the models, and what else decides.
        archive: an archive that may know the models: what they say of themselves need not be read again.

    Raises:
        ModelError: there is no such model, or it says nothing of itself.
        UsageError: one has no cadence.
    """
    known = read_terms(archive).models if archive is not None and (archive / FILE).is_file() else ()
    staged = [name for name in config.__struct_fields__ if hasattr(getattr(config, name), "stage")]
    options = {name: msgspec.to_builtins(getattr(config, name), enc_hook=str) for name in (*_DECIDING, *staged)}
    return Terms(tuple(_model_terms(wanted, known) for wanted in config.models), options)


def _model_terms(wanted: ModelConfig, known: Sequence[ModelTerms]) -> ModelTerms:
    every = wanted.every
    if every == "auto":
        raise UsageError(
            f"{wanted.model}: an archive keeps what was looked at alone, at one cadence for all of its clips, and auto "
            "is none; say how many frames apart, such as --every 15"
        )
    path = file_for(resolve(wanted.model), wanted.precision)
    content = sha256_of(path)
    for model in known:
        if model.sha256 == content:
            return msgspec.structs.replace(model, precision=wanted.precision, every=every)
    from engines.spec import read_spec  # 0.2 s: only where the model is new

    spec = read_spec(path)
    names = tuple(info.name for info in spec.classes)
    mapped = "class_map" in spec.outputs
    things = tuple(info.name for info in spec.classes if info.thing) if mapped else names
    return ModelTerms(spec.name, content, wanted.precision, every, names if mapped else (), things)


def sha256_of(path: Path) -> str:
    """By which a model is known: of its file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_terms(archive: Path) -> Terms:
    """The terms of an archive that is there.

    Raises:
        SourceError: there is none, or its file is damaged or of a later roadlens.
    """
    path = archive / FILE
    try:
        terms = msgspec.json.decode(path.read_bytes(), type=Terms)
    except FileNotFoundError:
        raise SourceError(
            f"{archive} is no archive: it holds no {FILE}; make one with: roadlens archive FOLDER {archive}"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}; it is what says how the archive was made") from None
    if terms.format > FORMAT:
        raise SourceError(
            f"{archive} is of format {terms.format}, and this roadlens knows {FORMAT}; install a later one"
        )
    return terms


def write_terms(archive: Path, terms: Terms) -> None:
    """Put the file of the terms in its place, whole."""
    path = archive / FILE
    data = msgspec.json.format(msgspec.json.encode(terms, order="deterministic"), indent=2) + b"\n"
    partial_name(path).write_bytes(data)
    partial_name(path).replace(path)


def check_terms(archive: Path, there: Terms, asked: Terms) -> None:
    """See that clips are added to an archive by its own terms.

    Raises:
        UsageError: they are not the ones that are asked for; it says what differs.
    """
    if _read_back(asked) == there:
        return
    told = _differences(there, asked)
    raise UsageError(
        f"{archive} was made with {told[0]}, and {told[1]} is asked for; ask for the same, name another folder, or "
        "index all of it anew with --again"
    )


def _read_back(terms: Terms) -> Terms:
    """As they are once they were written."""
    return msgspec.json.decode(msgspec.json.encode(terms), type=Terms)


def _differences(there: Terms, asked: Terms) -> tuple[str, str]:
    def said(model: ModelTerms) -> str:
        return f"{model.name} ({model.sha256[:12]}) in {model.precision}, one frame in {model.every}"

    if there.models != asked.models:
        return " and ".join(map(said, there.models)), " and ".join(map(said, asked.models))
    now = _read_back(asked).options
    name = next(name for name in {**there.options, **now} if there.options.get(name) != now.get(name))
    return f"`{name}`: {there.options.get(name)}", f"{now.get(name)}"
