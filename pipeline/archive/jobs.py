"""What goes between the run and whoever looks at clips: jobs, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec

from pipeline.archive.positions.sidecars import Unused

MODULE = "pipeline.archive.crew.worker"
"""What a process runs that looks at clips."""


class Job(msgspec.Struct, frozen=True):
    """A clip to be indexed: its id, where it is, and what its name and folders said of it."""

    clip: str
    path: str
    bytes: int
    camera: str
    car: str
    maker: str


class Answer(msgspec.Struct, frozen=True):
    """What a process says of a clip that it looked at.

    Attributes:
        data: what was found, as `rows.encode` has it; None where it failed.
        cpu_seconds: that it took.
        reason: why it failed.
        away: whether the clip could not be had, which is no fault of its content: it may not be read, its disk or store
            is not there.
        unused: files with places of which something could not be used.
    """

    data: bytes | None = None
    cpu_seconds: float = 0.0
    reason: str = ""
    away: bool = False
    unused: tuple[Unused, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a clip that was given to the crew.

    Attributes:
        job: the clip.
        answer: what its process says of it, or why that came to no answer.
        killed: whether its process was killed from outside.
    """

    job: Job
    answer: Answer
    killed: bool = False


class Crew(Protocol):
    """Whoever looks at clips, several at a time."""

    def free(self) -> int:
        """How many clips more can be begun at once."""
        ...

    def begin(self, job: Job) -> None:
        """Begin a clip; `free` must be above 0."""
        ...

    def over(self, seconds: float) -> list[Outcome]:
        """The clips that are over since it was asked last, after `seconds` at most.

        Raises:
            ModelError: no engine can be loaded, or those of two processes are not alike.
            SourceError: another machine does not see the clips.
        """
        ...

    def shares(self) -> dict[str, float]:
        """Which share of each clip under way is done, by its id."""
        ...

    def close(self) -> None:
        """End all processes at once. Twice is allowed."""
        ...
