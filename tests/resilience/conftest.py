"""Small disks, and the models and the command of the pipeline's tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.pipeline.conftest import localizer, roadlens, segmenter

__all__ = ["localizer", "roadlens", "segmenter"]


class Disk:
    """A disk of its own, in memory.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        """Leave no byte free."""
        with suppress(OSError), (self.path / "ballast").open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self) -> None:
        """Give back what filled it."""
        (self.path / "ballast").unlink(missing_ok=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Disk]]:
    """Mounts disks of some megabytes, unmounted again at the end."""
    mounted: list[Path] = []

    def mount(megabytes: int, *options: str) -> Disk:
        path = tmp_path / f"disk-{len(mounted)}"
        path.mkdir()
        words = ",".join([f"size={megabytes}m", *options])
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("only root may mount a small disk")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", words, "tmpfs", path], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.decode().strip()}")
        mounted.append(path)
        return Disk(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", path], check=False)
