"""Strangers at every socket: garbage, malformed ZMTP, malformed and huge frames, floods. Nobody crashes, nothing grows,
and those who mean well are served on.

The publisher runs in a process of its own, so that its memory can be looked at from outside.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from engines.errors import RoadlensError, SourceError
from pipeline.messages.headers import MessageError
from pipeline.messages.sockets.keys import ClientKeys, new_certificate, secret_certificate
from pipeline.messages.subscriber import Subscriber
from tests.pipeline.messages.test_publish import ROOT

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")

PUBLISHER = """
import sys, threading, time
from pathlib import Path
from pipeline.messages.sockets.keys import CurveOptions, server_keys
from pipeline.messages.publish import PictureOptions, Publisher
from tests.pipeline.fake_analysis import analysis
pattern, key, client = sys.argv[1:]
stopped = threading.Event()
curve = server_keys(CurveOptions(Path(key), (client,))) if key else None
with Publisher("tcp://127.0.0.1:0", pattern, curve=curve, heartbeat=0.2, picture=PictureOptions(),
               stop=stopped.is_set, linger=0) as publisher:
    print(publisher.endpoint, flush=True)
    threading.Thread(target=lambda: (sys.stdin.readline(), stopped.set()), daemon=True).start()
    index = 0
    while not stopped.is_set():
        publisher.consume(analysis(index))
        index += 1
        time.sleep(0.01)
