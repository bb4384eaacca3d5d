"""Boxes from a class map: connected components of the thing classes, at no extra network cost."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import ClassInfo
from pipeline.frame import Box

UInt8 = NDArray[np.uint8]


class ComponentOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which components become boxes.

    Attributes:
        enabled: whether boxes are read off the class map at all.
        min_area: smallest component, as a share of the picture.
        classes: names of the classes; None takes every thing class of the model.
    """

    enabled: bool = True
    min_area: float = 0.0004
    classes: tuple[str, ...] | None = None


def component_boxes(
    class_map: UInt8,
    confidence: UInt8 | None,
    classes: Sequence[ClassInfo],
    frame_size: tuple[int, int],
    options: ComponentOptions,
    origin: str,
) -> list[Box]:
    """A box around every 8-connected component of a thing class, largest first.

    The score is the component's mean confidence; without a confidence map it is how much of its box the component
    fills, at most 1.

    Args:
        class_map: (h, w) uint8 class ids, the whole frame squashed into it.
        confidence: (h, w) uint8, 255 = certain, or None.
        classes: the label set.
        frame_size: (width, height) of the frame in pixels; boxes are in its coordinates.
        options: what to keep.
        origin: name of the model.
    """
    if not options.enabled:
        return []
    height, width = class_map.shape
    scale_x, scale_y = frame_size[0] / width, frame_size[1] / height
    smallest = max(1.0, options.min_area * class_map.size)
    present = np.bincount(class_map.ravel(), minlength=256)
    found: list[tuple[int, Box]] = []
    for info in classes:
        wanted = info.thing if options.classes is None else info.name in options.classes
        if not wanted or present[info.id] < smallest:
            continue
        mask = (class_map == info.id).view(np.uint8)
        count, numbered, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_16U)
        for component in range(1, count):
            x, y, w, h, area = (int(v) for v in stats[component])
            if area < smallest:
                continue
            if confidence is None:
                score = area / (w * h)
            else:
                inside = numbered[y : y + h, x : x + w] == component
                score = float(confidence[y : y + h, x : x + w][inside].mean()) / 255
            box = Box(
                x * scale_x, y * scale_y, (x + w) * scale_x, (y + h) * scale_y, info.id, info.name, score, origin
            )
            found.append((area, box))
    found.sort(key=lambda pair: -pair[0])
    return [box for _, box in found]
