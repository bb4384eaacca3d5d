"""What the runtime calls of a part that was added, and which parts it refuses."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from engines.errors import UsageError
from pipeline import contracts
from pipeline.capabilities import attach_sink, attach_source, attach_stage
from pipeline.config import Config, StreamConfig
from pipeline.runtime import LoadedModel, Runtime, StreamPlan
from pipeline.session import Session
from tests.pipeline.scripted_engine import ScriptedEngine
from tests.pipeline.scripted_source import ScriptedSource


def part(base: type = object, **methods: Callable[..., object]) -> Any:
    """An object of a class `Mine` with these methods."""
    return type("Mine", (base,), methods)()


def consume(_self: object, analysis: object) -> None: ...


def process(_self: object, analysis: object) -> object:
    return analysis


def test_a_sink_of_one_method_has_no_capability() -> None:
    sink = attach_sink(part(consume=consume))
    assert (sink.name, sink.consume_audio, sink.finish, sink.end, sink.status, sink.forget) == ("Mine", *[None] * 5)


def test_each_capability_is_the_sinks_own_method() -> None:
    calls: list[tuple[object, ...]] = []

    class Everything:
        name = "all of it"

        def consume(self, analysis: object) -> None:
            calls.append(("consume", analysis))

        def consume_audio(self, item: object) -> None:
            calls.append(("consume_audio", item))

        def finish(self) -> None:
            calls.append(("finish",))

        def end(self, stream: str, reason: str = "complete", dropped: int | None = None, *, loud: bool = False) -> None:
            calls.append(("end", stream, reason, dropped, loud))

        def status(self, _change: object) -> None:
            calls.append(("status", _change))

        def forget(self, *names: str) -> None:
            calls.append(("forget", *names))

    sink = attach_sink(Everything())
    assert sink.name == "all of it"
    assert sink.consume_audio is not None
    assert sink.finish is not None
    assert sink.end is not None
    assert sink.status is not None
    assert sink.forget is not None
    sink.consume(1)
    sink.consume_audio(2)
    sink.finish()
    sink.end("a", "failed", 3)
    sink.status(4)
    sink.forget("b")
    assert calls == [
        ("consume", 1), ("consume_audio", 2), ("finish",), ("end", "a", "failed", 3, False), ("status", 4),
        ("forget", "b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "method", "sentence"),
    [
        ("end", lambda self: None, r"method end\(\), but the runtime calls a sink's end\(stream, reason, dropped\)"),
        ("end", lambda self, stream: None, r"end\(stream\), but .* end\(stream, reason, dropped\); rename"),
        ("end", lambda self, stream, reason, dropped, more: None, r"end\(stream, reason, dropped, more\), but"),
        ("end", lambda self, start, stop, step: None, r"end\(start, stop, step\), but"),
        ("status", lambda self: "fine", r"status\(\), but the runtime calls a sink's status\(change\)"),
        ("status", lambda self, code: None, r"status\(code\), but .* status\(change\)"),
        ("finish", lambda self, how: None, r"finish\(how\), but .* finish\(\)"),
        ("forget", lambda self, *, stream: None, r"forget\(stream\), but .* forget\(stream\)"),
        ("consume_audio", lambda self: None, r"consume_audio\(\), but .* consume_audio\(item\)"),
    ],
)
def test_a_method_that_only_happens_to_have_a_capabilitys_name_is_refused(
    name: str, method: Callable[..., object], sentence: str
) -> None:
    with pytest.raises(UsageError, match=rf"^the sink Mine has a method {sentence.removeprefix('method ')}"):
        attach_sink(part(consume=consume, **{name: method}))


def test_an_attribute_that_cannot_be_called_is_no_capability() -> None:
    sink = part(consume=consume)
    sink.status, sink.end, sink.finish = "recording", 17.5, False
    attached = attach_sink(sink)
    assert (attached.status, attached.end, attached.finish) == (None, None, None)


def test_a_method_written_in_c_or_made_elsewhere_is_taken_for_what_it_is_called() -> None:
    kept: list[object] = []
    attach_sink(SimpleNamespace(consume=kept.append, finish=partial(kept.append, "over"))).consume("one")
    assert kept == ["one"]
    attach_sink(Mock())  # takes whatever it is called with


@pytest.mark.parametrize(
    ("attach", "wrong", "sentence"),
    [
        (attach_sink, part(), r"^the sink Mine has no method consume\(analysis\); a sink is a class with it$"),
        (attach_stage, part(), r"^the stage Mine has no method process\(analysis\)"),
        (attach_sink, part(consume=lambda self: None), r"consume\(\), which cannot be called as consume\(an"),
        (attach_stage, part(process=lambda self, a, b: a), r"process\(a, b\), which cannot be called as pr"),
        (attach_sink, type(part(consume=consume)), r"^Mine is a class, not a sink; give an object of it"),
        (attach_stage, type(part(process=process)), r"^Mine is a class, not a stage; give an object of it"),
        (attach_source, ScriptedSource, r"^ScriptedSource is a class, not a source"),
        (attach_source, part(), r"^the source Mine has no id, address, mode, counts, open, __iter__, close"),
        (
            attach_stage, part(process=process, remember=lambda self: []),
            r"^the stage Mine has a method remember\(\), but the runtime calls a stage's remember\(analysis\)",
        ),
        (
            attach_stage, part(process=process, foresee=consume),
            r"^the stage Mine has foresee and None for `ahead`; give it a number of frames from 0 on",
        ),
        (attach_stage, part(process=process, foresee=consume, ahead=-1), r"^the stage Mine has foresee and -1 for"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_a_sentence(
    attach: Callable[[Any], object], wrong: object, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        attach(wrong)


def test_a_coroutine_is_refused_since_nothing_awaits_it() -> None:
    async def awaited(_self: object, analysis: object) -> None: ...

    with pytest.raises(UsageError, match=r"^the sink Mine has `async def consume`"):
        attach_sink(part(consume=awaited))
    with pytest.raises(UsageError, match=r"^the stage Mine has `async def remember`"):
        attach_stage(part(process=process, remember=awaited))


def test_an_argument_of_consume_and_process_may_have_any_name() -> None:
    attach_sink(part(consume=lambda self, a: None))
    assert attach_stage(part(process=lambda self, a: a)).process(1) == 1


def nothing(_self: object) -> None: ...


def test_a_source_waits_if_it_has_all_three_methods() -> None:
    told: list[str] = []
    waiting = part(
        ScriptedSource,
        stop=lambda _self: told.append("stop"),
        pause=lambda _self: told.append("pause"),
        resume=lambda _self: told.append("resume"),
    )
    attached = attach_source(waiting)
    assert attached.waits
    for act in (attached.stop, attached.pause, attached.resume):
        act()
    assert told == ["stop", "pause", "resume"]


def test_a_source_that_does_not_wait_may_be_told_all_the_same() -> None:
    attached = attach_source(ScriptedSource())
    assert not attached.waits
    assert (attached.stop(), attached.pause(), attached.resume(), attached.tap) == (None, None, None, None)


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        ({"stop": nothing}, "has stop without pause and resume; give it all three"),
        ({"pause": nothing, "resume": nothing}, "has pause and resume without stop; give it all three"),
        ({"stop": lambda self, now: None, "pause": nothing, "resume": nothing}, r"stop\(now\), but the runtime calls"),
    ],
)
def test_a_source_that_waits_by_halves_is_refused(methods: dict[str, Callable[..., object]], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        attach_source(part(ScriptedSource, **methods))


def test_the_packets_of_a_source_are_shown_to_who_asks() -> None:
    source = part(ScriptedSource)
    source.on_packet = None
    shown = attach_source(source).tap
    assert shown is not None
    shown(print)
    assert source.on_packet is print


def test_a_runtime_takes_no_stream_with_a_part_that_cannot_be_used() -> None:
    source, wrong = ScriptedSource(), part(consume=consume, end=lambda self: None)
    with pytest.raises(UsageError, match="the sink Mine has a method end"):
        Runtime([StreamPlan(source, source.open(), (), [wrong])], [LoadedModel(ScriptedEngine())])


@pytest.mark.parametrize("wrong", [{"sinks": [part()]}, {"stages": [part(process=process, remember=nothing)]}])
def test_a_session_refuses_them_before_anything_is_opened(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="Mine has"):
        Session(Config(streams=(StreamConfig("not there.mp4"),)), **wrong)


def test_the_page_of_contracts_names_every_capability() -> None:
    found = {name for name in vars(contracts) if name.endswith(("Source", "Stage", "Sink"))}
    assert found - {"Source", "Stage", "Sink"} == {
        "WaitingSource", "FileSource", "TappedSource", "RememberingStage", "ForeseeingStage", "AudioSink", "DataSink",
        "FinishingSink", "EndingSink", "StatusSink", "ForgettingSink",
    }  # fmt: skip
    assert contracts.__doc__ is not None
    assert all(name in contracts.__doc__ for name in found)


def test_the_examples_of_the_page_are_a_stage_and_a_sink() -> None:
    names: dict[str, Any] = {}
    for example in doctest.DocTestParser().get_examples(contracts.__doc__ or ""):
        exec(example.source, names)
    attach_stage(names["NearOnly"]())
    attach_sink(names["Alarm"]())
