"""A contact sheet of pairs: what the network sees beside what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from training.data.cityscapes_pairs import SIDE, Split, decode_label, ignore_doubtful_pixels, list_pairs, read_pair

UInt8 = NDArray[np.uint8]
_IGNORED_COLOR = (255, 255, 255)
_CAPTION = 18


def color_label(label: UInt8) -> UInt8:
    """(H, W) uint8 trainIds → (H, W, 3) uint8 RGB; what is ignored is white, which no class is."""
    table = np.full((256, 3), _IGNORED_COLOR, np.uint8)
    for info in CITYSCAPES_CLASSES:
        table[info.id] = info.color
    colored: UInt8 = table[label]
    return colored


def spread(count: int, number: int) -> list[int]:
    """At most `number` of `count` places, spread evenly from the first to the last."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(number, count)).round())]


def arrange(tiles: Sequence[UInt8], columns: int) -> UInt8:
    """Tiles of one size, (h, w, 3) each, in rows of `columns`, the last one filled up with white: (H, W, 3)."""
    blank = np.full_like(tiles[0], 255)
    filled = [*tiles, *[blank] * (-len(tiles) % columns)]
    rows = [np.concatenate(filled[i : i + columns], axis=1) for i in range(0, len(filled), columns)]
    return np.concatenate(rows, axis=0)


def draw_contact_sheet(folder: Path, split: str, number: int, columns: int = 2) -> UInt8:
    """Pairs spread evenly over a split, each as photo, decoded label, and the label the loss sees.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        SourceError: the folder is not the set, or a pair cannot be read.
    """
    paths = list_pairs(folder, cast("Split", split))
    return arrange([_tile(paths[i]) for i in spread(len(paths), number)], columns)


def _tile(path: Path) -> UInt8:
    photo, colors = read_pair(path)
    label = decode_label(colors)
    seen = ignore_doubtful_pixels(label)
    strip = np.concatenate([photo, color_label(label), color_label(seen)], axis=1)
    caption = np.full((_CAPTION, strip.shape[1] + 8, 3), 255, np.uint8)
    texts = (
        f"{path.parent.name}/{path.name}",
        f"decoded, {(label == IGNORE).mean():.1%} ignored",
        f"for the loss, {(seen == IGNORE).mean():.1%} ignored",
    )
    for i, text in enumerate(texts):
        place = (i * SIDE + 2, _CAPTION - 5)
        cv2.putText(caption, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (40, 40, 40), 1, cv2.LINE_AA)
    tile = np.full((strip.shape[0] + 8, strip.shape[1] + 8, 3), 255, np.uint8)
    tile[: strip.shape[0], : strip.shape[1]] = strip
    return np.concatenate([caption, tile], axis=0)
