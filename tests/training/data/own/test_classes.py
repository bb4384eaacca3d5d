"""Class files in the forms that people and tools write."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.errors import SourceError
from training.data.own.classes import Entry, alike, find_class_file, make_legend, read_class_file

FORMS = {
    "classes.txt": ("road\nsky\ntraffic light\n", ["road", "sky", "traffic light"], [0, 1, 2], None),
    "obj.names": ("road\nsky\n", ["road", "sky"], [0, 1], None),
    "labels.txt": ("0 road\n7: sky\n3,lane 2\n", ["road", "sky", "lane 2"], [0, 7, 3], None),
    "label_colors.txt": ("128 64 128\tRoad\n0 0 0\tVoid\n", ["Road", "Void"], [None] * 2, [(128, 64, 128), (0, 0, 0)]),
    "labelmap.txt": (
        "# label:color_rgb:parts:actions\nroad:128,64,128::\nlow wall:1,2,3::\n", ["road", "low wall"], [None] * 2,
        [(128, 64, 128), (1, 2, 3)],
    ),
    "class_dict.csv": ("name, r, g, b\nRoad, 128, 64, 128\n", ["Road"], [None], [(128, 64, 128)]),
    "_classes.csv": ("Pixel Value, Class\n0, road\n1, sky\n", ["road", "sky"], [0, 1], None),
    "legend.csv": ("road,128,64,128\n", ["road"], [None], [(128, 64, 128)]),
    "legend.txt": ("road #804080\n", ["road"], [None], [(128, 64, 128)]),
    "data.yaml": ("train: x\nnc: 2\nnames: [car, person]\n", ["car", "person"], [None] * 2, None),
    "dataset.yaml": ("names:\n  0: car\n  2: person\n", ["car", "person"], [0, 2], None),
    "palette.json": ('{"road": [9, 8, 7], "sky": [1, 2, 3]}', ["road", "sky"], [None] * 2, [(9, 8, 7), (1, 2, 3)]),
    "classes.json": ('[{"name": "road", "id": 3, "color": "#804080"}]', ["road"], [3], [(128, 64, 128)]),
    "classes.yaml": ("road: 4\nsky: 9\n", ["road", "sky"], [4, 9], None),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_class_file_is_found_and_read(name: str, tmp_path: Path) -> None:
    text, names, ids, colors = FORMS[name]
    (tmp_path / name).write_text(text)
    path = find_class_file([tmp_path])
    assert path == tmp_path / name
    entries = read_class_file(path)
    assert [entry.name for entry in entries] == names
    assert [entry.id for entry in entries] == [
        number if entry.id is not None or number is None else None for entry, number in zip(entries, ids, strict=True)
    ]
    assert [entry.color for entry in entries] == (colors or [None] * len(names))


def test_void_is_no_class_and_cars_are_things() -> None:
    legend = make_legend([Entry("void", 0), Entry("road", 1), Entry("Car", 2), Entry("thing", 3, thing=True)], "here")
    assert [(info.id, info.name, info.thing) for info in legend.classes] == [
        (0, "road", False), (1, "Car", True), (2, "thing", True),
    ]  # fmt: skip
    assert legend.ids == {0: IGNORE, 1: 0, 2: 1, 3: 2, IGNORE: IGNORE}
    assert len({info.color for info in legend.classes}) == 3


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([], "names 0 classes"),
        ([Entry("road"), Entry("Road ")], "two classes called 'Road '"),
        ([Entry("a", 1), Entry("b", 1)], "number 1 to two"),
        ([Entry("a", 0, (1, 2, 3)), Entry("b", 1, (1, 2, 3))], "colour (1, 2, 3) to two"),
    ],
)
def test_classes_that_contradict_each_other_are_refused(entries: list[Entry], sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        make_legend(entries, "classes.txt")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("legend.txt", "road 300 0 0\n", "line 1: .* is no colour"),
        ("legend.txt", "1 2 3\n", "line 1: there is no name"),
        ("classes.yaml", "[{id: 3}]", "an entry without a name"),
        ("classes.yaml", "5", "names no classes"),
        ("classes.json", "{", "classes.json"),
    ],
)
def test_a_class_file_that_cannot_be_understood_is_refused(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=sentence):
        read_class_file(tmp_path / name)


def test_classes_of_other_data_sets_are_known_by_other_names() -> None:
    legend = make_legend([Entry(n) for n in ("Pavement", "Tree", "SignSymbol", "Bicyclist", "vehicle", "dog")], "here")
    names = [
        None if place is None else CITYSCAPES_CLASSES[place].name for place in alike(legend.classes, CITYSCAPES_CLASSES)
    ]
    assert names == ["sidewalk", "vegetation", "traffic sign", "rider", "car", None]
