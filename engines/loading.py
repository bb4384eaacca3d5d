"""What happens while a model is made ready, as values for a progress bar, a log and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Building:
    """A backend compiles a model for this machine, which may take minutes.

    Attributes:
        model: its name.
        backend: `tensorrt`.
        phase: what the compiler is doing, in its own words.
        fraction: how much is done, 0 to 1; never falls.
    """

    model: str
    backend: str
    phase: str
    fraction: float


@dataclass(frozen=True, slots=True)
class Degraded:
    """Something was not there, and the next best is taken.

    Attributes:
        model: its name.
        wanted: what was tried: a backend, `batch 8`, `cuda graph`, `plan cache`.
        instead: what is done in its place.
        lacking: why, in one word of a small set, fit for a metric's label: `driver`, `gpu`, `library`, `memory`,
            `operator`, `cache`, `capture`, `tensorrt`, `torch`, `nvdec`, `nvenc`, `compiler`, `device` (it failed).
        sentence: why and what now, for people.
    """

    model: str
    wanted: str
    instead: str
    lacking: str
    sentence: str


def in_tenths(say: Callable[[str], None]) -> Observe:
    """Something to tell builds to, which says each tenth of one in a line."""
    told: dict[str, int] = {}

    def observe(event: Building | Degraded) -> None:
        if isinstance(event, Building) and (tenths := int(event.fraction * 10)) > told.get(event.model, 0):
            told[event.model] = tenths
            say(f"{event.model}: {tenths * 10} % built ({event.phase})")

    return observe


Observe = Callable[[Building | Degraded], None]
"""Is called from the loading thread, and by a compiler's own threads, one at a time."""
