"""Ctrl-C and SIGTERM in every state of a run: something is being opened or built, a camera is being connected, away,
silent, or faster than the engine, an output hangs. `roadlens serve` has a table of its own in `serve/test_process.py`.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import av
import pytest

from pipeline.commands.console import FINISH_SECONDS
from pipeline.files import partial_name
from tests.footage import write_clip
from tests.pipeline.cameras import TcpCamera, transport_stream

LONG = 120.0
ROOT = Path(__file__).parents[4]
STREAMED = 60


def until(condition: object, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("state", ["connecting", "backing_off", "stalled", "overload"])
def test_a_signal_ends_the_run_and_its_files_play(
    state: str, number: signal.Signals, segmenter: Path, tmp_path: Path
) -> None:
    write_clip(tmp_path / "clip.mp4", frames=50, size=(160, 96), gop=10)
    sent, released = [], []

    def behave(connection: int, piece: int) -> bool:
        if connection == 0 and (piece < STREAMED or state == "overload"):
            return True
        sent.append(connection)
        if connection == 0 and state in {"connecting", "backing_off"}:
            return False
        while not released:  # silent, and the connection stays open
            time.sleep(0.05)
        return False

    rate = 0 if state == "overload" else 25
    with TcpCamera(transport_stream(tmp_path / "clip.mp4"), rate, behave, repeat=True) as camera:
        timeout = 0.5 if state == "stalled" else 60
        (tmp_path / "run.yaml").write_text(
            f"streams: [{{source: '{camera.url}', id: cam, live: {{latency_bound: 3600, read_timeout: {timeout}, "
            f"open_timeout: 60, reconnect: {{first: {30 if state == 'backing_off' else 0.05}, longest: 30}}}}}}]\n"
            f"models: [{{model: {segmenter}}}]\nvideo: {{path: out.mp4}}\njsonl: out.jsonl\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "run", "--config", "run.yaml"], cwd=tmp_path, text=True,
            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        lines = partial_name(tmp_path / "out.jsonl")
        try:
            until(lambda: lines.exists() and lines.stat().st_size > 0, process)
            if state != "overload":
                until(lambda: len(sent) > (state == "connecting"), process)
            began = time.monotonic()
            process.send_signal(number)
            _, said = process.communicate(timeout=LONG)
            print(f"{state}, {number.name}: {time.monotonic() - began:.2f} s")
        finally:
            released.append(True)
            process.kill()
            process.wait()
            taken = time.monotonic() - began
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "did not stop" not in said
    (video,), (lines,) = tmp_path.glob("out*.mp4"), tmp_path.glob("out*.jsonl")
    with av.open(str(video)) as written:
        frames = sum(1 for _ in written.decode(video=0))
    assert frames > 0
    if taken < FINISH_SECONDS:  # a machine that is too busy gets files that play, at their partial names
        assert (video.name, lines.name) == ("out.mp4", "out.jsonl")
        assert frames == len(lines.read_text().splitlines())


class Silent:
    """Takes connections and says nothing."""

    def __init__(self) -> None:
        self.taken: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                self.taken.append(self._listening.accept()[0])

    def close(self) -> None:
        self._listening.close()
        for connection in self.taken:
            connection.close()


def waiting_in(pipe: IO[str] | None) -> int:
    """Bytes in a pipe that nobody has read."""
    assert pipe is not None
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def no_longer_filled(filled: Callable[[], int]) -> Callable[[], bool]:
    """Whether a pipe holds something, and the same as each time since `until` asked 20 times ago."""
    seen: deque[int] = deque(maxlen=20)

    def same() -> bool:
        seen.append(filled())
        return len(seen) == seen.maxlen and min(seen) == max(seen) > 0

    return same


BUILDING = """
import ctypes, sys
import engines
def load(*_args, **_options):
    print("building", file=sys.stderr, flush=True)
    ctypes.CDLL(None).sleep(600)  # native code that hears of nothing, as TensorRT's builder
