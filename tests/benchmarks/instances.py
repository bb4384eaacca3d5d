"""How well pixels are shared out among boxes, and what it costs: objects of synthetic drives, known to the pixel.

    python -m tests.benchmarks.instances [--seeds 1 2] [--every 25] [--model NAME]

By several rules, from the true classes and boxes at the model's size: the share of the objects' pixels that go to the
right one, and the mean IoU of the objects (10 pixels and more). Then by `roadlens` from what the model says, of the
objects of which a box was found (IoU 0.5). Then milliseconds a frame: for the map of instances, and for their runs as
COCO has them beside pycocotools, in turns.

Six drives of 640×360 in heavy traffic, every 25th frame, on a 320×256 grid, beside the gate, 2026-11-30:

| from | rule | pixels | mean IoU | objects |
|---|---|---|---|---|
| true classes and boxes | the box that reaches further down | 96.9 % | 0.788 | 1,025 |
| | the smaller box | 95.1 % | 0.824 | |
| | the nearest centre | 94.7 % | 0.813 | |
| | roadlens | 97.2 % | 0.867 | |
| `cityscapes-road-users` | roadlens | 85.0 % | 0.599 | 420 found |

33 boxes: 1.5 ms for the map, 0.7 for the runs; pycocotools 1.1, with the masks that it takes 3.1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import roadlens
from numpy.typing import NDArray
from pycocotools import mask as coco

from engines.boxes import iou_matrix
from engines.classes import CITYSCAPES_CLASSES
from pipeline.analysis.instances import AROUND, instance_map
from pipeline.frame import Box
from pipeline.messages.segmentations import encode_segmentations
from pipeline.scene.drive import SyntheticScene

SIZE = WIDTH, HEIGHT = 640, 360
GRID = 320, 256
FRAMES = 250
LEAST = 10
"""Pixels of an object that is counted."""

Owners = NDArray[np.integer]
Rule = Callable[[NDArray[np.float64], NDArray[np.float64], Box], NDArray[np.float64]]


def lowest(x: NDArray[np.float64], y: NDArray[np.float64], box: Box) -> NDArray[np.float64]:
    """What both cover is of the box that reaches further down: it is nearer to the camera."""
    inside = (x >= box.x1) & (x < box.x2) & (y >= box.y1) & (y < box.y2)
    return np.where(inside, -box.y2, 1e6 - box.y2)


def centre(x: NDArray[np.float64], y: NDArray[np.float64], box: Box) -> NDArray[np.float64]:
    """The nearest centre, as in Panoptic-DeepLab."""
    return np.hypot(x - (box.x1 + box.x2) / 2, y - (box.y1 + box.y2) / 2)


def smallest(x: NDArray[np.float64], y: NDArray[np.float64], box: Box) -> NDArray[np.float64]:
    """What both cover is of the smaller box."""
    return lowest(x, y, box) + box.y2 + (box.x2 - box.x1) * (box.y2 - box.y1) / WIDTH / HEIGHT


RULES: dict[str, Rule] = {
    "the box that reaches further down": lowest, "the smaller box": smallest, "the nearest centre": centre
}  # fmt: skip


def by(rule: Rule, class_map: NDArray[np.uint8], boxes: Sequence[Box]) -> Owners:
    """(h, w): 0 for pixels of nobody, n for those of the n-th box."""
    height, width = class_map.shape
    x = (np.arange(width) + 0.5)[None] * WIDTH / width
    y = (np.arange(height) + 0.5)[:, None] * HEIGHT / height
    owners, best = np.zeros(class_map.shape, np.int32), np.full(class_map.shape, np.inf)
    for number, box in enumerate(boxes, 1):
        beside, above = AROUND * (box.x2 - box.x1), AROUND * (box.y2 - box.y1)
        near = (x >= box.x1 - beside) & (x < box.x2 + beside) & (y >= box.y1 - above) & (y < box.y2 + above)
        cost = np.where(near & (class_map == box.class_id), rule(x, y, box), np.inf)
        owners[cost < best] = number
        best = np.minimum(cost, best)
    return owners


def frames(seeds: Sequence[int], every: int) -> Iterator[tuple[NDArray[np.uint8], Owners, tuple[Box, ...]]]:
    """The class map, the instances (the n-th box), both at the grid's size, and the boxes of some frames of drives."""
    for seed in seeds:
        scene = SyntheticScene(*SIZE, 25, seed, 16)
        for index in range(0, FRAMES, every):
            _, label, boxes = scene.frame(index)
            tracks = scene.instances(index)
            numbers = np.zeros(int(tracks.max()) + 1, np.int32)
            for number, box in enumerate(boxes, 1):
                numbers[box.track or 0] = number
            small = [cv2.resize(m, GRID, interpolation=cv2.INTER_NEAREST) for m in (label, numbers[tracks])]
            yield np.asarray(small[0], np.uint8), np.asarray(small[1]), boxes