print("ended in order", flush=True)
"""

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"


def random_bytes(random: np.random.Generator) -> bytes:
    return random.bytes(int(random.integers(1, 3000)))


def torn_greeting(random: np.random.Generator) -> bytes:
    return GREETING[: int(random.integers(1, 64))]


def damaged_greeting(random: np.random.Generator) -> bytes:
    greeting = bytearray(GREETING + READY)
    for _ in range(3):
        greeting[int(random.integers(len(greeting)))] = int(random.integers(256))
    return bytes(greeting) + random.bytes(100)


def random_frames(random: np.random.Generator) -> bytes:
    """After a proper handshake: frames of any flags and lengths."""
    frames = [
        struct.pack("BB", int(random.integers(256)), int(random.integers(256)))
        + random.bytes(int(random.integers(300)))
        for _ in range(20)
    ]
    return GREETING + READY + b"".join(frames)


def odd_subscriptions(random: np.random.Generator) -> bytes:
    """Subscriptions and cancellations of what was never subscribed to, and messages that are neither."""
    frames = []
    for _ in range(200):
        body = bytes([int(random.integers(3))]) + random.bytes(int(random.integers(60)))
        frames.append(struct.pack("BB", 0, len(body)) + body)
    return GREETING + READY + b"".join(frames)


def huge_frame(_random: np.random.Generator) -> bytes:
    """A subscription that says it is of 2^62 bytes."""
    return GREETING + READY + struct.pack(">BQ", 2, 1 << 62) + b"\x01" * 100_000


def long_subscription(_random: np.random.Generator) -> bytes:
    return GREETING + READY + struct.pack(">BQ", 2, 10_000_000) + b"\x01" * 10_000_000


def http(_random: np.random.Generator) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: roadlens\r\n\r\n"


ATTACKS: list[Callable[[np.random.Generator], bytes]] = [
    random_bytes, torn_greeting, damaged_greeting, random_frames, odd_subscriptions, huge_frame, long_subscription,
    http,
]  # fmt: skip


def say(stranger: socket.socket, data: bytes) -> None:
    """Send it; after a proper handshake only when the other end is ready, for until then any frame is out of turn."""
    if data.startswith(GREETING + READY):
        stranger.sendall(GREETING + READY)
        heard = b""
        while b"READY" not in heard and (part := stranger.recv(256)):
            heard += part
        data = data.removeprefix(GREETING + READY)
    stranger.sendall(data)


def attack(endpoint: str, rounds: int, seed: int) -> None:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    random = np.random.default_rng(seed)
    for index in range(rounds):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=10) as stranger:
            stranger.settimeout(2)
            say(stranger, ATTACKS[index % len(ATTACKS)](random))
            if index % 3 == 0:
                stranger.recv(64)


@contextlib.contextmanager
def publisher(pattern: str, key: str = "", client: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, pattern, key, client],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def settled(value: Callable[[], int], most: int, seconds: float = 40.0) -> int:
    """The value once it is at most that, or after a while whatever it is."""
    deadline = time.monotonic() + seconds
    while (now := value()) > most and time.monotonic() < deadline:
        time.sleep(0.1)
    return now


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "secured"), [("pub", False), ("push", False), ("pub", True)])
def test_whatever_comes_in_the_publisher_serves_on_and_does_not_grow(
    tmp_path: Path, pattern: str, secured: bool
) -> None:
    server = new_certificate("server", tmp_path)[1]
    viewer = secret_certificate(new_certificate("viewer", tmp_path)[1])
    curve = ClientKeys(secret_certificate(server).public, viewer) if secured else None
    with publisher(pattern, *((str(server), viewer.public) if secured else ("", ""))) as (process, endpoint):

        def served() -> None:
            with Subscriber(endpoint, "sub" if pattern == "pub" else "pull", curve=curve, timeout=60) as subscriber:
                for _ in range(3):
                    subscriber.receive()

        served()
        attack(endpoint, 40, seed=0)  # what is allocated once
        served()
        before, opened = resident(process.pid), descriptors(process.pid)
        attack(endpoint, 240, seed=1)
        served()
        assert process.poll() is None
        assert settled(lambda: descriptors(process.pid), opened + 2) <= opened + 2, "connections are not kept"
        assert settled(lambda: resident(process.pid), before + 8_000_000) - before <= 8_000_000
        assert process.stdin is not None
        process.stdin.write("stop\n")
        process.stdin.flush()
        output, error = process.communicate(timeout=60)
    assert output == "ended in order\n", error
    assert "Traceback" not in error


def test_the_handshake_of_these_attacks_is_a_proper_one() -> None:
    """Or they would test little: a plain TCP client with it gets messages."""
    with publisher("pub") as (_, endpoint):
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            prefix = b"\x01roadlens/v1/drive/analysis"
            say(client, GREETING + READY + struct.pack("BB", 0, len(prefix)) + prefix)
            received = b""
            while b"roadlens/v1/drive/analysis" not in received:
                part = client.recv(65536)
                assert part, f"closed after {received[-200:]!r}"
                received += part


@pytest.mark.seconds
def test_a_flood_of_subscriptions_stops_no_frame() -> None:
    """200,000 of one stranger's: they are looked up by the topic's own beginnings, not one by one."""
    with publisher("pub") as (process, endpoint), Subscriber(endpoint, timeout=60) as subscriber:
        subscriber.receive()
        with zmq.Context() as context, context.socket(zmq.SUB) as stranger:
            stranger.linger = 0
            stranger.connect(endpoint)
            for index in range(200_000):
                stranger.setsockopt(zmq.SUBSCRIBE, b"roadlens/v1/%d/analysis" % index)
            first = subscriber.receive().header.sequence
            while subscriber.receive().header.sequence < first + 20:
                pass
        while subscriber.receive().header.sequence < first + 60:
            pass
        assert process.poll() is None


def serving(answer: Callable[[np.random.Generator], bytes]) -> tuple[socket.socket, threading.Event]:
    """A server that says this to whoever connects; the event is set once it has said it."""
    listener = socket.create_server(("127.0.0.1", 0))
    random, said = np.random.default_rng(3), threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError), connection:
                    connection.settimeout(5)
                    connection.recv(10)
                    try:
                        connection.sendall(answer(random))
                    finally:  # or was hung up on meanwhile
                        said.set()
                    connection.recv(64)

    threading.Thread(target=serve, daemon=True).start()
    return listener, said


@pytest.mark.seconds
@pytest.mark.parametrize("answer", ATTACKS)
def test_a_subscriber_of_a_hostile_server_gets_nothing_and_no_crash(
    answer: Callable[[np.random.Generator], bytes],
) -> None:
    listener, said = serving(answer)
    with Subscriber(f"tcp://127.0.0.1:{listener.getsockname()[1]}", timeout=0.1) as subscriber:
        assert said.wait(60)
        for _ in range(3):
            with pytest.raises(RoadlensError):
                subscriber.receive()
    listener.close()


def test_a_subscriber_refuses_whatever_is_no_message_and_reads_on() -> None:
    random = np.random.default_rng(4)
    with zmq.Context() as context, context.socket(zmq.PUSH) as stranger:
        stranger.linger = 0
        stranger.bind("tcp://127.0.0.1:*")
        endpoint = stranger.getsockopt_string(zmq.LAST_ENDPOINT)
        with Subscriber(endpoint, "pull", timeout=30) as subscriber:
            for _ in range(300):
                parts = [random.bytes(int(random.integers(0, 200))) for _ in range(int(random.integers(1, 5)))]
                if random.integers(2):
                    parts[0] = (
                        b"roadlens/v1/drive/"
                        + [b"analysis", b"status", b"picture", b"heartbeat"][int(random.integers(4))]
                    )
                stranger.send_multipart(parts)
                with pytest.raises(MessageError):
                    subscriber.receive()
            subscriber._timeout = 0.1
            with pytest.raises(SourceError, match="nothing came"):
                subscriber.receive()
