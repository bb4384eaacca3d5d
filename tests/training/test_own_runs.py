"""From a folder of one's own pictures to overlaid video by three commands, in several layouts."""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path

import av
import pytest
import typer
from typer.testing import CliRunner, Result

from engines.spec import read_spec
from pipeline import cli
from tests.training import own_folders
from tests.training.own_folders import LAYOUTS, Scene, drive

SMALL = ["height=96", "width=160", "batch=4", "report_every=10", "optimizer.warmup_steps=5"]


@cache
def commands() -> typer.Typer:
    """`roadlens` with all its commands."""
    cli._add_commands()
    return cli.app


def call(*words: object) -> Result:
    """Run a command; what it raises is raised."""
    return CliRunner().invoke(commands(), [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def road_set() -> list[Scene]:
    """40 pictures of five drives."""
    return drive(5, 8, 192, 128)


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_three_commands_from_a_folder_to_overlaid_video(layout: str, tmp_path: Path, road_set: list[Scene]) -> None:
    data, run, video = tmp_path / "set", tmp_path / "run", tmp_path / "out.mp4"
    data.mkdir()
    LAYOUTS[layout](data, road_set)
    began = time.process_time()
    assert call("data", "check", data).exit_code == 0
    trained = call("train", "own", "--data", data, "-o", run, "steps=24", *SMALL)
    assert trained.exit_code == 0, trained.output
    footage = "synthetic:?width=192&height=128&seconds=1&seed=9"
    assert call("run", footage, "--model", run / "own.onnx", "-o", video).exit_code == 0
    print(f"{layout}: {time.process_time() - began:.0f} s of CPU")
    found = json.loads((run / "evaluation.json").read_text())
    assert found["pictures"] == 8
    assert found["figures"]["mean_iou"]["value"] >= 0.9
    assert (run / "report.html").stat().st_size > 10_000
    spec = read_spec(run / "own.onnx")
    assert {info.name for info in spec.classes} == set(own_folders.CLASSES)
    assert spec.metrics[0].name == "mean_iou"
    assert "pictures are too few to tell how new others are to the model" in trained.output
    assert spec.familiar is None
    assert "goes on from cityscapes-road-users" in spec.licence
    assert frames_in(video) == 25


@pytest.mark.slow
def test_boxes_by_the_same_commands(tmp_path: Path) -> None:
    data, run, lines = tmp_path / "set", tmp_path / "run", tmp_path / "out.jsonl"
    data.mkdir()
    own_folders.write_yolo(data, drive(5, 8, 288, 192), "trip4")
    trained = call("train", "own-boxes", "--data", data, "-o", run, "steps=60", *SMALL, "height=128", "width=192")
    assert trained.exit_code == 0, trained.output
    footage = "synthetic:?width=288&height=192&seconds=1&seed=9"
    assert call("run", footage, "--model", run / "own-boxes.onnx", "--jsonl", lines).exit_code == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert found["details"]["ap/car"] > 0.5
    seen = [box["label"] for line in lines.read_text().splitlines() for box in json.loads(line)["boxes"]]
    assert "car" in seen
    assert set(seen) <= {"car", "person"}


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_any_model_is_scored(tmp_path: Path) -> None:
    own_folders.write_ids(tmp_path, drive(2, 3))
    run = tmp_path / "run"
    words = ["train", "own", "--data", tmp_path, "-o", run, "steps=4", "batch=2", "height=64", "width=96"]
    assert call(*words).exit_code == 0
    (run / "own.onnx").unlink()
    again = call(*words, "--resume")
    assert again.exit_code == 0, again.output
    assert (run / "own.onnx").exists()
    scored = call("eval", "cityscapes-unet", "--data", tmp_path, "--json")
    assert scored.exit_code == 0, scored.output
    found = json.loads(scored.stdout[scored.stdout.index("{") :])
    assert found["details"]["iou/road"] > 0.3
    assert "other ignored" in found["protocol"]
    assert call("eval", run / "last.ckpt", "--data", tmp_path, "--split", "train").exit_code == 0
    page = tmp_path / "report.html"
    done = call("report", "cityscapes-unet", run / "own.onnx", "--data", tmp_path, "-o", page, "--seconds", "0.1")
    assert done.exit_code == 0, done.output
    assert "Own classes" in page.read_text()
