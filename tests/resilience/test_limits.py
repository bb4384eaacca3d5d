"""A process that gets too little: descriptors, memory, time of a core, a steady clock, somebody who reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pipeline.session import Session
from tests.pipeline.conftest import ROOT, json_lines
from tests.resilience.victims import FRAMES, configured

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
SHORT = "synthetic:?seconds=1&width=160&height=96"
LEFT_BY_A_LIBRARY = {127, 134, 139}
"""How a process ends from within C++."""


def limited(limits: str, folder: Path, *arguments: object, last: str = "") -> subprocess.CompletedProcess[str]:
    words = " ".join(map(str, (sys.executable, "-m", "pipeline.cli", *arguments)))
    return subprocess.run(
        ["bash", "-c", f"{limits}; {words.replace('&', chr(92) + '&').replace('?', chr(92) + '?')} {last}"],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=1700, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("descriptors", [8, 24])
def test_too_few_descriptors_are_one_sentence(tmp_path: Path, segmenter: Path, descriptors: int) -> None:
    done = limited(
        f"ulimit -n {descriptors}", tmp_path, "run", SHORT, "--model", segmenter, "--jsonl", "a.jsonl", "-o", "a.mp4"
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in {0, 3, 4, 5}, done.stderr
    assert done.returncode == 0 or done.stderr.strip()


@pytest.mark.parametrize(
    ("command", "last"),
    [
        ("config schema", ">/dev/full"), ("--help", ">/dev/full"), ("config schema", ">&-"),
        (f"run {SHORT} --jsonl -", ">/dev/full"), (f"run {SHORT} --jsonl -", "| head -c 20"),
        ("config schema", "2>&- >/dev/full"),
    ],
)  # fmt: skip
def test_an_output_that_takes_nothing_is_one_sentence(tmp_path: Path, segmenter: Path, command: str, last: str) -> None:
    model = ["--model", str(segmenter)] if command.startswith("run") else []
    done = limited("set -o pipefail", tmp_path, *command.split(), *model, last=last)
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    assert done.returncode in {5, 141}, (done.returncode, done.stderr)


def test_a_clock_that_is_set_back_and_another_zone_change_no_frame(
    tmp_path: Path, segmenter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, began = time.time, time.time()
    monkeypatch.setattr(time, "time", lambda: began - (real() - began) * 3600)  # an hour back a second
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        with Session(configured(tmp_path, segmenter)) as session:
            assert session.run(interval=0.01).error is None
    finally:
        monkeypatch.undo()
        time.tzset()
    assert [row["frame"] for row in json_lines(tmp_path / "o.jsonl") if "frame" in row] == list(range(FRAMES))


@pytest.mark.parametrize("megabytes", [700, 1200])
def test_too_little_memory_is_one_sentence_and_costs_nothing(tmp_path: Path, segmenter: Path, megabytes: int) -> None:
    """At some it does not begin, at some a library is refused memory in the middle, at some it is enough: the machine
    says which.
    """
    run = ("run", SHORT, "--model", segmenter, "--jsonl", "a.jsonl", "-o", "a.mp4")
    done = limited(f"ulimit -c 0; ulimit -v {megabytes << 10}", tmp_path, *run)
    assert done.returncode in LEFT_BY_A_LIBRARY or "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0 or done.stderr.strip()
    if megabytes < 1024:
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.strip().splitlines()) == 1
        assert list(tmp_path.iterdir()) == []
        return
    began = any(path.name.startswith("a.partial") or path.name == "a.jsonl" for path in tmp_path.iterdir())
    again = limited(":", tmp_path, *run, *(["--resume"] if began else []))
    assert again.returncode == 0, again.stderr
    assert [row["frame"] for row in json_lines(tmp_path / "a.jsonl") if "frame" in row] == list(range(25))


@pytest.fixture
def confined(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs the command where the kernel kills whoever takes more megabytes of memory, as containers do."""
    group = Path("/sys/fs/cgroup/memory" if Path("/sys/fs/cgroup/memory").exists() else "/sys/fs/cgroup")
    group /= f"roadlens-{os.getpid()}"
    names = ("memory.limit_in_bytes", "memory.max")
    with suppress(OSError):
        group.mkdir()
    limit = next((group / name for name in names if (group / name).exists()), None)
    if limit is None or not os.access(group / "cgroup.procs", os.W_OK):
        with suppress(OSError):
            group.rmdir()
        pytest.skip("only root, with a cgroup of its own, may limit the memory of a group")

    def run(megabytes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
        limit.write_text(str(megabytes << 20))
        return limited(f"echo $$ > {group}/cgroup.procs", tmp_path, *arguments)

    yield run
    group.rmdir()


def test_a_run_that_the_kernel_kills_for_its_memory_is_gone_on_with(
    tmp_path: Path, segmenter: Path, confined: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    source = "synthetic:?seconds=1&width=1280&height=720"
    run = ("run", source, "--model", segmenter, "--jsonl", "a.jsonl", "-o", "a.mp4")
    assert confined(220, *run).returncode in {0, 128 + signal.SIGKILL, -signal.SIGKILL}
    began = any(path.name.startswith("a.") for path in tmp_path.iterdir())
    again = limited(":", tmp_path, *run, *(["--resume"] if began else []))
    assert again.returncode == 0, again.stderr
    assert [row["frame"] for row in json_lines(tmp_path / "a.jsonl") if "frame" in row] == list(range(25))


@contextmanager
def neighbours() -> Iterator[None]:
    """One for each core, which wants all of it."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait()


def test_without_a_core_a_file_loses_nothing_and_a_camera_counts_what_it_drops(tmp_path: Path, segmenter: Path) -> None:
    """Once it has begun, it is stopped for three quarters of the time, and shares what is left."""
    drive = "synthetic:?seconds=1&width=160&height=96"
    streams = [{"source": drive, "id": "file"}, {"source": f"{drive}&seed=2", "id": "camera", "realtime": True}]
    models = [{"model": str(segmenter)}]
    (tmp_path / "out").mkdir()
    outputs = {"jsonl": "out", "summary": "summary.json", "video": {"path": "out"}}
    (tmp_path / "a.yaml").write_text(json.dumps({"streams": streams, "models": models, **outputs}))
    words = [sys.executable, "-m", "pipeline.cli", "run", "--config", "a.yaml"]
    with subprocess.Popen(words, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(tmp_path.rglob("*.partial.*")):
            time.sleep(0.01)
        with neighbours():
            while process.poll() is None:
                process.send_signal(signal.SIGSTOP)
                time.sleep(0.15)
                process.send_signal(signal.SIGCONT)
                time.sleep(0.05)
        assert process.stderr is not None
        assert process.returncode == 0, process.stderr.read()
    ended = {each["stream"]: each for each in json.loads((tmp_path / "summary.json").read_text())["streams"]}
    for stream in ended.values():
        assert (stream["ended"], stream["frames_in"]) == ("complete", 25)
        assert stream["frames_in"] == stream["frames_out"] + sum(stream["frames_dropped"].values())
        rows = [row for row in json_lines(tmp_path / "out" / f"{stream['stream']}.jsonl") if "frame" in row]
        assert len(rows) == stream["frames_out"]
    assert ended["file"]["frames_out"] == 25
