"""A task that nobody has heard of: a data module, a task file and a recipe in a folder of their own, nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import engines
from engines.errors import ModelError, UsageError
from engines.spec import read_spec
from tests.training.test_cli import call
from training.catalogue import read_recipe, task_class

ROOT = Path(__file__).parents[2]

DATA = '''
"""Pictures of one bright square each: squares.npz with photos, boxes and the number of those to train on."""

from dataclasses import dataclass

import numpy as np

from engines.errors import CheckFailed, SourceError

NAME, SPLITS = "glimmers", ("train", "val")


@dataclass(frozen=True)
class Glimmers:
    photos: np.ndarray
    boxes: np.ndarray
    names: tuple
    protocol: str = "squares drawn to order"

    def __len__(self):
        return len(self.names)


def load(folder, split):
    try:
        with np.load(folder / "squares.npz") as arrays:
            photos, boxes = arrays["photos"], arrays["boxes"]
    except OSError:
        raise SourceError(f"{folder} holds no squares.npz; give the folder of the squares") from None
    parts = {"fit": range(0, 24), "dev": range(24, 32), "train": range(0, 32), "val": range(32, 40)}
    chosen = list(parts[split])
    return Glimmers(photos[chosen], boxes[chosen], tuple(f"square {i}" for i in chosen))


def inspect(folder):
    found = load(folder, "train")
    return Report(len(found))


@dataclass(frozen=True)
class Report:
    pictures: int

    def markdown(self):
        return f"{self.pictures} squares"

    def raise_if_bad(self, folder):
        if not self.pictures:
            raise CheckFailed(f"{folder} is empty")


def draw_contact_sheet(folder, split, number):
    return np.concatenate(list(load(folder, split).photos[:number]), axis=1)
'''

TASK = '''
"""Where the bright square is."""

import numpy as np

import glimmer_data
from engines.classes import ClassInfo
from engines.spec import ModelSpec
from training.recipe import Positive, Recipe
from training.task import Task


class GlimmerRecipe(Recipe, frozen=True, forbid_unknown_fields=True, kw_only=True):
    task: str = "glimmer"
    height: Positive = 32
    width: Positive = 48
    channels: Positive = 8


class Glimmer(Task):
    recipe_type = GlimmerRecipe
    title = "Glimmers"
    score = "mean_iou"

    def build_model(self):
        from torch import nn

        wide = self.recipe.channels
        return nn.Sequential(
            nn.Conv2d(3, wide, 5, 4, 2), nn.ReLU(), nn.Conv2d(wide, wide, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(wide * (self.recipe.height // 8) * (self.recipe.width // 8), 4),
        )

    def load(self, folder, split, *, size=None, cache=None, skip_broken=False, say=print):
        return glimmer_data.load(folder, split)

    def views(self, fit):
        def view(index, rng):
            return fit.photos[index], fit.boxes[index]

        return view

    def loss(self, model, batch, step):
        pictures, boxes = batch
        return (self.predict(model, pictures)["boxes"][:, 0] - boxes).abs().mean()

    def predict(self, model, pictures):
        import torch

        from training.models.encoder import network_input

        found = model(network_input(pictures)).float().sigmoid()
        corner, size = found[:, :2], found[:, 2:]
        boxes = torch.cat([corner - size / 2, corner + size / 2], dim=1)
        return {"boxes": boxes[:, None], "scores": torch.ones_like(boxes[:, :1])}

    def measure(self, outputs, data, indices):
        found, truth = outputs["boxes"][:, 0], data.boxes[indices]
        inner = np.maximum(np.minimum(found[:, 2:], truth[:, 2:]) - np.maximum(found[:, :2], truth[:, :2]), 0).prod(1)
        return inner / ((found[:, 2:] - found[:, :2]).prod(1) + (truth[:, 2:] - truth[:, :2]).prod(1) - inner)

    def scores(self, rows):
        return {"mean_iou": float(rows.mean()), "accuracy_iou_50": float((rows >= 0.5).mean()), "worst/iou": rows.min()}

    def truth(self, data, index):
        return {"boxes": data.boxes[[index]]}

    def spec(self, height, width, version, metrics):
        return ModelSpec(
            name=self.recipe.name, version=version, task="localization", height=height, width=width,
            classes=(ClassInfo(0, "glimmer", (255, 200, 0)),), outputs={"boxes": "boxes", "scores": "scores"},
            metrics=metrics,
        )
'''

RECIPE = """
name: first-glimmer
task: glimmer
steps: 150
batch: 8
evaluate_every: 75
precision: 32-true
ema_decay: 0.9
optimizer: {learning_rate: 1e-2, warmup_steps: 5}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three files, and data beside them."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "glimmer_data.py").write_text(DATA)
    (folder / "glimmer.py").write_text(TASK)
    (folder / "glimmer.yaml").write_text(RECIPE)
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 60, (40, 32, 48, 3)).astype(np.uint8)
    boxes = np.zeros((40, 4), np.float32)
    for photo, box in zip(photos, boxes, strict=True):
        x, y = rng.integers(0, 28), rng.integers(0, 12)
        photo[y : y + 18, x : x + 18] += 180
        box[:] = np.array([x, y, x + 18, y + 18]) / [48, 32, 48, 32]
    np.savez(folder / "squares.npz", photos=photos, boxes=boxes)
    return folder


