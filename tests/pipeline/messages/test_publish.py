"""The publisher over real sockets: PUSH loses nothing, PUB waits for nobody, and a stop comes through."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from engines.errors import OutputError, RoadlensError, UsageError
from pipeline.messages import publish, topics
from pipeline.messages.headers import AnalysisMessage, EndMessage
from pipeline.messages.publish import Publisher
from pipeline.messages.sockets import outlet
from pipeline.messages.subscriber import Subscriber
from tests.pipeline.fake_analysis import analysis, areas

ROOT = Path(__file__).parents[3]
ANYWHERE = "tcp://127.0.0.1:0"


@contextmanager
def reader(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The reader in a process of its own, killed at the end whatever happened."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.pipeline.messages.reader_process", *arguments],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def until_subscribed(publisher: Publisher, stream: str = "drive", subject: bytes = b"", *, wanted: bool = True) -> None:
    """Wait for a subscriber's word to arrive: PUB sends nothing before that."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with publisher._lock:
            publisher._outlet.hear()
            if publisher._outlet.wanted(subject or topics.topic(stream, "analysis")) is wanted:
                return
        time.sleep(0.005)
    raise AssertionError("no word of the subscriber")


def puller(endpoint: str, high_water: int = 16) -> Subscriber:
    return Subscriber(endpoint, "pull", until_end=True, timeout=30, high_water=high_water)


# Everything arrives over PUSH -----------------------------------------------------------------------------------------


def test_another_process_receives_every_frame_of_two_files_over_push() -> None:
    frames, checksums = 500, {"front": 0, "rear": 0}
    with Publisher(ANYWHERE, "push") as publisher, reader(publisher.endpoint, "pull") as process:
        for index in range(frames):
            for stream in checksums:
                class_map = areas(seed=index % 7)
                checksums[stream] = zlib.crc32(class_map.tobytes(), checksums[stream])
                publisher.consume(analysis(index, stream, class_map=class_map))
        for stream in checksums:
            publisher.end(stream)
        publisher.close()
        report = json.loads(said(process))
    whole = {"first": 0, "received": frames + 1, "missed": 0, "frames": frames}
    assert report == {"tallies": {"front": whole, "rear": whole}, "checksums": checksums, "gaps": []}


def test_the_end_of_a_file_is_delivered_to_a_reader_that_is_late() -> None:
    """`close` waits: the reader begins to read only when nothing is left to do but to deliver."""
    publisher = Publisher(ANYWHERE, "push", high_water=1000)
    with puller(publisher.endpoint) as subscriber:
        for index in range(300):
            publisher.consume(analysis(index))
        publisher.end("drive", dropped=2)
        closing = threading.Thread(target=publisher.close)
        closing.start()
        received = list(subscriber)
        closing.join()
    assert [r.header.sequence for r in received] == list(range(301))
    assert received[-1].header == EndMessage(
        stream="drive", sequence=300, run=received[0].header.run, frames=300, dropped=2, reason="complete"
    )


def test_messages_carry_the_analysis() -> None:
    with Publisher(ANYWHERE, "push", header="json", mask="rle") as publisher, puller(publisher.endpoint) as subscriber:
        publisher.consume(analysis(4, dropped_since_last=3))
        publisher.consume(analysis(5, class_map=None))
        publisher.end("drive")
        first, second, end = subscriber
    assert isinstance(first.header, AnalysisMessage)
    assert first.header.mask is not None
    assert (first.header.frame, first.header.sequence, first.header.mask.encoding) == (4, 0, "rle")
    np.testing.assert_array_equal(first.class_map, areas(seed=4))
    assert (second.class_map, second.header.mask) == (None, None)
    assert end.header.dropped == 3, "left out, `dropped` is the sum over the analyses"


def test_closing_says_stopped_of_what_has_not_ended() -> None:
    with Publisher(ANYWHERE, "push") as publisher, puller(publisher.endpoint) as subscriber:
        publisher.consume(analysis(0, "a"))
        publisher.consume(analysis(0, "b"))
        publisher.end("a")
        publisher.close()
        publisher.close()
        ends = [r.header for r in subscriber if isinstance(r.header, EndMessage)]
    assert [(end.stream, end.reason) for end in ends] == [("a", "complete"), ("b", "stopped")]


def test_a_resumed_run_goes_on_counting() -> None:
    first_sequence = {"drive": 40}
    with (
        Publisher(ANYWHERE, "push", first_sequence=first_sequence) as publisher,
        puller(publisher.endpoint) as subscriber,
    ):
        publisher.consume(analysis(40))
        publisher.consume(analysis(0, "other"))
        publisher.end("drive")
        publisher.end("other")
        headers = [r.header for r in subscriber]
    assert [(h.stream, h.sequence, h.run_start) for h in headers] == [
        ("drive", 40, 40), ("other", 0, 0), ("drive", 41, 40), ("other", 1, 0),
    ]  # fmt: skip
    assert headers[2].frames == 41
    assert len({h.run for h in headers}) == 1


# PUSH waits, and can be stopped ---------------------------------------------------------------------------------------


