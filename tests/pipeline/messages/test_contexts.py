"""Connections end, whatever ZeroMQ does: libzmq 4.3.5 may wait for ever to terminate a context."""

from __future__ import annotations

import logging
import threading

import pytest
import zmq

from pipeline.messages.sockets import contexts
from pipeline.messages.sockets.outlet import Outlet
from pipeline.messages.subscriber import Subscriber
from tests.pipeline.messages.test_publish import ANYWHERE


def left_while_sent_to() -> Outlet:
    """A reader breaks its connection off while something is sent to it, and the sender closes."""
    outlet = Outlet(ANYWHERE)
    with zmq.Context() as context:
        reader = context.socket(zmq.SUB)
        reader.setsockopt(zmq.SUBSCRIBE, b"")
        reader.connect(outlet.endpoint)
        while not outlet.anybody():
            outlet.hear()
        reader.close(linger=0)
    for _ in range(3):
        outlet.send([b"topic", b"body"])
    outlet.close()
    return outlet


@pytest.mark.seconds
def test_a_reader_that_leaves_as_its_publisher_closes_holds_nobody_up() -> None:
    """Of a thousand, one to sixty never ended before the wait had a bound."""
    assert all(left_while_sent_to().closed for _ in range(100))


@pytest.mark.parametrize("kind", ["pub", "push", "sub"])
def test_a_context_that_never_ends_is_left_behind_and_told(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(contexts, "_GRACE", 0.0)
    for_ever = threading.Event()
    term = zmq.Context.term
    monkeypatch.setattr(zmq.Context, "term", lambda _: for_ever.wait())
    with caplog.at_level(logging.WARNING):
        if kind == "sub":
            connection: Outlet | Subscriber = Subscriber("tcp://127.0.0.1:1")
        else:
            connection = Outlet(ANYWHERE, "pub" if kind == "pub" else "push", linger=0, stop=lambda: True)
        connection.close()
        connection.close()  # and does not wait again
    assert len(caplog.records) == 1
    for_ever.set()
    term(connection._context)
