"""Pictures of a report: what a model says, drawn on what it saw, as data URLs."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE, ClassInfo
from engines.errors import OutputError
from training.task import Outputs

UInt8 = NDArray[np.uint8]

MIN_SIDE = 224
"""Smaller pictures are drawn in larger pixels."""

MIN_SCORE = 0.5
"""Boxes that a model is less sure of are not drawn."""

_BOX_COLOR = (255, 90, 0)


def data_url(suffix: str, picture: NDArray[np.uint8] | cv2.typing.MatLike) -> str:
    """An encoded picture as text that a page can hold.

    Args:
        suffix: `.jpg` or `.png`.
        picture: (H, W, 3) or (H, W, 4) uint8, in OpenCV's order of colours (blue first).
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, 88] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    done, content = cv2.imencode(suffix, picture, options)
    if not done:
        raise OutputError(f"a picture cannot be encoded as {suffix}; is OpenCV whole?")
    kind = "jpeg" if suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"


def draw_outputs(photo: UInt8, outputs: Outputs, classes: Sequence[ClassInfo]) -> UInt8:
    """What a model says of one picture, or what is true, drawn on it: class maps in their colours, boxes with labels.

    Args:
        photo: (H, W, 3) uint8 RGB; enlarged to `MIN_SIDE` where it is smaller.
        outputs: of this one picture: `class_map` (h, w), or `boxes` (K, 4), `scores` (K,) and `labels` (K,).
        classes: that ids stand for.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    factor = -(-MIN_SIDE // min(photo.shape[:2]))
    canvas = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    height, width = canvas.shape[:2]
    by_id = {info.id: info for info in classes}
    if "class_map" in outputs:
        table = np.zeros((256, 3), np.uint8)
        for info in classes:
            table[info.id] = info.color
        ids = cv2.resize(
            outputs["class_map"].astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT
        )  # fmt: skip
        canvas = np.where((ids == IGNORE)[..., None], canvas, cv2.addWeighted(canvas, 0.4, table[ids], 0.6, 0))
    drawn: UInt8 = np.ascontiguousarray(canvas, np.uint8)
    boxes = outputs.get("boxes", np.zeros((0, 4), np.float32))
    scores = outputs.get("scores", np.ones(len(boxes), np.float32))
    labels = outputs.get("labels", np.zeros(len(boxes), np.int32))
    for box, score, label in zip(boxes, scores, labels, strict=True):
        if not (score >= MIN_SCORE and np.isfinite(box).all()):
            continue
        found = by_id.get(int(label))
        left, top, right, bottom = (box * (width, height, width, height)).round().astype(int).tolist()
        cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), found.color if found else _BOX_COLOR, 2)
        if found is not None and len(classes) > 1:
            place = (max(left + 2, 0), max(top - 4, 11))
            cv2.putText(drawn, found.name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 3, cv2.LINE_AA)
            cv2.putText(drawn, found.name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return drawn
