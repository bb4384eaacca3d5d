"""Much of one thing: clips in one process, and subscribers that come and go. Memory, descriptors and threads stay.

`ROADLENS_CLIPS=10000 ROADLENS_CONNECTS=10000 pytest tests/resilience/test_many.py` is the long form.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from pipeline.messages.subscriber import Subscriber
from tests.footage import write_clip
from tests.pipeline.conftest import ROOT
from tests.pipeline.messages.test_hostile_peers import GREETING, READY, descriptors, publisher, resident

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc"),
]

CLIPS = int(os.environ.get("ROADLENS_CLIPS", "600"))
CONNECTS = int(os.environ.get("ROADLENS_CONNECTS", "500"))

READER = """
import os, sys, threading
from pathlib import Path
from pipeline.sources.resolve import resolve_source

def taken():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 10, len(os.listdir("/proc/self/fd")), threading.active_count(), \
        len(os.listdir("/proc/self/task"))

folder, clips = Path(sys.argv[1]), int(sys.argv[2])
before = None
for number in range(clips):
    source = resolve_source(str(folder / f"{number % 3}.mp4"), "a")
    info = source.open()
    frames = sum(1 for item in source if hasattr(item, "image"))
    assert frames == 4, frames
    source.close()
    if number == clips // 3:
        before = taken()
print(*before, *taken())
"""


def test_thousands_of_clips_in_one_process_leave_nothing_behind(tmp_path: Path) -> None:
    for number in range(3):
        write_clip(tmp_path / f"{number}.mp4", frames=4, size=(96, 64), audio=number == 1)
    done = subprocess.run(
        [sys.executable, "-c", READER, tmp_path, str(CLIPS)],
        cwd=ROOT, capture_output=True, text=True, timeout=1700, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kilobytes, files, threads, tasks, *after = map(int, done.stdout.split())
    assert after[1:] == [files, threads, tasks]
    assert after[0] - kilobytes < 20_000, f"{(after[0] - kilobytes) / (CLIPS * 2 / 3):.1f} kB a clip"


def come_and_go(endpoint: str, count: int, stop: threading.Event) -> None:
    """Connect, half of them properly, and vanish without a word."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    for number in range(count):
        if stop.is_set():
            return
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=60) as stranger:
            if number % 2:
                stranger.sendall(GREETING + READY + b"\x00\x01\x01")
                stranger.settimeout(0.05)
                stranger.recv(64)


def test_a_storm_of_subscribers_stops_nobody_and_leaves_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    with publisher("pub") as (process, endpoint), Subscriber(endpoint, timeout=60) as reader:
        for _ in range(20):
            reader.receive()
        before, files = resident(process.pid), descriptors(process.pid)
        storm = [threading.Thread(target=come_and_go, args=(endpoint, CONNECTS // 4, stop)) for _ in range(4)]
        for each in storm:
            each.start()
        got = 0
        while any(each.is_alive() for each in storm):
            reader.receive()
            got += 1
        assert got
        for _ in range(60):
            reader.receive()
        assert resident(process.pid) - before < 30 << 20
        assert descriptors(process.pid) - files < 20


def test_a_subscriber_that_never_reads_holds_nobody_up() -> None:
    with (
        publisher("pub") as (process, endpoint),
        zmq.Context() as context,
        context.socket(zmq.SUB) as stuck,
        Subscriber(endpoint, timeout=60) as reader,
    ):
        stuck.setsockopt(zmq.RCVHWM, 1)
        stuck.setsockopt(zmq.SUBSCRIBE, b"")
        stuck.connect(endpoint)
        reader.receive()
        before = resident(process.pid)
        for _ in range(150):
            reader.receive()
        assert resident(process.pid) - before < 30 << 20
