"""`roadlens data`: folders recognised by their layout, whatever set they hold."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from engines.errors import CheckFailed, OutputError, SourceError
from tests.training.data.pet_folder import write_pet_folder
from tests.training.data.test_cityscapes import write_cityscapes
from tests.training.test_cli import call
from training.data.contact_sheet import spread
from training.data.inspection.cityscapes import draw_contact_sheet, inspect
from training.data.sets import data_set_in, data_sets


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("cityscapes", ["leftImg8bit/train/aachen/x.png"]),
        ("cityscapes-pairs", ["train/1.jpg"]),
        ("cityscapes-pairs", ["val/7.jpg"]),
        ("mnist", ["train-images-idx3-ubyte.gz"]),
        ("mnist", ["train-images-idx3-ubyte"]),
        ("oxford-iiit-pet", ["images/x.jpg", "annotations/xmls/x.xml"]),
        (None, ["train/one.jpg"]),
        (None, ["images/x.jpg"]),
        (None, ["train/1.jpg", "train-images-idx3-ubyte"]),
    ],
)
def test_a_folder_is_known_by_its_layout(name: str | None, files: list[str], tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    if name is not None:
        assert name == data_set_in(tmp_path).NAME
        return
    with pytest.raises(SourceError, match="--set") as caught:
        data_set_in(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_set_unpacked_a_folder_deeper_is_not_taken_for_anybodys_pictures(tmp_path: Path) -> None:
    root = write_pet_folder(tmp_path / "unpacked")
    with pytest.raises(SourceError, match="it lies in") as caught:
        data_set_in(tmp_path)
    assert str(root) in str(caught.value)


def test_every_data_set_is_whole() -> None:
    for name, data_set in data_sets().items():
        assert data_set.SPLITS[0] == "train", name
        assert all(callable(getattr(data_set, part)) for part in ("recognises", "inspect", "draw_contact_sheet"))


def test_cityscapes_is_looked_over(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, train=3, val=2)
    report = inspect(root)
    assert {name: split.pictures for name, split in report.splits.items()} == {"train": 3, "val": 2}
    train = report.splits["train"]
    assert (train.class_shares["sky"], train.class_shares["road"]) == (pytest.approx(32 / 60), pytest.approx(28 / 60))
    assert train.ignored == pytest.approx(4 / 64)
    with pytest.raises(CheckFailed, match=r"has no pixel of sidewalk, .* in train"):
        report.raise_if_bad(root)
    assert draw_contact_sheet(root, "train", 2).shape == (256, 2 * 2 * 512, 3)
    sheet = tmp_path / "sheet.png"
    assert call("data", "show", root, "--split", "val", "-n", 1, "-o", sheet).exit_code == 0
    assert cv2.imread(str(sheet)).shape == (256, 2 * 2 * 512, 3)


def test_what_is_broken_in_cityscapes_is_named(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, train=3, val=1)
    labels = sorted((root / "gtFine/train").rglob("*.png"))
    labels[0].unlink()
    labels[1].write_bytes(b"no picture")
    with pytest.raises(CheckFailed, match=r"2 pictures of .* cannot be used"):
        inspect(root).raise_if_bad(root)
    lines = inspect(root).markdown().splitlines()
    assert any("has no label" in line for line in lines)
    assert any("cannot be decoded as an image" in line for line in lines)


@pytest.mark.parametrize(
    ("count", "number", "places"), [(10, 3, [0, 4, 9]), (2, 5, [0, 1]), (1, 1, [0]), (5, 5, [0, 1, 2, 3, 4])]
)
def test_samples_are_spread_evenly(count: int, number: int, places: list[int]) -> None:
    assert spread(count, number) == places


def test_fetching_mnist_without_a_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens there: the connection is refused at once.
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(SourceError, match=r"MNIST could not be downloaded \(.+\); check the network") as caught:
        call("data", "fetch", "mnist", tmp_path / "set")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_a_fetched_set_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(OutputError, match=r"holds t10k-labels-idx1-ubyte\.gz already"):
        call("data", "fetch", "mnist", tmp_path)
