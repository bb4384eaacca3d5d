"""A command whose libraries are not installed says which extra they are of, and ends."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.commands.extras import missing_extra
from tests.pipeline.conftest import ROOT

Run = Callable[..., "subprocess.CompletedProcess[str]"]

SYNTHETIC = "synthetic:?seconds=1&width=160&height=96"
COMMANDS: list[tuple[str, tuple[str, ...], str]] = [
    ("serve", ("fastapi", "uvicorn", "websockets"), "serve --port 0"),
    ("mcap", ("mcap",), f"run {SYNTHETIC} --mcap x.mcap"),
    ("mcap", ("mcap",), "mcap record tcp://127.0.0.1:1 -o x.mcap"),
    ("mcap", ("mcap",), "mcap replay empty --pub tcp://127.0.0.1:*"),
    ("mcap", ("mcap",), "mcap recover empty -o x.mcap"),
    ("quantize", ("nncf", "onnxruntime"), "models quantize lead-vehicle --frames empty"),
    ("gpu", ("torch",), "models convert lead-vehicle --frames empty"),
    ("gpu", ("tensorrt",), "engines build lead-vehicle"),
    ("train", ("torch", "lightning", "onnxscript", "torchvision", "tensorboard"), "train cityscapes-unet --data x"),
    ("train", ("torch", "lightning"), "eval x.ckpt --data x"),
    ("train", ("torch", "onnxscript"), "export x.ckpt -o x.onnx"),
    ("train", ("jinja2",), "report lead-vehicle --data x"),
    ("train", ("captum",), "explain -m vgg16 empty"),
    ("train", ("captum", "torchmetrics"), "explain-eval -m vgg16 --data x"),
    ("train", ("kagglehub",), "data fetch cityscapes-pairs x"),
    ("train", ("torchvision",), "data fetch mnist x"),
]
"""Extra, its libraries of which one is missing, and a command that needs each of them."""

_WITHOUT = "import sys; sys.modules[{0!r}] = None; sys.argv = {1!r}; from pipeline import cli; cli.main()"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "library", "line"),
    [(extra, library, line) for extra, libraries, line in COMMANDS for library in libraries],
)
def test_a_missing_library_is_one_sentence_with_its_extra(tmp_path: Path, extra: str, library: str, line: str) -> None:
    (tmp_path / "empty").touch()
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT.format(library, ["roadlens", *line.split()])],
        capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode in {2, 4}
    assert "Traceback" not in done.stderr
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("roadlens: "))
    assert f"pip install '.[{extra}]'" in said
    assert not (tmp_path / "x.mcap").exists()


def test_every_library_of_an_extra_is_known_to_be_of_it() -> None:
    """But for those that only check and test, and what a command names by itself."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in ("serve", "mcap", "quantize", "train", "gpu"):
        for requirement in table[extra]:
            module = requirement.partition(">")[0].replace("-bindings", "")
            sentence = missing_extra(f"{module}.inner", extra)
            assert sentence is not None, requirement
            assert f"'.[{extra}]'" in sentence
    assert missing_extra("torch", "train") != missing_extra("torch", "gpu")


@pytest.mark.parametrize("module", [None, "", "numpy", "nowhere", "pipeline.serve"])
def test_what_is_of_no_extra_is_no_user_mistake(module: str | None) -> None:
    assert missing_extra(module) is None
