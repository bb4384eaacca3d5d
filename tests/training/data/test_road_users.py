"""Boxes of road users: what is read, what a view does to them, and what a heat map is to learn of them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.errors import SourceError
from tests.training.conftest import write_pairs
from training.data.augmentation import affine, random_damage, warp
from training.data.inspection.cityscapes_pairs import inspect
from training.data.road_users import (
    ROAD_USERS,
    Boxes,
    RandomScenes,
    draw_targets,
    load_road_users,
    moved,
    read_boxes,
    without_hidden,
)
from training.data.void import VOID
from training.recipe import Augmentation

PERSON, CAR, BUS = 0, 2, 4


def boxes(*rows: tuple[float, float, float, float, int, bool]) -> Boxes:
    return Boxes(
        np.array([row[:4] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[4] for row in rows], np.int64),
        np.array([row[5] for row in rows], np.bool_),
    )


def written(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_the_classes_are_the_things_of_cityscapes():
    assert [info.name for info in ROAD_USERS] == [
        "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ]  # fmt: skip
    assert [info.id for info in ROAD_USERS] == list(range(11, 19))


def test_flags_say_which_boxes_are_sure_and_which_are_left_out(tmp_path):
    rows = [
        [10, 10, 30, 20, "car", {"fill": 0.8, "own": 0.8}],
        [10, 10, 30, 20, "car", {"fill": 0.8, "own": 0.8, "dup": 1}],
        [1, 1, 2, 4, "person", {"fill": 0.9, "own": 0.9, "tiny": 1}],
        [1, 1, 20, 40, "person", {"fill": 0.34, "own": 0.34}],
        [1, 1, 20, 40, "bus", {"fill": 0.35, "own": 0.14}],
        [1, 1, 20, 40, "bus", {"fill": 0.35, "own": 0.15}],
    ]
    found = read_boxes(written(tmp_path / "train.jsonl", {"index": 7, "boxes": rows}, {"index": 8, "boxes": []}))
    assert found[7].labels.tolist() == [CAR, PERSON, PERSON, BUS, BUS]
    assert found[7].sure.tolist() == [True, False, False, False, True]
    assert found[7].corners[0].tolist() == [10, 10, 30, 20]
    assert found[8].corners.shape == (0, 4)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2: Input data was truncated"),
        ("no JSON", "line 2: JSON is malformed"),
        ("[]", "line 2: Expected `object`, got `array`"),
        ('{"boxes": []}', "line 2: Object missing required field `index`"),
        ('{"index": 2}', "line 2: Object missing required field `boxes`"),
        ('{"index": 2.5, "boxes": []}', "line 2: Expected `int`"),
        ({"index": 2, "boxes": [[0, 0, 9, 9, "tram", {}]]}, "line 2: no road user is called 'tram'"),
        ({"index": 2, "boxes": [[0, 0, 9, 257, "car", {}]]}, "line 2: the box 0, 0, 9, 257 does not lie in the"),
        ({"index": 2, "boxes": [[9, 0, 9, 9, "car", {}]]}, "line 2: the box"),
        ({"index": 2, "boxes": [[0, 0, 9, "car", {}]]}, r"line 2: Expected `float`.* at `\$.boxes\[0\]\[3\]`"),
        ({"index": 2, "boxes": [[0, 0, 9, 9, "car"]]}, r"line 2: Expected `array` of .*length .*`\$.boxes\[0\]`"),
        ({"index": 2, "boxes": [[0, 0, 9, 9, "car", {"fill": "all"}]]}, r"line 2: Expected `float`.*`\$.*fill`"),
        ({"index": 1, "boxes": []}, "line 2: picture 1 has a line already"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, line, sentence):
    path = written(tmp_path / "train.jsonl", {"index": 1, "boxes": []}, line)
    with pytest.raises(SourceError, match=sentence):
        read_boxes(path)


def test_pairs_without_boxes_are_refused(tmp_path):
    root = write_pairs(tmp_path, train=3, val=0)
    with pytest.raises(SourceError, match=r"train\.jsonl cannot be read"):
        load_road_users(root, "train")
    written(root / "boxes" / "train.jsonl", {"index": 1, "boxes": []}, {"index": 3, "boxes": []})
    with pytest.raises(SourceError, match="has no line for picture 2; write one"):
        load_road_users(root, "train")
    written(root / "boxes" / "train.jsonl", *({"index": i, "boxes": [[0, 0, i, 9, "car", {}]]} for i in (3, 1, 2)))
    data = load_road_users(root, "train")
    assert [b.corners[0, 2] for b in data.boxes] == [1, 2, 3]


@pytest.mark.parametrize("seed", range(20))
def test_boxes_move_as_the_pixels_do(seed):
    """A painted rectangle and its box go through the same view: the box found in the label is the box moved."""
    rng = np.random.default_rng(seed)
    label = np.zeros((256, 256), np.uint8)
    x1, y1 = rng.integers(20, 150, 2)
    x2, y2 = x1 + rng.integers(20, 80), y1 + rng.integers(20, 80)
    label[y1:y2, x1:x2] = 13
    matrix = affine(256, 256, rng, (0.7, 2.0), 0.3)
    _, seen = warp(np.zeros((256, 256, 3), np.uint8), label, matrix)
    found = moved(boxes((x1, y1, x2, y2, CAR, True)), matrix, 256, 256)
    mask = (seen == 13).astype(np.uint8)
    if not mask.any():
        assert not len(found.corners) or (found.corners[0, 2:] - found.corners[0, :2]).min() < 1.5
        return
    x, y, w, h = cv2.boundingRect(mask)
    assert np.abs(found.corners[0] - [x, y, x + w, y + h]).max() < 1.1


def test_a_view_that_cuts_a_box_or_shrinks_it_makes_it_unsure():
    half = np.array([[0.5, 0, 0], [0, 0.5, 0]], np.float32)
    assert moved(boxes((0, 0, 10, 6, CAR, True)), half, 256, 256).sure.tolist() == [False]  # 3 pixels high
    assert moved(boxes((0, 0, 10, 10, CAR, True)), half, 256, 256).sure.tolist() == [True]
    left = np.array([[1, 0, -30], [0, 1, 0]], np.float32)
    rows = boxes((0, 0, 40, 20, CAR, True), (10, 0, 60, 20, CAR, True), (0, 0, 30, 20, CAR, True))
    found = moved(rows, left, 256, 256)
    assert found.corners.tolist() == [[0, 0, 10, 20], [0, 0, 30, 20]]
    assert found.sure.tolist() == [False, True]


def test_heat_sides_and_weights_of_a_scene():
    scene = boxes((40, 40, 80, 60, CAR, True), (44, 44, 52, 76, PERSON, True), (100, 100, 140, 120, CAR, False))
    heat, truth, weight = draw_targets(scene, 64, 64, 4)
    assert heat.shape == (8, 64, 64)
    assert truth.shape == (4, 64, 64)
    # Centres: (60, 50) and (48, 60) in pixels, in cells of four.
    assert np.argwhere(heat == 1).tolist() == [[PERSON, 15, 12], [CAR, 12, 15]]
    # A bell with a standard deviation of 0.12 of ten cells across and of five cells down.
    assert heat[CAR, 12, 16] == pytest.approx(np.exp(-0.5 * (1 / 1.2) ** 2))
    assert heat[CAR, 13, 15] == pytest.approx(np.exp(-0.5 * (1 / 0.6) ** 2))
    assert (heat[CAR, 25:30, 25:35] == -1).all()
    assert (heat == -1).sum() == 5 * 10
    assert (heat[BUS] == 0).all()
    assert truth[:, 12, 15].tolist() == [40, 40, 80, 60]
    assert truth[:, 15, 12].tolist() == [44, 44, 52, 76]
    assert weight.sum() == pytest.approx(2)
    # One above one half: the car's centre and one cell to either side; the others belong to nobody.
    assert np.flatnonzero(weight[12]).tolist() == [14, 15, 16]
    assert weight[12].sum() == pytest.approx(1)


def test_a_sure_centre_stands_inside_a_box_that_is_not_sure():
    scene = boxes((0, 0, 200, 200, CAR, False), (80, 80, 120, 120, CAR, True))
    heat, _, _ = draw_targets(scene, 64, 64, 4)
    assert heat[CAR, 25, 25] == 1
    assert heat[CAR, 5, 5] == -1


def test_a_picture_without_road_users():
    heat, truth, weight = draw_targets(boxes(), 16, 16, 4)
    assert not any(part.any() for part in (heat, truth, weight))


def test_the_check_refuses_boxes_that_training_refuses(tmp_path):
    root = write_pairs(tmp_path, train=3, val=1)
    assert not inspect(root).splits["train"].broken, "boxes are for one task, and need not be there"
    written(root / "boxes" / "train.jsonl", {"index": 1, "boxes": []}, {"index": 3, "boxes": []})
    written(root / "boxes" / "val.jsonl", {"index": 1, "boxes": [[0, 0, 9, 9, "ship", {}]]})
    report = inspect(root)
    for split, sentence in (("train", "has no line for picture 2"), ("val", "no road user is called 'ship'")):
        assert len(report.splits[split].broken) == 1
        assert sentence in report.splits[split].broken[0]
        with pytest.raises(SourceError) as caught:
            load_road_users(root, split)
        assert report.splits[split].broken == (str(caught.value),)


def test_a_hidden_object_is_not_there_and_one_that_is_half_hidden_not_sure():
    covered = np.zeros((64, 64), bool)
    covered[32:] = True
    found = without_hidden(
        boxes((0, 40, 10, 60, 2, True), (0, 20, 10, 44, 2, True), (0, 10, 10, 34, 2, True), (50, 0, 64, 20, 0, True),
              (60, 60, 64, 64, 0, True), (5, 2, 5.2, 2.2, 1, True)),
        covered,
    )  # fmt: skip
    assert found.corners[:, 1].tolist() == [20, 10, 0, pytest.approx(2)]
    assert found.sure.tolist() == [False, True, True, True]
    nothing = boxes()
    assert without_hidden(nothing, covered) is nothing


@pytest.mark.parametrize("void", [None, 0.0, 1.0])
def test_views_have_what_is_no_picture_where_it_is_asked_for(void):
    photos, labels = np.full((1, 64, 64, 3), 120, np.uint8), np.zeros((1, 64, 64), np.uint8)
    options = Augmentation(scale=(0.5, 0.6), aspect=0.0, photometry=0.0)
    scenes = RandomScenes(photos, labels, (boxes((10, 10, 50, 50, 2, True)),), options, 4, (64, 96), np.ones(1), void)
    for seed in range(8):
        picture, label, heat, *_ = scenes(0, np.random.default_rng(seed))
        assert picture.shape == (64, 96, 3)
        assert heat.shape == (8, 16, 24)
        outside = (picture == 0).all(-1)
        assert outside.any()
        # Beyond the picture there is nothing to see; only a network that has a class for that is told so.
        assert set(np.unique(label[outside])) <= ({255} if void is None else {VOID, 0})
        assert (VOID in label) == (void is not None)


@pytest.mark.parametrize("seed", range(12))
def test_damage_leaves_the_scene(seed):
    photo = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (160, 128))
    damaged = random_damage(photo, np.random.default_rng(seed))
    np.testing.assert_array_equal(damaged, random_damage(photo, np.random.default_rng(seed)))
    assert damaged.shape == photo.shape
    assert damaged.dtype == np.uint8
    assert (damaged != photo).any()
    ours, theirs = (cv2.cvtColor(one, cv2.COLOR_RGB2GRAY).astype(float).ravel() for one in (damaged, photo))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.7
