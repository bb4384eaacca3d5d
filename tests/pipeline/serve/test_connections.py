"""Who keeps connections and asks nothing, and what is asked and never ends, keeps nobody else from being served."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.serve.limits import connections, openings
from pipeline.serve.limits.connections import Connection
from pipeline.session import ServingSession
from tests.pipeline.serve.conftest import DRIVE, Server, running

STREAMS = "/api/v1/streams"
HALF = [b"", b"G", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: "]
BODY = (
    b"POST /api/v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Type: application/json\r\n\r\n{"
)


def connected(server: Server, said: bytes) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").rstrip("/").rpartition(":")
    made = socket.create_connection((host, int(port)), timeout=60)
    made.sendall(said)
    return made


def is_closed(stranger: socket.socket) -> bool:
    try:
        return stranger.recv(4096) == b""
    except ConnectionError:
        return True


@pytest.fixture
def small(segmenter: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(Connection, "most", 24)
    with running(segmenter, opened=False) as server:
        yield server


@pytest.mark.seconds
@pytest.mark.parametrize("said", [*HALF, BODY])
def test_idle_and_half_open_connections_shut_nobody_out(small: Server, said: bytes) -> None:
    strangers = [connected(small, said) for _ in range(60)]
    try:
        for _ in range(3):
            assert small.client.get("/livez").status_code == 200
        small.client.close()
    finally:
        for stranger in strangers:
            stranger.close()


def test_who_asks_is_not_closed_for_who_does_not(small: Server) -> None:
    asking = connected(small, b"GET /api/v1/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200 OK" in asking.recv(4096)
    strangers = [connected(small, b"") for _ in range(60)]
    try:
        small.service.events.add("drive", "happened")
        got = b""
        while b"happened" not in got:
            part = asking.recv(4096)
            assert part, "it was closed"
            got += part
    finally:
        for each in (asking, *strangers):
            each.close()


@pytest.mark.seconds
@pytest.mark.parametrize("said", [*HALF, BODY])
def test_what_never_comes_is_not_waited_for(segmenter: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(Connection, "patience", 0.3)
    with running(segmenter, opened=False) as server, connected(server, said) as stranger:
        assert is_closed(stranger)


def test_the_limits_leave_descriptors_for_the_streams() -> None:
    assert connections.MOST <= 512
    assert openings.MOST * 2 <= connections.MOST


@pytest.mark.seconds
def test_sources_that_never_open_hold_up_nothing_else(segmenter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network's disk that is gone: the thread cannot be ended, the others go on."""
    gone, begun = threading.Event(), threading.Semaphore(0)
    opened = ServingSession._resolved

    def hangs(self: ServingSession, name: str, config: object) -> object:
        if name.startswith("gone"):
            begun.release()
            assert gone.wait(120)
        return opened(self, name, config)  # type: ignore[arg-type]

    monkeypatch.setattr(ServingSession, "_resolved", hangs)
    with running(segmenter) as server:
        asked = [connected(server, posted(f"gone-{number}")) for number in range(openings.MOST + 4)]
        try:
            for _ in range(openings.MOST):
                assert begun.acquire(timeout=60)
            refused = server.client.post(STREAMS, json={"source": DRIVE, "id": "late"})
            assert refused.status_code == 503
            assert "do not answer" in refused.json()["detail"]
            assert server.client.get("/livez").status_code == server.client.get("/readyz").status_code == 200
            assert server.client.get(STREAMS).json() == {"streams": []}
            assert server.client.get("/metrics").status_code == 200
        finally:
            gone.set()
            for each in asked:
                each.close()
        deadline = time.monotonic() + 60
        while server.client.post(STREAMS, json={"source": DRIVE, "id": "late"}).status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert server.client.post(f"{STREAMS}/late/pause").status_code == 200


def test_a_client_is_told_that_it_takes_long(segmenter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()
    monkeypatch.setattr(openings.Openings.__init__, "__defaults__", (4, 0.2))
    monkeypatch.setattr(ServingSession, "_resolved", lambda *_args: gone.wait(120))
    with running(segmenter) as server:
        late = server.client.post(STREAMS, json={"source": DRIVE})
        gone.set()
    assert (late.status_code, "has not answered within 0.2 s" in late.json()["detail"]) == (503, True)


def posted(name: str) -> bytes:
    body = f'{{"source": "{DRIVE}", "id": "{name}"}}'.encode()
    head = f"POST {STREAMS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("rtsp://[::1", 201),
        ("http://[", 201),
        ("http://h:port/", 201),
        ("rtsp://h/\r\nX: y", 422),
        ("http://[::1]]/", 201),
    ],
)
def test_an_odd_address_is_no_fault_of_the_server(server: Server, source: str, status: int) -> None:
    answer = server.client.post(STREAMS, json={"source": source, "id": "odd"})
    assert answer.status_code in {status, 422}, answer.text
    server.client.delete(f"{STREAMS}/odd")


@pytest.mark.parametrize("name", ["²", "१", "-1", "9" * 400, ""])
def test_an_odd_number_in_a_header_is_passed_over(server: Server, name: str) -> None:
    said = f"HEAD /api/v1/events/stream HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {name}\r\n\r\n"
    with connected(server, said.encode("latin-1", "replace")) as stranger:
        assert b" 500 " not in stranger.recv(4096)


def test_every_operation_says_how_it_is_refused(server: Server) -> None:
    paths = server.client.get("/api/v1/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            ways = set(operation["responses"])
            assert {"404"} <= ways or "{" not in path, path
            assert {"403", "409"} <= ways or method == "get", path
            assert {"413", "415", "422"} <= ways or "requestBody" not in operation, path


def test_pipes_are_not_waited_for(segmenter: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with running(segmenter, source_folders=(tmp_path,)) as server:
        for source in (tmp_path / "a.mp4", f"v4l2:{tmp_path / 'a.mp4'}"):
            assert server.client.post(STREAMS, json={"source": str(source)}).status_code == 422
