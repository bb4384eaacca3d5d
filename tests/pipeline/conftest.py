"""A real model and real footage for end-to-end tests of the pipeline."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from pipeline import cli
from tests.engines.tiny_models import LOCALIZER, SEGMENTER, bits_model, corners_model, save
from tests.footage import write_clip

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real ONNX model whose answer is arithmetic; see `tests.engines.tiny_models`."""
    return save(bits_model(), SEGMENTER, tmp_path_factory.mktemp("models") / "bits.onnx")


@pytest.fixture(scope="session")
def localizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(corners_model(), LOCALIZER, tmp_path_factory.mktemp("models") / "corners.onnx")


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty frames with sound and B-frames."""
    path = tmp_path_factory.mktemp("footage") / "drive.mp4"
    write_clip(path, frames=60, audio=True, bframes=2)
    return path


@pytest.fixture
def roadlens(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command in a folder of its own, as a user does."""

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *map(str, arguments)],
            capture_output=True, text=True, cwd=tmp_path, timeout=280,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}, check=False, **options,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def commands() -> Any:
    """The commands of `roadlens`, which typer takes 0.1 s to make."""
    cli._add_commands()
    return typer.main.get_command(cli.app)


@pytest.fixture
def roadlens_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], commands: Any
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """As `roadlens`, in this process, which has imported everything: for mistakes, which end before a run begins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(cli, "app", commands)
    # The handlers of other libraries, absl's among them, would close the files that pytest captures into.
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    loggers = [logging.getLogger(name) for name in (None, "pipeline", "engines")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["roadlens", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(sys.argv, int(end.value.code or 0), out, err)

    yield run
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