@pytest.mark.seconds
def test_push_waits_for_its_reader_and_loses_nothing_of_what_it_took() -> None:
    """`stop` is asked only when ZeroMQ takes no more, so that it tells where the waiting begins."""
    asked = threading.Event()

    def stop() -> bool:
        asked.set()
        return True

    frames = 5000
    with (
        Publisher(ANYWHERE, "push", high_water=4, linger=0, stop=stop, mask="none") as publisher,
        puller(publisher.endpoint, high_water=4) as subscriber,
    ):
        publisher._outlet._socket.poll(None, zmq.POLLOUT)  # connected
        for index in range(frames):
            publisher.consume(analysis(index))
        taken = publisher.sent["drive"]
        assert asked.is_set()
        assert 8 <= taken < frames, "the bounds of queue and buffers were reached"
        assert taken + publisher.unsent["drive"] == frames
        sequences = [subscriber.receive().header.sequence for _ in range(taken)]
        assert sequences == sorted(set(sequences))
        assert subscriber.missed == sequences[-1] + 1 - taken, "what was given up is what the reader sees missing"


def test_without_a_reader_push_waits_until_it_is_stopped(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setattr(outlet, "PATIENCE", 0.0)
    waits, stopped = threading.Event(), threading.Event()

    def stop() -> bool:
        waits.set()
        return stopped.is_set()

    with Publisher(ANYWHERE, "push", linger=0, stop=stop) as publisher, caplog.at_level(logging.WARNING):
        consuming = threading.Thread(target=publisher.consume, args=(analysis(),))
        consuming.start()
        assert waits.wait(30)
        assert consuming.is_alive()
        stopped.set()
        consuming.join(30)
        assert not consuming.is_alive()
        assert (publisher.sent, publisher.unsent) == ({}, {"drive": 1})
    assert "waits for a reader" in caplog.text


STUCK = """
import sys
from pipeline.messages.publish import Publisher
from tests.pipeline.fake_analysis import analysis
import logging; logging.basicConfig()
stopped = []
publisher = Publisher("tcp://127.0.0.1:0", "push", high_water=1000, linger=0.1, stop=lambda: bool(stopped))
print(publisher.endpoint, flush=True)
for index in range(1000):
    publisher.consume(analysis(index))
if "raise" in sys.argv:
    with publisher:
        raise SystemExit(3)
stopped.append(True)
publisher.close()
"""


@pytest.mark.seconds
@pytest.mark.parametrize(("how", "code"), [("stop", 0), ("raise", 3)])
def test_a_stopped_process_ends_although_its_reader_does_not_read(how: str, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, how], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with puller(said(process), high_water=1):
        _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "before its reader had taken the last messages" in error


# PUB never waits ------------------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.seconds
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its memory from /proc")
def test_a_subscriber_that_stops_reading_slows_nobody_and_grows_no_memory() -> None:
    """1,500 masks of 0.2 MB to a subscriber that holds still, and to a neighbour that misses none of them.

    The one that held still then sees by the sequence numbers exactly what it missed.
    """
    noise = np.random.default_rng(0).integers(0, 19, (256, 256), np.uint8)
    frames = 1500
    with (
        Publisher(ANYWHERE, "pub", mask="rle", heartbeat=3600) as publisher,
        reader(publisher.endpoint, "sub", "hold") as process,
        Subscriber(publisher.endpoint, timeout=30) as neighbour,
    ):

        def send(index: int) -> None:
            publisher.consume(analysis(index, class_map=noise))
            assert neighbour.receive().header.sequence == index  # the neighbour is done before the next one is sent

        until_subscribed(publisher)
        publisher.consume(analysis(0, class_map=noise))
        # XPUB hears of a second subscription to the same prefix nothing: go on until both readers have had a message.
        sent, holding = 1, []
        heard = threading.Thread(target=lambda: holding.append(said(process)), daemon=True)
        heard.start()
        while heard.is_alive() or neighbour.received == 0:
            publisher.consume(analysis(sent, class_map=noise))
            sent += 1
            while neighbour._socket.poll(10):
                neighbour.receive()
        assert holding == ["holding"]
        publisher.consume(analysis(sent, class_map=noise))
        while neighbour.receive().header.sequence < sent:
            pass
        sent += 1
        before, missed_before = resident(), neighbour.missed
        for index in range(sent, sent + frames):
            send(index)
        assert resident() - before < 60e6, "1,500 × 0.2 MB would be 300 MB"
        assert neighbour.missed == missed_before

        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()
        index, behind = sent + frames, []
        told = threading.Thread(target=lambda: behind.append(said(process)), daemon=True)
        told.start()
        while told.is_alive():  # it reads what had queued up, and sees the gap at the first message behind it
            publisher.consume(analysis(index, class_map=noise))
            index += 1
            told.join(0.005)
        while True:
            publisher.end("drive")
            index += 1
            last = said(process)
            if not last.startswith("behind"):
                break
        report = json.loads(last)
    tally = report["tallies"]["drive"]
    assert behind[0].startswith("behind")
    assert tally["missed"] == sum(count for _, count in report["gaps"]) > frames / 2
    assert tally["first"] + tally["received"] + tally["missed"] == tally["frames"] + 1


def test_nothing_is_encoded_while_nobody_is_subscribed(monkeypatch: pytest.MonkeyPatch) -> None:
    """But everything is counted: the first message that a subscriber gets tells how many there were before it."""
    encoded: list[int] = []
    encode = publish.encode
    monkeypatch.setattr(publish, "encode", lambda m, *a, **k: encoded.append(m.sequence) or encode(m, *a, **k))
    with Publisher(ANYWHERE) as publisher:
        for index in range(3):
            publisher.consume(analysis(index))
        with Subscriber(publisher.endpoint, streams=["drive"], timeout=30) as subscriber:
            until_subscribed(publisher)
            publisher.consume(analysis(3, "another"))
            publisher.consume(analysis(3))
            assert subscriber.receive().header.sequence == 3
        until_subscribed(publisher, wanted=False)  # the subscriber's leaving arrives
        publisher.consume(analysis(4))
    assert encoded == [3]


# Where it binds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("tcp://127.0.0.1:*", "tcp://127.0.0.1:"),
        ("tcp://localhost:0", "tcp://127.0.0.1:"),
        ("tcp://127.8.9.1:0", "tcp://127.8.9.1:"),
    ],
)
def test_a_free_port_is_found_and_told(endpoint: str, expected: str) -> None:
    with Publisher(endpoint) as publisher:
        assert publisher.endpoint.startswith(expected)
        assert int(publisher.endpoint.rpartition(":")[2]) > 0


