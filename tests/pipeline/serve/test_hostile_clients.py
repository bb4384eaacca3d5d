"""Strangers at every endpoint and socket of a running server: whatever they send, nothing breaks or grows, and the
stream runs on.

The server is a process of its own, so that its memory can be looked at from outside. What there is to be asked is
taken from its own OpenAPI document.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.pipeline.messages.test_hostile_peers import attack, descriptors, resident, settled
from tests.pipeline.rtsp_server import free_port
from tests.pipeline.serve.test_process import serving, until_ready

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc"),
]

DRIVE = "synthetic:?seconds=3600&width=160&height=96"
API = "/api/v1"
VALUES: list[Any] = [
    None, True, -1, 0, 2**70, 1e308, "", "a", "🚗", "x" * 3000, "../../etc/passwd", "\0", [], {}, [[[[1]]]],
    {"a": {"b": {}}}, "rtsp://user:secret@127.0.0.1:9/", "tcp://127.0.0.1:9", "nowhere.mp4", "synthetic:?seconds=1",
    DRIVE,
]  # fmt: skip
KEYS = ["source", "id", "live", "rate", "realtime", "decode", "opacity", "hide", "legend", "palette", "🚗", "x" * 200]
NAMES = ["drive", "nobody", "%00", "..", "a b", "🚗", "x" * 300, "index.m3u8", "-1"]


def a_value(random: np.random.Generator, depth: int = 0) -> Any:
    kind = int(random.integers(10))
    if kind == 0 and depth < 3:
        return {KEYS[int(random.integers(len(KEYS)))]: a_value(random, depth + 1) for _ in range(3)}
    if kind == 1 and depth < 3:
        return [a_value(random, depth + 1) for _ in range(int(random.integers(5)))]
    return VALUES[int(random.integers(len(VALUES)))]


def a_body(random: np.random.Generator) -> bytes:
    if random.integers(5) == 0:
        return random.bytes(int(random.integers(500)))
    chosen = random.choice(len(KEYS), int(random.integers(5)), replace=False)
    return json.dumps({KEYS[k]: a_value(random) for k in chosen}).encode()


def ask(client: httpx.Client, calls: list[tuple[str, str]], random: np.random.Generator) -> None:
    """One request of any kind to any endpoint; whatever was added goes again."""
    method, path = calls[int(random.integers(len(calls)))]
    if random.integers(8) == 0:
        method = ["GET", "POST", "PUT", "DELETE", "TRACE", "PATCH"][int(random.integers(6))]
    name = NAMES[int(random.integers(len(NAMES)))]
    steered = method not in {"GET", "HEAD"} and path.endswith(("{stream}", "/pause", "/restart"))
    if name == "drive" and steered:
        name = "nobody"  # the other one shall run on
    for part in ("{stream}", "{name}"):
        path = path.replace(part, quote(name, safe=""))
    query = {k: str(a_value(random))[:100] for k in ("after", "limit", "wrong") if random.integers(2)}
    headers = {"content-type": "application/json" if random.integers(4) else "text/" + "x" * 300}
    with client.stream(method, path, params=query, content=a_body(random), headers=headers) as answer:
        if not answer.headers.get("content-type", "").startswith(("text/event-stream", "multipart/")):
            answer.read()  # the others go on for as long as there is something to say
        assert answer.status_code < 500 or answer.status_code in {503, 507}, (method, path, answer.status_code)
        if answer.status_code == 201:
            assert client.delete(answer.headers["location"]).status_code == 204


def shout(port: int, random: np.random.Generator) -> None:
    """What is no HTTP, or half of it."""
    said = [
        random.bytes(int(random.integers(1, 4000))),
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: " + b"y" * 200_000,
        b"POST /api/v1/streams HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\n{",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
        b"GET /api/v1/streams/drive/view HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAA\r\nSec-WebSocket-Version: 13\r\n\r\n" + random.bytes(200),
    ]  # fmt: skip
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
        stranger.settimeout(0.2)
        stranger.sendall(said[int(random.integers(len(said)))])
        stranger.recv(100)


def pester(url: str, random: np.random.Generator) -> None:
    """A viewer that sends what nobody asked for, and leaves without a word."""
    address = f"{url.replace('http', 'ws', 1)}api/v1/streams/{['drive', 'nobody'][int(random.integers(2))]}/view"
    with suppress(OSError, WebSocketException, TimeoutError), connect(address, open_timeout=20) as viewer:
        for _ in range(int(random.integers(1, 30))):
            viewer.send(random.bytes(int(random.integers(6000))) if random.integers(2) else "next")
        if random.integers(2):
            viewer.recv(0.2)
        if random.integers(2):
            viewer.socket.close()


def test_whatever_comes_in_the_server_serves_on_and_does_not_grow(tmp_path: Path, segmenter: Path) -> None:
    publishes = f"tcp://127.0.0.1:{free_port()}"
    arguments = ["--model", segmenter, "--pub", publishes, "--hls", "hls", "--event-clips", "events", DRIVE]
    with serving(tmp_path, *arguments) as (process, url), httpx.Client(base_url=url, timeout=60) as client:
        port = urlsplit(url).port
        assert port is not None
        until_ready(url)
        assert client.post(f"{API}/streams", json={"source": DRIVE, "id": "drive", "realtime": True}).status_code == 201
        document = client.get(f"{API}/openapi.json").json()
        calls = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
        calls += [("GET", "/"), ("GET", "/docs"), ("GET", "/assets/{name}"), ("POST", "/login"), ("POST", "/logout")]
        assert len(calls) > 20

        def strangers(rounds: int, seed: int) -> None:
            random = np.random.default_rng(seed)
            for number in range(rounds):
                ask(client, calls, random)
                if number % 5 == 0:
                    shout(port, random)
                if number % 10 == 0:
                    pester(url, random)
                if number % 20 == 0:
                    attack(publishes, 8, seed + number)

        def emitted() -> int:
            return int(client.get(f"{API}/streams/drive").json()["frames_out"])

        strangers(240, seed=0)  # until every pool has its size: 11 to 25 MB, then 2 to 3 MB in as many rounds
        before, opened = resident(process.pid), descriptors(process.pid)
        strangers(240, seed=1)
        assert process.poll() is None
        assert settled(lambda: descriptors(process.pid), opened + 4) <= opened + 4, "connections are not kept"
        grown = settled(lambda: resident(process.pid), before + 16_000_000) - before
        print(f"grown by {grown / 1e6:.1f} MB over 240 rounds")
        assert grown <= 16_000_000
        seen, deadline = emitted(), time.monotonic() + 60
        while emitted() <= seen:
            assert time.monotonic() < deadline, "the stream stands still"
            time.sleep(0.1)
        assert client.get("/livez").status_code == 200
        answer = client.get(f"{API}/streams/drive").json()
        assert answer["viewers"] == 0 or settled(lambda: client.get(f"{API}/streams/drive").json()["viewers"], 0) == 0
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert "Traceback" not in said, said[-3000:]
    assert "secret" not in said
