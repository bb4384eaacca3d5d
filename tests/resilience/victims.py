"""Work that is killed in its middle. `python -m tests.resilience.victims` imports everything once and then forks a
process for each line `JOB FOLDER MODEL` it reads; it prints the process' id, and later how it ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from engines.errors import UsageError
from engines.tensorrt.cache import PlanCache
from engines.tensorrt.plan import BuildOptions, Machine, PlanRequest
from pipeline.config import Config, ModelConfig, StreamConfig, VideoConfig
from pipeline.messages.headers import EndMessage
from pipeline.messages.mcap import Recorder
from pipeline.messages.wire import encode
from pipeline.session import Session

ROOT = Path(__file__).parents[2]
FRAMES = 75
DRIVE = f"synthetic:?seconds={FRAMES / 25:g}&width=160&height=96"
REQUEST = PlanRequest(
    model="drive", version="1", precision="fp16", graph="0" * 64, height=256, width=512,
    machine=Machine(tensorrt="11.4.0.106", gpu="NVIDIA H200", compute_capability="9.0", driver=13),
    options=BuildOptions(),
)  # fmt: skip
PLAN = b"plan" * 500_000


def configured(folder: Path, model: Path) -> Config:
    """A run that writes one file of each kind."""
    return Config(
        streams=(StreamConfig(DRIVE, "a"),), models=(ModelConfig(str(model)),),
        video=VideoConfig(path=folder / "o.mp4", encoder="libx264"), jsonl=str(folder / "o.jsonl"),
        mcap=folder / "o.mcap",
    )  # fmt: skip


def run(folder: Path, model: Path) -> None:
    """Run, or go on where one was killed."""
    config = configured(folder, model)
    try:
        session = Session(config, resume=True)
    except UsageError:  # nothing to go on with
        session = Session(config)
    with session:
        assert session.run(interval=0.01).error is None


def record(folder: Path, _model: Path) -> None:
    """Record numbered messages without end; how many were handed over by then stands in `flushed`."""
    with Recorder(folder / "o.mcap", views=False) as recorder:
        for number in range(1 << 30):
            end = EndMessage(stream="a", sequence=number, frames=number, dropped=0, reason="complete")
            recorder.write(*encode(end))
            if number % 200 == 199:
                recorder.flush()
                (folder / "flushed.tmp").write_text(str(number + 1))
                (folder / "flushed.tmp").replace(folder / "flushed")


def checkpoint(folder: Path, _model: Path) -> None:
    """Write checkpoints without end; the last that is there stands in `written`."""
    import torch

    from training.checkpoint import AtomicCheckpointIO

    writer = AtomicCheckpointIO()
    for step in range(1 << 30):
        writer.save_checkpoint({"step": step, "state_dict": {"w": torch.full((500_000,), step)}}, folder / "last.ckpt")
        (folder / "written.tmp").write_text(str(step))
        (folder / "written.tmp").replace(folder / "written")


def plans(folder: Path, _model: Path) -> None:
    """Build plans without end, as every process does that wants one: locked, looked for, stored."""
    cache = PlanCache(folder)
    while True:
        with cache.lock(REQUEST):
            cache.discard(REQUEST)
            cache.store(REQUEST, PLAN, 1.0)


JOBS: dict[str, Callable[[Path, Path], None]] = {
    "run": run, "record": record, "checkpoint": checkpoint, "plans": plans,
}  # fmt: skip


class Victims:
    """The process that forks them."""

    def __init__(self, *imports: str) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.resilience.victims", *imports],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, job: str, folder: Path, model: Path = Path("none")) -> int:
        """Begin a job; the process' id."""
        assert self._server.stdin is not None
        self._server.stdin.write(f"{job} {folder} {model}\n")
        self._server.stdin.flush()
        return self._next()

    def ended(self) -> int:
        """Wait for its end; its status."""
        return self._next()

    def _next(self) -> int:
        assert self._server.stdout is not None
        while not (line := self._server.stdout.readline()).startswith("victim "):
            assert line, "the victims' process has ended"
        return int(line.split()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.communicate()


def main() -> None:
    """Fork a process for each line."""
    for name in sys.argv[1:]:
        __import__(name)
    for line in sys.stdin:
        job, folder, model = line.split()
        pid = os.fork()
        if pid == 0:
            code = 1
            with suppress(KeyboardInterrupt):
                JOBS[job](Path(folder), Path(model))
                code = 0
            os._exit(code)
        print(f"victim {pid}", flush=True)
        _, status = os.waitpid(pid, 0)
        print(f"victim {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
