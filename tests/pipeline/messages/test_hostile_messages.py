"""A publisher that means no good, or has lost its mind: a reader passes over what is no message, and does not grow."""

from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import RoadlensError
from pipeline.commands.received import describe
from pipeline.messages import topics
from pipeline.messages.composing import from_analysis
from pipeline.messages.headers import MAX_NAME, EndMessage, HeartbeatMessage, MessageError, StatusMessage
from pipeline.messages.mcap import Recorder
from pipeline.messages.recording import read_recording
from pipeline.messages.wire import MAX_HEADER, decode, decode_header, encode
from tests.pipeline.conftest import ROOT
from tests.pipeline.fake_analysis import analysis

PLAIN: dict[str, Any] = msgspec.to_builtins(from_analysis(analysis(0), 0))
INFINITIES = [math.inf, -math.inf, math.nan]


def packed(**changed: Any) -> list[bytes]:
    return [topics.topic("drive", "analysis"), msgspec.msgpack.encode({**PLAIN, **changed})]


@pytest.mark.parametrize(
    "changed",
    [
        *({key: value} for key in ("time_s", "captured_at", "age_ms") for value in INFINITIES),
        *({"area": {"road": value}} for value in INFINITIES),
        *({"timings_ms": {"engine": value}} for value in INFINITIES),
        *({"boxes": [{**PLAIN["boxes"][0], key: value}]} for key in ("x1", "y2", "score") for value in INFINITIES),
        {"width": 1 << 40}, {"height": (1 << 63) - 1}, {"run": "r" * (MAX_NAME + 1)},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_that_are_none_and_sides_without_end_are_refused(changed: dict[str, Any]) -> None:
    decode(packed())
    with pytest.raises(MessageError):
        decode(packed(**changed))


@pytest.mark.parametrize("at", INFINITIES)
def test_times_of_states_and_heartbeats_are_times(at: float) -> None:
    heartbeat = HeartbeatMessage(
        stream="a", sequence=0, at=at, uptime_s=1, interval_s=1, next_sequence=0, sent=0, dropped=0
    )
    for message in (StatusMessage(stream="a", sequence=0, state="streaming", at=at), heartbeat):  # type: ignore[arg-type]
        with pytest.raises(MessageError):
            decode_header(msgspec.msgpack.encode(message))


def test_long_names_leave_nothing_behind() -> None:
    """There was a cache of topics: 400 heartbeats of 2 MB names each filled a gigabyte."""
    tracemalloc.start()
    try:
        for number in range(30):
            name = f"{number}" + "x" * 1_000_000
            message = HeartbeatMessage(
                stream=name, sequence=0, at=1, uptime_s=1, interval_s=1, next_sequence=0, sent=0, dropped=0
            )
            with pytest.raises(MessageError, match="more than 256 signs"):
                decode([topics.topic(name, "heartbeat"), msgspec.msgpack.encode(message)])
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_header_has_its_largest_size() -> None:
    with pytest.raises(MessageError, match=f"may have {MAX_HEADER}"):
        decode_header(b"{" + b" " * MAX_HEADER)


@pytest.mark.seconds
@settings(max_examples=150)
@given(data=st.data())
def test_any_value_in_any_field_is_a_message_or_refused(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """And what is a message can be printed, recorded and shown."""
    odd = st.one_of(
        st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.floats(), st.text(max_size=20),
        st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
    )  # fmt: skip
    changed = {key: data.draw(odd) for key in data.draw(st.sets(st.sampled_from(sorted(PLAIN)), max_size=3))}
    boxes = [{**PLAIN["boxes"][0], data.draw(st.sampled_from(sorted(PLAIN["boxes"][0]))): data.draw(odd)}]
    try:
        received = decode(packed(**{"boxes": boxes, **changed}))
    except (MessageError, OverflowError):
        return
    assert describe(received.header).isprintable()
    path = tmp_path_factory.mktemp("odd") / "odd.mcap"
    with Recorder(path) as recorder:
        recorder.write(received.header, received.parts)
    assert [recorded.parts for recorded in read_recording(path)] == [received.parts]


def test_nothing_that_steers_a_terminal_is_printed() -> None:
    clear = "\x1b[2J\x1b]0;owned\x07\r\n\x9b31m\u202e"
    status = StatusMessage(stream="a" + clear, sequence=0, state="failed", reason=clear, at=1.0)  # type: ignore[arg-type]
    for message in (status, from_analysis(analysis(0), 0)):
        assert describe(message).isprintable()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["record", "subscribe"])
def test_a_reader_passes_over_what_is_no_message(tmp_path: Path, command: str) -> None:
    bad = [packed(time_s=math.inf), packed(width=1 << 60), [b"roadlens/v1/x/analysis", b"\xc1"], [b"?"], [b"a"] * 9]
    end = EndMessage(stream="drive", sequence=1, frames=1, dropped=0, reason="complete")
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        arguments = ["mcap", "record", f"tcp://127.0.0.1:{port}", "--pull", "--until-end", "-o", "a.mcap"]
        if command == "subscribe":
            arguments = ["subscribe", f"tcp://127.0.0.1:{port}", "--pull", "--until-end"]
        reader = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *arguments],
            cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        for parts in (*bad, packed(), *bad, encode(end).parts):
            socket.send_multipart(parts)
        out, err = reader.communicate(timeout=120)
    assert reader.returncode == 0, err
    assert f", {2 * len(bad)} passed over that are no messages" in err
    assert "Traceback" not in err
    if command == "record":
        assert len(list(read_recording(tmp_path / "a.mcap"))) == 2
    else:
        assert out.count("drive #") == 2


def test_a_reader_keeps_account_of_so_many_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.messages import subscriber

    monkeypatch.setattr(subscriber, "MOST_STREAMS", 3)
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        with subscriber.Subscriber(f"tcp://127.0.0.1:{port}", "pull", timeout=60) as reader:
            for number in range(5):
                end = EndMessage(stream=f"s{number}", sequence=0, frames=0, dropped=0, reason="complete")
                socket.send_multipart(encode(end).parts)
            for _ in range(3):
                reader.receive()
            for _ in range(2):
                with pytest.raises(RoadlensError, match="more than 3 streams"):
                    reader.receive()
            assert len(reader.tallies) == 3
