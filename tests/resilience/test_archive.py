"""An archive whose processes and machines are killed at random: each clip once, with the bytes of an undisturbed run.

`ROADLENS_CLIPS=300 ROADLENS_KILLS=20 pytest -n 0 -s tests/resilience/test_archive.py` is the long form; the gate takes
a few of each. It prints what a run took.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")
pytest.importorskip("duckdb", reason="the extra `archive` is not installed")

from pipeline.archive import read_archive
from pipeline.archive.journal import read_state
from tests.footage import write_clip
from tests.pipeline.archive.card import contents
from tests.pipeline.archive.ray_nodes import ENVIRONMENT, TwoNodes, below
from tests.pipeline.conftest import ROOT

pytestmark = pytest.mark.slow

CLIPS = int(os.environ.get("ROADLENS_CLIPS", "12"))
KILLS = int(os.environ.get("ROADLENS_KILLS", "4"))
POISON = {"2023_0101_090000_9000F.MP4": b"", "2023_0101_090100_9001R.MP4": b"no video at all" * 500}
CUT_OFF = "2023_0101_090200_9002F.MP4"
GROWTH = 1.15
"""Of the memory of a process, from the second quarter of a long run to the last."""


@dataclass
class Card:
    """What is indexed: its folder and how many frames each good clip has, by name."""

    folder: Path
    frames: dict[str, int] = field(default_factory=dict)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    """Clips of three cameras, with pauses, clocks that were never set, and three that nobody can read."""
    written = Card(tmp_path_factory.mktemp("card"))
    at = {camera: datetime(2023, 1, 1, 22, tzinfo=UTC) for camera in ("F", "R", "phone")}
    for number in range(CLIPS):
        camera = ("F", "R", "phone")[number % 3]
        at[camera] += timedelta(minutes=1 + 30 * (number % 20 == 19))
        begun = datetime(1980, 1, 1, 0, number % 60, tzinfo=UTC) if number % 17 == 5 else at[camera]
        if camera == "phone":
            path = written.folder / "phone" / f"clip_{number}.mp4"
        else:
            path = written.folder / "DCIM" / f"{begun:%Y_%m%d_%H%M%S}_{number:04d}{camera}.MP4"
        path.parent.mkdir(exist_ok=True)
        frames = 5 + number % 11
        size = (64 + 16 * (number % 4), 48 + 16 * (number % 3))
        write_clip(path, frames=frames, size=size, pictures=pictures(number, frames, size))
        os.utime(path, (1_700_000_000 + 60 * number,) * 2)
        written.frames[path.name] = frames
    for name, content in POISON.items():
        (written.folder / "DCIM" / name).write_bytes(content)
    (written.folder / "DCIM" / CUT_OFF).write_bytes(path.read_bytes()[:400])
    return written


def pictures(seed: int, frames: int, size: tuple[int, int]) -> Iterator[Any]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size[1] // 8, size[0] // 8 + frames, 3), np.uint8)
    for number in range(frames):
        yield coarse[:, number : number + size[0] // 8].repeat(8, 0).repeat(8, 1)


@dataclass
class Took:
    """What a command took, its restarts together."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    kills: list[str] = field(default_factory=list)
    memory: list[tuple[int, int]] = field(default_factory=list)


class Archiving:
    """`roadlens archive`, again and again until it comes to its end.

    Args:
        victims: the processes of which one is killed, given the command's own id.
    """

    def __init__(
        self, card: Card, archive: Path, model: Path, more: Sequence[str], victims: Callable[[int], dict[int, str]]
    ) -> None:
        self.archive, self._victims, self.took = archive, victims, Took()
        self._words = [
            *(sys.executable, "-m", "pipeline.cli", "archive", str(card.folder), str(archive)),
            *("--model", str(model), "--device", "cpu", "--every", "5", *more),
        ]

    @property
    def done(self) -> int:
        """How many clips are."""
        manifest = self.archive / "manifest.jsonl"
        return manifest.read_bytes().count(b'"step":"done"') if manifest.exists() else 0

    def run(self, kills: int = 0, at: Callable[[int], None] = lambda _done: None) -> str:
        """Run it; kill one of the victims each time that some more clips are done; what the last run said."""
        rng = random.Random(15)
        moments = sorted(rng.sample(range(1, max(CLIPS - 2, kills + 1)), kills))
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        while True:
            with subprocess.Popen(
                self._words, cwd=self.archive.parent, env={**os.environ, "PYTHONPATH": str(ROOT), **ENVIRONMENT},
                stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            ) as run:  # fmt: skip
                said = b""
                os.set_blocking(run.stderr.fileno(), False)  # type: ignore[union-attr]
                while run.poll() is None:
                    said += run.stderr.read() or b""  # type: ignore[union-attr]
                    done = self.done
                    at(done)
                    self.took.memory.append((done, sum(map(memory, [run.pid, *below(run.pid)]))))
                    if moments and done >= moments[0]:
                        moments.pop(0)
                        self._kill(rng, run.pid)
                    time.sleep(0.05)
                said += run.stderr.read() or b""  # type: ignore[union-attr]
            if run.returncode == 0 and not moments:
                break
            assert run.returncode in (0, -signal.SIGKILL), said.decode()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.took.seconds = time.monotonic() - began
        self.took.cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return said.decode()

    def _kill(self, rng: random.Random, run: int) -> None:
        victims = self._victims(run)
        if victims:
            pid = rng.choice(sorted(victims))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.took.kills.append(victims[pid])


