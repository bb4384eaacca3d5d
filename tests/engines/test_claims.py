"""Commands that read files and write others: none writes over what it reads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engines.claims import keep_apart
from engines.commands.models import app as models
from engines.errors import UsageError


def digests(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that commands read, with a link into it, and a file beside it."""
    (tmp_path / "in").mkdir()
    for name in ("in/a.png", "in/b.png", "model.onnx"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "link.png").symlink_to("in/a.png")
    (tmp_path / "hard.onnx").hardlink_to(tmp_path / "model.onnx")
    return tmp_path


@pytest.mark.parametrize("output", ["model.onnx", "in/../model.onnx", "hard.onnx", "in/b.png", "link.png"])
def test_no_spelling_of_an_input_is_taken_for_an_output(folder: Path, output: str) -> None:
    with pytest.raises(UsageError, match=r"is an input of this run|is a file of a folder that is read"):
        keep_apart([folder / output], [folder / "model.onnx", None, folder / "in"])
    with pytest.raises(UsageError, match="is the same file as the output"):
        keep_apart([folder / output, folder / output], [])


def test_what_is_new_or_of_others_may_be_written(folder: Path) -> None:
    (folder / "other.onnx").touch()
    keep_apart([folder / "in" / "new.png", None, folder / "other.onnx"], [folder / "model.onnx", folder / "in"])


@pytest.mark.parametrize("command", ["convert", "quantize"])
@pytest.mark.parametrize("output", ["model.onnx", "in/a.png"])
def test_a_model_is_not_written_over_what_it_is_made_of(folder: Path, command: str, output: str) -> None:
    before = digests(folder)
    result = run([command, folder / "model.onnx", "--frames", folder / "in", "-o", folder / output])
    assert isinstance(result, UsageError)
    assert digests(folder) == before


def run(words: Sequence[object]) -> BaseException | None:
    return CliRunner().invoke(models, [str(word) for word in words]).exception
