"""What is written is read back by those that it is for: pycocotools, supervision, Datumaro, and our own training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("PIL")
pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")

from engines.classes import IGNORE, ClassInfo
from pipeline.archive.labels.export import FORMS
from pipeline.archive.labels.formats.forms import Format
from pipeline.archive.labels.labelled import Area, Labelled, areas
from pipeline.frame import Box
from training.data.own.folder import Kind, open_folder, read_sample

CLASSES = (
    ClassInfo(0, "road", (128, 64, 128)), ClassInfo(1, "traffic light", (250, 170, 30)),
    ClassInfo(2, "sky", (70, 130, 180)), ClassInfo(3, "car", (0, 0, 142), thing=True),
    ClassInfo(4, "person", (220, 20, 60), thing=True),
)  # fmt: skip
WIDTH, HEIGHT = 90, 60


def drawn(seed: int) -> Labelled:
    """A street with holes, specks, cars of which some have a box, and a box of which no pixel is seen."""
    rng = np.random.default_rng(seed)
    class_map = cv2.resize(
        rng.choice(np.array([0, 2], np.uint8), (6, 9)), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST
    )
    class_map[rng.random(class_map.shape) < 0.03] = 1
    class_map[40:44, 3:9] = IGNORE
    boxes = []
    for k in range(4):
        x, y = int(rng.integers(0, 70)), int(rng.integers(20, 45))
        label, number = (("car", 3), ("person", 4))[k % 2]
        class_map[y : y + 10, x : x + 14] = number
        if k:
            boxes.append(Box(x - 0.25, y - 0.5, min(x + 14.5, WIDTH), y + 10.25, number, label, 0.5 + k / 10, "m"))
    boxes.append(Box(1, 1, 5, 6, 4, "person", 0.75, "m"))
    return Labelled(f"trip_{seed:05d}.jpg", WIDTH, HEIGHT, class_map, tuple(boxes))


DRAWN = [drawn(seed) for seed in range(3)]


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Format], Path]:
    """A folder of pictures and labels in a form."""

    def write(name: Format) -> Path:
        form = FORMS[name](tmp_path, CLASSES)
        (tmp_path / form.pictures).mkdir(parents=True)
        for labelled in DRAWN:
            photo = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            cv2.imwrite(str(tmp_path / form.pictures / labelled.name), photo)
            form.add(labelled)
        form.finish()
        assert form.passed_over == (len(DRAWN) if name == "yolo" else 0)
        return tmp_path

    return write


def pieces(labelled: Labelled) -> list[Area]:
    return list(areas(labelled, CLASSES))


def mask_of(area: Area) -> NDArray[np.bool_]:
    return np.zeros((HEIGHT, WIDTH), np.bool_) if area.region is None else area.region.whole(WIDTH, HEIGHT)


@pytest.mark.parametrize("form", FORMS)
def test_training_reads_the_class_map_again(form: Format, written: Callable[[Format], Path]) -> None:
    folder = open_folder(written(form), "masks")
    assert [info.name for info in folder.legend.classes if info.name != "background"] == [c.name for c in CLASSES]
    assert {Path(item.name).name for item in folder.items} == {each.name for each in DRAWN}
    for item in folder.items:
        label = read_sample(folder, item).label
        (expected,) = (each.class_map for each in DRAWN if each.name == Path(item.name).name)
        assert expected is not None
        if form != "cityscapes":  # what no outline covers is ignored, or a class of its own
            assert (label[expected == IGNORE] == folder.behind).all()
        else:
            assert (label[expected == IGNORE] == IGNORE).all()
        np.testing.assert_array_equal(label[expected != IGNORE], expected[expected != IGNORE])


@pytest.mark.parametrize("form", ["coco", "cvat"])
def test_training_reads_the_boxes_again_and_none_of_what_cannot_be_counted(
    form: Format, written: Callable[[Format], Path]
) -> None:
    kind: Kind = "boxes"
    folder = open_folder(written(form), kind)
    for item in folder.items:
        sample = read_sample(folder, item)
        (labelled,) = (each for each in DRAWN if each.name == Path(item.name).name)
        sure = {(int(k), *np.round(c, 2).tolist()) for k, c in zip(sample.labels, sample.corners, strict=True)}
        for box in labelled.boxes:
            inside = np.clip((box.x1, box.y1, box.x2, box.y2), 0, [WIDTH, HEIGHT] * 2)
            assert (box.class_id, *inside.tolist()) in sure
        crowds = [area for area in pieces(labelled) if area.box is None and CLASSES[area.place].thing]
        assert len(sample.labels) == len(labelled.boxes) + len(crowds)
        if form == "coco":
            assert int(sample.sure.sum()) == len(labelled.boxes)


def test_a_png_has_class_ids_and_shows_their_colours(written: Callable[[Format], Path]) -> None:
    from PIL import Image

    root = written("cityscapes")
    with Image.open(root / "masks" / "trip_00000.png") as image:
        assert (image.mode, image.size) == ("P", (WIDTH, HEIGHT))
        np.testing.assert_array_equal(np.asarray(image), DRAWN[0].class_map)
        colours = np.asarray(image.convert("RGB"))
    for info in CLASSES:
        assert (colours[DRAWN[0].class_map == info.id] == info.color).all()
    assert json.loads((root / "classes.json").read_text())[3] == {
        "id": 3, "name": "car", "color": [0, 0, 142], "thing": True,
    }  # fmt: skip


# COCO -----------------------------------------------------------------------------------------------------------------
def test_pycocotools_reads_the_same_masks_and_boxes(written: Callable[[Format], Path]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    found = coco.COCO(str(written("coco") / "annotations" / "instances_default.json"))
    categories = found.loadCats(found.getCatIds())
    assert [(c["id"], c["name"], c["isthing"]) for c in categories] == [
        (1, "road", 0), (2, "traffic light", 0), (3, "sky", 0), (4, "car", 1), (5, "person", 1),
    ]  # fmt: skip
    for image in found.loadImgs(found.getImgIds()):
        (labelled,) = (each for each in DRAWN if each.name == image["file_name"])
        assert (image["width"], image["height"]) == (WIDTH, HEIGHT)
        annotations = found.loadAnns(found.getAnnIds(imgIds=image["id"]))
        expected = pieces(labelled)
        assert len(annotations) == len(expected)
        for annotation, area in zip(annotations, expected, strict=True):
            assert annotation["category_id"] == area.place + 1
            assert annotation["iscrowd"] == (area.box is None and area.place >= 3)
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            if area.region is None:
                assert annotation["segmentation"] == []
            else:
                mask = found.annToMask(annotation)
                assert annotation["area"] == area.region.pixels
            np.testing.assert_array_equal(mask, mask_of(area))
            if area.box is not None:
                x1, y1, x2, y2 = area.box
                assert annotation["bbox"] == [x1, y1, x2 - x1, y2 - y1]
                assert annotation["score"] == area.score
            else:
                rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                size = [int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
                assert annotation["bbox"] == [columns[0], rows[0], *size]


def test_supervision_reads_coco(written: Callable[[Format], Path]) -> None:
    supervision = pytest.importorskip("supervision")
    root = written("coco")
    read = supervision.DetectionDataset.from_coco(
        str(root / "images"), str(root / "annotations" / "instances_default.json"), force_masks=True
    )
    assert read.classes == [info.name for info in CLASSES]
    for path, _, found in read:
        expected = pieces(next(each for each in DRAWN if each.name == Path(path).name))
        assert found.class_id.tolist() == [area.place for area in expected]
        np.testing.assert_array_equal(found.mask, [mask_of(area) for area in expected])
        boxes = [(corners, area.box) for corners, area in zip(found.xyxy, expected, strict=True) if area.box]
        np.testing.assert_allclose([read for read, _ in boxes], [box for _, box in boxes], atol=1e-5)


# YOLO -----------------------------------------------------------------------------------------------------------------
def test_supervision_reads_yolo(written: Callable[[Format], Path]) -> None:
    supervision = pytest.importorskip("supervision")
    root = written("yolo")
    read = supervision.DetectionDataset.from_yolo(
        str(root / "images" / "train"), str(root / "labels" / "train"), str(root / "data.yaml"), force_masks=True
    )
    assert read.classes == [info.name for info in CLASSES]
    for path, _, found in read:
        labelled = next(each for each in DRAWN if each.name == Path(path).name)
        expected = [area for area in pieces(labelled) if area.region is not None]
        parts = [
            (area.place, numbered == number)
            for area in expected
            for count, numbered in (cv2.connectedComponents(mask_of(area).astype(np.uint8), connectivity=8),)
            for number in range(1, count)
        ]
        assert sorted(found.class_id.tolist()) == sorted(place for place, _ in parts)
        ours = {(place, part.tobytes()) for place, part in parts}
        theirs = {(int(k), mask.tobytes()) for k, mask in zip(found.class_id, found.mask, strict=True)}
        assert ours == theirs
        for mask, corners in zip(found.mask, found.xyxy, strict=True):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            np.testing.assert_allclose(corners, [columns[0], rows[0], columns[-1], rows[-1]], atol=0.4)


def test_who_cuts_corners_off_to_whole_pixels_has_the_same_pixels(written: Callable[[Format], Path]) -> None:
    """As Ultralytics does (`ultralytics.data.utils.polygon2mask`)."""
    root = written("yolo")
    for labelled in DRAWN:
        again = np.full((HEIGHT, WIDTH), IGNORE, np.uint8)
        for line in (root / "labels" / "train" / f"{labelled.stem}.txt").read_text().splitlines():
            place, *shares = line.split()
            ring = (np.array(shares, np.float32).reshape(-1, 2) * np.array([WIDTH, HEIGHT], np.float32)).astype(
                np.int32
            )
            cv2.fillPoly(again, [ring], CLASSES[int(place)].id)
        np.testing.assert_array_equal(again, labelled.class_map)


def test_without_a_class_map_yolo_is_of_boxes(tmp_path: Path) -> None:
    form = FORMS["yolo"](tmp_path, CLASSES)
    form.add(Labelled("a_00000.jpg", 200, 100, None, (Box(50, 20, 100, 60, 3, "car", 0.9, "m"),)))
    form.finish()
    assert (tmp_path / "labels" / "train" / "a_00000.txt").read_text() == "3 0.375000 0.400000 0.250000 0.400000\n"
    assert form.passed_over == 0


# CVAT -----------------------------------------------------------------------------------------------------------------
def test_cvat_has_a_mask_for_each_piece_and_a_box_of_one_group_with_it(written: Callable[[Format], Path]) -> None:
    root = written("cvat")
    tree = ET.parse(root / "annotations.xml").getroot()
    assert tree.findtext("version") == "1.1"
    labels = [(n.findtext("name"), n.findtext("color"), n.findtext("type")) for n in tree.iter("label")]
    assert labels[0] == ("road", "#804080", "mask")
    assert labels[3] == ("car", "#00008e", "any")
    raw = json.loads((root / "labels.json").read_text())
    assert [(label["name"], label["color"], label["type"]) for label in raw] == labels
    for number, (image, labelled) in enumerate(zip(tree.iter("image"), DRAWN, strict=True)):
        assert image.attrib == {"id": str(number), "name": labelled.name, "width": "90", "height": "60"}
        masks, boxes = image.findall("mask"), image.findall("box")
        expected = pieces(labelled)
        for node, area in zip(masks, [area for area in expected if area.region is not None], strict=True):
            assert node.get("label") == CLASSES[area.place].name
            np.testing.assert_array_equal(_painted(node), mask_of(area))
            assert (node.get("group_id") == "0") == (area.box is None)
            assert node.get("z_order") == ("0" if area.box is None else "1")
        for node, box in zip(boxes, labelled.boxes, strict=True):
            assert [float(node.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr")] == [
                box.x1,
                box.y1,
                box.x2,
                box.y2,
            ]
            assert node.get("label") == box.label
            grouped = [mask for mask in masks if mask.get("group_id") == node.get("group_id")]
            assert len(grouped) == (box.score != 0.75)  # of the last one no pixel is seen
        assert len({node.get("group_id") for node in boxes}) == len(boxes)


def _painted(node: ET.Element) -> NDArray[np.bool_]:
    """As CVAT unpacks a mask (cvat.apps.dataset_manager.formats.cvat, `mask`): runs in its rectangle, row by row."""
    left, top, width, height = (int(node.attrib[key]) for key in ("left", "top", "width", "height"))
    flat: list[bool] = []
    for place, count in enumerate(node.attrib["rle"].split(", ")):
        flat += [place % 2 == 1] * int(count)
    full = np.zeros((HEIGHT, WIDTH), np.bool_)
    full[top : top + height, left : left + width] = np.array(flat).reshape(height, width)
    return full


# Datumaro, which is not installed with the rest: it wants other versions of pyarrow and OpenCV -----------------------
@pytest.mark.parametrize(("form", "theirs"), [("coco", "coco"), ("cvat", "cvat")])
def test_datumaro_reads_the_same(form: Format, theirs: str, written: Callable[[Format], Path]) -> None:
    datumaro = pytest.importorskip("datumaro")
    read = datumaro.Dataset.import_from(str(written(form)), theirs)
    names = [label.name for label in read.categories()[datumaro.AnnotationType.label]]
    for item in read:
        labelled = next(each for each in DRAWN if Path(each.name).stem == Path(item.id).name)
        expected = pieces(labelled)
        ours = {(CLASSES[a.place].name, mask_of(a).tobytes()) for a in expected if a.region is not None}
        masks = [a for a in item.annotations if a.type == datumaro.AnnotationType.mask]
        assert {(names[a.label], np.asarray(a.image, np.bool_).tobytes()) for a in masks} == ours
        boxes = {
            (names[a.label], *(round(float(value), 2) for value in a.points))
            for a in item.annotations
            if a.type == datumaro.AnnotationType.bbox
        }
        assert {(b.label, b.x1, b.y1, b.x2, b.y2) for b in labelled.boxes} <= boxes