engines.load = load
from pipeline.cli import main
main()
"""
DRIVE = "synthetic:?seconds=600&width=160&height=96"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "state", ["opening", "waiting", "building", "reader is stuck", "nobody reads", "peers are stuck"]
)
def test_a_signal_ends_what_hangs(state: str, number: signal.Signals, segmenter: Path, tmp_path: Path) -> None:
    """Where nothing is written yet, or an output can never be finished; files that were begun play."""
    silent = Silent()
    nowhere = f"tcp://127.0.0.1:{silent.port}"
    live = "{open_timeout: 60, reconnect: {at_start: wait, first: 60, longest: 60, jitter: 0}}"
    source = {"opening": nowhere, "waiting": "tcp://127.0.0.1:9"}.get(state, DRIVE)
    lines = ["video: {path: out.mp4}", f"models: [{{model: {segmenter}}}]"]
    lines.append(f"streams: [{{source: '{source}', id: cam, live: {live}}}]")
    if state == "reader is stuck":
        lines.append("jsonl: '-'")
    elif state == "nobody reads":
        lines.append("publish: [{bind: 'tcp://127.0.0.1:0', pattern: push}]")
    elif state == "peers are stuck":
        pushes = ", ".join(f"{{address: '{scheme}://127.0.0.1:{silent.port}/a'}}" for scheme in ("rtsp", "rtmp"))
        lines.append(f"outputs: {{restream: [{pushes}], hls: {{folder: hls}}, record: {{folder: rec}}}}")
    (tmp_path / "run.yaml").write_text("\n".join(lines))
    begin = ["-c", BUILDING] if state == "building" else ["-m", "pipeline.cli"]
    process = subprocess.Popen(
        [sys.executable, *begin, "run", "--config", "run.yaml"], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
        stderr=(tmp_path / "said").open("w"), env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    reached: dict[str, Callable[[], bool]] = {
        "opening": lambda: bool(silent.taken),
        "waiting": lambda: "refused" in (tmp_path / "said").read_text(),
        "building": lambda: "building" in (tmp_path / "said").read_text(),
        "reader is stuck": no_longer_filled(lambda: waiting_in(process.stdout)),
        "nobody reads": lambda: "waits for a reader" in (tmp_path / "said").read_text(),
        "peers are stuck": lambda: len(silent.taken) >= 2 and any((tmp_path / "rec").rglob("*.mp4")),
    }
    try:
        until(reached[state], process)
        began = time.monotonic()
        process.send_signal(number)
        process.wait(timeout=LONG)
        taken = time.monotonic() - began
    finally:
        process.kill()
        process.communicate()
        silent.close()
    print(f"{state}, {number.name}: {taken:.2f} s")
    said = (tmp_path / "said").read_text()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert taken < 5 + 5, "5 s are promised; an overloaded machine may take longer to end an interpreter"
    for video in tmp_path.rglob("*.mp4"):
        if video.name.endswith("init.mp4") or not video.stat().st_size:
            continue
        with av.open(str(video)) as written:
            assert sum(1 for _ in written.decode(video=0)) > 0, video


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "serve"])
def test_a_signal_ends_it_though_nobody_reads_what_it_says(command: str, segmenter: Path, tmp_path: Path) -> None:
    """As behind `2>&1 | less`, whose page is full."""
    (tmp_path / "run.yaml").write_text(
        f"streams: [{{source: '{DRIVE}', id: cam}}]\nmodels: [{{model: {segmenter}}}]\n"
        f"jsonl: {'out.jsonl' if command == 'run' else 'out'}\nserve: {{port: 0}}\n"
    )
    said, says = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", command, "--config", "run.yaml"], cwd=tmp_path, text=True, stderr=says,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        until(lambda: any(path.stat().st_size for path in tmp_path.rglob("*.jsonl")), process)
        free = select.poll()
        free.register(says, select.POLLOUT)
        while free.poll(0):
            os.write(says, bytes(select.PIPE_BUF))
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        taken = time.monotonic() - began
    finally:
        process.kill()
        process.wait()
        os.close(said)
        os.close(says)
    assert process.returncode == {"run": 130, "serve": 0}[command]
    assert taken < 5 + 5, "5 s are promised; an overloaded machine may take longer to end an interpreter"
