"""Ctrl-C and SIGTERM while a camera is being connected, away, silent, or faster than the engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest

from pipeline.video_writer import partial_name
from tests.footage import write_clip
from tests.pipeline.cameras import TcpCamera, transport_stream

LONG = 120.0
ROOT = Path(__file__).parents[2]
STREAMED = 60


def until(condition: object, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():  # type: ignore[operator]
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
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "did not stop" not in said
    with av.open(str(tmp_path / "out.mp4")) as written:
        assert sum(1 for _ in written.decode(video=0)) == len((tmp_path / "out.jsonl").read_text().splitlines()) > 0
