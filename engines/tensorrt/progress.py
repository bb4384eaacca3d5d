"""How far a build is, from the nested phases that TensorRT reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """The phases that are running, and one fraction made of them.

    The outermost phase counts whole; a phase inside it fills the parent's current step. The fraction never falls,
    though TensorRT opens phases late. Not safe for several threads at once: whoever is told by them locks.

    Example:
        >>> phases = Phases()
        >>> phases.start("Building", None, 4)
        >>> phases.step("Building", 0)
        >>> phases.start("Timing", "Building", 2)
        >>> phases.step("Timing", 0)
        >>> phases.fraction
        0.375
    """

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self.fraction = 0.0
        """0 to 1."""

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self._phases[name] = _Phase(parent if parent in self._phases else None, max(steps, 1))

    def step(self, name: str, step: int) -> None:
        phase = self._phases.get(name)
        if phase is not None:
            phase.done = max(phase.done, min(step + 1, phase.steps))
            self._advance(name)

    def finish(self, name: str) -> None:
        phase = self._phases.get(name)
        if phase is not None:
            phase.done = phase.steps
            self._advance(name)
            del self._phases[name]

    def _advance(self, name: str) -> None:
        inner = 0.0
        seen = set()
        phase: _Phase | None = self._phases[name]
        while phase is not None and name not in seen:
            seen.add(name)
            inner = min((phase.done + inner) / phase.steps, 1.0)
            name = phase.parent or ""
            phase = self._phases.get(name)
        self.fraction = max(self.fraction, inner)
