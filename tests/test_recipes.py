"""The recipes of CONTRIBUTING.md, followed to the letter: one new file each, and an entry where the recipe says so."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from tests.engines.tiny_models import SEGMENTER, bits_model, save
from tests.footage import write_clip

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
RECIPES = {
    title: re.findall(r"^```(python|diff) (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for title, text in re.findall(r"^### (Add [^\n]+)\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
}
Run = Callable[..., str]


def test_there_are_six_of_fifteen_lines_and_one_new_file() -> None:
    things = ["a source", "an output", "a per-frame analysis", "a config key", "a model family", "a task"]
    assert list(RECIPES) == [f"Add {thing}" for thing in things]
    for title, blocks in RECIPES.items():
        assert [kind for kind, _, _ in blocks] in (["python"], ["python", "diff"]), title
        code = [line for line in blocks[0][2].splitlines()[1:] if line.strip()]
        assert len(code) <= 15, title
        assert not (ROOT / blocks[0][1]).exists(), "it is a new file"


def follow(title: str, tree: Path) -> None:
    """Write the recipe's file below `tree`, and its entry into the file that it changes."""
    for kind, name, text in RECIPES[title]:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "python":
            path.write_text(text)
            continue
        lines, place = path.read_text().splitlines(), -1
        for line in text.splitlines():
            if line.startswith("+"):
                place += 1
                lines.insert(place, line[1:])
            else:
                place = lines.index(line[1:])
        path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages, to be added to."""
    tree = tmp_path / "tree"
    for package in ("engines", "pipeline"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__", "*.bin"))
    return tree


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs Python in a folder of its own, with the given folders ahead on its path; what it printed."""

    def run(*words: object, path: Path) -> str:
        environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}{os.pathsep}{ROOT / 'pipeline/face'}"}
        done = subprocess.run(
            [sys.executable, *map(str, words)], capture_output=True, text=True, cwd=tmp_path, env=environment,
            check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(bits_model(), SEGMENTER, tmp_path / "bits.onnx")


def notes(path: Path) -> list[dict[str, object]]:
    return [json.loads(line)["notes"] for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_source(tree: Path, run: Run, model: Path, tmp_path: Path) -> None:
    follow("Add a source", tree)
    (tmp_path / "trip").mkdir()
    for name, frames, age in (("old", 9, 100), ("new", 5, 200)):
        write_clip(tmp_path / "trip" / f"{name}.mp4", frames=frames)
        os.utime(tmp_path / "trip" / f"{name}.mp4", (age, age))
    run("-m", "pipeline.cli", "run", "newest:trip", "--model", model, "--jsonl", "n.jsonl", path=tree)
    assert len((tmp_path / "n.jsonl").read_text().splitlines()) == 5


@pytest.mark.slow
def test_an_output(run: Run, model: Path, tmp_path: Path) -> None:
    follow("Add an output", tmp_path)
    write_clip(tmp_path / "drive.mp4", frames=5)
    code = (
        "import roadlens; from boxtable import BoxTable\n"
        f"found = roadlens.analyse('drive.mp4', model={str(model)!r}, sinks=[BoxTable('boxes.csv')])\n"
        "print(sum(len(analysis.boxes) for analysis in found))"
    )
    boxes = int(run("-c", code, path=tmp_path))
    with (tmp_path / "boxes.csv").open() as file:
        rows = list(csv.reader(file))
    assert len(rows) == boxes
    assert all(len(row) == 7 for row in rows)


def corner(path: Path) -> np.ndarray:
    """Where the overlay writes its notes in the first picture: (40, 200) grey."""
    with av.open(path) as container:
        picture = next(container.decode(video=0))
    return picture.to_ndarray(format="gray")[:40, :200].astype(int)


@pytest.mark.slow
def test_a_per_frame_analysis(run: Run, model: Path, tmp_path: Path) -> None:
    follow("Add a per-frame analysis", tmp_path)
    write_clip(tmp_path / "drive.mp4", frames=5, size=(640, 360))
    code = (
        "import sys, roadlens\n"
        "from pathlib import Path\n"
        "from glare import Glare\n"
        "from pipeline.config import VideoConfig\n"
        "name, stages = sys.argv[1], [Glare()] if sys.argv[1] == 'with' else []\n"
        f"streams, models = [roadlens.StreamConfig('drive.mp4')], [roadlens.ModelConfig({str(model)!r})]\n"
        "video = VideoConfig(path=Path(f'{name}.mp4'))\n"
        "config = roadlens.Config(tuple(streams), tuple(models), jsonl=f'{name}.jsonl', video=video)\n"
        "with roadlens.Session(config, stages=stages) as session: session.run()"
    )
    for name in ("with", "without"):
        run("-c", code, name, path=tmp_path)
    assert notes(tmp_path / "without.jsonl") == [{}] * 5
    found = notes(tmp_path / "with.jsonl")
    assert len(found) == 5
    assert all(note["glare"]["text"].endswith("dazzled") and 0 <= note["glare"]["share"] <= 1 for note in found)  # type: ignore[index]
    drawn = np.abs(corner(tmp_path / "with.mp4") - corner(tmp_path / "without.mp4"))
    assert (drawn > 60).mean() > 0.02, "the note stands in the picture"


@pytest.mark.slow
def test_a_config_key(tree: Path, run: Run, model: Path, tmp_path: Path) -> None:
    follow("Add a config key", tree)
    write_clip(tmp_path / "drive.mp4", frames=5)
    schema = json.loads(run("-m", "pipeline.cli", "config", "schema", path=tree))
    assert schema["$defs"]["HazeOptions"]["properties"]["flat"]["default"] == 30.0
    for flat, hazy in ((0, False), (1000, True)):
        (tmp_path / "run.yaml").write_text(f"haze: {{flat: {flat}}}\nmodels: [{{model: {model}}}]\n")
        words = ["run", "drive.mp4", "--config", "run.yaml", "--jsonl", f"{flat}.jsonl"]
        run("-m", "pipeline.cli", *words, path=tree)
        assert notes(tmp_path / f"{flat}.jsonl") == [{"haze": hazy}] * 5


def train(run: Run, folder: Path, recipe: str, *words: str) -> str:
    """Two steps of a recipe on pairs made to order; what the export's file says of itself."""
    from tests.training.conftest import write_pairs

    write_pairs(folder / "pairs", train=40, val=4)
    (folder / "mine.yaml").write_text(recipe)
    run("-m", "pipeline.cli", "train", "mine.yaml", "--data", "pairs", "-o", "run", *words, path=folder)
    run("-m", "pipeline.cli", "export", "run/last.ckpt", "-o", "mine.onnx", path=folder)
    write_clip(folder / "drive.mp4", frames=3)
    run("-m", "pipeline.cli", "run", "drive.mp4", "--model", "mine.onnx", "--jsonl", "o.jsonl", path=folder)
    assert len(notes(folder / "o.jsonl")) == 3
    return run("-m", "pipeline.cli", "eval", "run/last.ckpt", "--data", "pairs", "--json", path=folder)


SHORT = """
name: mine
task: segmentation
data: cityscapes-pairs
model: MODEL
steps: 2
batch: 2
evaluate_every: 2
precision: 32-true
"""


@pytest.mark.slow
def test_a_model_family(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="the extra `train` is not installed")
    from tests.training.models import test_segmenters as contract
    from training.recipe import OwnSettings

    follow("Add a model family", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(contract.MODELS, "blocky", OwnSettings("blocky:Blocky"))
    contract.test_any_size_gives_logits_of_that_size("blocky", 33, 70)
    contract.test_a_saved_model_gives_the_same_bits("blocky")
    contract.test_a_picture_is_scored_alone_as_in_a_batch_and_twice_alike("blocky")
    contract.test_training_reaches_every_weight("blocky")
    scored = json.loads(train(run, tmp_path, SHORT.replace("MODEL", '{kind: own, network: "blocky:Blocky"}')))
    assert scored["pictures"] == 4


@pytest.mark.slow
def test_a_task(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the extra `train` is not installed")
    follow("Add a task", tmp_path)
    scored = json.loads(
        train(run, tmp_path, SHORT.replace("MODEL", "{kind: unet, decoder: [16, 16, 16, 16]}"), "task=dusk")
    )
    assert scored["pictures"] == 4
