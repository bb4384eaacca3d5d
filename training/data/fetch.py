"""Downloading data sets."""

from __future__ import annotations

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from engines.errors import OutputError, SourceError, UsageError
from training.data.cityscapes_pairs import list_pairs

PAIRS_HANDLE = "dansbecker/cityscapes-image-pairs"
"""The set's name on Kaggle."""


def fetch_pairs(folder: Path) -> Path:
    """Download the Cityscapes image pairs from Kaggle (about 100 MB) and put train/ and val/ into `folder`.

    Raises:
        UsageError: kagglehub is not installed.
        SourceError: the download failed, or what came is not the set.
        OutputError: the folder cannot be written to, or holds a set already.
    """
    if (folder / "train").exists() or (folder / "val").exists():
        raise OutputError(f"{folder} holds train/ or val/ already; give an empty folder, or use what is there")
    if find_spec("kagglehub") is None:
        raise UsageError("fetching from Kaggle needs kagglehub; install it with: pip install '.[train]'")
    import kagglehub

    try:
        downloaded = Path(kagglehub.dataset_download(PAIRS_HANDLE))
    except Exception as error:  # noqa: BLE001 - requests, urllib3 and kagglehub each raise their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceError(
            f"Kaggle's {PAIRS_HANDLE} could not be downloaded ({reason[:160]}); check the network and the Kaggle "
            f"credentials, or download it in a browser and unpack it into {folder}"
        ) from None
    root = next((val.parent for val in sorted(downloaded.rglob("val")) if (val.parent / "train").is_dir()), None)
    if root is None:
        raise SourceError(f"what came from Kaggle as {PAIRS_HANDLE} has no train/ and val/; the set may have changed")
    for split in ("train", "val"):
        list_pairs(root, "train" if split == "train" else "val")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split in ("train", "val"):
            shutil.copytree(root / split, folder / split)
    except OSError as error:
        raise OutputError(f"the set could not be copied to {folder} ({error.strerror}); free some space") from None
    return folder


def fetch_mnist(folder: Path) -> Path:
    """Download MNIST's four idx files (12 MB, with checksums) through torchvision into `folder`.

    Raises:
        UsageError: torchvision is not installed.
        SourceError: the download failed.
        OutputError: the folder cannot be written to, or holds such files already.
    """
    if present := next(iter(sorted(folder.glob("*-ubyte*"))), None):
        raise OutputError(f"{folder} holds {present.name} already; give an empty folder, or use what is there")
    if find_spec("torchvision") is None:
        raise UsageError("fetching MNIST needs torchvision; install it with: pip install '.[train]'")
    from torchvision.datasets import MNIST

    try:
        with tempfile.TemporaryDirectory() as staging:
            raw = Path(MNIST(staging, download=True).raw_folder)
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(raw.glob("*.gz")):
                shutil.copyfile(path, folder / path.name)
    except RuntimeError as error:  # torchvision's own, of every mirror that it tried
        reason = str(error).splitlines()[-1]
        raise SourceError(
            f"MNIST could not be downloaded ({reason[:160]}); check the network, or put the four files "
            f"train-images-idx3-ubyte.gz … into {folder}"
        ) from None
    except OSError as error:
        raise OutputError(
            f"MNIST could not be stored in {folder} ({error.strerror or error}); free some space"
        ) from None
    return folder
