"""What `roadlens data check` and `show` say of a folder with something wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.errors import CheckFailed
from tests.training import own_folders
from tests.training.own_folders import Scene
from tests.training.test_cli import call
from training.data.own.findings import inspect_own
from training.data.own.folder import open_folder


def test_a_good_folder_passes_and_says_what_is_in_it(tmp_path: Path, scenes: list[Scene]) -> None:
    root = own_folders.write_ids(tmp_path, scenes)
    found = inspect_own(root, "masks")
    found.raise_if_bad(root)
    (trip,) = {item.trip for item in open_folder(root, "masks").of("train")}
    counts = np.bincount(np.stack([scene.label for scene in scenes if scene.stem.startswith(trip)]).ravel())
    for name, share in found.parts["train"].shares.items():
        assert share == pytest.approx(counts[own_folders.CLASSES.index(name)] / counts.sum())
    assert "0 road, 1 sky, 2 other (classes.txt)" in found.markdown()
    assert found.parts["train"].trips == 1


def test_each_fault_is_found_and_named(tmp_path: Path, scenes: list[Scene]) -> None:
    root = own_folders.write_colors(tmp_path, scenes, "trip1")
    (root / "class_dict.csv").write_text((root / "class_dict.csv").read_text() + "snow, 250, 250, 250\n")
    shutil.copy(root / "train/trip0_00001.png", root / "val/trip0_00001.png")
    shutil.copy(root / "train_labels/trip0_00001_L.png", root / "val_labels/trip0_00001_L.png")
    nearly = np.array(Image.open(root / "train/trip0_00002.png")).astype(int) + 1
    Image.fromarray(nearly.clip(0, 255).astype(np.uint8)).save(root / "val/copy_1.png")
    shutil.copy(root / "train_labels/trip0_00002_L.png", root / "val_labels/copy_1_L.png")
    (root / "train_labels/trip0_00000_L.png").write_bytes(b"")
    (root / "train/without.png").write_bytes((root / "train/trip0_00001.png").read_bytes())
    Image.new("RGB", (4, 4)).save(root / "val_labels/orphan_L.png")
    found = inspect_own(root, "masks")
    (broken,) = found.broken
    assert "trip0_00000_L.png" in broken
    assert any("trip0_00001.png (train) and val/trip0_00001.png (val) are the same picture" in s for s in found.leaks)
    assert any("copy_1.png (val) looks like train/trip0_00002.png (train)" in s for s in found.leaks)
    assert any("pictures have no label and are left out: train/without.png" in s for s in found.notes)
    assert any("labels have no picture: val_labels/orphan_L.png" in s for s in found.notes)
    with pytest.raises(CheckFailed, match=r"1 pictures cannot be used.*in two parts.*snow is on no picture of train"):
        found.raise_if_bad(root)


def test_the_commands_check_and_show(tmp_path: Path, scenes: list[Scene]) -> None:
    (tmp_path / "set").mkdir()
    root = own_folders.write_yolo(tmp_path / "set", scenes, "trip1")
    done = call("data", "check", str(root), "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["form"] == "boxes of YOLO"
    assert found["parts"]["train"]["pictures"] == 3
    (root / "labels/train/trip0_00000.txt").write_text("0 1 2\n")
    with pytest.raises(CheckFailed, match="1 pictures cannot be used"):
        call("data", "check", str(root))
    sheet = tmp_path / "sheet.png"
    assert call("data", "show", str(root), "-o", str(sheet)).exit_code == 0
    assert np.array(Image.open(sheet)).std() > 20
