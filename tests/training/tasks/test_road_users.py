"""The task of road users from a folder of pairs to an exported file that an engine runs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import torch

import engines
from engines.classes import CITYSCAPES_CLASSES
from engines.errors import ModelError, UsageError
from engines.spec import read_spec
from tests.training.conftest import write_pairs
from training.catalogue import open_task, read_recipe
from training.checkpoint import open_checkpoint
from training.evaluation.opening import open_predictor
from training.evaluation.predictor import evaluate
from training.export import export
from training.loop.run import train
from training.models.exported import blend_exported, read_exported
from training.recipe import UNetSettings
from training.tasks.road_users import ROW, RoadUsers, RoadUsersRecipe, object_balance, precision_of, repeats

TINY = RoadUsersRecipe(
    name="tiny-road-users", model=UNetSettings(decoder=(16, 16, 16, 16)), head_width=16, steps=2, batch=2,
    evaluate_every=1, checkpoint_every=1, report_every=1, ema_decay=0.9, precision="32-true",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs whose boxes are those of the people and cars painted in their labels."""
    root = write_pairs(tmp_path_factory.mktemp("pairs"), train=20, val=4)
    for split in ("train", "val"):
        lines = []
        for path in sorted((root / split).glob("*.jpg")):
            label, rows = cv2.imread(str(path))[:, 256:, ::-1].astype(int), []
            for info in (CITYSCAPES_CLASSES[11], CITYSCAPES_CLASSES[13]):
                mask = (np.abs(label - info.color).max(-1) < 20).astype(np.uint8)
                for x, y, w, h, area in cv2.connectedComponentsWithStats(mask)[2][1:].tolist():
                    if area > 50:
                        rows.append([x, y, x + w, y + h, info.name, {"fill": 0.9, "own": 0.9}])
            lines.append(json.dumps({"index": int(path.stem), "boxes": rows}))
        (root / "boxes").mkdir(exist_ok=True)
        (root / "boxes" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run")
    train(TINY, folder, output, say=lambda _: None)
    return output


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    task, model = open_checkpoint(run / "last.ckpt")
    path = tmp_path_factory.mktemp("export") / "tiny-road-users.onnx"
    export(task, model, task.spec(256, 256, "1", ()), path)  # checks itself at batch 1 and 3
    return path


def test_the_truth_scores_one(folder):
    task = RoadUsers(TINY)
    data = task.load(folder, "val")
    indices = range(len(data))
    outputs = {
        "class_map": np.where(data.pairs.labels == 255, 0, data.pairs.labels),
        "boxes": np.zeros((len(data), 100, 4), np.float32),
        "scores": np.zeros((len(data), 100), np.float32),
        "labels": np.full((len(data), 100), 11, np.int32),
    }
    for index in indices:
        truth = task.truth(data, index)
        count = len(truth["boxes"])
        assert count
        outputs["boxes"][index, :count], outputs["scores"][index, :count] = truth["boxes"], 0.9
        outputs["labels"][index, :count] = truth["labels"]
    rows = task.measure(outputs, data, indices)
    scores = task.scores(rows)
    assert scores["mean_iou"] == scores["mean_ap"] == scores["mean_iou_and_ap"] == 1
    assert scores["ap/car"] == 1
    assert np.isnan(scores["ap/bus"])
    outputs["labels"][:] = 15
    assert task.scores(task.measure(outputs, data, indices))["ap/car"] == 0


@pytest.mark.seconds
def test_an_evaluation_holds_pixels_and_boxes(run, folder):
    with open_predictor(str(run / "last.ckpt")) as predictor:
        data = predictor.task.load(folder, "val", size=(256, 256))
        found = evaluate(predictor, data, "val")
    assert set(found.figures) == {"mean_iou", "mean_ap", "mean_iou_and_ap", "accuracy"}
    assert {"iou/car", "ap/car", "coco/ap", "coco/ap50", "coco/ap75"} <= set(found.details)
    assert "| ap/car |" in found.markdown()


def test_an_export_says_what_the_network_says(run, folder, exported):
    spec = read_spec(exported)
    assert spec.task == "road-users"
    assert set(spec.outputs) == {"class_map", "boxes", "scores", "labels"}
    task, model = open_checkpoint(run / "last.ckpt")
    data = task.load(folder, "val")
    with torch.no_grad():
        eager = {role: value.numpy() for role, value in task.predict(model, torch.tensor(data.photos)).items()}
    with engines.load(exported, device="cpu", precision="fp32", max_batch=4) as engine:
        found = engine.submit(list(data.photos)).result()
    for index, one in enumerate(found):
        assert (one.class_map == eager["class_map"][index]).mean() > 0.999
        assert one.boxes.shape == (100, 4)
        assert one.scores == pytest.approx(eager["scores"][index], abs=1e-3)
        assert (np.diff(one.scores) <= 0).all()
        assert set(one.labels.tolist()) <= set(range(11, 19))


def test_an_exported_file_is_evaluated_by_the_recipe_in_it(exported, folder):
    with open_predictor(str(exported), "fp32") as predictor:
        assert isinstance(predictor.task, RoadUsers)
        data = predictor.task.load(folder, "val", size=(predictor.height, predictor.width))
        assert evaluate(predictor, data, "val").pictures == 4


def test_a_run_goes_on_from_an_exported_segmenter(tiny_export, folder, tmp_path):
    recipe = msgspec.structs.replace(TINY, segmenter=tiny_export, frozen_stages=1, steps=1)
    train(recipe, folder, tmp_path / "run", say=lambda _: None)
    _, model = open_checkpoint(tmp_path / "run" / "last.ckpt")
    # Statistics that change nothing, and that no step has changed.
    norm = model.decoder[0].fuse[1]
    assert norm.running_mean.abs().max() == 0
    assert norm.running_var == pytest.approx(1 - norm.eps)


def test_a_run_goes_on_at_another_size_with_the_heads_that_were_trained(exported, folder, tmp_path):
    recipe = msgspec.structs.replace(
        TINY, segmenter=exported, keep_heads=True, repeat_below=0.9, width=320, frozen_stages=1, steps=1
    )
    train(recipe, folder, tmp_path / "run", say=lambda _: None)
    task, model = open_checkpoint(tmp_path / "run" / "last.ckpt")
    assert model.heat[1].running_mean.abs().max() == 0
    before = read_exported(exported)["heat.0.weight"].numpy()
    # One step moves no weight further than its rate.
    assert model.heat[0].weight.detach().numpy() == pytest.approx(before, abs=0.01)
    trained = model.heat[0].weight.detach().numpy().copy()
    blend_exported(model, exported)
    assert model.heat[0].weight.detach().numpy() == pytest.approx((trained + before) / 2, abs=1e-6)
    path = tmp_path / "wide.onnx"
    export(task, model, task.spec(256, 320, "1", ()), path)
    with open_predictor(str(path), "fp32") as predictor:
        data = predictor.task.load(folder, "val")
        assert predictor.predict(data.photos[:1])["class_map"].shape == (1, 256, 320)
        assert evaluate(predictor, data, "val").pictures == 4


def test_a_network_that_tells_what_is_no_picture_of_the_road(tiny_export, folder, tmp_path):
    recipe = msgspec.structs.replace(TINY, segmenter=tiny_export, frozen_stages=1, steps=1, void=0.5, damaged=0.5)
    train(recipe, folder, tmp_path / "run", say=lambda _: None)
    task, model = open_checkpoint(tmp_path / "run" / "last.ckpt")
    # The rows of the 19 classes are the segmenter's; one step moves no weight further than its rate.
    assert model.head.weight.shape[0] == 4 * 20
    before = read_exported(tiny_export)["head.weight"]
    assert model.head.weight.detach()[: 4 * 19].numpy() == pytest.approx(before.numpy(), abs=0.01)
    path = tmp_path / "void.onnx"
    with torch.no_grad():
        model.head.bias[4 * 19 :] = 100.0
    export(task, model, task.spec(256, 256, "1", ()), path)
    with open_predictor(str(path), "fp32") as predictor:
        data = predictor.task.load(folder, "val")
        assert (predictor.predict(data.photos[:2])["class_map"] == 255).all()
        found = evaluate(predictor, data, "val")
    # None of the classes is wrong wherever there is one.
    assert found.figures["accuracy"].value == 0
    assert found.figures["mean_iou"].value == 0
    # A run that goes on from it knows all twenty.
    with torch.no_grad():
        again = RoadUsers(msgspec.structs.replace(recipe, segmenter=path, keep_heads=True)).build_model()
        task.recipe = msgspec.structs.replace(recipe, segmenter=path, keep_heads=True)
        task.initialise(again)
        assert torch.equal(again.head.bias, model.head.bias)


@pytest.mark.seconds
def test_scores_are_adjusted_behind_the_last_step_and_no_sooner(folder, tmp_path):
    recipe = msgspec.structs.replace(TINY, adjusted=True, void=0.5)
    said: list[str] = []
    train(recipe, folder, tmp_path / "adjusted", say=said.append)
    train(msgspec.structs.replace(recipe, adjusted=False), folder, tmp_path / "plain", say=said.append)
    [line] = [line for line in said if line.startswith("scores moved")]
    assert "on 19 training pictures: road " in line  # of 20 pairs one is dev
    task, adjusted = open_checkpoint(tmp_path / "adjusted" / "last.ckpt")
    _, plain = open_checkpoint(tmp_path / "plain" / "last.ckpt")
    moved = adjusted.head.bias.detach() - plain.head.bias.detach()
    assert moved[: 4 * 19].abs().max() > 0.1
    by_class = moved[: 4 * 19].reshape(19, 4)
    assert torch.allclose(by_class, by_class[:, :1].expand(19, 4), atol=1e-5)
    assert moved[4 * 19 :].tolist() == [0] * 4  # the own car's stay
    assert torch.equal(adjusted.head.weight, plain.head.weight)
    # What was evaluated last, and chosen by, are the adjusted scores.
    data = task.load(folder, "fit")
    before, after = (task.scores(measured(task, model, data))["mean_iou"] for model in (plain, adjusted))
    assert after > before


def measured(task, model, data):
    with torch.no_grad():
        outputs = {role: value.numpy() for role, value in task.predict(model, torch.from_numpy(data.photos)).items()}
    return task.measure(outputs, data, range(len(data)))


def test_a_network_is_blended_only_with_the_one_that_it_went_on_from(run, exported):
    _, model = open_checkpoint(run / "last.ckpt")
    with pytest.raises(ModelError, match=r"running_\w+ is the network's own, so it did not go on from"):
        blend_exported(model, exported)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 300}, "multiples of 32, not 256×300"),
        ({"frozen_stages": 2}, "would freeze random weights"),
        ({"keep_heads": True}, "no model to keep them of"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        RoadUsers(msgspec.structs.replace(TINY, **changes)).check()


def test_pictures_with_rare_road_users_come_more_often():
    """A car on all four pictures, a bus on one: at half of the pictures wanted, that one comes 2^½ times as often."""
    present = [np.array(places, np.int64) for places in ([2, 2], [2, 4], [2], [])]
    assert repeats(present, 0.5) * (3 + 2**0.5) == pytest.approx([1, 2**0.5, 1, 1])
    assert repeats(present, 0) == pytest.approx([0.25] * 4)


def test_rare_objects_count_more():
    weights = object_balance(np.array([10, 1000, 100, 400, 50, 100, 0, 100]))
    assert weights == pytest.approx([10**0.5, 0.7, 1, 0.7, 2**0.5, 1, 3, 1], abs=0.17)
    assert weights[0] == 3


def test_a_class_that_nobody_looks_for_has_no_precision():
    task = RoadUsers(TINY)
    assert task.score == "mean_iou_and_ap"
    rows = np.zeros(3, ROW)
    rows["labels"] = -1
    assert np.isnan(precision_of(rows, 2, [0]))
    rows["wanted"][:, 2] = 1
    assert precision_of(rows, 2, [0]) == 0


def test_the_recipe_of_the_house_names_this_task():
    recipe = read_recipe("cityscapes-road-users")
    task = open_task(recipe)
    assert isinstance(task, RoadUsers)
    task.check()
    assert task.spec(256, 256, "1", ()).classes == CITYSCAPES_CLASSES
