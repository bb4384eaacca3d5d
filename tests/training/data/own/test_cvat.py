"""Masks painted in CVAT, groups, labels that cannot be counted; what is broken is said in one sentence."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from engines.errors import SourceError
from training.data.own.cvat import read_cvat
from training.data.own.shapes import Drawn, Shape, read_coco

PATH = Path("annotations.xml")
LABELS = "".join(
    f"<label><name>{name}</name><color>{color}</color><type>{kind}</type></label>"
    for name, color, kind in (("road", "#804080", "mask"), ("car", "#00008e", "any"))
)
MASK = '<mask label="car" rle="1, 2, 3" left="2" top="1" width="3" height="2" z_order="1"{}/>'
BOX = '<box label="car" xtl="1" ytl="0" xbr="6" ybr="4"{}/>'
POLYGON = '<polygon label="car" points="0,0;4,0;4,4" {}/>'


def read(inside: str) -> Drawn:
    text = f'<annotations><meta>{LABELS}</meta><image name="a.jpg" width="8" height="5">{inside}</image></annotations>'
    drawn, entries = read_cvat(PATH, ET.fromstring(text))
    assert [(entry.name, entry.color) for entry in entries] == [("road", (128, 64, 128)), ("car", (0, 0, 142))]
    return drawn["a.jpg"]


def number(shape: Shape) -> int:
    return {"road": 1, "car": 2}[shape.name]


def test_a_mask_is_runs_in_its_rectangle_row_by_row() -> None:
    drawn = read(MASK.format(""))
    expected = np.zeros((5, 8), np.uint8)
    expected[1, 3:5] = 2
    np.testing.assert_array_equal(drawn.label(8, 5, number, 0), expected)
    assert [box.tolist() for _, box in drawn.boxes(8, 5)] == [[2, 1, 5, 3]]


def test_what_is_grouped_has_one_box() -> None:
    drawn = read(MASK.format(' group_id="1"') + BOX.format(' group_id="1"') + POLYGON.format('group_id="2"'))
    assert [box.tolist() for _, box in drawn.boxes(8, 5)] == [[1, 0, 6, 4], [0, 0, 4, 4]]
    alike = read(POLYGON.format('group_id="1"') + BOX.format(' group_id="1"'))
    assert [box.tolist() for _, box in alike.boxes(8, 5)] == [[1, 0, 6, 4]]
    apart = read(POLYGON.format("") + BOX.format(""))
    assert len(list(apart.boxes(8, 5))) == 2


def test_a_box_is_painted_where_nobody_painted_anything() -> None:
    beside = read(MASK.format("") + BOX.format(""))
    assert (beside.label(8, 5, number, 0) == 2).sum() == 2
    alone = read(BOX.format(""))
    assert (alone.label(8, 5, number, 0) == 2).sum() >= 5 * 4


def test_a_label_of_masks_has_no_box() -> None:
    road = MASK.format("").replace("car", "road")
    drawn = read(road + MASK.format(""))
    assert [shape.name for shape, _ in drawn.boxes(8, 5)] == ["car"]
    assert (read(road).label(8, 5, number, 0) == 1).sum() == 2


def test_levels_say_what_lies_before() -> None:
    over = MASK.format("").replace("car", "road").replace('z_order="1"', 'z_order="2"')
    assert (read(over + MASK.format("")).label(8, 5, number, 0) == 1).sum() == 2


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (MASK.format("").replace("1, 2, 3", "1, 2"), "a mask of car has runs of 3 pixels in 3×2"),
        (MASK.format("").replace("1, 2, 3", "8, -2"), "a mask of car has runs of 6 pixels in 3×2"),
        (MASK.format("").replace('left="2"', 'left="6"'), "a mask of car leaves the picture"),
        (MASK.format("").replace('top="1"', 'top="-1"'), "a mask of car leaves the picture"),
        (MASK.format("").replace("1, 2, 3", "a"), "invalid literal"),
        (MASK.format("").replace("left", "right"), "NaN"),
    ],
)
def test_a_broken_mask_is_said(mask: str, says: str) -> None:
    with pytest.raises(
        SourceError, match=r"annotations.xml cannot be read as CVAT's XML \(.*; export it again"
    ) as refused:
        read(mask)
    assert says in str(refused.value)


def test_what_cannot_be_counted_has_no_box_in_coco(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(
        '{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "road", "isthing": 0},'
        '{"id": 2, "name": "car", "isthing": 1}, {"id": 3, "name": "dog"}], "annotations": ['
        + ",".join(f'{{"image_id": 1, "category_id": {k}, "bbox": [{k}, 1, 2, 2]}}' for k in (1, 2, 3))
        + "]}"
    )
    drawn, _ = read_coco(path)
    assert [(shape.name, shape.box) for shape in drawn["a.jpg"].shapes] == [
        ("road", None), ("car", (2, 1, 4, 3)), ("dog", (3, 1, 5, 3)),
    ]  # fmt: skip