@pytest.mark.parametrize(
    ("endpoint", "kind", "said"),
    [
        ("5555", OutputError, "not an address"),
        ("tcp://127.0.0.1", OutputError, "not an address"),
        ("tcp://127.0.0.1:65536", OutputError, "not an address"),
        ("tcp://127.0.0.1:http", OutputError, "not an address"),
        ("tcp://:5555", OutputError, "not an address"),
        ("udp://127.0.0.1:5555", OutputError, "not an address"),
        ("ipc://", OutputError, "not an address"),
        ("ipc:///nowhere/at/all", OutputError, "No such file"),
        ("ipc:///tmp/" + "x" * 200, OutputError, "may have 107"),
        ("tcp://0.0.0.0:0", UsageError, "open to other machines"),
        ("tcp://*:0", UsageError, "open to other machines"),
        ("tcp://[::]:0", UsageError, "open to other machines"),
        ("tcp://192.0.2.1:0", UsageError, "open to other machines"),
        ("tcp://eth0:0", UsageError, "open to other machines"),
        ("tcp://localhost.example.com:0", UsageError, "open to other machines"),
    ],
)
def test_where_it_cannot_bind_it_says_why(endpoint: str, kind: type[RoadlensError], said: str) -> None:
    with pytest.raises(kind, match=said) as refused:
        Publisher(endpoint)
    assert endpoint in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("endpoint", ["tcp://192.0.2.1:0", "tcp://no-such-interface:0"])
def test_an_address_of_another_machine_is_refused_in_a_sentence(endpoint: str) -> None:
    with pytest.raises(OutputError, match="no address of this machine"):
        Publisher(endpoint, allow_remote=True)


def test_remote_readers_are_served_when_they_are_allowed() -> None:
    with Publisher("tcp://0.0.0.0:0", allow_remote=True) as publisher:
        assert publisher.endpoint.startswith("tcp://0.0.0.0:")


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OutputError, match="in use by another process"):
            Publisher(f"tcp://127.0.0.1:{other.getsockname()[1]}")


def test_ipc_takes_over_what_a_dead_process_left_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "roadlens"
    endpoint = f"ipc://{place}"
    place.write_text("a diary")
    with pytest.raises(OutputError, match="is a file"):
        Publisher(endpoint)
    assert place.read_text() == "a diary"
    place.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    with Publisher(endpoint, "push") as publisher, puller(endpoint) as subscriber:
        with pytest.raises(OutputError, match="in use"):
            Publisher(endpoint)
        publisher.consume(analysis())
        publisher.end("drive")
        assert len(list(subscriber)) == 2


# The example client ---------------------------------------------------------------------------------------------------


def test_the_example_client_reads_without_roadlens() -> None:
    example = ROOT / "deploy" / "examples" / "subscribe.py"
    code = [line for line in example.read_text().splitlines()[1:] if line.strip()]
    assert len(code) <= 21
    assert not any("import pipeline" in line or "import roadlens" in line for line in code)
    class_map = areas(seed=1)
    with Publisher(ANYWHERE) as publisher:
        process = subprocess.Popen([sys.executable, example, publisher.endpoint], stdout=subprocess.PIPE, text=True)
        try:
            until_subscribed(publisher)
            for index in range(3):
                publisher.consume(analysis(index, class_map=class_map))
            publisher.end("drive")
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert output.splitlines() == [
        *(
            line
            for sequence in range(3)
            for line in (
                f"roadlens/v1/drive/analysis {sequence} missed 0 car person",
                f"  road {np.mean(class_map == 0):.4f}",
            )
        ),
        "roadlens/v1/drive/end 3 missed 0",
    ]
