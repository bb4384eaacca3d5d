"""Pictures with their truth on a contact sheet, and in place of what cannot be read the reason."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import ClassInfo
from engines.errors import SourceError
from engines.squash import squash
from training.data.contact_sheet import arrange, spread
from training.data.own.folder import Folder, Item, Kind, check_part, open_folder, read_sample
from training.data.own.samples import part_in

UInt8 = NDArray[np.uint8]

_WIDTH, _CAPTION, _ROW = 320, 18, 20
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK = (40, 40, 40)


def draw_sheet(root: Path, kind: Kind, split: str, number: int, columns: int = 3) -> UInt8:
    """Pictures spread evenly over a part with their truth laid over them, and the classes' colours below.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        SourceError: the folder is none of labelled pictures.
        UsageError: it has no such part.
    """
    folder = open_folder(root, kind)
    items = check_part(folder, part_in(folder, split))
    tiles = [_tile(folder, items[i]) for i in spread(len(items), number)]
    height = max(tile.shape[0] for tile in tiles)
    filled = [cv2.copyMakeBorder(t, 0, height - t.shape[0], 0, 8, cv2.BORDER_CONSTANT, value=(255,) * 3) for t in tiles]
    sheet = arrange([np.asarray(tile, np.uint8) for tile in filled], min(columns, len(filled)))
    return np.concatenate([sheet, _key(folder.legend.classes, sheet.shape[1])], axis=0)


def _tile(folder: Folder, item: Item) -> UInt8:
    try:
        sample = read_sample(folder, item)
    except SourceError as error:
        return _captioned(_told(str(error)), f"{item.name}: cannot be used")
    height = max(1, round(_WIDTH * sample.photo.shape[0] / sample.photo.shape[1]))
    photo = squash(sample.photo, height, _WIDTH)
    colors = np.zeros((256, 3), np.uint8)
    for info in folder.legend.classes:
        colors[info.id] = info.color
    if folder.kind == "masks":
        label = cv2.resize(sample.label, (_WIDTH, height), interpolation=cv2.INTER_NEAREST_EXACT)
        known = (label < len(folder.legend.classes))[..., None]
        photo = np.where(known, cv2.addWeighted(photo, 0.45, colors[label], 0.55, 0), photo).astype(np.uint8)
    scale = _WIDTH / sample.photo.shape[1]
    photo = np.ascontiguousarray(photo)
    for corners, number, sure in zip(sample.corners, sample.labels, sample.sure, strict=True):
        left, top, right, bottom = (round(float(value) * scale) for value in corners)
        color = colors[number].tolist() if sure else (128, 128, 128)
        cv2.rectangle(photo, (left, top), (right - 1, bottom - 1), color, 2)
    return _captioned(photo, f"{item.name}{' *' if sample.notes else ''}")


def _told(sentence: str) -> UInt8:
    blank = np.full((_WIDTH * 9 // 16, _WIDTH, 3), 225, np.uint8)
    for line, text in enumerate(textwrap.wrap(sentence, 50)[:10]):
        cv2.putText(blank, text, (6, 16 + 16 * line), _FONT, 0.36, (160, 20, 20), 1, cv2.LINE_AA)
    return blank


def _captioned(picture: UInt8, text: str) -> UInt8:
    caption = np.full((_CAPTION, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(caption, text[-52:], (2, _CAPTION - 5), _FONT, 0.38, _INK, 1, cv2.LINE_AA)
    return np.concatenate([caption, picture], axis=0)


def _key(classes: Sequence[ClassInfo], width: int) -> UInt8:
    columns = max(1, width // 160)
    rows = -(-len(classes) // columns)
    canvas = np.full((rows * _ROW + 8, width, 3), 255, np.uint8)
    for place, info in enumerate(classes):
        x, y = place % columns * 160 + 4, place // columns * _ROW + 6
        cv2.rectangle(canvas, (x, y), (x + 14, y + 12), info.color, -1)
        cv2.putText(canvas, info.name[:20], (x + 20, y + 11), _FONT, 0.4, _INK, 1, cv2.LINE_AA)
    return canvas