def memory(pid: int) -> int:
    """Bytes of memory that a process has."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def family(run: int) -> dict[int, str]:
    """The command and all processes that it has started."""
    return {run: "run", **dict.fromkeys(below(run), "worker")}


def check(archive: Path, card: Card) -> None:
    """Each good clip once, whole; each other one named."""
    read = read_archive(archive)
    rows = {Path(row["path"]).name: row for row in read.clips.to_pylist()}
    assert len(read.clips) == len(rows) == len(card.frames)
    assert {name: row["frames"] for name, row in rows.items()} == card.frames
    assert {Path(path).name for path in read.missing} == {*POISON, CUT_OFF}
    counted = read.connection.execute("SELECT count(*), count(DISTINCT (clip, frame)) FROM frames").fetchall()
    assert counted == [(sum(-(-frames // 5) for frames in card.frames.values()),) * 2]
    assert not list((archive / "staging").iterdir())


def tell(name: str, took: Took) -> None:
    """Print the figures of a run."""
    quarters = [[size for done, size in took.memory if CLIPS * q <= 4 * done < CLIPS * (q + 1)] for q in (1, 3)]
    figures = {
        "clips": CLIPS, "seconds": round(took.seconds, 1), "cpu_seconds": round(took.cpu_seconds, 1),
        "killed": {kind: took.kills.count(kind) for kind in sorted(set(took.kills))},
        "megabytes": [round(max(each) / 1e6) if each else None for each in quarters],
    }  # fmt: skip
    print(f"\n{name}: {json.dumps(figures)}", flush=True)


@pytest.fixture(scope="module")
def undisturbed(card: Card, segmenter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = tmp_path_factory.mktemp("whole") / "archive"
    run = Archiving(card, archive, segmenter, ["--processes", "1"], family)
    said = run.run()
    assert said.count("set aside: ") == 3, said
    tell("one process, undisturbed", run.took)
    if CLIPS >= 100:  # of a few clips there is nothing to be seen
        second, last = (
            max(size for done, size in run.took.memory if CLIPS * q <= 4 * done < CLIPS * (q + 1)) for q in (1, 3)
        )
        assert last <= GROWTH * second
    check(archive, card)
    return archive


def test_a_second_run_does_nothing(card: Card, segmenter: Path, undisturbed: Path) -> None:
    before, manifest = contents(undisturbed), (undisturbed / "manifest.jsonl").read_bytes()
    run = Archiving(card, undisturbed, segmenter, [], family)
    said = run.run()
    assert f"0 of {CLIPS + 3} clips indexed, {CLIPS} were there, 3 set aside" in said
    assert (contents(undisturbed), (undisturbed / "manifest.jsonl").read_bytes()) == (before, manifest)
    tell("the second run", run.took)


@pytest.mark.parametrize("processes", ["1", "2"] if CLIPS >= 100 else ["2"])
def test_processes_are_killed(processes: str, card: Card, segmenter: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = Archiving(card, tmp_path / "archive", segmenter, ["--processes", processes], family)
    run.run(KILLS)
    tell(f"{processes} processes, killed at random", run.took)
    check(tmp_path / "archive", card)
    assert contents(tmp_path / "archive") == contents(undisturbed)


@pytest.fixture(scope="module")
def hidden(card: Card, segmenter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip and a model that the nodes of the cluster do not see."""
    folder = tmp_path_factory.mktemp("hidden")
    clip = next(card.folder.rglob("*0000F.MP4"))
    shutil.copy(clip, folder)
    shutil.copy(segmenter, folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def cluster(hidden: Path, localizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    pytest.importorskip("ray", reason="the extra `fleet` is not installed")
    other = tmp_path_factory.mktemp("other") / "model.onnx"
    shutil.copy(localizer, other)
    with TwoNodes(hidden, other) as nodes:
        yield nodes


def test_on_ray_processes_and_a_node_are_killed(
    card: Card, segmenter: Path, undisturbed: Path, tmp_path: Path, cluster: TwoNodes
) -> None:
    """Half of the kills first, then a whole node, then the other half."""

    def victims(run: int) -> dict[int, str]:
        actors = {pid: "actor" for pid in cluster.below() if name(pid).startswith("ray::Host")}
        return {run: "run", **actors, **{child: "worker" for pid in actors for child in below(pid)}}

    def pull_the_plug(done: int) -> None:
        if done >= CLIPS // 2 and not plug:
            plug.append(done)
            cluster.kill_second()

    plug: list[int] = []
    run = Archiving(card, tmp_path / "archive", segmenter, ["--ray", cluster.address], victims)
    run.run(KILLS, pull_the_plug)
    tell("on two nodes of Ray, killed at random, and one node", run.took)
    assert plug
    assert plug[0] < CLIPS
    check(tmp_path / "archive", card)
    assert contents(tmp_path / "archive") == contents(undisturbed)


@pytest.mark.parametrize(
    ("clips", "model", "code", "sentence"),
    [
        ("hidden", "seen", 3, "a machine of the cluster does not see what this one does: "),
        ("seen", "hidden", 4, "and the archive is made with bits ("),
    ],
)
def test_machines_that_do_not_see_the_same_are_refused(
    clips: str, model: str, code: int, sentence: str, card: Card, segmenter: Path, cluster: TwoNodes, hidden: Path,
    roadlens: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path,
) -> None:  # fmt: skip
    if not cluster.hides:
        pytest.skip("only root may hide a folder from a process")
    folder = hidden if clips == "hidden" else next(iter(card.folder.iterdir()))
    file = hidden / "model.onnx" if model == "hidden" else segmenter
    done = roadlens("archive", folder, "a", "--model", file, "--device", "cpu", "--ray", cluster.address)
    assert sentence in done.stderr, done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert read_state(tmp_path / "a").published == {}


def name(pid: int) -> str:
    """What a process calls itself."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
