"""Cityscapes in its published layout, drawn small."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.errors import RoadlensError, SourceError, UsageError
from training.data import load_split, recognise
from training.data.cityscapes import load_cityscapes, train_ids

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
