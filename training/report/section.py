"""What a section of a report is: the models of one task on one split, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from engines.tools.benchmark import Benchmark
from training.report.measuring import Measured

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


class Section(Protocol):
    """What one task adds to a report, measured and ready to be written."""

    @property
    def title(self) -> str: ...

    @property
    def anchor(self) -> str:
        """Its place in the page."""
        ...

    @property
    def models(self) -> tuple[Measured, ...]:
        """What it is about."""
        ...

    @property
    def speeds(self) -> tuple[Benchmark, ...]:
        """What its milliseconds were measured on."""
        ...

    def html(self, environment: Environment) -> Markup:
        """The section, without its heading."""
        ...

    def markdown(self) -> str:
        """Its table for a README."""
        ...
