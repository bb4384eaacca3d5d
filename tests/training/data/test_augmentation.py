"""Random views of labelled pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from training.data.augmentation import affine, random_geometry, random_photometry, stretched, warp


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A picture whose red channel is ten times its label, in blocks of 32."""
    blocks = np.arange(64).reshape(8, 8) % 19
    label = np.kron(blocks, np.ones((32, 32))).astype(np.uint8)
    return np.stack([label * 10, label, label], axis=-1), label


@pytest.mark.parametrize("seed", range(8))
def test_picture_and_label_move_alike(scene: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    picture, label = scene
    view_, truth = random_geometry(picture, label, np.random.default_rng(seed), (0.75, 2.0), 0.2)
    assert view_.shape == picture.shape
    assert truth.shape == label.shape
    assert set(np.unique(truth)) <= set(range(19)) | {255}
    known = truth != 255
    assert known.mean() > 0.3
    # Equal but along the block edges, where the picture is interpolated.
    assert (view_[..., 0] == truth * 10)[known].mean() > 0.8


def test_a_view_of_another_size_is_one_of_the_stretched_picture(scene: tuple[np.ndarray, np.ndarray]) -> None:
    picture, label = (cv2.GaussianBlur(scene[0], (0, 0), 4), scene[1])
    matrix = affine(256, 384, np.random.default_rng(3), (0.8, 1.7), 0.2)
    view, truth = warp(picture, label, stretched(matrix, label, (256, 384)), (256, 384))
    wide = [cv2.resize(each, (384, 256), interpolation=cv2.INTER_LINEAR) for each in (picture, label)]
    wanted, _ = warp(wide[0], wide[1], matrix)
    assert view.shape == (256, 384, 3)
    assert truth.shape == (256, 384)
    # A shift of half a pixel would make it 0.56.
    assert np.abs(view.astype(int) - wanted).mean() < 0.1


def test_views_are_a_function_of_the_generator(scene: tuple[np.ndarray, np.ndarray]) -> None:
    views = [random_geometry(*scene, np.random.default_rng(3), (0.75, 2.0), 0.2) for _ in range(2)]
    np.testing.assert_array_equal(views[0][0], views[1][0])
    np.testing.assert_array_equal(views[0][1], views[1][1])


def test_no_randomness_changes_at_most_left_and_right(scene: tuple[np.ndarray, np.ndarray]) -> None:
    picture, label = scene
    for seed in range(4):
        view_, truth = random_geometry(picture, label, np.random.default_rng(seed), (1.0, 1.0), 0.0)
        mirrored = not np.array_equal(truth, label)
        np.testing.assert_array_equal(truth, label[:, ::-1] if mirrored else label)
        np.testing.assert_array_equal(view_, picture[:, ::-1] if mirrored else picture)


def test_photometry_of_strength_zero_is_the_identity() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    np.testing.assert_array_equal(random_photometry(picture, np.random.default_rng(1), 0.0), picture)
    assert not torch.equal(
        torch.from_numpy(random_photometry(picture, np.random.default_rng(1), 1.0)), torch.from_numpy(picture)
    )
