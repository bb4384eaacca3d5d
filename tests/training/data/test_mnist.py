"""MNIST's idx files and the data sets made of them: known answers, independent references, damaged files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import CheckFailed, RoadlensError, SourceError
from training.data.inspection.mnist import draw_contact_sheet, inspect
from training.data.mnist import (
    BACKGROUND,
    MOSAIC_CLASSES,
    Distortion,
    class_maps,
    compose,
    distort,
    enclosing_circles,
    foreground_masks,
    foreground_thresholds,
    load_digits,
    mosaic_picks,
    mosaic_sheets,
    read_idx,
)

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "mnist"


def idx(array: np.ndarray) -> bytes:
    """The bytes of an idx file, by the format's description."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, train: int = 48, test: int = 12, seed: int = 0) -> Path:
    """The four gzipped files, digits drawn with a pen of random width and brightness."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, number in (("train", train), ("t10k", test)):
        labels = (np.arange(number) % 10).astype(np.uint8)
        pictures = np.zeros((number, 28, 28), np.uint8)
        for picture, label in zip(pictures, labels, strict=True):
            place = (int(rng.integers(5, 9)), int(rng.integers(20, 24)))
            ink, pen = int(rng.integers(170, 256)), int(rng.integers(1, 3))
            cv2.putText(picture, str(label), place, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (ink,), pen, cv2.LINE_AA)
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures)))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return folder


# Files --------------------------------------------------------------------------------------------------------------


def test_the_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (3, 5, 7)).astype(np.uint8)
    (tmp_path / "plain").write_bytes(idx(array))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx(array)))
    np.testing.assert_array_equal(read_idx(tmp_path / "plain", 3), array)
    np.testing.assert_array_equal(read_idx(tmp_path / "packed.gz", 3), array)


def test_fit_and_dev_are_the_two_parts_of_train(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path)
    fit, dev, train = (load_digits(folder, split) for split in ("fit", "dev", "train"))
    assert (len(fit), len(dev), len(train), len(load_digits(folder, "test"))) == (44, 4, 48, 12)
    np.testing.assert_array_equal(np.concatenate([fit.pictures, dev.pictures]), train.pictures)
    np.testing.assert_array_equal(np.concatenate([fit.labels, dev.labels]), train.labels)


def test_too_few_digits_for_a_part_or_a_mosaic_are_one_sentence(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, train=1, test=3)
    for split in ("fit", "dev"):
        with pytest.raises(SourceError, match="holds one digit, which cannot be divided"):
            load_digits(folder, split)
    test = load_digits(folder, "test")
    with pytest.raises(SourceError, match="test holds 3 digits and a mosaic takes four"):
        mosaic_sheets(test, "test")
    assert draw_contact_sheet(folder, "test", 3).ndim == 3, "three digits are drawn, and no mosaic"


IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
GOOD = idx(np.zeros((12, 28, 28), np.uint8))
DAMAGES = {
    "no file": (IMAGES, None, "there is no"),
    "magic of labels": (IMAGES, gzip.compress(idx(np.zeros(12, np.uint8))), "00000801 where 00000803 is wanted"),
    "signed bytes": (IMAGES, gzip.compress(b"\0\0\x09\x03" + GOOD[4:]), "00000903"),
    "empty": (IMAGES, gzip.compress(b""), "starts with nothing"),
    "header cut off": (IMAGES, gzip.compress(GOOD[:9]), "no idx file"),
    "gzip cut off": (IMAGES, gzip.compress(GOOD)[:40], "damaged gzip"),
    "not gzip": (IMAGES, GOOD, "damaged gzip"),
    "gzip with a wrong byte": (IMAGES, gzip.compress(GOOD)[:-6] + b"\1\2\3\4\5\6", "damaged gzip"),
    "fewer than announced": (IMAGES, gzip.compress(GOOD[:-1]), "announces 12×28×28 bytes and holds 9407"),
    "more than announced": (IMAGES, gzip.compress(GOOD + b"\0"), "holds 9409"),
    "another size": (IMAGES, gzip.compress(idx(np.zeros((12, 32, 24), np.uint8))), "24×32 pixels"),
    "more labels": (LABELS, gzip.compress(idx(np.zeros(13, np.uint8))), "12 pictures and .* 13 labels"),
    "no digits": (LABELS, gzip.compress(idx(np.zeros(0, np.uint8))), "12 pictures and .* 0 labels"),
    "label ten": (LABELS, gzip.compress(idx(np.full(12, 10, np.uint8))), "the label 10"),
}


@pytest.mark.parametrize(("name", "content", "sentence"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_is_one_sentence(tmp_path: Path, name: str, content: bytes | None, sentence: str) -> None:
    folder = write_mnist(tmp_path)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(SourceError, match=sentence) as caught:
        load_digits(folder, "test")
    assert name.split(".")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=64))
@settings(max_examples=60, deadline=None)
def test_no_bytes_are_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("idx") / "any.gz"
    path.write_bytes(content)
    with pytest.raises(RoadlensError):
        read_idx(path, 3)


# Masks --------------------------------------------------------------------------------------------------------------


def threshold_by_force(picture: np.ndarray) -> int:
    """The definition: the sum of squared distances to the class's mean, over every threshold."""
    values = picture.ravel().astype(np.float64)
    costs = [
        sum(((part - part.mean()) ** 2).sum() for part in (values[values <= t], values[values > t]) if part.size)
        for t in range(256)
    ]
    return int(np.argmin(np.round(costs, 6)))


