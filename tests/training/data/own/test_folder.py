"""One reader for every layout: the same pictures give the same truth, and what is wrong is said."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.classes import IGNORE
from engines.errors import RoadlensError, SourceError, UsageError
from tests.training import own_folders
from tests.training.own_folders import CLASSES, Scene
from training.data.own.folder import Choice, Folder, Kind, holds, open_folder, read_sample
from training.data.own.samples import load_own
from training.data.sets import data_set_in

LAYOUTS: dict[str, Callable[[Path, list[Scene]], Path]] = {
    "ids": own_folders.write_ids,
    "palette": own_folders.write_palette,
    "colours": lambda root, scenes: own_folders.write_colors(root, scenes, "trip1"),
    "coco": own_folders.write_coco,
    "labelme": own_folders.write_labelme,
    "cvat": own_folders.write_cvat,
}
BOXES: dict[str, Callable[[Path, list[Scene]], Path]] = {
    "yolo": lambda root, scenes: own_folders.write_yolo(root, scenes, "trip1"),
    "voc": own_folders.write_voc,
    "coco": own_folders.write_coco_boxes,
}


def made(tmp_path: Path, scenes: list[Scene], layout: Callable[[Path, list[Scene]], Path]) -> Path:
    root = tmp_path / "set"
    root.mkdir()
    return layout(root, scenes)


def item_of(folder: Folder, stem: str):  # an Item
    return next(item for item in folder.items if stem in item.name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_labels(layout: str, tmp_path: Path, scenes: list[Scene]) -> None:
    root = made(tmp_path, scenes, LAYOUTS[layout])
    assert holds(root) == "masks"
    assert data_set_in(root).NAME == "own"
    folder = open_folder(root, "masks")
    assert {info.name for info in folder.legend.classes} == set(CLASSES)
    assert folder.parts == {"train": 3, "val": 3}
    assert len({item.trip for item in folder.of("train")} | {item.trip for item in folder.of("val")}) == 2
    names = [info.name for info in folder.legend.classes]
    for scene in scenes:
        sample = read_sample(folder, item_of(folder, scene.stem))
        assert sample.photo.shape == scene.picture.shape
        there = np.array([CLASSES.index(name) for name in names] + [9] * (256 - len(names)))[sample.label]
        assert (there == scene.label).mean() > (0.97 if folder.items[0].drawn is not None else 0.9999)


@pytest.mark.parametrize("layout", BOXES)
def test_every_layout_gives_the_same_boxes(layout: str, tmp_path: Path, scenes: list[Scene]) -> None:
    root = made(tmp_path, scenes, BOXES[layout])
    assert holds(root) == "boxes"
    assert data_set_in(root).NAME == "own-boxes"
    folder = open_folder(root, "boxes")
    assert folder.parts == {"train": 3, "val": 3}
    for scene in scenes:
        sample = read_sample(folder, item_of(folder, scene.stem))
        wanted = own_folders.cars(scene)
        names = [folder.legend.classes[label].name for label in sample.labels]
        order = sorted(range(len(names)), key=lambda place: sample.corners[place].tolist())
        wanted.sort(key=lambda pair: pair[1])
        np.testing.assert_allclose(sample.corners[order], np.array([box for _, box in wanted]), atol=0.6)
        assert sorted(names) == sorted(name for name, _ in wanted)
        assert sample.sure.all()


@pytest.mark.parametrize("layout", ["labelme", "cvat"])
def test_polygons_are_boxes_too(layout: str, tmp_path: Path, scenes: list[Scene]) -> None:
    folder = open_folder(made(tmp_path, scenes[:1], LAYOUTS[layout]), "boxes")
    sample = read_sample(folder, folder.items[0])
    ys, xs = np.nonzero(scenes[0].label == 1)
    skies = sample.corners[[folder.legend.classes[label].name == "sky" for label in sample.labels]]
    assert abs(skies[:, 0].min() - xs.min()) <= 1
    assert abs(skies[:, 3].max() - ys.max()) <= 1


def test_classes_without_a_file_are_those_found(tmp_path: Path, scenes: list[Scene]) -> None:
    folder = open_folder(own_folders.write_ids(tmp_path, scenes, classes=None), "masks")
    assert [info.name for info in folder.legend.classes] == ["class 0", "class 1", "class 2"]
    assert "no file such as classes.txt" in folder.legend.source


def test_two_levels_are_background_and_foreground(tmp_path: Path, scenes: list[Scene]) -> None:
    own_folders.write_ids(tmp_path, scenes[:2], classes=None)
    for path in (tmp_path / "masks").iterdir():
        Image.fromarray(np.where(np.array(Image.open(path)) == 0, 255, 0).astype(np.uint8)).save(path)
    folder = open_folder(tmp_path, "masks")
    assert [info.name for info in folder.legend.classes] == ["background", "foreground"]
    np.testing.assert_array_equal(read_sample(folder, folder.items[0]).label == 1, scenes[0].label == 0)


def test_what_no_polygon_covers_is_background(tmp_path: Path, scenes: list[Scene]) -> None:
    own_folders.write_labelme(tmp_path, scenes[:2])
    for path in tmp_path.glob("*.json"):
        content = json.loads(path.read_text())
        content["shapes"] = [shape for shape in content["shapes"] if shape["label"] == "sky"]
        path.write_text(json.dumps(content))
    folder = open_folder(tmp_path, "masks")
    assert [info.name for info in folder.legend.classes] == ["sky", "background"]
    label = read_sample(folder, folder.items[0]).label
    assert ((label == 0) == (scenes[0].label == 1)).mean() > 0.97
    assert any("the rest is the class background" in note for note in folder.notes)


# What is wrong ------------------------------------------------------------------------------------------------------


def repaint(root: Path, stem: str, value: int) -> None:
    path = root / "masks" / f"{stem}.png"
    label = np.array(Image.open(path))
    label[5, 7:10] = value
    Image.fromarray(label).save(path)


def shrink(root: Path, stem: str, size: tuple[int, int]) -> None:
    path = root / "masks" / f"{stem}.png"
    Image.open(path).resize(size, Image.Resampling.NEAREST).save(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "stray id": (
        lambda root: repaint(root, "trip0_00000", 7),
        (
            r"trip0_00000\.png holds the id 7 \(3 pixels, the first at x 7, y 5\), which is no class; the "
            r"classes are 0 road, 1 sky, 2 other and 255 for what is ignored \(classes\.txt\)"
        ),
    ),
    "another size": (lambda root: shrink(root, "trip0_00000", (100, 136)), r"is 100×136 and its picture 240×136"),
    "cut photo": (lambda root: cut(root / "images/trip0_00000.jpg"), r"trip0_00000\.jpg cannot be decoded as an image"),
    "cut label": (lambda root: cut(root / "masks/trip0_00000.png"), r"masks/trip0_00000\.png is damaged"),
    "no picture": (
        lambda root: (root / "images/trip0_00000.jpg").write_bytes(b"<html>"), r"trip0_00000\.jpg is not a picture",
    ),
    "16 bits": (
        lambda root: Image.fromarray(np.full((136, 240), 26001, np.uint16)).save(root / "masks/trip0_00000.png"),
        r"holds the id 26001",
    ),
    "colours": (
        lambda root: Image.fromarray(np.full((136, 240, 3), (9, 8, 7), np.uint8)).save(root / "masks/trip0_00000.png"),
        r"is painted in colours, \(9, 8, 7\) among them, and classes\.txt gives none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_said_in_a_sentence_and_can_be_left_out(fault: str, tmp_path: Path, scenes: list[Scene]) -> None:
    root = own_folders.write_ids(tmp_path, scenes)
    spoil, sentence = FAULTS[fault]
    spoil(root)
    folder = open_folder(root, "masks")
    with pytest.raises(SourceError, match=sentence):
        read_sample(folder, item_of(folder, "trip0_00000"))
    said: list[str] = []
    part = item_of(folder, "trip0_00000").part
    with pytest.raises(SourceError, match=sentence):
        load_own(root, "masks", part, (32, 64), folder.legend.classes)
    kept = load_own(root, "masks", part, (32, 64), folder.legend.classes, skip_broken=True, say=said.append)
    assert len(kept) == 2
    assert re.search(sentence, said[0])


def test_strays_are_ignored_where_that_is_asked_for(tmp_path: Path, scenes: list[Scene]) -> None:
    root = own_folders.write_ids(tmp_path, scenes)
    repaint(root, "trip0_00000", 7)
    folder = open_folder(root, "masks", Choice(ignore_strays=True))
    assert (read_sample(folder, item_of(folder, "trip0_00000")).label == IGNORE).sum() == 3


def test_a_colour_outside_the_legend_is_named_with_the_nearest(tmp_path: Path, scenes: list[Scene]) -> None:
    root = own_folders.write_colors(tmp_path, scenes, "trip1")
    path = root / "train_labels/trip0_00000_L.png"
    label = np.array(Image.open(path))
    label[0, :4] = (128, 64, 120)
    Image.fromarray(label).save(path)
    folder = open_folder(root, "masks")
    with pytest.raises(
        SourceError, match=r"the colour \(128, 64, 120\) \(4 pixels.*the nearest is \(128, 64, 128\), road"
    ):
        read_sample(folder, item_of(folder, "trip0_00000"))


@pytest.mark.parametrize(("lies", "note"), [("as the picture is seen", None), ("as the pixels do", "turned alike")])
def test_exif_turns_the_picture_and_a_label_that_lies_unturned(
    lies: str, note: str | None, tmp_path: Path, scenes: list[Scene]
) -> None:
    root = own_folders.write_ids(tmp_path, scenes[:2])
    scene = scenes[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    Image.fromarray(np.rot90(scene.picture)).save(root / "images" / f"{scene.stem}.jpg", exif=exif, quality=95)
    if note is not None:
        Image.fromarray(np.ascontiguousarray(np.rot90(scene.label))).save(root / "masks" / f"{scene.stem}.png")
    folder = open_folder(root, "masks")
    sample = read_sample(folder, item_of(folder, scene.stem))
    np.testing.assert_array_equal(sample.label, scene.label)
    assert np.abs(sample.photo.astype(int) - scene.picture).mean() < 5
    assert "EXIF turns it (orientation 6)" in sample.notes[0]
    assert (note or "") in " ".join(sample.notes)


@pytest.mark.parametrize("mode", ["I;16", "L", "RGBA", "CMYK", "LA", "P"])
def test_a_photo_of_any_mode_is_read_as_it_looks(mode: str, tmp_path: Path, scenes: list[Scene]) -> None:
    root = own_folders.write_ids(tmp_path, scenes[:2])
    (root / "images" / f"{scenes[0].stem}.jpg").unlink()
    picture = Image.fromarray(scenes[0].picture)
    grey = np.array(picture.convert("L"))
    palette = picture.quantize(256)
    stored = {"I;16": Image.fromarray(grey.astype(np.uint16) * 257), "P": palette}.get(mode) or picture.convert(mode)
    stored.save(root / "images" / (f"{scenes[0].stem}.tif" if mode == "CMYK" else f"{scenes[0].stem}.png"))
    folder = open_folder(root, "masks")
    seen = read_sample(folder, item_of(folder, scenes[0].stem)).photo
    wanted = np.repeat(grey[..., None], 3, 2) if mode in ("I;16", "L", "LA") else scenes[0].picture
    assert np.abs(seen.astype(int) - wanted).mean() < 12


@pytest.mark.parametrize(
    ("spoil", "kind", "sentence"),
    [
        (lambda root: shutil.rmtree(root / "masks"), "masks", "no labels for them; wanted are masks/NAME.png"),
        (lambda root: shutil.rmtree(root / "images"), "masks", "holds no pictures"),
        (
            lambda root: [p.rename(p.with_name(f"x{p.name}")) for p in (root / "masks").iterdir()],
            "masks",
            "name them alike",
        ),
    ],
)
def test_a_folder_without_one_or_the_other_is_refused(
    spoil: Callable[[Path], object], kind: Kind, sentence: str, tmp_path: Path, scenes: list[Scene]
) -> None:
    root = own_folders.write_ids(tmp_path, scenes)
    spoil(root)
    with pytest.raises(SourceError, match=sentence):
        open_folder(root, kind)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("0 0.5 0.5 0.2", r"line 1 has 4 numbers; wanted are 5"),
        ("0 100 50 20 30", r"line 1: YOLO's numbers are shares of the picture, 0 to 1, not 100; are they pixels\?"),
        ("car 0.5 0.5 0.1 0.1", r"line 1: .* is no line of YOLO's"),
        ("9 0.5 0.5 0.1 0.1", r"has the id 9, which is none of the classes: 0 car, 1 person"),
        ("0 0.5 0.5 0 0.1", r"has a box of 0 at .* which holds nothing"),
        ("0 nan 0.5 0.1 0.1", r"line 1: YOLO's numbers"),
    ],
)
def test_a_wrong_line_of_boxes_is_said(line: str, sentence: str, tmp_path: Path, scenes: list[Scene]) -> None:
    root = own_folders.write_yolo(tmp_path, scenes, "trip1")
    (root / "labels/train/trip0_00000.txt").write_text(line + "\n")
    folder = open_folder(root, "boxes")
    with pytest.raises(SourceError, match=sentence):
        read_sample(folder, item_of(folder, "trip0_00000"))


def test_a_picture_of_no_objects_is_a_picture_all_the_same(tmp_path: Path, scenes: list[Scene]) -> None:
    root = own_folders.write_yolo(tmp_path, scenes, "trip1")
    (root / "labels/train/trip0_00000.txt").write_text("")
    folder = open_folder(root, "boxes")
    assert read_sample(folder, item_of(folder, "trip0_00000")).corners.shape == (0, 4)


def test_classes_of_a_model_are_found_by_name_and_others_ignored(tmp_path: Path, scenes: list[Scene]) -> None:
    from engines.classes import CITYSCAPES_CLASSES

    root = own_folders.write_ids(tmp_path, scenes)
    said: list[str] = []
    found = load_own(root, "masks", "val", (136, 240), CITYSCAPES_CLASSES, say=said.append)
    assert set(np.unique(found.labels)) == {0, 10, IGNORE}
    assert said == [f"{root}: other is no class of the model, and ignored"]
    assert "other ignored" in found.protocol
    (root / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(SourceError, match="have no class in common"):
        load_own(root, "masks", "val", (136, 240), CITYSCAPES_CLASSES)


def test_a_part_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, scenes: list[Scene]) -> None:
    root = own_folders.write_ids(tmp_path, scenes)
    with pytest.raises(UsageError, match=r"has no part test; there are train \(3 pictures\), val \(3 pictures\)"):
        load_own(root, "masks", "test", (32, 64), open_folder(root, "masks").legend.classes)


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_to_any_file_ends_in_a_sentence(seed: int, tmp_path: Path, scenes: list[Scene]) -> None:
    """Bytes of one file are changed, cut off or doubled: whatever comes is read, or refused by our own error."""
    rng = np.random.default_rng(seed)
    writers = [(write, kind) for table, kind in ((LAYOUTS, "masks"), (BOXES, "boxes")) for write in table.values()]
    write, kind = writers[seed % len(writers)]
    root = made(tmp_path, scenes[:2], write) if kind == "masks" else made(tmp_path, [scenes[0], scenes[3]], write)
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    path = files[int(rng.integers(len(files)))]
    content = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 12))):
        content[int(rng.integers(len(content)))] = int(rng.integers(256))
    path.write_bytes(bytes(content[: int(rng.integers(len(content)))] if seed % 3 else content))
    try:
        folder = open_folder(root, kind)
        for item in folder.items:
            try:
                read_sample(folder, item)
            except SourceError as error:
                assert "Traceback" not in str(error)  # noqa: PT017
    except RoadlensError as error:
        assert str(error)  # noqa: PT017
