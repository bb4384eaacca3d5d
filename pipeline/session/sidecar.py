"""Side-cars of a run's files: what those are made of, and that their run was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from engines.errors import OutputError, UsageError
from pipeline.files import earlier_name, partial_name, source_name, stopped_name
from pipeline.frame import Analysis
from pipeline.session.fingerprint import fingerprints, goes_on
from pipeline.sources.synthetic import SCHEME, parse_synthetic


class FinishedFile(Protocol):
    """An output of one stream that gets its final name when the stream has come to its end.

    Attributes:
        stays_partial: whether it keeps its partial name all the same.
    """

    stays_partial: bool

    def finish(self) -> None: ...


class SideCar:
    """A sink that keeps the side-cars of a stream's files: what they are made of, and that their run was stopped.

    It comes behind the files, so that it finishes when they have their names.

    Args:
        anchor: the file beside which they stand.
        outputs: final names of the stream's files.
        made_of: fingerprints of the source.
    """

    name = "side_car"

    def __init__(self, anchor: Path, outputs: Sequence[Path], made_of: Sequence[str]) -> None:
        self._anchor, self._outputs, self._made_of = anchor, tuple(outputs), list(made_of)
        self._files: tuple[FinishedFile, ...] = ()
        self._stopped = False

    def begin(self, files: Iterable[FinishedFile]) -> None:
        """The stream's files are open: say what they are made of.

        Raises:
            OutputError: that cannot be written.
        """
        self._files = tuple(files)
        write_side_car(source_name(self._anchor), self._made_of)

    def consume(self, analysis: Analysis) -> None:
        """Nothing is kept of a frame."""

    def stopped(self, frames: int) -> None:
        """The stream was stopped ahead of its end. What is complete under a final name stays; where nothing is, the
        files get their names, and a side-car says, before they do, that they can be resumed.

        Raises:
            OutputError: that cannot be written.
        """
        self._stopped = True
        if any(path.exists() for path in self._outputs):
            for file in self._files:
                file.stays_partial = True
        elif frames and self._outputs:
            write_side_car(stopped_name(self._anchor), self._made_of, frames)

    def finish(self) -> None:
        """The files are finished. What they are made of need be known no more, unless some can be resumed by it."""
        if not self._stopped:
            stopped_name(self._anchor).unlink(missing_ok=True)
        elif not self._outputs or any(file.stays_partial for file in self._files):
            return
        source_name(self._anchor).unlink(missing_ok=True)

    def close(self) -> None:
        """After the files were closed: where nothing is left of them, nothing is said of it."""
        left = (name for path in self._outputs for name in (partial_name(path), earlier_name(path)))
        if self._outputs and not any(name.exists() for name in left):
            source_name(self._anchor).unlink(missing_ok=True)


def write_side_car(path: Path, made_of: Sequence[str], frames: int | None = None) -> None:
    """Say what is made of which footage, and how many frames it has.

    Raises:
        OutputError: that cannot be written.
    """
    said = {"source": list(made_of)} | ({} if frames is None else {"frames": frames})
    try:
        path.write_text(json.dumps(said) + "\n")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; free some space") from None


def check_made_of(side_car: Path, file: Path, made_of: Sequence[str]) -> None:
    """See that a file was made of this footage, as its side-car says.

    Raises:
        UsageError: it was made of other footage, or that is not known.
    """
    try:
        begun = json.loads(side_car.read_text())["source"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"what {file} was made of is not known, for {side_car} is missing or damaged; run without --resume"
        ) from None
    if not goes_on(begun, made_of):
        raise UsageError(
            f"{file} was made of other footage than this run's; give --resume the same source, or run without it"
        )


def made_of(address: str, paths: Sequence[Path], track: int | None = None) -> list[str]:
    """Fingerprints of what a stream reads, with the track of pictures where one is named. A synthetic drive of another
    length begins as this one does.
    """
    if address.startswith(SCHEME):
        with suppress(UsageError):  # a source that somebody else wrote may call itself as it likes
            address = str(replace(parse_synthetic(address), seconds=1.0))
    found = fingerprints(address, paths)
    return found if track is None else [f"{fingerprint}-{track}" for fingerprint in found]
