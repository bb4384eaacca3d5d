"""The client library and `roadlens subscribe`: gaps, restarts, ends, and what a stranger may send."""

from __future__ import annotations

import io
import json
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import OutputError, SourceError, UsageError
from pipeline.commands.received import describe, write_received
from pipeline.messages import composing, headers, wire
from pipeline.messages.headers import AnalysisMessage, EndMessage, MessageError
from pipeline.messages.publish import Publisher
from pipeline.messages.subscriber import Gap, StreamTally, Subscriber
from pipeline.messages.wire import Received
from tests.pipeline.fake_analysis import analysis, areas
from tests.pipeline.messages.test_publish import ANYWHERE, ROOT, until_subscribed


def message(sequence: int, run: str = "a", run_start: int = 0) -> AnalysisMessage:
    return composing.from_analysis(analysis(sequence), sequence, run=run, run_start=run_start)


# What was missed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "missed", "restarts"),
    [
        pytest.param([(0, "a", 0), (1, "a", 0), (2, "a", 0)], [0, 0, 0], 0, id="nothing"),
        pytest.param([(7, "a", 0), (8, "a", 0)], [0, 0], 0, id="what was sent before joining is not missed"),
        pytest.param([(0, "a", 0), (3, "a", 0), (5, "a", 0)], [0, 2, 1], 0, id="gaps"),
        pytest.param([(3_000_000, "a", 0), (0, "b", 0)], [0, 0], 1, id="restart from nought"),
        pytest.param([(3_000_000, "a", 0), (4, "b", 0)], [0, 4], 1, id="restart, and the first four lost"),
        pytest.param([(3, "a", 0), (9, "b", 0)], [0, 9], 1, id="restart that has already gone further"),
        pytest.param([(40, "a", 0), (41, "b", 41)], [0, 0], 1, id="resumed where it was seen to stop"),
        pytest.param([(40, "a", 0), (45, "b", 43)], [0, 4], 1, id="resumed further on"),
        pytest.param([(40, "a", 0), (38, "b", 38)], [0, 0], 1, id="resumed further back"),
        pytest.param([(40, "a", 0), (39, "b", 38)], [0, 1], 1, id="resumed further back, one lost"),
        pytest.param([(9, "", 0), (0, "", 0)], [0, 0], 1, id="a publisher without run ids starts again"),
    ],
)
def test_missed_and_restarts(seen: list[tuple[int, str, int]], missed: list[int], restarts: int) -> None:
    tally = StreamTally(first=seen[0][0])
    gaps = [tally.add(message(*each)) for each in seen]
    assert [gap.count for gap in gaps] == missed
    assert (tally.received, tally.missed, tally.restarts) == (len(seen), sum(missed), restarts)


@settings(deadline=None)
@given(st.sets(st.integers(0, 300), min_size=1))
def test_received_and_missed_add_up_whatever_is_lost(survivors: set[int]) -> None:
    tally = StreamTally(first=min(survivors))
    lost: set[int] = set()
    for sequence in sorted(survivors):
        gap = tally.add(message(sequence))
        lost.update(range(gap.first, gap.first + gap.count))
    assert lost == set(range(min(survivors), max(survivors))) - survivors
    assert tally.received + tally.missed == max(survivors) - tally.first + 1


# A stand-in publisher, to send what ours never would ------------------------------------------------------------------


