"""What stages found out: through every wire and back, refused where JSON has no such value, drawn and shown."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline
from engines.errors import UsageError
from pipeline.commands.received import describe
from pipeline.frame import note_lines
from pipeline.messages import composing, headers, topics, wire
from pipeline.messages.foxglove import Views, _fields
from pipeline.messages.headers import AnalysisMessage, MessageError
from pipeline.messages.jsonlines import JsonLines, read_lines
from pipeline.messages.publish import Publisher
from tests.pipeline.fake_analysis import analysis
from tests.pipeline.messages.test_publish import ANYWHERE, until_subscribed

TEXT = st.text(max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
NOTES = st.dictionaries(st.text(min_size=1, max_size=12), VALUES, max_size=4)
LANES = {"lanes": {"offset": -0.4, "left": [[1, 2.5], [3, 4]], "sure": True, "text": "keep left"}, "weather": "rain"}


def same(a: Any, b: Any) -> bool:
    """Equal, and of equal types all the way down: 1, 1.0 and True are three values."""
    return repr(a) == repr(b)


# There and back -----------------------------------------------------------------------------------------------------


@pytest.mark.seconds
@pytest.mark.parametrize("written", ["msgpack", "json"])
@settings(max_examples=80, deadline=None)
@given(notes=NOTES)
def test_notes_come_back_from_the_wire_as_they_were(written: Any, notes: dict[str, Any]) -> None:
    encoded = wire.encode(composing.from_analysis(analysis(notes=notes), 0), header=written)
    read = wire.decode(encoded.parts).header
    assert isinstance(read, AnalysisMessage)
    assert same(read.notes, notes)
    foreign = msgpack.unpackb(encoded.parts[1]) if written == "msgpack" else json.loads(encoded.parts[1])
    assert same(foreign["notes"], notes)
    jsonschema.Draft202012Validator(headers.schema()).validate(foreign)


@settings(max_examples=40, deadline=None)
@given(notes=NOTES)
def test_notes_come_back_from_json_lines(tmp_path_factory: pytest.TempPathFactory, notes: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("notes") / "out.jsonl"
    with JsonLines(path) as sink:
        sink.consume(analysis(notes=notes))
    (line,) = read_lines(path)
    assert same(line.notes, notes)
    assert same(json.loads(path.read_text())["notes"], notes)


@pytest.mark.seconds
@settings(max_examples=25, deadline=None)
@given(notes=st.lists(NOTES, min_size=1, max_size=3))
def test_notes_come_back_from_a_recording_and_foxglove_can_read_all_of_it(
    tmp_path_factory: pytest.TempPathFactory, notes: list[dict[str, Any]]
) -> None:
    pytest.importorskip("mcap", reason="the extra `mcap` is not installed")
    from mcap.reader import make_reader

    from pipeline.messages.mcap import McapSink
    from pipeline.messages.recording import read_recording

    path = tmp_path_factory.mktemp("notes") / "drive.mcap"
    sink = McapSink(path)
    for index, each in enumerate(notes):
        sink.consume(analysis(index, notes=each))
    sink.close()
    read = [wire.decode(recorded.parts).header for recorded in read_recording(path)]
    found = [header.notes for header in read if isinstance(header, AnalysisMessage)]
    assert same(found, notes)
    with path.open("rb") as file:
        for schema, _, message in make_reader(file).iter_messages(topics=["/drive/analysis"]):
            assert schema is not None
            jsonschema.validate(json.loads(message.data), json.loads(schema.data))


def test_subscribers_get_them() -> None:
    with Publisher(ANYWHERE) as publisher, pipeline.Subscriber(publisher.endpoint, timeout=30) as subscriber:
        until_subscribed(publisher)
        publisher.consume(analysis(notes=LANES))
        header = subscriber.receive().header
    assert isinstance(header, AnalysisMessage)
    assert header.notes == LANES
    assert describe(header).endswith("  lanes: keep left  weather: rain")


def test_a_message_without_notes_is_one_of_a_publisher_that_knows_none() -> None:
    message = json.loads(wire.to_json(composing.from_analysis(analysis(), 0)))
    assert message.pop("notes") == {}
    read = wire.decode_header(json.dumps(message).encode())
    assert isinstance(read, AnalysisMessage)
    assert read.notes == {}


def test_numbers_of_numpy_and_tuples_are_taken() -> None:
    notes = {"n": np.int16(3), "f": np.float32(0.5), "b": np.bool_(True), "t": (1, np.float64(2.0))}
    assert same(composing.from_analysis(analysis(notes=notes), 0).notes, {"n": 3, "f": 0.5, "b": True, "t": [1, 2.0]})


def test_a_note_one_byte_too_large_does_not() -> None:
    with pytest.raises(UsageError, match="65537 bytes"):
        composing.from_analysis(analysis(notes={"a": "x" * (headers.MAX_NOTES - 7)}), 0)


# What JSON does not have ----------------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    return [] if depth == 1 else [nested(depth - 1)]


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        ({"lanes": math.nan}, "lanes is nan"),
        ({"lanes": {"left": [0.5, -math.inf]}}, r"lanes\.left\[1\] is -inf"),
        ({"lanes": np.float32("inf")}, "lanes is inf"),
        ({"lanes": np.zeros(3)}, r"lanes is of type ndarray.*\.tolist\(\)"),
        ({"lanes": {1, 2}}, "lanes is of type set"),
        ({"lanes": b"\xff"}, "lanes is of type bytes"),
        ({"lanes": object()}, "lanes is of type object"),
        ({"lanes": 1 << 64}, "lanes is a whole number of more than 64 bits"),
        ({"lanes": {3: "left"}}, "lanes has the key 3"),
        ({"lanes": "\ud800"}, "half a surrogate pair"),
        ({"lanes": nested(17)}, "deeper than 16"),
        ({"": 1}, "'' is no name"),
        ({7: 1}, "7 is no name"),
        ({"small": 1, "map": "x" * 70_000}, "70020 bytes as JSON and may have 65536; the largest is 'map' with 70002"),
    ],
)
def test_what_is_no_note_is_refused_by_its_name(notes: dict[Any, Any], said: str, tmp_path: Path) -> None:
    with JsonLines(tmp_path / "out.jsonl") as sink, pytest.raises(UsageError, match=said) as refused:
        sink.consume(analysis(3, notes=notes))
    assert str(refused.value).startswith("the notes of drive, frame 3, cannot go out: ")
    assert "\n" not in str(refused.value)
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_the_deepest_and_the_largest_note_go_out() -> None:
    # 52 bytes for all but the letters: names, quotes, braces, and the 32 brackets of the other.
    notes = {"deep": nested(16), "large": "x" * (headers.MAX_NOTES - 52)}
    assert composing.from_analysis(analysis(notes=notes), 0).notes == notes


@pytest.mark.parametrize(
    "note", [b"bytes", {1: "left"}, math.nan, msgpack.Timestamp(0), msgpack.ExtType(5, b"x"), nested(17)]
)
def test_a_stranger_s_notes_that_are_no_json_are_refused(note: Any) -> None:
    message = json.loads(wire.to_json(composing.from_analysis(analysis(), 0)))
    message["notes"] = {"lanes": note}
    with pytest.raises(MessageError, match=r"notes|lanes"):
        wire.decode([topics.topic("drive", "analysis"), msgpack.packb(message)])


# Seen by people -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notes", "lines"),
    [
        ({}, []),
        (LANES, ["lanes: keep left", "weather: rain"]),
        ({"a": 1, "b": None, "c": ["text"], "d": {"text": 3}, "e": {"said": "x"}}, []),
        ({"a": "two\nlines\tand more"}, ["a: two lines and more"]),
    ],
)
def test_notes_with_words_make_lines(notes: dict[str, Any], lines: list[str]) -> None:
    assert note_lines(notes) == lines


def view_of(views: Views, index: int, notes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is shown of the notes of a frame, and its schema."""
    header = composing.from_analysis(analysis(index, notes=notes), index)
    view = next(views.of(header, None))
    jsonschema.validate(json.loads(msgspec.json.encode(view.content)), view.schema)
    return view.content["notes"], view.schema["properties"]["notes"]["properties"]


def test_foxglove_plots_what_keeps_its_type() -> None:
    views = Views()
    shown, schema = view_of(views, 0, {"lanes": {"offset": -0.4, "left": [1, 2]}, "none": None})
    assert shown == {"lanes": {"offset": -0.4, "left": [1, 2]}}
    assert schema["lanes"]["properties"] == {
        "offset": {"type": "number"},
        "left": {"type": "array", "items": {"type": "number"}},
    }
    shown, schema = view_of(views, 1, {"lanes": {"offset": "far", "sure": True}, "none": 3})
    assert shown == {"lanes": {"sure": True}, "none": 3}, "another type than before is left out"
    assert set(schema["lanes"]["properties"]) == {"offset", "left", "sure"}
    before = schema
    assert view_of(views, 2, {"lanes": {"offset": 1}})[1] is before, "nothing new, no new schema"


@pytest.mark.seconds
def test_notes_with_ever_new_names_do_not_fill_a_recording_with_schemas() -> None:
    views = Views()
    schemas = {json.dumps(view_of(views, index, {"tracks": {str(index): 1.0}})[1]) for index in range(200)}
    assert len(schemas) <= 64
    assert _fields(views._seen["drive"].notes) <= 64
