"""The same few pictures of a synthetic drive with three classes, in the layouts that people have."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pipeline.frame import Box
from pipeline.sources.synthetic import SyntheticOptions, synthetic_frames

CLASSES = ("road", "sky", "other")
COLORS = ((128, 64, 128), (70, 130, 180), (40, 40, 40))


@dataclass(frozen=True)
class Scene:
    stem: str
    picture: np.ndarray
    label: np.ndarray
    boxes: tuple[Box, ...]


def drive(trips: int, frames: int, width: int = 240, height: int = 136, first: int = 0) -> list[Scene]:
    """Pictures two seconds apart of several drives; 0 road, 1 sky, 2 everything else."""
    scenes = []
    for trip in range(first, first + trips):
        options = SyntheticOptions(width, height, fps=Fraction(1, 2), seconds=2 * frames, seed=trip)
        for frame in synthetic_frames(options):
            label = np.full(frame.label.shape, 2, np.uint8)
            label[frame.label == 0], label[frame.label == 10] = 0, 1
            scenes.append(Scene(f"trip{trip}_{frame.index:05d}", frame.picture, label, frame.boxes))
    return scenes


def write_photos(folder: Path, scenes: Sequence[Scene], suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for scene in scenes:
        cv2.imwrite(str(folder / f"{scene.stem}{suffix}"), scene.picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])


def write_ids(root: Path, scenes: Sequence[Scene], classes: str | None = "road\nsky\nother\n") -> Path:
    """images/*.jpg and masks/*.png of numbers, classes.txt."""
    write_photos(root / "images", scenes)
    (root / "masks").mkdir()
    for scene in scenes:
        Image.fromarray(scene.label).save(root / "masks" / f"{scene.stem}.png")
    if classes is not None:
        (root / "classes.txt").write_text(classes)
    return root


def write_palette(root: Path, scenes: Sequence[Scene]) -> Path:
    """VOC's layout: JPEGImages/, SegmentationClass/ with a palette, labelmap.txt."""
    write_photos(root / "JPEGImages", scenes)
    (root / "SegmentationClass").mkdir()
    palette = [value for color in COLORS for value in color] + [0] * (768 - 3 * len(COLORS))
    for scene in scenes:
        picture = Image.fromarray(scene.label, "P")
        picture.putpalette(palette)
        picture.save(root / "SegmentationClass" / f"{scene.stem}.png")
    lines = [f"{name}:{','.join(map(str, color))}::" for name, color in zip(CLASSES, COLORS, strict=True)]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n")
    return root


def write_colors(root: Path, scenes: Sequence[Scene], held_out: str) -> Path:
    """CamVid's layout: train/, train_labels/, val/, val_labels/ in colours, class_dict.csv. One trip is val."""
    table = np.array(COLORS, np.uint8)
    for part in ("train", "val"):
        own = [scene for scene in scenes if scene.stem.startswith(held_out) == (part == "val")]
        write_photos(root / part, own, ".png")
        (root / f"{part}_labels").mkdir()
        for scene in own:
            Image.fromarray(table[scene.label]).save(root / f"{part}_labels" / f"{scene.stem}_L.png")
    rows = [f"{name}, {', '.join(map(str, color))}" for name, color in zip(CLASSES, COLORS, strict=True)]
    (root / "class_dict.csv").write_text("name, r, g, b\n" + "\n".join(rows) + "\n")
    return root


def outlines(label: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Polygons that give the label again, from what lies behind to what lies before, in pixels' edges."""
    height, width = label.shape
    found = [("other", np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64))]
    for number, name in enumerate(CLASSES[:2]):
        rings, tree = cv2.findContours((label == number).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        for ring, (*_, parent) in zip(rings, tree[0] if tree is not None else [], strict=True):
            if len(ring) >= 3:
                found.append((name if parent < 0 else "other", ring[:, 0] + 0.5))
    return found


def write_coco(root: Path, scenes: Sequence[Scene]) -> Path:
    """images/ and annotations/instances_default.json with polygons."""
    write_photos(root / "images", scenes)
    images, annotations = [], []
    for number, scene in enumerate(scenes, 1):
        height, width = scene.label.shape
        images.append({"id": number, "file_name": f"{scene.stem}.jpg", "width": width, "height": height})
        for name, ring in outlines(scene.label):
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": CLASSES.index(name) + 1, "iscrowd": 0,
                "segmentation": [ring.ravel().tolist()], "bbox": [*ring.min(0), *np.ptp(ring, axis=0)],
                "area": float(cv2.contourArea(ring.astype(np.float32))),
            })  # fmt: skip
    categories = [{"id": place + 1, "name": name} for place, name in enumerate(CLASSES)]
    (root / "annotations").mkdir()
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_default.json").write_text(json.dumps(content))
    return root


def write_labelme(root: Path, scenes: Sequence[Scene]) -> Path:
    """x.json beside x.jpg."""
    write_photos(root, scenes)
    for scene in scenes:
        height, width = scene.label.shape
        shapes = [
            {"label": name, "points": ring.tolist(), "shape_type": "polygon"} for name, ring in outlines(scene.label)
        ]
        content = {"shapes": shapes, "imagePath": f"{scene.stem}.jpg", "imageWidth": width, "imageHeight": height}
        (root / f"{scene.stem}.json").write_text(json.dumps(content))
    return root


def write_cvat(root: Path, scenes: Sequence[Scene]) -> Path:
    """images/ and annotations.xml."""
    write_photos(root / "images", scenes)
    images = []
    for scene in scenes:
        height, width = scene.label.shape
        polygons = "".join(
            f'<polygon label="{name}" z_order="{order}" points="{";".join(f"{x},{y}" for x, y in ring)}"/>'
            for order, (name, ring) in enumerate(outlines(scene.label))
        )
        images.append(f'<image name="{scene.stem}.jpg" width="{width}" height="{height}">{polygons}</image>')
    labels = "".join(
        f"<label><name>{name}</name><color>#{''.join(f'{value:02x}' for value in color)}</color></label>"
        for name, color in zip(CLASSES, COLORS, strict=True)
    )
    text = f"<annotations><meta><task><labels>{labels}</labels></task></meta>{''.join(images)}</annotations>"
    (root / "annotations.xml").write_text(text)
    return root


LAYOUTS: dict[str, Callable[[Path, list[Scene]], Path]] = {
    "numbers": write_ids,
    "palette": write_palette,
    "colours": lambda root, scenes: write_colors(root, scenes, scenes[-1].stem.partition("_")[0]),
    "coco": write_coco,
}
"""The same labels four times; of the colours the last trip is val."""


# Boxes --------------------------------------------------------------------------------------------------------------


def cars(scene: Scene, least: float = 8) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Vehicles and people of a scene that can be seen."""
    kinds = {"car": "car", "truck": "car", "bus": "car", "person": "person"}
    return [
        (kinds[box.label], (box.x1, box.y1, box.x2, box.y2))
        for box in scene.boxes
        if box.label in kinds and box.y2 - box.y1 >= least and box.x2 - box.x1 >= 3
    ]


def write_yolo(root: Path, scenes: Sequence[Scene], held_out: str) -> Path:
    """images/train, labels/train …, data.yaml. One trip is val."""
    for part in ("train", "val"):
        own = [scene for scene in scenes if scene.stem.startswith(held_out) == (part == "val")]
        write_photos(root / "images" / part, own)
        (root / "labels" / part).mkdir(parents=True)
        for scene in own:
            height, width = scene.label.shape
            lines = [
                f"{('car', 'person').index(name)} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} "
                f"{(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}"
                for name, (x1, y1, x2, y2) in cars(scene)
            ]
            (root / "labels" / part / f"{scene.stem}.txt").write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnc: 2\nnames: [car, person]\n")
    return root


def write_voc(root: Path, scenes: Sequence[Scene]) -> Path:
    """JPEGImages/, Annotations/*.xml, ImageSets/Main/train.txt and val.txt: the last trip is val."""
    write_photos(root / "JPEGImages", scenes)
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    last = scenes[-1].stem.partition("_")[0]
    for part in ("train", "val"):
        names = [scene.stem for scene in scenes if scene.stem.startswith(last) == (part == "val")]
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(names) + "\n")
    for scene in scenes:
        height, width = scene.label.shape
        objects = "".join(
            f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1:.0f}</xmin>"
            f"<ymin>{y1 + 1:.0f}</ymin><xmax>{x2:.0f}</xmax><ymax>{y2:.0f}</ymax></bndbox></object>"
            for name, (x1, y1, x2, y2) in cars(scene)
        )
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{scene.stem}.jpg</filename>{size}{objects}</annotation>"
        (root / "Annotations" / f"{scene.stem}.xml").write_text(text)
    return root


def write_coco_boxes(root: Path, scenes: Sequence[Scene]) -> Path:
    """images/ and _annotations.coco.json without polygons."""
    write_photos(root / "images", scenes)
    images, annotations = [], []
    for number, scene in enumerate(scenes):
        height, width = scene.label.shape
        images.append({"id": number, "file_name": f"{scene.stem}.jpg", "width": width, "height": height})
        annotations += [
            {"image_id": number, "category_id": ("car", "person").index(name), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for name, (x1, y1, x2, y2) in cars(scene)
        ]
    categories = [{"id": 0, "name": "car"}, {"id": 1, "name": "person"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "_annotations.coco.json").write_text(json.dumps(content))
    return root
