"""One address for several publishers, with real sockets: nothing is missing, and nobody works for nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from engines.errors import OutputError, RoadlensError
from pipeline.config import PublishConfig
from pipeline.messages.headers import AnalysisMessage, EndMessage, StatusMessage
from pipeline.messages.publish import Publisher
from pipeline.messages.sockets.keys import CurveOptions, client_keys, new_certificate
from pipeline.messages.subscriber import Gap, Subscriber
from pipeline.state import SourceState, StateChange
from pipeline.workers.relay import open_relay
from tests.pipeline.fake_analysis import analysis
from tests.pipeline.rtsp_server import free_port

LONG = 60.0


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LONG
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def worker(options: PublishConfig, address: str) -> Publisher:
    return Publisher(options.bind, options.pattern, high_water=256, relay=address)


def test_subscribers_see_every_worker_at_one_address_without_gaps(tmp_path: Path) -> None:
    options = PublishConfig(f"tcp://127.0.0.1:{free_port()}", high_water=1000)
    address = f"ipc://{tmp_path}/relay"
    relay = open_relay(options, address, lambda: False)
    gaps: list[Gap] = []
    seen: dict[str, list[int]] = {}
    with (
        worker(options, address) as first,
        worker(options, address) as second,
        Subscriber(
            options.bind, kinds=("analysis", "status", "end"), on_gap=gaps.append, high_water=1000, timeout=LONG
        ) as subscriber,
    ):
        publishers = {"left": first, "right": second}
        for name, publisher in publishers.items():
            publisher.status(StateChange(name, SourceState.STREAMING))
        states = set()
        while states != {"left", "right"}:  # the newest state greets who comes: both are connected
            received = subscriber.receive()
            states |= {received.header.stream} if isinstance(received.header, StatusMessage) else set()
        for index in range(50):
            for name, publisher in publishers.items():
                publisher.consume(analysis(index, name))
        for name, publisher in publishers.items():
            publisher.end(name)
        ended = set()
        while ended != {"left", "right"}:
            received = subscriber.receive()
            if isinstance(received.header, AnalysisMessage):
                seen.setdefault(received.header.stream, []).append(received.header.sequence)
            elif isinstance(received.header, EndMessage):
                ended.add(received.header.stream)
    relay.close(LONG)
    assert seen == {"left": list(range(50)), "right": list(range(50))}
    assert not gaps


def test_a_worker_encodes_for_nobody_once_the_last_of_several_has_left(tmp_path: Path) -> None:
    options = PublishConfig(f"tcp://127.0.0.1:{free_port()}")
    address = f"ipc://{tmp_path}/relay"
    relay = open_relay(options, address, lambda: False)

    def sent(publisher: Publisher) -> bool:
        before = publisher.sent.get("drive", 0)
        publisher.consume(analysis())
        return publisher.sent.get("drive", 0) > before

    with worker(options, address) as publisher:
        assert not sent(publisher)
        sockets = []
        for _ in range(2):
            socket = zmq.Context.instance().socket(zmq.SUB)
            socket.subscribe(b"roadlens/v1/drive/analysis")
            socket.connect(options.bind)
            sockets.append(socket)
            until(lambda: sent(publisher))
        sockets.pop().close(0)
        time.sleep(0.3)
        assert sent(publisher), "one of them is still there"
        sockets.pop().close(0)
        until(lambda: not sent(publisher))
    relay.close(LONG)


@pytest.mark.seconds
def test_a_slow_reader_of_push_gets_every_message_of_every_worker(tmp_path: Path) -> None:
    options = PublishConfig(f"tcp://127.0.0.1:{free_port()}", "push", high_water=2)
    address = f"ipc://{tmp_path}/relay"
    relay = open_relay(options, address, lambda: False)
    counts: dict[str, int] = {}

    def read() -> None:
        with Subscriber(options.bind, "pull", timeout=LONG) as subscriber:
            ended = 0
            while ended < 2:
                received = subscriber.receive()
                ended += isinstance(received.header, EndMessage)
                counts[received.header.stream] = counts.get(received.header.stream, 0) + 1
                time.sleep(0.002)

    def work(name: str) -> None:
        with worker(options, address) as publisher:
            for index in range(200):
                publisher.consume(analysis(index, name))
            publisher.end(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("left", "right")]
    reader = threading.Thread(target=read)
    for thread in [*threads, reader]:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    relay.close(LONG)
    reader.join(LONG)
    assert counts == {"left": 201, "right": 201}


def test_who_has_no_key_gets_nothing_and_the_workers_need_none(tmp_path: Path) -> None:
    public, key = new_certificate("server", tmp_path)
    options = PublishConfig(f"tcp://127.0.0.1:{free_port()}", curve=CurveOptions(key, "any"))
    address = f"ipc://{tmp_path}/relay"
    relay = open_relay(options, address, lambda: False)
    keys = client_keys(str(public), None)
    with (
        worker(options, address) as publisher,
        Subscriber(options.bind, kinds=("status",), timeout=LONG, curve=keys) as subscriber,
        Subscriber(options.bind, kinds=("status",), timeout=1.0) as stranger,
    ):
        publisher.status(StateChange("drive", SourceState.STREAMING))
        assert subscriber.receive().header.stream == "drive"
        with pytest.raises(RoadlensError):
            stranger.receive()
    relay.close(LONG)


def test_an_address_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="may have 107"):
        open_relay(PublishConfig("ipc:///tmp/" + "x" * 120), f"ipc://{tmp_path}/relay", lambda: False)
