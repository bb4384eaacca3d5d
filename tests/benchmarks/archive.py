"""What an archive costs: indexing beside `analyse` over the same frames, and counts over a million rows.

    python -m tests.benchmarks.archive [--clips 12] [--seconds 20] [--rounds 2] [--rows 1000000] [--no-ray]

`analyse`, `archive` with one process and `archive --ray` on one core run in processes of their own, in turn, over the
same generated clips. CPU seconds are those of all their processes, the start of Python and the loading of the model
included; of Ray those of its actors, and beside them what the rest of its cluster took, which runs anyway.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.archive.columns import PART, TABLES, folder_of, schemas
from pipeline.archive.reading import Archive
from pipeline.archive.terms import ModelTerms, Terms, write_terms
from pipeline.scene.drive import SyntheticScene
from tests.footage import write_clip
from tests.pipeline.archive.ray_nodes import ENVIRONMENT, TwoNodes

_ANALYSE = """
import sys, roadlens
models = (roadlens.ModelConfig("cityscapes-road-users", every=15),)
config = roadlens.Config(models=models, streams=(roadlens.StreamConfig(sys.argv[1]),))
looked = sum(bool(analysis.models) for analysis in roadlens.analyse(config=config))
print(looked)
"""


def cpu_seconds(command: list[str]) -> float:
    """What a command and all its processes take."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT})
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Clock:
    """CPU seconds of all processes below some, by whether they are actors or theirs; looked at all the time, for what
    has ended is nowhere to be found.
    """

    def __init__(self, below: Callable[[], list[int]]) -> None:
        self._below, self._over = below, threading.Event()
        self._spent: dict[tuple[int, int], tuple[bool, float]] = {}
        self._look()
        self._before = dict(self._spent)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.2):
            self._look()

    def _look(self) -> None:
        for pid in self._below():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                name = Path(f"/proc/{pid}/cmdline").read_text()
                seconds = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
                acting = name.startswith("ray::Host") or "pipeline.archive.crew.worker" in name
                key = pid, int(words[19])
                self._spent[key] = acting or self._spent.get(key, (False, 0.0))[0], seconds

    def stop(self) -> tuple[float, float]:
        """Seconds of actors and their processes, and of all others."""
        self._look()
        self._over.set()
        self._thread.join()
        sums = [0.0, 0.0]
        for key, (acting, seconds) in self._spent.items():
            sums[not acting] += seconds - self._before.get(key, (False, 0.0))[1]
        return sums[0], sums[1]


def write_card(card: Path, clips: int, seconds: int) -> None:
    """Clips of the synthetic drive, of which two seconds repeat; each differs from the others in its last bytes."""
    card.mkdir()
    scene = SyntheticScene(1280, 720, Fraction(30), seed=1)
    pictures = [scene.picture(number) for number in range(60)]
    write_clip(
        card / "one.mp4", frames=seconds * 30, size=(1280, 720), fps=30, pictures=itertools.cycle(pictures), gop=30
    )
    for number in range(clips):
        free = b"free" + number.to_bytes(4)
        content = (card / "one.mp4").read_bytes() + (len(free) + 4).to_bytes(4) + free
        (card / f"2026_1129_12{number:02d}00_{number:04d}F.MP4").write_bytes(content)
    (card / "one.mp4").unlink()


def indexing(folder: Path, clips: int, seconds: int, rounds: int, cluster: TwoNodes | None) -> None:
    """All sides, in turn."""
    card = folder / "card"
    write_card(card, clips, seconds)
    took: dict[str, list[float]] = {"analyse": [], "archive": [], "archive --ray": []}
    for number in range(rounds):
        archiving = [sys.executable, "-m", "pipeline.cli", "archive", str(card)]
        took["analyse"].append(cpu_seconds([sys.executable, "-c", _ANALYSE, str(card)]))
        took["archive"].append(cpu_seconds([*archiving, str(folder / f"archive-{number}"), "--processes", "1"]))
        began = time.perf_counter()
        again = cpu_seconds([*archiving, str(folder / f"archive-{number}")])
        print(f"the second run, which does nothing: {again:.2f} CPU seconds, {time.perf_counter() - began:.2f} s")
        if cluster is not None:
            clock = Clock(cluster.below)
            words = [*archiving, str(folder / f"ray-{number}"), "--processes", "1", "--ray", cluster.address]
            run = cpu_seconds(words)
            actors, others = clock.stop()
            print(f"archive --ray: the command {run:.1f}, actors {actors:.1f}, the rest of the cluster {others:.1f}")
            took["archive --ray"].append(run + actors)
    for name, each in took.items():
        if each:
            print(f"{name}: {statistics.median(each):.1f} CPU seconds ({', '.join(f'{one:.1f}' for one in each)})")
    for name in ("archive", "archive --ray"):
        ratios = [one / other for one, other in zip(took[name], took["analyse"], strict=False)]
        if ratios:
            print(f"{name} / analyse: {statistics.median(ratios):.3f} ({', '.join(f'{one:.3f}' for one in ratios)})")


def counting(folder: Path, rows: int, days: int = 10) -> None:
    """Counts over rows that were made up, of two cameras on some days."""
    archive = folder / "million"
    archive.mkdir()
    terms = Terms((ModelTerms("made-up", "00", "auto", 15, ("road", "sky"), ("car", "person")),), {})
    write_terms(archive, terms)
    columns = schemas(terms)
    rng, number = np.random.default_rng(1), rows // (days * 2)
    for day in range(days):
        begun = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=day)
        for camera in ("front", "rear"):
            times = np.arange(number) * 500_000 + int(begun.timestamp() * 1e6)
            clips = np.char.add(f"{day}{camera[0]}", (np.arange(number) // 120).astype(str))
            values = {
                "clip": clips, "frame": (np.arange(number) % 120 * 15).astype("int32"), "time": times,
                "seconds": np.arange(number) % 120 / 2, "area_road": rng.random(number).round(4),
                "area_sky": rng.random(number).round(4), "count_car": rng.integers(0, 9, number).astype("int16"),
                "count_person": rng.integers(0, 2, number).astype("int16"),
            }  # fmt: skip
            first = {
                kind.name: pa.array(values[kind.name], kind.type)
                if kind.name in values
                else pa.nulls(number, kind.type)
                for kind in columns["frames"]
            }
            for name in TABLES:
                table = pa.table(first) if name == "frames" else columns[name].empty_table()
                path = archive / name / folder_of(f"{begun:%Y-%m-%d}", camera) / PART
                path.parent.mkdir(parents=True)
                pq.write_table(table, path, compression="zstd")
    read = Archive(archive)
    for query in (
        "SELECT count(*) FROM frames",
        "SELECT day, camera, count(*) FROM frames WHERE count_car >= 4 AND area_road > 0.3 GROUP BY day, camera",
    ):
        began = time.perf_counter()
        found = read.connection.execute(query).fetchall()
        print(f"{rows} rows, {time.perf_counter() - began:.3f} s: {query} ({len(found)} rows)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--no-ray", action="store_true")
    given = parser.parse_args()
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="roadlens-archive-") as name:
        counting(Path(name), given.rows)
        cluster = None if given.no_ray else stack.enter_context(TwoNodes())
        indexing(Path(name), given.clips, given.seconds, given.rounds, cluster)


if __name__ == "__main__":
    main()
