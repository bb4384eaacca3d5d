"""What is kept of the notes of a clip's frames as events."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.analysis.ahead.happenings import Event, Finding, noted
from pipeline.archive.collecting import Collector
from tests.pipeline.fake_analysis import analysis


def told(*notes: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Kind, start, end, peak, confidence and tracks of what is kept, of a frame for each of the notes."""
    collector = Collector()
    for index, note in enumerate(notes):
        collector.consume(analysis(index, notes=note))
    return [(e.kind, e.start, e.end, e.peak, e.confidence, e.tracks) for e in collector.events]


def ahead(end: float | None = None, confidence: float = 0.7) -> dict[str, Any]:
    """The note of the house's own stage."""
    event = Event(
        id="cut_in-0", kind="cut_in", start=0.04, end=end, peak=0.08, confidence=confidence, tracks=(7,),
        figures={"distance_m": 9.5}, text="cut in",
    )  # fmt: skip
    return {"ahead": noted(Finding(events=(event,)))}


def test_the_events_of_the_road_ahead_are_kept_once_each_as_they_were_told_last() -> None:
    assert told({}, ahead(), ahead(confidence=0.8), ahead(end=0.1, confidence=0.9), {}) == [
        ("cut_in", 0.04, 0.1, 0.08, 0.9, (7,))
    ]
    assert told({}, ahead(), ahead(), {}) == [("cut_in", 0.04, 0.08, 0.08, 0.7, (7,))]


@pytest.mark.parametrize(
    ("notes", "kept"),
    [
        (({"glare": True}, {"glare": True}, {}, {"glare": True}), [("glare", 0.0, 0.04), ("glare", 0.12, 0.12)]),
        (({"mine": {"kind": "hail", "start": 0}}, {"mine": {"kind": "hail", "start": 0}}), [("hail", 0.0, 0.04)]),
        (({"mine": {"kind": 3, "start": 0}}, {"mine": {"kind": "hail", "start": "now"}}, {"mine": False}), []),
    ],
)
def test_notes_of_ones_own_are_events_where_they_say_so(notes: Any, kept: Any) -> None:
    assert [each[:3] for each in told(*notes)] == kept
