"""Events as messages: one for each beginning and end, numbered apart, in the schema, in recordings, and as rules."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import msgspec
import pytest

from engines.errors import UsageError
from pipeline.analysis.ahead.happenings import Event, Finding, Lead, noted
from pipeline.analysis.ahead.stage import AheadOptions
from pipeline.commands.received import describe
from pipeline.config import Config, check
from pipeline.frame import Analysis
from pipeline.messages.foxglove import Views
from pipeline.messages.headers import EventMessage, schema
from pipeline.messages.mcap import McapSink
from pipeline.messages.numbering import Numbering
from pipeline.messages.recording import decoded
from pipeline.messages.wire import decode, encode, to_json
from pipeline.outputs.event_clip import EventClipOptions, EventRing, EventRule
from tests.pipeline.fake_analysis import analysis

CLOSE = Event(
    id="approach-7-2", kind="approach", start=0.08, peak=0.12, confidence=0.97, tracks=(7,),
    figures={"contact_s": 1.9, "contact_limit_s": 2.5}, text="car 7: contact in 1.9 s",
)  # fmt: skip


def frames() -> list[Analysis]:
    """Six frames: an event begins in the third and has ended in the fifth."""
    lead = Lead(track=7, label="car", across_m=0.1, contact_s=1.9, contact_sigma_s=0.1)
    ended = msgspec.structs.replace(CLOSE, end=0.16)
    told = [(), (), (CLOSE,), (CLOSE,), (ended,), ()]
    return [
        analysis(index, notes={"ahead": noted(Finding(lead=lead, events=events))}) for index, events in enumerate(told)
    ]


def messages() -> list[EventMessage]:
    numbers = Numbering("drive", "run")
    return [event for each in frames() for event in numbers.happened(numbers.header(each, numbers.take(each)))]


def test_a_beginning_and_an_end_are_two_messages() -> None:
    begun, ended = messages()
    assert (begun.sequence, begun.analysis, begun.end_s) == (0, 2, None)
    assert (ended.sequence, ended.analysis, ended.end_s) == (1, 4, 0.16)
    assert begun.id == ended.id == CLOSE.id
    assert begun.figures == CLOSE.figures


def test_they_come_back_as_they_went_and_fit_the_schema() -> None:
    for message in messages():
        sent = encode(message)
        assert sent.parts[0] == b"roadlens/v1/drive/event"
        assert decode(sent.parts).header == message
        jsonschema.validate(msgspec.json.decode(to_json(message)), schema())


def test_they_are_said_in_a_line() -> None:
    begun, ended = (describe(message) for message in messages())
    assert begun == "drive  approach, from 0.1 s on: car 7: contact in 1.9 s (confidence 0.97)"
    assert "0.1 to 0.2 s" in ended


def test_a_note_of_the_same_name_that_is_another_is_refused() -> None:
    numbers = Numbering("drive")
    each = analysis(0, notes={"ahead": {"events": "none"}})
    with pytest.raises(UsageError, match="call the note of your stage by another name"):
        numbers.happened(numbers.header(each, 0))


def test_a_recording_holds_them_and_foxglove_shows_them(tmp_path: Path) -> None:
    pytest.importorskip("mcap")
    sink = McapSink(tmp_path / "drive.mcap")
    for each in frames():
        sink.consume(each)
    sink.end("drive")
    sink.close()
    recorded = [header for _, header in decoded(tmp_path / "drive.mcap") if isinstance(header, EventMessage)]
    assert [header.end_s for header in recorded] == [None, 0.16]
    views = {view.topic: view.content for view in Views().of(recorded[0], None)}
    assert views["/drive/event"]["figures"] == CLOSE.figures
    assert "approach" in views["/log"]["message"]


def test_a_rule_saves_a_clip_when_an_event_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = EventRule(events=("approach",), confidence=0.9)
    ring = EventRing("drive", EventClipOptions(tmp_path, save_when=rule))
    saved: list[str] = []
    monkeypatch.setattr(ring, "save", saved.append)
    for each in frames() * 2:  # it happens twice
        ring.consume(each)
    assert saved == ["approach: car 7: contact in 1.9 s"] * 2
    unsure = EventRing("drive", EventClipOptions(tmp_path, save_when=EventRule(events=("approach",), confidence=0.99)))
    monkeypatch.setattr(unsure, "save", saved.append)
    for each in frames():
        unsure.consume(each)
    assert len(saved) == 2


@pytest.mark.parametrize(
    ("rule", "ahead", "said"),
    [
        (EventRule(), AheadOptions(), "neither a `class` nor `events`"),
        (EventRule(events=("approach",)), None, "nobody looks for them; add `ahead: {}`"),
    ],
)
def test_a_rule_that_would_save_nothing_is_refused(rule: EventRule, ahead: AheadOptions | None, said: str) -> None:
    config = Config(event_clips=EventClipOptions(Path("clips"), save_when=rule), ahead=ahead)
    with pytest.raises(UsageError, match=said):
        check(config, "run.yaml")