class Tally:
    """How well objects are covered by what they were given."""

    def __init__(self) -> None:
        self.right = self.pixels = 0
        self.overlaps: list[float] = []

    def add(self, owners: Owners, true: Owners, pairs: Sequence[tuple[int, int]]) -> None:
        """Count the objects of a frame: our number and the true one of each."""
        for ours, theirs in pairs:
            mine, whole = owners == ours, true == theirs
            both = int((mine & whole).sum())
            if (size := int(whole.sum())) >= LEAST:
                self.right, self.pixels = self.right + both, self.pixels + size
                self.overlaps.append(both / int((mine | whole).sum()))

    def __str__(self) -> str:
        share, mean = self.right / self.pixels, np.mean(self.overlaps)
        return f"{share:.1%} of the pixels, mean IoU {mean:.3f} ({len(self.overlaps)} objects)"


def found(model: str, seeds: Sequence[int], every: int) -> Tally:
    """From what the model says of the pictures."""
    tally = Tally()
    for seed in seeds:
        scene = SyntheticScene(*SIZE, 25, seed, 16)
        source = f"synthetic:?seconds={FRAMES / 25}&width={WIDTH}&height={HEIGHT}&seed={seed}&traffic=16"
        for analysis in roadlens.analyse(source, model=model):
            index = analysis.frame.index
            if index % every or not analysis.boxes:
                continue
            tracks, (_, _, boxes) = scene.instances(index), scene.frame(index)
            owners = analysis.instances()
            true = cv2.resize(tracks, owners.shape[::-1], interpolation=cv2.INTER_NEAREST)
            corners = np.array([(box.x1, box.y1, box.x2, box.y2) for box in boxes], np.float64)
            overlap = iou_matrix(analysis.boxes_xyxy.astype(np.float64), corners)
            best = overlap.argmax(1)
            pairs = [(n + 1, boxes[k].track or 0) for n, k in enumerate(best.tolist()) if overlap[n, k] >= 0.5]
            tally.add(owners, np.asarray(true), pairs)
    return tally


def milliseconds(calls: dict[str, Callable[[], object]], rounds: int = 30) -> dict[str, float]:
    """The median of each, in turns."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            spent[name].append(time.perf_counter() - began)
    return {name: 1000 * float(np.median(times)) for name, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--model", default="cityscapes-road-users")
    given = parser.parse_args()
    tallies = {name: Tally() for name in (*RULES, "roadlens")}
    crowded: tuple[NDArray[np.uint8], Owners, tuple[Box, ...]] | None = None
    for class_map, true, boxes in frames(given.seeds, given.every):
        pairs = [(number, number) for number in range(1, len(boxes) + 1)]
        for name, rule in RULES.items():
            tallies[name].add(by(rule, class_map, boxes), true, pairs)
        tallies["roadlens"].add(instance_map(class_map, boxes, CITYSCAPES_CLASSES, SIZE), true, pairs)
        if crowded is None or len(boxes) > len(crowded[2]):
            crowded = class_map, true, boxes
    for name, tally in tallies.items():
        print(f"true classes and boxes, {name}: {tally}")
    print(f"{given.model}, roadlens: {found(given.model, given.seeds, given.every)}")

    assert crowded is not None
    class_map, true, boxes = crowded
    owners = instance_map(class_map, boxes, CITYSCAPES_CLASSES, SIZE)
    masks = [np.asfortranarray((owners == number).astype(np.uint8)) for number in range(1, len(boxes) + 1)]
    spent = milliseconds({
        "instances": lambda: instance_map(class_map, boxes, CITYSCAPES_CLASSES, SIZE),
        "runs": lambda: encode_segmentations(owners, len(boxes)),
        "pycocotools": lambda: [coco.encode(mask) for mask in masks],
        "pycocotools, masks made": lambda: [
            coco.encode(np.asfortranarray((owners == n).astype(np.uint8))) for n in range(1, len(boxes) + 1)
        ],
    })  # fmt: skip
    print(f"{len(boxes)} boxes: " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in spent.items()))
    print(f"runs: {spent['pycocotools, masks made'] / spent['runs']:.1f} × pycocotools' speed")


if __name__ == "__main__":
    main()
