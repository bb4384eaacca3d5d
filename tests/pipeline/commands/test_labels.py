"""`roadlens export-labels` as a user calls it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

from pipeline.archive.rows import FrameRow
from pipeline.archive.terms import terms_of
from pipeline.config import Config, ModelConfig
from tests.footage import write_clip
from tests.pipeline.archive.made_up import BEGUN, EVERY, RATE, clip, put
from tests.pipeline.commands.test_run import one_sentence

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def archive(tmp_path: Path, segmenter: Path) -> Path:
    """Of two clips, one of which is gone."""
    path = tmp_path / "a.mp4"
    write_clip(path, frames=61, fps=30, size=(320, 180))
    rows = [FrameRow(k * EVERY, k * EVERY / RATE, None, {"class 1": 0.1 * k}, {}) for k in range(5)]
    terms = terms_of(Config(models=(ModelConfig(str(segmenter), every=EVERY),)))
    put(tmp_path / "archive", [clip(1, BEGUN, rows, path=path), clip(2, BEGUN, rows)], terms)
    return tmp_path / "archive"


def test_what_was_exported_and_left_out_is_said(archive: Path, segmenter: Path, roadlens_here: Run) -> None:
    done = roadlens_here("export-labels", archive, "out", "--model", segmenter, "--device", "cpu", "--limit", 0)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "out: 3 pictures of 1 clip as coco, the hardest of 5 that were looked at, of 10"
    assert lines[1] == "left out: enough of their clip (--per-clip 3): 2; clips that cannot be read: 1"
    assert lines[2] == "  /card/2.mp4 is not there any more; put its card or disk back where it was"
    assert len(json.loads(Path("out/annotations/instances_default.json").read_text())["images"]) == 3


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("nowhere out", 3, "nowhere is no archive: it holds no archive.json"),
        ("archive out --format voc", 2, "'voc' is not one of"),
        ("archive out --limit -1", 2, "--limit"),
        ("archive out", 4, "made with bits ("),
        ("archive out --model bits --where 'class_78 > 1'", 2, "the nearest is class_7"),
        ("archive out --model bits --where class_1 --second nobody", 4, "There is no model `nobody`"),
        ("archive archive --model bits", 5, "archive is there, and not empty"),
        ("archive out --model bits --device tpu", 4, "tpu"),
    ],
)
def test_a_mistake_ends_in_one_sentence(
    archive: Path, segmenter: Path, roadlens_here: Run, line: str, code: int, says: str, tmp_path: Path
) -> None:
    words = [str(segmenter) if word == "bits" else word for word in shlex.split(line)]
    done = roadlens_here("export-labels", *words)
    if code == 2 and "--" in line and "--where" not in line:  # typer's own: the usage, and one sentence
        assert done.returncode == 2
        assert says in done.stderr
    else:
        assert says in one_sentence(done, code)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


@pytest.mark.seconds
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_leaves_nothing(archive: Path, segmenter: Path, tmp_path: Path, number: signal.Signals) -> None:
    line = [sys.executable, "-m", "pipeline.cli", "export-labels", "archive", "out", "--model", str(segmenter)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(line, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*.partial")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert b"Traceback" not in said
    assert [path.name for path in tmp_path.iterdir() if path.name == "out" or "partial" in path.name] == []


@pytest.mark.slow
def test_the_loop_from_clips_over_labels_to_a_model(tmp_path: Path, roadlens: Run) -> None:
    """Index, export, correct, train on it, and index with what came of it."""
    pytest.importorskip("lightning")
    for number in range(3):
        path = tmp_path / "card" / f"2023_0101_1{number}0000_000{number}F.MP4"
        path.parent.mkdir(exist_ok=True)
        write_clip(path, frames=61, fps=30, size=(320, 180), seed=number)
    on_cpu: list[Any] = ["--device", "cpu"]

    def done(*words: Any) -> str:
        run = roadlens(*words)
        assert run.returncode == 0, run.stderr
        return run.stderr + run.stdout

    done("archive", "card", "archive", "--processes", 1, *on_cpu)
    for form in ("cityscapes", "cvat"):
        done("export-labels", "archive", form, "--format", form, *on_cpu)
        small = ["steps=2", "batch=2", "height=64", "width=96"]
        done("train", "own", "--data", form, "-o", f"run-{form}", *small)
        model = tmp_path / f"run-{form}" / "own.onnx"
        assert model.is_file()
        done("archive", "card", f"again-{form}", "--processes", 1, "--model", model, *on_cpu)
    boxes = done("export-labels", "archive", "boxes", "--format", "coco", *on_cpu)
    assert "pictures of 3 clips as coco" in boxes
    archived = json.loads((tmp_path / "boxes" / "annotations" / "instances_default.json").read_text())
    assert any(each.get("score") for each in archived["annotations"])
