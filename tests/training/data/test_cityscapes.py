"""Cityscapes in its published layout, drawn small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from engines.errors import CheckFailed, RoadlensError, SourceError, UsageError
from tests.engines.tools.test_pictures import with_palette
from training.data import load_split, recognise
from training.data.cityscapes import load_cityscapes, train_ids
from training.data.inspection.cityscapes import inspect
from training.data.sets import data_set_in

ROAD, BUILDING, EGO_VEHICLE, SKY = 7, 11, 1, 23  # labelIds


def write_cityscapes(root: Path, train: int = 20, val: int = 2) -> Path:
    """Pictures of 128×64: sky above road, with the picture's number in the photo's red channel."""
    for split, number in (("train", train), ("val", val)):
        for i in range(number):
            city = ("aachen", "zurich")[i % 2]
            photo = np.full((64, 128, 3), (0, 0, i * 5), np.uint8)
            ids = np.full((64, 128), SKY, np.uint8)
            ids[32:], ids[60:] = ROAD, EGO_VEHICLE
            for folder, name, content in (
                ("leftImg8bit", f"{city}_{i:06}_000019_leftImg8bit.png", photo),
                ("gtFine", f"{city}_{i:06}_000019_gtFine_labelIds.png", ids),
            ):
                path = root / folder / split / city / name
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), content)
    return root


def test_photos_and_labels_at_the_working_size(tmp_path: Path) -> None:
    pairs = load_cityscapes(write_cityscapes(tmp_path), "val", 32, 64)
    assert pairs.photos.shape == (2, 32, 64, 3)
    assert not pairs.blurred
    assert [name.split("_")[0] for name in pairs.names] == ["aachen", "zurich"]
    assert (pairs.photos[1] == (5, 0, 0)).all()  # RGB
    assert (pairs.labels[:, :16] == 10).all()
    assert (pairs.labels[:, 16:30] == 0).all()
    assert (pairs.labels[:, 30:] == 255).all()  # one's own bonnet is not evaluated


def test_fit_and_dev_are_the_parts_of_train(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    names = {split: load_split("cityscapes", root, split, 32, 32).names for split in ("train", "fit", "dev")}
    assert len(names["dev"]) == 1
    assert sorted(names["fit"] + names["dev"]) == list(names["train"])


def test_label_ids_are_the_published_ones() -> None:
    # cityscapesScripts, helpers/labels.py: the ids that have a trainId, in the order of the trainIds.
    ids = np.array([7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33], np.uint8)
    np.testing.assert_array_equal(train_ids(ids), np.arange(19))
    others = np.setdiff1d(np.arange(256), ids).astype(np.uint8)
    assert (train_ids(others) == 255).all()


def test_a_set_is_recognised_by_its_folders(tmp_path: Path, pairs_folder: Path) -> None:
    assert recognise(write_cityscapes(tmp_path, 1, 1)) == "cityscapes"
    assert recognise(pairs_folder) == "cityscapes-pairs"


def test_a_broken_picture_is_named_and_left_out_on_request(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, 4, 1)
    (root / "leftImg8bit/train/zurich/zurich_000001_000019_leftImg8bit.png").write_bytes(b"x")
    (root / "gtFine/train/aachen/aachen_000002_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(SourceError, match="aachen_000002") as caught:
        load_cityscapes(root, "train", 32, 32)
    assert "\n" not in str(caught.value)
    said: list[str] = []
    pairs = load_cityscapes(root, "train", 32, 32, skip_broken=True, say=said.append)
    assert len(pairs) == 2
    assert len(said) == 2
    assert "zurich_000001" in said[1]


@pytest.mark.parametrize(
    ("data", "size", "error", "sentence"),
    [
        ("cityscapes", (32, 32), SourceError, "is not Cityscapes: wanted are the folders leftImg8bit/val"),
        ("cityscapes-pairs", (256, 512), UsageError, "are 256×256 pixels, not 256×512"),
        ("cityscapes-pairs", (256, 256), SourceError, "is not the Cityscapes pairs set"),
    ],
)
def test_what_is_not_there(
    data: str, size: tuple[int, int], error: type[RoadlensError], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence):
        load_split(data, tmp_path, "val", *size)


PHOTO = "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"
MASK = "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"


def _stray(path: Path) -> None:
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    ids[:8] = 77
    cv2.imwrite(str(path), ids)


def _halved(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _colored(path: Path) -> None:
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (64, 128, 3), np.uint8))


def _of_16_bits(path: Path) -> None:
    cv2.imwrite(str(path), np.full((64, 128), 26_001, np.uint16))


def _of_another_shape(path: Path) -> None:
    cv2.imwrite(str(path), np.full((64, 64), ROAD, np.uint8))


@pytest.mark.parametrize(
    ("file", "spoil", "sentence"),
    [
        (
            MASK,
            _stray,
            r"labelIds\.png holds 77, which is no class, in 12\.50% of its pixels: the label ids of Cityscapes are 0",
        ),
        (MASK, _halved, r"aachen_000000_000019_gtFine_labelIds\.png cannot be decoded"),
        (PHOTO, _halved, r"aachen_000000_000019_leftImg8bit\.png cannot be decoded"),
        (MASK, _colored, r"labelIds\.png is not an 8-bit grey PNG, .* in colours"),
        (MASK, _of_16_bits, r"labelIds\.png holds the 16-bit number 26001"),
        (MASK, _of_another_shape, r"labelIds\.png is 64×64 and its photo 128×64, which is another shape"),
        (MASK, Path.unlink, r"leftImg8bit\.png has no label: there is no .*labelIds\.png"),
    ],
)
def test_what_training_refuses_the_check_refuses_in_the_same_words(
    file: str, spoil: Callable[[Path], None], sentence: str, tmp_path: Path
) -> None:
    root = write_cityscapes(tmp_path, 2, 1)
    spoil(root / file)
    with pytest.raises(SourceError, match=sentence) as caught:
        load_cityscapes(root, "train", 32, 32)
    assert inspect(root).splits["train"].broken == (str(caught.value),)
    with pytest.raises(CheckFailed, match=r"1 pictures of .* cannot be used"):
        inspect(root).raise_if_bad(root)
    said: list[str] = []
    assert len(load_cityscapes(root, "train", 32, 32, skip_broken=True, say=said.append)) == 1
    assert said == [f"left out: {caught.value}"]


def test_what_systems_leave_behind_and_labels_to_spare_stop_nothing(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, 2, 1)
    for folder in ("leftImg8bit", "leftImg8bit/train", "leftImg8bit/train/aachen", "gtFine/train", "gtFine/val"):
        (root / folder / ".DS_Store").write_bytes(b"x")
    (root / "leftImg8bit/train/aachen/._aachen_000000_000019_leftImg8bit.png").write_bytes(b"x")
    (root / "leftImg8bit/train/license.txt").write_text("x")
    (root / "leftImg8bit/train/zurich/zurich_000001_000019_leftImg8bit.png").unlink()
    assert load_cityscapes(root, "train", 32, 32).names == ("aachen_000000_000019_leftImg8bit.png",)
    train = inspect(root).splits["train"]
    assert (train.pictures, train.broken, train.spare_labels) == (1, (), 1)


def test_grey_photos_of_16_bits_and_labels_with_a_palette_are_read(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, 1, 1)
    cv2.imwrite(str(root / PHOTO), np.full((64, 128), 100 * 257, np.uint16))
    ids = cv2.imread(str(root / MASK), cv2.IMREAD_UNCHANGED)
    with_palette(root / MASK, ids)
    pairs = load_cityscapes(root, "train", 64, 128)
    assert (pairs.photos == 100).all()
    np.testing.assert_array_equal(pairs.labels[0], train_ids(ids))
    assert not inspect(root).splits["train"].broken


def test_a_set_that_is_too_small_to_be_divided_is_refused_by_both(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, 3, 1)
    with pytest.raises(SourceError, match=r"none of the 3 pictures of .* is dev: every twentieth is dev"):
        load_cityscapes(root, "dev", 32, 32)
    report = inspect(root)
    everything = msgspec.structs.replace(report.splits["train"], class_shares={"road": 1.0})
    with pytest.raises(SourceError, match="is dev"):
        msgspec.structs.replace(report, splits={"train": everything}).raise_if_bad(root)


@pytest.mark.parametrize("above", ["unpacked", "unpacked/again"])
def test_a_set_that_lies_deeper_is_said_to_lie_there(above: str, tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path / above, 2, 1)
    where = f"it lies in {root}: give that folder"
    for look in (
        lambda: recognise(tmp_path),
        lambda: load_cityscapes(tmp_path, "train", 32, 32),
        lambda: data_set_in(tmp_path),
    ):
        with pytest.raises(SourceError) as caught:
            look()
        assert where in str(caught.value)
