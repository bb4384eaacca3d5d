"""Which picture goes with which label, and how trips and parts are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.errors import SourceError, UsageError
from training.data.own.layout import lay_out, match, part_of, place_of
from training.data.own.trips import hold_out, trips_of


@pytest.mark.parametrize(
    ("path", "part", "role", "trip", "stem"),
    [
        ("images/a.jpg", None, "picture", (), "a"),
        ("train/images/a.jpg", "train", "picture", (), "a"),
        ("images/val/a.jpg", "val", "picture", (), "a"),
        ("labels/valid/a.txt", "val", "truth", (), "a"),
        ("trainannot/a.png", "train", "truth", (), "a"),
        ("train_labels/a_L.png", "train", "truth", (), "a"),
        ("SegmentationClass/a.png", None, "truth", (), "a"),
        ("images/monday/cam/a.jpg", None, "picture", ("monday", "cam"), "a"),
        ("data/a_image.png", None, None, (), "a"),
        ("test/trip1/a.jpg", "test", None, ("trip1",), "a"),
    ],
)
def test_a_path_says_what_a_file_is(
    path: str, part: str | None, role: str | None, trip: tuple[str, ...], stem: str
) -> None:
    place = place_of(Path("/data") / path, Path("/data"))
    assert (place.part, place.role, place.trip, place.stem) == (part, role, trip, stem)


def test_labels_lie_beside_their_pictures(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.png", "b_mask.png", "left_l.png", "left_r.png", "c_img.png", "c_label.png"):
        (tmp_path / name).touch()
    layout = lay_out(tmp_path)
    found, orphans = match(layout.pictures, layout.masks)
    assert {picture.name: label.name for picture, label in found.items()} == {
        "a.jpg": "a.png", "b.png": "b_mask.png", "c_img.png": "c_label.png",
    }  # fmt: skip
    assert {place.path.name for place in layout.pictures} - {path.name for path in found} == {
        "left_l.png",
        "left_r.png",
    }
    assert not orphans


def test_camvid_s_own_folders_are_understood(tmp_path: Path) -> None:
    for name in ("701_StillsRaw_full/0001TP_006690.png", "LabeledApproved_full/0001TP_006690_L.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    layout = lay_out(tmp_path)
    ((picture, label),) = match(layout.pictures, layout.masks)[0].items()
    assert (picture.name, label.name) == ("0001TP_006690.png", "0001TP_006690_L.png")


def test_a_label_called_as_its_picture_is_its_label_whatever_the_ending_means() -> None:
    root = Path("/d")
    pictures = [place_of(root / "images" / name, root) for name in ("7_l.png", "7_r.png")]
    labels = [place_of(root / "masks" / name, root) for name in ("7_l.png", "7_r.png")]
    found, orphans = match(pictures, labels)
    assert {picture.name: label.name for picture, label in found.items()} == {
        "7_l.png": "7_l.png",
        "7_r.png": "7_r.png",
    }
    assert not orphans


def test_hidden_files_are_nobody_s_pictures(tmp_path: Path) -> None:
    for name in (
        "images/.DS_Store",
        "images/._a.jpg",
        "__MACOSX/images/b.jpg",
        "images/Thumbs.db",
        "images/a.jpg",
        "masks/a.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    layout = lay_out(tmp_path)
    assert [place.stem for place in layout.pictures] == ["a"]
    assert [place.stem for place in layout.masks] == ["a"]


def test_a_label_without_a_part_is_found_by_its_name_alone_if_there_is_one_of_it() -> None:
    root = Path("/d")
    pictures = [
        place_of(root / "images" / part, root) for part in ("train/a.jpg", "val/b.jpg", "train/c.jpg", "val/c.jpg")
    ]
    labels = [place_of(root / "masks" / name, root) for name in ("a.png", "b.png", "c.png")]
    found, orphans = match(pictures, labels)
    assert {path.name for path in found} == {"a.jpg", "b.jpg"}
    assert orphans == [root / "masks/c.png"]


def test_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no folder"):
        lay_out(tmp_path / "none")


@pytest.mark.parametrize(
    ("word", "part"), [("instances_val2017", "val"), ("_annotations.coco", None), ("train", "train")]
)
def test_a_file_says_its_part(word: str, part: str | None) -> None:
    assert part_of(word) == part


# Trips --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stems", "folders", "trips", "told"),
    [
        (
            ["0016E5_00390", "0016E5_00420", "Seq05VD_f00000"],
            [()] * 3,
            ["0016E5", "0016E5", "Seq05VD"],
            "before the number",
        ),
        (["a", "b"], [("mon",), ("tue",)], ["mon", "tue"], "by folder"),
        (["frame_1", "frame_2"], [()] * 2, ["", ""], "as one"),
        (["c0ffee", "beef"], [()] * 2, ["c0ffee", "beef"], "each picture for itself"),
    ],
)
def test_trips_are_told(stems: list[str], folders: list[tuple[str, ...]], trips: list[str], told: str) -> None:
    found, how = trips_of(stems, folders)
    assert len(set(found)) == len(set(trips))
    assert [found[0] == other for other in found] == [trips[0] == other for other in trips]
    assert told in how


def test_a_pattern_tells_trips() -> None:
    assert trips_of(["x_7_1", "y_7_2", "z_8_1"], [()] * 3, r"_(\d+)_")[0] == ["7", "7", "8"]


@pytest.mark.parametrize(
    ("pattern", "sentence"), [("(", "no regular expression"), ("x", "finds no group"), ("(q)", "finds no group")]
)
def test_a_pattern_that_does_not_fit_is_refused(pattern: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        trips_of(["x_1"], [()], pattern)


def test_whole_trips_are_held_out_and_always_the_same() -> None:
    trips = [f"trip{i // 10}" for i in range(50)]
    parts, told = hold_out(trips, 0.2, seed=3)
    assert parts.count("val") == 10
    assert len({trip for trip, part in zip(trips, parts, strict=True) if part == "val"}) == 1
    assert "1 of 5 trips" in told
    assert hold_out(trips, 0.2, seed=3) == (parts, told)
    assert {tuple(hold_out(trips, 0.2, seed=s)[0]) for s in range(20)} != {tuple(parts)}


def test_of_one_trip_the_end_is_held_out_with_a_gap_before_it() -> None:
    parts, told = hold_out(["one"] * 40, 0.2, seed=0)
    assert parts == ["train"] * 30 + [None] * 2 + ["val"] * 8
    assert "neighbours look alike" in told