@contextmanager
def pushed(*sent: list[bytes], **options: Any) -> Iterator[Subscriber]:
    """A subscriber to whom exactly these messages are sent."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.linger = 0
        socket.bind("tcp://127.0.0.1:*")
        endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        with Subscriber(endpoint, "pull", **({"timeout": 30.0} | options)) as subscriber:
            for parts in sent:
                socket.send_multipart(parts)
            yield subscriber


def test_gaps_are_told_before_the_message_behind_them() -> None:
    told: list[Gap] = []
    with pushed(*(wire.encode(message(n)).parts for n in (0, 1, 5)), on_gap=told.append) as subscriber:
        received = [subscriber.receive() for _ in range(3)]
    assert told == [Gap("drive", first=2, count=3)]
    assert [r.missed for r in received] == [0, 0, 3]
    assert (subscriber.received, subscriber.missed) == (3, 3)


def test_what_is_no_message_is_an_error_and_the_next_one_is_read() -> None:
    with pushed([b"hello"], [b"a", b"b"], wire.encode(message(0)).parts) as subscriber:
        for _ in range(2):
            with pytest.raises(MessageError):
                subscriber.receive()
        assert subscriber.receive().header.sequence == 0


def test_kinds_that_come_later_are_passed_over() -> None:
    with pushed([b"roadlens/v1/drive/weather", b"\xc0"], wire.encode(message(0)).parts) as subscriber:
        assert subscriber.receive().header.sequence == 0


@pytest.mark.parametrize(("streams", "sequences"), [(["b"], [0, 1]), (["a", "b"], [0, 0, 1, 1]), (None, [0, 0, 1, 1])])
def test_it_ends_when_all_streams_have_ended(streams: list[str] | None, sequences: list[int]) -> None:
    sent = [wire.encode(composing.from_analysis(analysis(0, stream), 0)).parts for stream in "ab"]
    sent += [
        wire.encode(EndMessage(stream=stream, sequence=1, frames=1, dropped=0, reason="complete")).parts
        for stream in "ab"
    ]
    with pushed(*sent, streams=streams, until_end=True) as subscriber:
        assert [received.header.sequence for received in subscriber] == sequences
        assert subscriber.ended


def test_it_waits_for_a_stream_that_was_asked_for_and_has_not_come() -> None:
    sent = [wire.encode(EndMessage(stream="a", sequence=0, frames=0, dropped=0, reason="complete")).parts]
    with pushed(*sent, streams=["a", "b"], until_end=True) as subscriber:
        assert subscriber.receive().header.stream == "a"
        subscriber._timeout = 0.01
        with pytest.raises(SourceError, match="nothing came from tcp:"):
            list(subscriber)
        assert subscriber.received == 1


# Against the real publisher -------------------------------------------------------------------------------------------


def test_a_subscription_to_one_stream_gets_no_other() -> None:
    """Not even one whose name begins alike."""
    with Publisher(ANYWHERE) as publisher, Subscriber(publisher.endpoint, streams=["cam"], timeout=30) as subscriber:
        until_subscribed(publisher, "cam")
        for stream in ("cam/left", "cam2", "cam"):
            publisher.consume(analysis(0, stream))
        assert subscriber.receive().header.stream == "cam"


@pytest.mark.parametrize(("first", "sequences"), [({}, [0, 1, 0, 1]), ({"drive": 2}, [0, 1, 2, 3])])
def test_it_survives_a_restart_of_the_publisher(first: dict[str, int], sequences: list[int]) -> None:
    """On the same port; a resumed file goes on with its numbers. Neither is a gap."""
    publisher = Publisher(ANYWHERE, "push")
    endpoint = publisher.endpoint
    told: list[Gap] = []
    with Subscriber(endpoint, "pull", timeout=30, on_gap=told.append) as subscriber:
        publisher.consume(analysis(0))
        received = [subscriber.receive()]
        publisher.end("drive", "failed")
        received.append(subscriber.receive())
        publisher.close()
        with Publisher(endpoint, "push", first_sequence=first) as again:
            again.consume(analysis(0))
            again.end("drive")
            received += [subscriber.receive(), subscriber.receive()]
    assert [r.header.sequence for r in received] == sequences
    assert [r.restarted for r in received] == [False, False, True, False]
    assert told == [Gap("drive", first=sequences[2], count=0, restarted=True)]
    assert subscriber.missed == 0
    assert subscriber.tallies["drive"].restarts == 1


@pytest.mark.parametrize("endpoint", ["5555", "tcp://127.0.0.1", "tcp://127.0.0.1:port", "http://127.0.0.1:5555", ""])
def test_a_malformed_address_is_one_sentence(endpoint: str) -> None:
    with pytest.raises(UsageError, match="not the address of a publisher"):
        Subscriber(endpoint)


def test_closing_twice_is_allowed() -> None:
    subscriber = Subscriber("tcp://127.0.0.1:9")
    subscriber.close()
    subscriber.close()


# roadlens subscribe ---------------------------------------------------------------------------------------------------

COMMAND = [
    sys.executable,
    "-c",
    "import typer; from pipeline.commands.subscribe import subscribe; typer.run(subscribe)",
]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_prints_a_line_for_every_message_and_sums_up() -> None:
    with Publisher(ANYWHERE, "push") as publisher:
        process = start(publisher.endpoint, "--pull", "--until-end")
        publisher.consume(analysis(0))
        publisher.consume(analysis(12, dropped_since_last=2))
        publisher.end("drive")
        output, error = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.splitlines() == [
        "drive #0  frame 0  0.000 s  age 42 ms  car 0.88, person 0.50  road 51% sky 30%",
        "drive #1  frame 12  0.480 s  age 42 ms  2 dropped before  car 0.88, person 0.50  road 51% sky 30%",
        "drive #2  end (complete): 2 frames, 2 dropped",
    ]
    assert error == "3 received, 0 missed\n"


def test_json_is_the_header_and_count_ends_it() -> None:
    with Publisher(ANYWHERE, "push", linger=0, stop=lambda: True, high_water=100) as publisher:
        process = start(publisher.endpoint, "--pull", "--json", "--count", "2")
        publisher._outlet._socket.poll(None, zmq.POLLOUT)  # connected
        for index in range(5):
            publisher.consume(analysis(index))
        output, error = process.communicate(timeout=60)
    lines = [wire.decode_header(line.encode()) for line in output.splitlines()]
    assert [line.sequence for line in lines] == [0, 1]
    assert lines[0].mask is not None
    assert error == "2 received, 0 missed\n"


def test_a_folder_gets_masks_and_json(tmp_path: Path) -> None:
    with Publisher(ANYWHERE, "push", mask="rle") as publisher:
        process = start(publisher.endpoint, "--pull", "--until-end", "--output", str(tmp_path / "out"))
        publisher.consume(analysis(0))
        publisher.consume(analysis(1, class_map=None))
        publisher.end("drive")
        output, _ = process.communicate(timeout=60)
    assert output == ""
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    run = files[0].name.partition("-")[0]
    assert files == [
        Path(f"out/drive/{run}-{name}") for name in ("00000000.json", "00000000.png", "00000001.json", "00000002.json")
    ]
    picture = cv2.imread(str(tmp_path / files[1]))
    assert picture.shape == (32, 64, 3)
    ids = pytest.importorskip("PIL.Image", reason="Pillow is not installed").open(tmp_path / files[1])
    np.testing.assert_array_equal(np.asarray(ids), areas(seed=0))
    assert json.loads((tmp_path / files[3]).read_text())["kind"] == "end"


@pytest.mark.seconds
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    with Publisher(ANYWHERE, "push", linger=0, stop=lambda: True) as publisher:
        process = start(publisher.endpoint, "--pull")
        publisher._outlet._socket.poll(None, zmq.POLLOUT)  # connected
        publisher.consume(analysis(0))
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert first.startswith("drive #0")
    assert (process.returncode, error) == (0, "1 received, 0 missed\n")


@pytest.mark.timeout(60)
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of a thread's own are POSIX")
def test_ctrl_c_just_before_it_waits_is_noticed() -> None:
    """As one is that another thread takes: it breaks off no wait of this one."""
    with Subscriber("tcp://127.0.0.1:9") as subscriber:
        other = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
        other.start()
        with pytest.raises(KeyboardInterrupt):
            subscriber.receive()
        other.join()


def test_a_pipe_that_closes_ends_it_quietly() -> None:
    """`roadlens subscribe … | head -1`."""
    with Publisher(ANYWHERE, "push", linger=0, stop=lambda: True) as publisher:
        process = start(publisher.endpoint, "--pull", "--timeout", "30")
        publisher._outlet._socket.poll(None, zmq.POLLOUT)  # connected
        publisher.consume(analysis(0))
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        publisher.consume(analysis(1))
        assert process.stderr is not None
        error = process.stderr.read()
        process.wait(60)
    assert error == "2 received, 0 missed\n"
    assert process.returncode == 0


@pytest.mark.parametrize("stream", ["../../evil", "..", ".", ".hidden", "/etc/passwd", "a/b", "nul\0l", "Kühler 1"])
def test_a_stream_cannot_write_outside_its_folder(tmp_path: Path, stream: str) -> None:
    folder = tmp_path / "out"
    header = composing.from_analysis(analysis(0, stream), 0, run="../x")
    write_received(wire.decode(wire.encode(header, areas()).parts), folder)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 2
    assert {path.parent.parent for path in written} == {folder}
    assert not any(part.startswith(".") for path in written for part in path.relative_to(tmp_path).parts)


def test_where_there_is_a_json_the_message_is_complete(tmp_path: Path) -> None:
    """A limit on the file's size is the full disk that a test can make: writing fails in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            write_received(Received(composing.from_analysis(analysis(0), 0)), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.rglob("*.json"))


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_received(Received(message(0)), tmp_path / "file")


def test_a_line_for_people_needs_nothing_but_the_header() -> None:
    bare = composing.from_analysis(analysis(0, boxes=(), area={}), 0)
    assert describe(bare) == "drive #0  frame 0  0.000 s  age 42 ms"


def test_the_schema_is_what_the_module_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "pipeline.messages.headers"], cwd=ROOT, capture_output=True, check=True
    )
    assert json.load(io.BytesIO(printed.stdout)) == headers.schema()
