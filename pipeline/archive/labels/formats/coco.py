"""COCO's JSON: areas as run lengths, road users with their boxes (cocodataset.org, "Data format")."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engines.classes import ClassInfo
from pipeline.archive.labels.formats.runs import run_lengths
from pipeline.archive.labels.labelled import Area, Labelled, areas

FILE = "annotations/instances_default.json"


class Coco:
    """`annotations/instances_default.json`.

    A road user is an annotation with the model's box (`bbox`), its score, and its pixels as run lengths that are not
    compressed. Each class has one more annotation for what is no single road user: all of it for *stuff*
    (`isthing: 0` in its category), a crowd (`iscrowd: 1`) for what can be counted. Category ids begin with 1.
    """

    pictures = "images"

    def __init__(self, folder: Path, classes: tuple[ClassInfo, ...]) -> None:
        self._path, self._classes = folder / FILE, classes
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self.passed_over = 0

    def add(self, labelled: Labelled) -> None:
        self._images.append(
            {
                "id": len(self._images) + 1, "file_name": labelled.name, "width": labelled.width,
                "height": labelled.height,
            }
        )  # fmt: skip
        for area in areas(labelled, self._classes):
            self._annotations.append(self._annotation(area, labelled))

    def _annotation(self, area: Area, labelled: Labelled) -> dict[str, Any]:
        region, box = area.region, area.box
        made: dict[str, Any] = {
            "id": len(self._annotations) + 1, "image_id": len(self._images), "category_id": area.place + 1,
            "iscrowd": int(box is None and self._classes[area.place].thing),
        }  # fmt: skip
        if region is not None:
            whole = region.whole(labelled.width, labelled.height)
            counts = run_lengths(np.ascontiguousarray(whole.T).ravel())
            made["segmentation"] = {"counts": counts, "size": [labelled.height, labelled.width]}
            made["area"], made["bbox"] = region.pixels, [region.x, region.y, *region.mask.shape[::-1]]
        if box is not None:
            x1, y1, x2, y2 = (round(value, 2) for value in box)
            made["bbox"], made["score"] = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)], round(area.score, 3)
            if region is None:
                made["segmentation"], made["area"] = [], round((x2 - x1) * (y2 - y1), 2)
        return made

    def finish(self) -> None:
        categories = [
            {
                "id": place + 1, "name": info.name, "supercategory": "thing" if info.thing else "stuff",
                "isthing": int(info.thing), "color": info.color,
            }
            for place, info in enumerate(self._classes)
        ]  # fmt: skip
        content = {
            "info": {"description": f"written by roadlens; pictures lie in {self.pictures}/"}, "licenses": [],
            "images": self._images, "annotations": self._annotations, "categories": categories,
        }  # fmt: skip
        self._path.parent.mkdir()
        self._path.write_bytes(msgspec.json.encode(content))
