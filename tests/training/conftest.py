"""Training tests: few threads, and pairs made to order."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engines.classes import CITYSCAPES_CLASSES
from training.checkpoint import open_checkpoint
from training.export import export
from training.loop.run import train
from training.recipe import UNetSettings
from training.tasks.segmentation import SegmentationRecipe

TINY_UNET = SegmentationRecipe(
    name="tiny-unet", data="cityscapes-pairs", model=UNetSettings(decoder=(16, 16, 16, 16)), steps=2, batch=2,
    evaluate_every=1, checkpoint_every=1, report_every=1, frozen_stages=1, ema_decay=0.9, precision="32-true",
)  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    # Small tensors: more threads only fight each other, and bitwise equality must not hang on their number.
    torch.set_num_threads(1)


def draw_composite(rng: np.random.Generator) -> np.ndarray:
    """A (256, 512, 3) uint8 RGB composite: rectangles of palette colours on the right, the same shapes noisy on the
    left, so that a network can learn the one from the other."""
    label = np.zeros((256, 256, 3), np.uint8)
    label[:128], label[128:] = CITYSCAPES_CLASSES[10].color, CITYSCAPES_CLASSES[0].color
    for _ in range(6):
        info = CITYSCAPES_CLASSES[int(rng.choice([2, 8, 11, 13]))]
        x, y = rng.integers(0, 200, 2)
        cv2.rectangle(label, (int(x), int(y)), (int(x) + 50, int(y) + 40), info.color, -1)
    photo = np.clip(label * 0.7 + rng.normal(30, 12, label.shape), 0, 255).astype(np.uint8)
    return np.concatenate([photo, label], axis=1)


def write_pairs(root: Path, train: int, val: int, seed: int = 0) -> Path:
    """A tiny data set in the layout of the pairs: train/1.jpg …, val/1.jpg …"""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        (root / split).mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            path = root / split / f"{number}.jpg"
            cv2.imwrite(str(path), draw_composite(rng)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return root


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training pairs (two of them, 20 and 40, are `dev`) and 4 of `val`."""
    return write_pairs(tmp_path_factory.mktemp("pairs"), train=40, val=4)


@pytest.fixture(scope="session")
def tiny_run(pairs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of two steps of a tiny U-Net."""
    output = tmp_path_factory.mktemp("run")
    train(TINY_UNET, pairs_folder, output, say=lambda _: None)
    return output


@pytest.fixture(scope="session")
def tiny_export(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That U-Net as an ONNX file of 256×256."""
    task, model = open_checkpoint(tiny_run / "last.ckpt")
    path = tmp_path_factory.mktemp("export") / "tiny-unet.onnx"
    export(task, model, task.spec(256, 256, "1", ()), path)
    return path
