"""The page around the sections: templates and style sheet lie beside this file and end up in the one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.figures import in_words

if TYPE_CHECKING:
    from training.report.section import Section

_TEMPLATES = Path(__file__).parent / "templates"


def render(sections: Sequence[Section], now: datetime | None = None) -> str:
    """The page as text.

    Args:
        sections: in the order of the page.
        now: what stands as its date, UTC.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.globals["in_words"] = in_words
    speeds = [speed for section in sections for speed in section.speeds]
    return environment.get_template("page.html").render(
        sections=[
            (section, anchor, section.html(environment))
            for section, anchor in zip(sections, _told_apart([s.anchor for s in sections]), strict=True)
        ], speeds=speeds,
        style=(_TEMPLATES / "style.css").read_text(), date=(now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
    )  # fmt: skip


def _told_apart(anchors: Sequence[str]) -> list[str]:
    """The same, those that come again with their number behind them."""
    return [
        anchor if anchor not in anchors[:place] else f"{anchor}-{anchors[: place + 1].count(anchor)}"
        for place, anchor in enumerate(anchors)
    ]
