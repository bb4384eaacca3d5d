"""A folder in the layout of Oxford-IIIT Pet, drawn by code: heads of a colour of their breed, boxes, trimaps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

COLORS = {"Abyssinian": (200, 120, 40), "Bengal": (60, 160, 60), "beagle": (60, 80, 220)}


def draw_pet(rng: np.random.Generator, breed: str) -> tuple[np.ndarray, tuple[int, int, int, int], np.ndarray]:
    """A (60, 80, 3) uint8 RGB picture, the head's box in pixels (right and bottom exclusive), and the trimap."""
    picture = rng.integers(90, 130, (60, 80, 3)).astype(np.uint8)
    width, height = (int(v) for v in rng.integers(16, 36, 2))
    left, top = int(rng.integers(0, 80 - width)), int(rng.integers(0, 60 - height))
    picture[top : top + height, left : left + width] = COLORS[breed]
    trimap = np.full((60, 80), 2, np.uint8)
    cv2.rectangle(trimap, (left, top), (left + width - 1, top + height - 1), 3, 2)
    trimap[top + 2 : top + height - 2, left + 2 : left + width - 2] = 1
    return picture, (left, top, left + width, top + height), trimap


def annotation(*boxes: tuple[int, int, int, int]) -> str:
    """An XML of boxes given with right and bottom exclusive; PASCAL VOC counts from 1 and means the last pixel, too."""
    objects = "".join(
        f"<object><name>cat</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax>"
        f"<ymax>{bottom}</ymax></bndbox></object>"
        for left, top, right, bottom in boxes
    )
    return f"<annotation><size><width>80</width><height>60</height></size>{objects}</annotation>"


def write_pet_folder(root: Path, each: int = 10, boxes: int = 6, seed: int = 0) -> Path:
    """`each` pictures of each of three breeds, the first `boxes` of them with a box, all with a trimap."""
    rng = np.random.default_rng(seed)
    annotations = root / "annotations"
    for folder in (root / "images", annotations / "xmls", annotations / "trimaps"):
        folder.mkdir(parents=True, exist_ok=True)
    lines = ["# name class species breed"]
    for place, breed in enumerate(COLORS, 1):
        for number in range(1, each + 1):
            name = f"{breed}_{number}"
            picture, box, trimap = draw_pet(rng, breed)
            cv2.imwrite(str(root / "images" / f"{name}.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            cv2.imwrite(str(annotations / "trimaps" / f"{name}.png"), trimap)
            if number <= boxes:
                (annotations / "xmls" / f"{name}.xml").write_text(annotation(box))
            lines.append(f"{name} {place} {1 if breed[0].isupper() else 2} {place}")
    (annotations / "list.txt").write_text("\n".join(lines) + "\n")
    return root