@pytest.fixture
def found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder, where Python finds its modules."""
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.mark.slow
def test_a_new_task_is_a_data_module_a_task_file_and_a_recipe(
    found: Path, tiny_export: Path, pairs_folder: Path, tmp_path: Path
) -> None:
    run, onnx, page = tmp_path / "run", tmp_path / "glimmer.onnx", tmp_path / "report.html"
    environment = {**os.environ, "PYTHONPATH": f"{found}{os.pathsep}{ROOT}"}
    words = ["train", str(found / "glimmer.yaml"), "--data", str(found), "-o", str(run)]
    command = [sys.executable, "-m", "pipeline.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "dev: mean IoU" in done.stdout
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "dev/worst/iou" in line] == [75, 150]

    scored = call("eval", run / "best.ckpt", "--data", found, "-o", tmp_path / "scores", "--json")
    assert scored.exit_code == 0, scored.output
    result = json.loads(scored.stdout)
    figure = result["figures"]["mean_iou"]
    assert figure["interval"]["low"] < figure["value"] < figure["interval"]["high"]
    assert figure["value"] > 0.4, "it has learned where the square is"
    assert (result["split"], result["pictures"], result["protocol"]) == ("val", 8, "squares drawn to order")
    table = call("eval", run / "best.ckpt", "--data", found, "--split", "dev")
    assert "| mean IoU |" in table.output

    exported = call("export", run / "best.ckpt", "-o", onnx, "--metrics", tmp_path / "scores/evaluation.json")
    assert exported.exit_code == 0, exported.output
    spec = read_spec(onnx)
    assert (spec.name, spec.task, spec.height, spec.width) == ("first-glimmer", "localization", 32, 48)
    assert next((m.name, m.value) for m in spec.metrics) == ("mean_iou", round(figure["value"], 4))
    engine = engines.load(onnx, precision="fp32")
    with np.load(found / "squares.npz") as arrays:
        prediction = engine(arrays["photos"][32])
    engine.close()
    assert prediction.boxes is not None
    assert prediction.boxes.shape == (1, 4)

    again = call("eval", onnx, "--data", found, "--precision", "fp32", "--json")
    assert json.loads(again.stdout)["figures"]["mean_iou"]["value"] == pytest.approx(figure["value"], abs=1e-3)

    reported = call(
        "report",
        onnx,
        tiny_export,
        "--data",
        f"{onnx}={found}",
        "--data",
        pairs_folder,
        "--run",
        f"{onnx}={run}",
        "-o",
        page,
        "--markdown",
        "--seconds",
        0.1,
    )
    assert reported.exit_code == 0, reported.output
    assert "| `first-glimmer` | 150 steps of 8 | 48×32 |" in reported.stdout
    text = page.read_text()
    assert '<a href="#glimmer">Glimmers</a>' in text, "the table of all models"
    assert '<a href="#segmentation">Segmentation</a>' in text
    assert "square 3" in text
    pictures = 2 * 8 + 3 * 4
    assert text.count("<img") == pictures, "all 8 with truth and answer; all 4 pairs with photo, truth and answer"

    shown = call("data", "show", found, "--set", "glimmer_data", "-n", 3, "-o", tmp_path / "sheet.png")
    assert shown.exit_code == 0, shown.output
    assert "32 squares" in call("data", "check", found, "--set", "glimmer_data").output


def test_nothing_of_ours_names_it() -> None:
    names = [path for path in (ROOT / "training").rglob("*.*") if path.suffix in (".py", ".yaml", ".html")]
    assert len(names) > 30
    assert [path for path in names if "glimmer" in path.read_text().lower()] == []


def test_the_recipe_is_read_as_the_struct_of_its_task(found: Path) -> None:
    recipe = read_recipe(str(found / "glimmer.yaml"), ["channels=4"])
    assert type(recipe).__name__ == "GlimmerRecipe"
    assert (recipe.height, recipe.channels) == (32, 4)
    with pytest.raises(UsageError, match=r"`chanels` is not a known key; the nearest is `channels`"):
        read_recipe(str(found / "glimmer.yaml"), ["chanels=4"])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("segmentatoin", None, "there is no task 'segmentatoin'; the nearest is segmentation"),
        ("my.own.task", None, r"there is no task 'my\.own\.task'; .* the dotted path of a module that Python finds"),
        ("", None, "the module of the task '' cannot be imported"),
        (
            "empty_module",
            "import training",
            r"the module empty_module holds no class derived from training\.task\.Task",
        ),
        ("broken_module", "x = (", "the module of the task 'broken_module' cannot be imported"),
        ("needy_module", "import training\nimport no_such_library", "needs no_such_library, which is not installed"),
        ("json", None, "the module json imports nothing of `training`, so that it holds no task, and it is not run"),
        (
            "two_tasks",
            "import training\nimport glimmer\nclass A(glimmer.Glimmer): pass\nclass B(glimmer.Glimmer): pass",
            "holds 2 classes derived from",
        ),
    ],
)
def test_a_task_that_is_none_is_one_sentence(
    name: str, content: str | None, sentence: str, found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / f"{name}.py").write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=sentence) as caught:
        task_class(name)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_recipe_of_another_task_is_not_believed(tiny_export: Path, found: Path, pairs_folder: Path) -> None:
    with pytest.raises(ModelError, match="is not what recipe first-glimmer makes: it does segmentation of 19 classes"):
        call("eval", tiny_export, "--data", pairs_folder, "--recipe", found / "glimmer.yaml")