def test_thresholds_minimise_the_sum_of_squares() -> None:
    rng = np.random.default_rng(0)
    pictures = np.clip(rng.normal(rng.choice([40, 180], (40, 9, 11)), 30), 0, 255).astype(np.uint8)
    found = foreground_thresholds(pictures)
    for picture, threshold in zip(pictures, found, strict=True):
        wanted = threshold_by_force(picture)
        np.testing.assert_array_equal(picture > threshold, picture > wanted)


def test_masks_are_those_of_opencv(tmp_path: Path) -> None:
    pictures = load_digits(write_mnist(tmp_path), "train").pictures
    for picture, mask in zip(pictures, foreground_masks(pictures), strict=True):
        np.testing.assert_array_equal(mask, cv2.threshold(picture, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1])


@pytest.mark.parametrize("grey", [0, 7, 255])
def test_a_picture_of_one_grey_level_has_no_foreground(grey: int) -> None:
    assert not foreground_masks(np.full((2, 28, 28), grey, np.uint8)).any()


# Circles ------------------------------------------------------------------------------------------------------------


def circle_by_force(points: np.ndarray) -> tuple[float, float, float]:
    """The smallest of all circles through two or three of the points that holds them all (float64)."""
    n, best = len(points), (float(points[0, 0]), float(points[0, 1]), 0.0 if len(points) == 1 else np.inf)
    candidates = []
    for i in range(n):
        for j in range(i + 1, n):
            candidates.append((points[i] + points[j]) / 2)
            for k in range(j + 1, n):
                a = 2 * np.array([points[j] - points[i], points[k] - points[i]])
                if abs(np.linalg.det(a)) > 1e-9:
                    squares = (points[[i, j, k]] ** 2).sum(1)
                    candidates.append(np.linalg.solve(a, squares[1:] - squares[0]))
    for center in candidates:
        radius = float(np.linalg.norm(points - center, axis=1).max())
        if radius < best[2]:
            best = (float(center[0]), float(center[1]), radius)
    return best


@given(st.sets(st.tuples(st.integers(0, 11), st.integers(0, 9)), min_size=1, max_size=9))
@settings(max_examples=80, deadline=None)
def test_the_enclosing_circle_is_the_smallest(pixels: set[tuple[int, int]]) -> None:
    mask = np.zeros((1, 10, 12), np.uint8)
    for x, y in pixels:
        mask[0, y, x] = 1
    ((x, y, radius),) = enclosing_circles(mask)
    centres = np.array(sorted(pixels), np.float64) + 0.5
    assert np.linalg.norm(centres - (x, y), axis=1).max() <= radius + 2e-3
    assert radius == pytest.approx(circle_by_force(centres)[2], abs=2e-3)


def test_known_circles() -> None:
    masks = np.zeros((3, 28, 28), np.uint8)
    masks[0, 10, 4:15] = 1  # centres from x = 4.5 to 14.5
    masks[1, 0, 0] = 1
    np.testing.assert_allclose(enclosing_circles(masks), [[9.5, 10.5, 5], [0.5, 0.5, 0], [14, 14, 0]], atol=1e-3)


# Mosaics ------------------------------------------------------------------------------------------------------------


def test_a_mosaic_holds_its_four_digits() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
    (mosaic,) = compose(pictures, np.array([[4, 0, 3, 1]]))
    assert mosaic.shape == (56, 56)
    quarters = (mosaic[:28, :28], mosaic[:28, 28:], mosaic[28:, :28], mosaic[28:, 28:])
    for quarter, number in zip(quarters, (4, 0, 3, 1), strict=True):
        np.testing.assert_array_equal(quarter, pictures[number])


