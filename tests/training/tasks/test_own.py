"""Own classes and own boxes: what a recipe becomes, where the network starts, and how it is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from engines.bundled import resolve
from engines.classes import CITYSCAPES_CLASSES, IGNORE, ClassInfo
from engines.errors import RoadlensError, UsageError
from engines.spec import read_spec
from tests.engines.tiny_models import CONV, conv_model, save
from tests.training import own_folders
from tests.training.own_folders import Scene, drive
from training.catalogue import open_task, read_recipe, recipe_as_dict
from training.data.own.samples import OwnPictures
from training.data.road_users import Boxes
from training.evaluation.opening import general_task, stated_recipe, task_of_file, task_there
from training.models.exported import read_exported
from training.tasks.own import Own

A, B, C = (ClassInfo(i, name, (i, i, i)) for i, name in enumerate(("a", "b", "c")))


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    return drive(2, 3)


def own(**changes: Any) -> Own:
    task = open_task(msgspec.structs.replace(read_recipe("own"), **changes))
    assert isinstance(task, Own)
    return task


def pictures(labels: np.ndarray) -> OwnPictures:
    return OwnPictures(np.zeros((*labels.shape, 3), np.uint8), labels, (), tuple(map(str, range(len(labels)))), "drawn")


# The recipe ---------------------------------------------------------------------------------------------------------


def test_a_recipe_takes_classes_and_terms_from_folder_and_start(tmp_path: Path, scenes: list[Scene]) -> None:
    root, said = own_folders.write_ids(tmp_path, scenes), list[str]()
    recipe = own().settled(root, said.append)
    assert [info.name for info in recipe.classes] == ["road", "sky", "other"]
    assert "non-commercial" in recipe.licence
    assert recipe.training_data == "3 pictures of one's own, 1 trips"
    assert any("3 pictures of train, 3 pictures of val" in line for line in said)
    assert any("1 of 2 trips are held out by seed 0" in line for line in said)
    again = open_task(msgspec.convert(recipe_as_dict(recipe), type(recipe), dec_hook=lambda t, v: t(v)))
    assert again.settled(root, lambda _: None) == recipe, "a run that goes on has the same recipe"


def test_without_a_start_every_layer_is_trained(tmp_path: Path, scenes: list[Scene]) -> None:
    recipe = own(start=None).settled(own_folders.write_ids(tmp_path, scenes), lambda _: None)
    assert (recipe.frozen_stages, recipe.freeze_encoder_norm, recipe.licence) == (0, False, "")
    task = open_task(recipe)
    model = task.build_model()
    trained = {id(p) for group in task.parameter_groups(model) for p in group["params"]}
    assert trained == {id(p) for p in model.parameters()}
    task.training_mode(model.train())
    assert all(module.training for module in model.modules())


def test_the_end_of_a_run_is_not_chosen_on_what_it_is_reported_on(tmp_path: Path, scenes: list[Scene]) -> None:
    (tmp_path / "two").mkdir()
    two = own_folders.write_colors(tmp_path / "two", scenes, "trip1")
    assert own().deliverable(two) == "last"
    for folder in ("train", "train_labels"):
        (two / folder.replace("train", "test")).mkdir()
        for path in sorted((two / folder).iterdir())[:1]:
            path.rename(two / folder.replace("train", "test") / path.name)
    assert own().deliverable(two) == "best"


@pytest.mark.parametrize("name", ["own", "own-boxes"])
def test_a_size_that_does_not_divide_is_refused_with_the_nearest_that_does(name: str) -> None:
    task = open_task(msgspec.structs.replace(read_recipe(name), height=250, width=333))
    with pytest.raises(UsageError, match=r"250×333 are not; the nearest are height=256 width=320"):
        task.check()


# The start ----------------------------------------------------------------------------------------------------------


def test_the_network_starts_where_the_default_model_stands_and_knows_its_classes() -> None:
    classes = (
        ClassInfo(0, "Sky", (1, 1, 1)),
        ClassInfo(1, "crossing", (2, 2, 2)),
        ClassInfo(2, "Pedestrian", (3, 3, 3)),
    )
    task = own(classes=classes)
    model = task.build_model()
    fresh = model.head.weight.detach().clone()
    task.initialise(model)
    state = read_exported(resolve("cityscapes-road-users"))
    assert torch.equal(model.encoder.features[0][0].weight, state["encoder.features.0.0.weight"])
    names = [info.name for info in CITYSCAPES_CLASSES]
    for place, name in ((0, "sky"), (2, "person")):
        found = names.index(name)
        assert torch.equal(
            model.head.weight[4 * place : 4 * place + 4], state["head.weight"][4 * found : 4 * found + 4]
        )
    assert torch.equal(model.head.weight[4:8], fresh[4:8])


def test_a_network_of_the_same_classes_says_what_the_default_model_says() -> None:
    task = own(classes=CITYSCAPES_CLASSES, height=64, width=96)
    model = task.build_model().eval()
    task.initialise(model)
    other = open_task(
        msgspec.structs.replace(read_recipe("cityscapes-road-users"), segmenter=resolve("cityscapes-road-users"))
    )
    theirs = other.build_model().eval()
    other.initialise(theirs)
    picture = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8))
    with torch.no_grad():
        found, wanted = task.predict(model, picture)["class_map"], other.predict(theirs, picture)["class_map"]
    known = wanted != IGNORE  # one's own labels have no void to learn: every pixel is a class
    assert 0.1 < known.float().mean() < 1
    assert (found != IGNORE).all()
    assert torch.equal(found[known], wanted[known])


def test_boxes_start_with_the_heads_of_the_default_model_and_from_a_segmenter_without() -> None:
    classes = (ClassInfo(0, "bicycle", (1, 1, 1), True), ClassInfo(1, "dog", (2, 2, 2), True))
    recipe = msgspec.structs.replace(read_recipe("own-boxes"), classes=classes)
    task = open_task(recipe)
    model = task.build_model()
    task.initialise(model)
    state = read_exported(resolve("cityscapes-road-users"))
    assert torch.equal(model.heat[3].weight[0], state["heat.3.weight"][7])
    assert torch.equal(model.sides[3].weight, state["sides.3.weight"])
    plain = open_task(msgspec.structs.replace(recipe, start=Path("cityscapes-unet")))
    plain.initialise(plain.build_model())


# Scores -------------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_a_count_by_hand() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, IGNORE], (5, 8, 12)).astype(np.uint8)  # class c is nowhere in the truth
    maps = rng.choice([0, 1, 2, 7], (5, 8, 12)).astype(np.uint8)  # 7 is no class of the model
    task = own(classes=(A, B, C))
    rows = task.measure({"class_map": maps}, pictures(labels), range(5))
    scores = task.scores(rows)
    known = labels != IGNORE
    ious = [((labels == c) & (maps == c)).sum() / (((labels == c) | (maps == c)) & known).sum() for c in (0, 1)]
    assert scores["mean_iou"] == pytest.approx(np.mean(ious))
    assert scores["accuracy"] == pytest.approx((labels == maps)[known].mean())
    assert np.isnan(scores["iou/c"])
    assert "calibration_error" not in scores


def test_the_calibration_error_is_the_gap_between_confidence_and_truth() -> None:
    labels = np.zeros((1, 10, 10), np.uint8)
    maps = np.zeros((1, 10, 10), np.uint8)
    maps[0, :4] = 1  # 60 of 100 right
    confidence = np.full((1, 10, 10), 204, np.uint8)  # 0.8
    task = own(classes=(A, B))
    rows = task.measure({"class_map": maps, "confidence": confidence}, pictures(labels), [0])
    assert task.scores(rows)["calibration_error"] == pytest.approx(0.2)


def test_boxes_are_judged_by_class_at_a_half() -> None:
    task = open_task(msgspec.structs.replace(read_recipe("own-boxes"), classes=(A, B)))
    truth = Boxes(
        np.array([[0, 0, 50, 40], [60, 0, 100, 40]], np.float32), np.array([0, 1], np.int64), np.array([True, True])
    )
    data = OwnPictures(np.zeros((1, 80, 200, 3), np.uint8), np.zeros((1, 0, 0), np.uint8), (truth,), ("x",), "drawn")
    said = {
        "boxes": np.array([[[0, 0, 0.25, 0.5], [0.3, 0, 0.5, 0.5], [0.9, 0.9, 1, 1]]], np.float32),
        "scores": np.array([[0.9, 0.8, 0.7]], np.float32), "labels": np.array([[0, 0, 1]], np.int32),
    }  # fmt: skip
    scores = task.scores(task.measure(said, data, [0]))
    assert scores["ap/a"] == pytest.approx(1.0)  # the second is wrong, and less sure than the right one
    assert scores["ap/b"] == 0


# Any model on any folder --------------------------------------------------------------------------------------------


def test_a_bundled_model_is_scored_on_anybody_s_folder(tmp_path: Path, scenes: list[Scene]) -> None:
    spec = read_spec(resolve("cityscapes-road-users"))
    original = open_task(read_recipe("cityscapes-road-users"))
    (tmp_path / "masks-set").mkdir()
    (tmp_path / "boxes-set").mkdir()
    masks = own_folders.write_ids(tmp_path / "masks-set", scenes)
    boxes = own_folders.write_yolo(tmp_path / "boxes-set", scenes, "trip1")
    assert isinstance(task_there(original, spec, masks), Own)
    assert task_there(original, spec, boxes).recipe.task == "own_boxes"
    assert task_there(original, spec, tmp_path / "elsewhere") is original
    with pytest.raises(RoadlensError, match="gives no boxes"):
        task_there(open_task(read_recipe("cityscapes-unet")), read_spec(resolve("cityscapes-unet")), boxes)
    assert general_task(spec, "masks").fits(spec)


@pytest.mark.parametrize("name", ["own", "cityscapes-unet", "lead-vehicle"])
def test_a_model_of_somebody_s_is_not_taken_for_the_recipe_of_its_name(name: str, tmp_path: Path) -> None:
    path = save(conv_model(), msgspec.structs.replace(CONV, name=name), tmp_path / f"{name}.onnx")
    spec = read_spec(path)
    recipe = stated_recipe(path, spec)
    assert recipe is None
    assert isinstance(task_of_file(path, spec, recipe), Own)
