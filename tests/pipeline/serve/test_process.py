"""`roadlens serve` as a process: what it refuses, and that a signal ends it in any state."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

ROOT = Path(__file__).parents[3]
LONG = 90.0
Roadlens = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def serving(folder: Path, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address, as soon as it says that."""
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--port", "0", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment)
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+/", process.stderr.readline())
        assert found is not None
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


def until_ready(url: str) -> None:
    deadline = time.monotonic() + LONG
    while httpx.get(f"{url}readyz", timeout=30).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "0.0.0.0 is open to other machines: give --token-file FILE"),
        (["--token-file", "nowhere"], 2, "the token file nowhere cannot be read"),
        (["--host", "203.0.113.7", "--token-file", "token"], 5, "is no address to listen on"),
        (["--port", "70000"], 2, "65535"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    roadlens: Roadlens, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    (tmp_path / "token").write_text("0123456789abcdef0123")
    done = roadlens("serve", *arguments)
    assert done.returncode == code, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.seconds
def test_a_model_that_is_not_there_ends_the_server_with_its_sentence(roadlens: Roadlens) -> None:
    done = roadlens("serve", "--port", "0", "--model", "nowhere.onnx")
    assert done.returncode == 4, done.stderr
    assert "nowhere.onnx" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("when", ["loading", "idle", "streaming", "watched", "backing off"])
def test_a_signal_ends_it_within_five_seconds(
    tmp_path: Path, segmenter: Path, when: str, number: signal.Signals
) -> None:
    with serving(tmp_path, "--model", segmenter, "-o", "out/") as (process, url):
        if when != "loading":
            until_ready(url)
        if when == "backing off":
            body = {"source": "rtsp://127.0.0.1:9/", "live": {"reconnect": {"at_start": "wait"}}}
            assert httpx.post(f"{url}api/v1/streams", json=body, timeout=30).status_code == 201
        elif when in {"streaming", "watched"}:
            body = {"source": "synthetic:?seconds=600&width=320&height=180", "id": "a"}
            assert httpx.post(f"{url}api/v1/streams", json=body, timeout=30).status_code == 201
        if when == "watched":
            with httpx.stream("GET", f"{url}api/v1/streams/a/view.mjpeg", timeout=60) as answer:
                next(answer.iter_bytes())
                began = stop(process, number)
        else:
            began = stop(process, number)
        taken = time.monotonic() - began
    assert process.returncode == 0
    # 5 s are promised; an overloaded machine adds the interpreter's own end to them.
    assert taken < 5 + 5
    if when in {"streaming", "watched"}:
        assert (tmp_path / "out" / "a.mp4").exists(), "its file got its final name"


def stop(process: subprocess.Popen[str], number: signal.Signals) -> float:
    began = time.monotonic()
    process.send_signal(number)
    process.wait(30)
    return began