def test_class_maps_name_the_digit_on_the_mask_and_the_background_elsewhere() -> None:
    masks = np.array([[[0, 1]], [[1, 0]]], np.uint8)
    np.testing.assert_array_equal(class_maps(masks, np.array([7, 0], np.uint8)), [[[10, 7]], [[0, 10]]])
    assert MOSAIC_CLASSES[BACKGROUND].name == "background"
    assert [info.id for info in MOSAIC_CLASSES] == list(range(11))


@pytest.mark.parametrize("digits", [4, 7, 10_000])
def test_every_digit_is_in_one_mosaic(digits: int) -> None:
    picks = mosaic_picks(digits, seed=0)
    assert picks.shape == (digits // 4, 4)
    assert len(np.unique(picks)) == picks.size
    np.testing.assert_array_equal(picks, mosaic_picks(digits, seed=0))
    assert digits < 5 or not np.array_equal(picks, mosaic_picks(digits, seed=1))


@pytest.mark.parametrize("seed", range(6))
def test_a_distorted_digit_is_a_function_of_the_generator_and_stays_where_nothing_is_asked_for(seed: int) -> None:
    picture = np.zeros((28, 28), np.uint8)
    cv2.circle(picture, (14, 14), 6, (255,), 2)
    views = [distort(picture, np.random.default_rng(seed), Distortion(share=1)) for _ in range(2)]
    np.testing.assert_array_equal(*views)
    assert not np.array_equal(views[0], picture)
    still = Distortion(rotation=0, scale=0, shear=0, shift=0, share=1)
    np.testing.assert_array_equal(distort(picture, np.random.default_rng(seed), still), picture)
    assert distort(picture, np.random.default_rng(seed), Distortion(share=0)) is picture


# Inspection ---------------------------------------------------------------------------------------------------------


def test_inspection_of_good_files(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path)
    found = inspect(folder)
    found.raise_if_bad(folder)
    assert [part.digits for part in found.parts.values()] == [48, 12]
    assert sum(found.parts["train"].shares) == pytest.approx(1)
    page = found.markdown()
    assert "## train: 48 digits" in page
    assert "mean radius" in page


def test_inspection_of_bad_files(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, train=9)
    with pytest.raises(CheckFailed, match=r"train of .* holds no 9"):
        inspect(folder).raise_if_bad(folder)
    (folder / LABELS).write_bytes(b"?")
    found = inspect(folder)
    assert "damaged gzip" in found.markdown()
    with pytest.raises(CheckFailed, match="1 of the 2 parts"):
        found.raise_if_bad(folder)
    (folder / IMAGES).write_bytes(gzip.compress(idx(np.full((12, 28, 28), 9, np.uint8))))
    (folder / LABELS).write_bytes(gzip.compress(idx(np.arange(12).astype(np.uint8) % 10)))
    write_train = write_mnist(tmp_path / "other")
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (folder / name).write_bytes((write_train / name).read_bytes())
    with pytest.raises(CheckFailed, match=r"12 pictures of test .* show nothing"):
        inspect(folder).raise_if_bad(folder)


@pytest.mark.parametrize("number", [1, 7, 100])
def test_the_contact_sheet(tmp_path: Path, number: int) -> None:
    sheet = draw_contact_sheet(write_mnist(tmp_path), "test", number)
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3
    assert sheet.shape[0] % (112 + 20) == 0
    assert len(np.unique(sheet)) > 10


# The real files -----------------------------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="the development data does not lie beside the checkout")
def test_the_real_digits_and_their_circles() -> None:
    test = load_digits(REAL, "test")
    assert len(test) == 10_000
    np.testing.assert_array_equal(
        np.bincount(test.labels), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    )  # yann.lecun.com/exdb/mnist
    masks = foreground_masks(test.pictures)
    for i in range(0, 10_000, 100):
        wanted = cv2.threshold(test.pictures[i], 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
        np.testing.assert_array_equal(masks[i], wanted)
    circles = enclosing_circles(masks)
    x, y, radius = circles.T
    assert radius.mean() == pytest.approx(10.5, abs=0.05)
    outside = (np.minimum(x, y) < radius) | (np.maximum(x, y) + radius > 28)
    assert outside.mean() == pytest.approx(0.067, abs=0.001)
