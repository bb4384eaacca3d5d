"""What is written around a foreign graph: a picture of the house before it, answers of the house behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.foreign.forms import BoxForm, Part, PeakForm, PixelForm
from engines.foreign.picture import KINDS, PictureInput
from engines.foreign.writer import BOOL, FLOAT, INT64, Writer
from engines.spec import OutputRole

Tensors = dict[OutputRole, str]
"""Names of tensors by role, the class map and labels not yet in their type."""

CANDIDATES = 512
"""Most boxes that are compared with each other; the likeliest."""

_ROUNDS = 10
"""Of suppression. After n rounds it is greedy suppression's to a depth of n boxes, each overlapping the next."""


def write_picture(w: Writer, images: str, picture: PictureInput) -> None:
    """(N, h, w, 3) float 0 to 255, RGB → the foreign graph's input, under its name."""
    if picture.bgr:
        images = w.add("Gather", images, w.constant([2, 1, 0], np.int64), axis=3)
    if not picture.channels_last:
        images = w.add("Transpose", images, perm=[0, 3, 1, 2])
    height, width = (1, 2) if picture.channels_last else (2, 3)
    if (picture.inner_height, picture.inner_width) != (picture.height, picture.width):
        before, after = [0] * 4, [0] * 4
        before[height], before[width] = picture.top, picture.left
        after[height] = picture.height - picture.inner_height - picture.top
        after[width] = picture.width - picture.inner_width - picture.left
        images = w.add("Pad", images, w.constant([*before, *after], np.int64), w.constant(picture.fill))
    scale = np.array(picture.scale, np.float32) / np.array(picture.std, np.float32)
    shift = -np.array(picture.mean, np.float32) / np.array(picture.std, np.float32)
    form = (1, 1, 1, 3) if picture.channels_last else (1, 3, 1, 1)
    if (scale != 1).any():
        images = w.add("Mul", images, w.constant(scale.reshape(form)))
    if (shift != 0).any():
        images = w.add("Add", images, w.constant(shift.reshape(form)))
    if not picture.batched:
        images = w.squeeze(images, 0)
    kinds = {kind: number for number, kind in KINDS.items()}
    if picture.kind == "float32":
        w.add("Identity", images, to=picture.name)
    else:
        w.cast(images, kinds[picture.kind], to=picture.name)
    for name, values in picture.others.items():
        w.add("Identity", w.constant(values, values.dtype), to=name)


# Segmenters --------------------------------------------------------------------------------------------------------


def write_pixels(w: Writer, form: PixelForm, picture: PictureInput, ids: Sequence[int], confidence: bool) -> Tensors:
    """The class map, (N, h, w) int64 or float, and where wanted the confidence, float 0 to 255."""
    tensor = form.output if form.batched else w.unsqueeze(form.output, 0)
    if form.kind == "map":
        return {"class_map": _cropped(w, _map(w, tensor, form, picture), picture, 1)}
    scores = w.cast(tensor, FLOAT)
    if form.axis is None:
        scores = w.unsqueeze(scores, 1)
    elif form.axis == 3:
        scores = w.add("Transpose", scores, perm=[0, 3, 1, 2])
    scores = _cropped(w, _enlarged(w, scores, form, picture, "linear"), picture, 2)
    if form.kind == "one":
        return _one(w, scores, form, ids, confidence)
    best = w.add("ArgMax", scores, axis=1, keepdims=0)
    found: Tensors = {"class_map": best}
    if tuple(ids) != tuple(range(len(ids))):
        found["class_map"] = w.add("Gather", w.constant(ids, np.int64), best, axis=0)
    if confidence:
        if form.scores == "softmax":
            scores = w.add("Softmax", scores, axis=1)
        elif form.scores == "sigmoid":
            scores = w.add("Sigmoid", scores)
        found["confidence"] = _as_bytes(w, w.add("ReduceMax", scores, w.constant([1], np.int64), keepdims=0))
    return found


def _one(w: Writer, scores: str, form: PixelForm, ids: Sequence[int], confidence: bool) -> Tensors:
    """One class against nothing: `ids` are of nothing and of the class."""
    score = w.squeeze(scores, 1)
    there = w.add("Greater", score, w.constant(form.level))
    nothing, something = (w.constant(number, np.int64) for number in ids)
    found: Tensors = {"class_map": w.add("Where", there, something, nothing)}
    if confidence:
        if form.scores == "sigmoid":
            score = w.add("Sigmoid", score)
        against = w.add("Sub", w.constant(1), score)
        found["confidence"] = _as_bytes(w, w.add("Where", there, score, against))
    return found


def _map(w: Writer, tensor: str, form: PixelForm, picture: PictureInput) -> str:
    """(N, height, width) float class ids."""
    ids = w.cast(tensor, FLOAT)
    if form.axis is not None:
        ids = w.squeeze(ids, form.axis)
    if (form.height, form.width) == (picture.height, picture.width):
        return ids
    return w.squeeze(_enlarged(w, w.unsqueeze(ids, 1), form, picture, "nearest"), 1)


def _enlarged(w: Writer, tensor: str, form: PixelForm, picture: PictureInput, mode: str) -> str:
    """N×C×h×w at the picture's size."""
    if (form.height, form.width) == (picture.height, picture.width):
        return tensor
    attributes = {
        "mode": mode,
        "coordinate_transformation_mode": "half_pixel" if mode == "linear" else "asymmetric",
        **({} if mode == "linear" else {"nearest_mode": "floor"}),
    }
    if picture.height % form.height == 0 and picture.width % form.width == 0:
        scales = [1, 1, picture.height // form.height, picture.width // form.width]
        return w.add("Resize", tensor, "", w.constant(scales), **attributes)
    sizes = w.constant([picture.height, picture.width], np.int64)
    return w.add("Resize", tensor, "", "", sizes, axes=[2, 3], **attributes)


def _cropped(w: Writer, tensor: str, picture: PictureInput, axis: int) -> str:
    """Without what was padded; `axis` is the rows'."""
    if (picture.inner_height, picture.inner_width) == (picture.height, picture.width):
        return tensor
    tensor = w.slice(tensor, axis, picture.top, picture.top + picture.inner_height)
    return w.slice(tensor, axis + 1, picture.left, picture.left + picture.inner_width)


def _as_bytes(w: Writer, share: str) -> str:
    return w.add("Round", w.add("Mul", share, w.constant(255)))


# Detectors ---------------------------------------------------------------------------------------------------------


def write_boxes(w: Writer, form: BoxForm, picture: PictureInput, ids: Sequence[int], most: int) -> Tensors:
    """Boxes (N, most, 4) as fractions, scores (N, most) falling, labels (N, most) int64.

    Args:
        w: of the graph.
        form: what the graph gives.
        picture: how it takes its picture.
        ids: the class id of each column of scores without that of nothing, or of each label from 0 or, where the first
            stands for nothing, from 1 on; empty where labels are ids.
        most: how many.
    """
    boxes = w.cast(_part(w, form.boxes), FLOAT)
    if form.labels is None:
        best, labels = _best(w, form)
    else:
        best, labels = w.cast(_part(w, form.scores), FLOAT), w.cast(_part(w, form.labels), INT64)
        if form.kind == "sigmoid":
            best = w.add("Sigmoid", best)
    if form.count is not None:
        best = _counted(w, best, form.count, form.rows)
    wanted = max(CANDIDATES, most) if form.overlap else most
    if form.rows is None or form.rows < wanted:
        if form.rows is not None and form.batched:
            wanted, most = form.rows, min(form.rows, most)
        else:
            best, labels, boxes = _filled(w, best, labels, boxes, wanted)
    best, places = w.top(best, wanted)
    boxes, labels = w.rows(boxes, places, 4), w.add("GatherElements", labels, places, axis=1)
    boxes = _fractions(w, boxes, form, picture)
    if form.overlap:
        best = _suppressed(w, boxes, best, labels, wanted, form.overlap)
        best, places = w.top(best, most)
        boxes, labels = w.rows(boxes, places, 4), w.add("GatherElements", labels, places, axis=1)
    return {"boxes": boxes, "scores": best, "labels": _ids(w, labels, ids, form)}


def _part(w: Writer, part: Part) -> str:
    """N×rows×columns, or N×rows where it is flat."""
    tensor = part.output if part.batched else w.unsqueeze(part.output, 0)
    if part.squeezed is not None:
        tensor = w.squeeze(tensor, part.squeezed)
    if part.turned:
        tensor = w.add("Transpose", tensor, perm=[0, 2, 1])
    if part.columns is None or part.flat:
        return tensor
    tensor = w.columns(tensor, *part.columns, part.width)
    return w.squeeze(tensor, 2) if part.columns[1] == part.columns[0] + 1 else tensor


def _best(w: Writer, form: BoxForm) -> tuple[str, str]:
    """The likeliest class of each row, and its score."""
    scores = w.cast(_part(w, form.scores), FLOAT)
    if form.classes == 1 and form.scores.columns is not None:
        scores = w.unsqueeze(scores, 2)
    if form.kind == "softmax":
        scores = w.add("Softmax", scores, axis=2)
    elif form.kind == "sigmoid":
        scores = w.add("Sigmoid", scores)
    if form.background != "none":
        begin = 1 if form.background == "first" else 0
        scores = w.columns(scores, begin, begin + form.classes - 1, form.classes)
    best = w.add("ReduceMax", scores, w.constant([2], np.int64), keepdims=0)
    labels = w.add("ArgMax", scores, axis=2, keepdims=0)
    if form.objectness is not None:
        sure = w.cast(_part(w, form.objectness), FLOAT)
        best = w.add("Mul", best, sure)
    return best, labels


def _counted(w: Writer, best: str, count: str, rows: int | None) -> str:
    """Rows from the count on are nothing."""
    if rows is None:
        there = w.squeeze(w.add("Shape", best, start=1, end=2), 0)
        places = w.add("Range", w.constant(0, np.int64), there, w.constant(1, np.int64))
    else:
        places = w.constant(np.arange(rows), np.int64)
    number = w.add("Reshape", w.cast(count, INT64), w.constant([-1, 1], np.int64))
    meant = w.add("Less", w.unsqueeze(places, 0), number)
    return w.add("Where", meant, best, w.constant(0))


def _filled(w: Writer, best: str, labels: str, boxes: str, count: int) -> tuple[str, str, str]:
    """Rows of nothing behind those of one picture, so that there are enough."""
    return (
        w.add("Concat", best, w.constant(np.zeros((1, count))), axis=1),
        w.add("Concat", labels, w.constant(np.zeros((1, count)), np.int64), axis=1),
        w.add("Concat", boxes, w.constant(np.zeros((1, count, 4))), axis=1),
    )


def _fractions(w: Writer, boxes: str, form: BoxForm, picture: PictureInput) -> str:
    """Corners as fractions of the picture, 0 to 1."""
    whole = np.array([picture.width, picture.height], np.float32)
    inner = np.array([picture.inner_width, picture.inner_height], np.float32)
    offset = np.array([picture.left, picture.top], np.float32)
    one, other = (w.columns(boxes, begin, begin + 2, 4) for begin in (0, 2))
    if form.corners == "yxyx":
        turned = w.constant([1, 0], np.int64)
        one, other = (w.add("Gather", each, turned, axis=2) for each in (one, other))
    elif form.corners == "xywh":
        other = w.add("Add", one, other)
    elif form.corners == "cxcywh":
        half = w.add("Mul", other, w.constant(0.5))
        one, other = w.add("Sub", one, half), w.add("Add", one, half)
    corners = w.add("Concat", one, other, axis=2)
    unit = whole if form.unit == "fractions" else np.ones(2, np.float32)
    return _clipped(w, corners, unit / inner, -offset / inner)


def _clipped(w: Writer, corners: str, factor: np.ndarray, shift: np.ndarray) -> str:
    if (factor != 1).any():
        corners = w.add("Mul", corners, w.constant(np.tile(factor, 2)))
    if (shift != 0).any():
        corners = w.add("Add", corners, w.constant(np.tile(shift, 2)))
    return w.add("Clip", corners, w.constant(0), w.constant(1))


def _suppressed(w: Writer, boxes: str, scores: str, labels: str, count: int, overlap: float) -> str:
    """Scores, 0 for a box that overlaps a likelier one of its class which stays.

    Of N×count boxes in falling order of score. No operator for suppression: that of ONNX gives one list for all
    pictures, of a length that is not known before, which backends cannot batch. No matrix product either: OpenVINO
    computes in bf16 up to the last one, and boxes must not be.
    """
    x1, y1, x2, y2 = w.several("Split", boxes, count=4, axis=2, num_outputs=4)
    over: list[str] = []
    for begin, end in ((x1, x2), (y1, y2)):
        least = w.add("Max", begin, w.add("Transpose", begin, perm=[0, 2, 1]))
        most = w.add("Min", end, w.add("Transpose", end, perm=[0, 2, 1]))
        over.append(w.add("Relu", w.add("Sub", most, least)))
    shared = w.add("Mul", *over)
    area = w.add("Mul", w.add("Sub", x2, x1), w.add("Sub", y2, y1))
    both = w.add("Sub", w.add("Add", area, w.add("Transpose", area, perm=[0, 2, 1])), shared)
    close = w.add("Greater", shared, w.add("Mul", both, w.constant(overlap)))
    same = w.add("Equal", w.unsqueeze(labels, 2), w.unsqueeze(labels, 1))
    before = w.cast(w.constant(np.triu(np.ones((1, count, count)), 1), np.float32), BOOL)
    takes = w.cast(w.add("And", w.add("And", close, same), before), FLOAT)  # rows take away columns
    axis, one = w.constant([1], np.int64), w.constant(1)
    kept = w.add("Sub", one, w.add("ReduceMax", takes, axis, keepdims=0))
    for _ in range(_ROUNDS - 1):
        taken = w.add("ReduceMax", w.add("Mul", takes, w.unsqueeze(kept, 2)), axis, keepdims=0)
        kept = w.add("Sub", one, taken)
    return w.add("Mul", scores, kept)


def _ids(w: Writer, labels: str, ids: Sequence[int], form: BoxForm | PeakForm) -> str:
    """Class ids of columns or labels."""
    if isinstance(form, BoxForm) and form.labels is not None and form.background == "first":
        labels = w.add("Max", w.add("Sub", labels, w.constant(1, np.int64)), w.constant(0, np.int64))
    if not ids or tuple(ids) == tuple(range(len(ids))):
        return labels
    last = w.constant(len(ids) - 1, np.int64)
    within = w.add("Max", w.add("Min", labels, last), w.constant(0, np.int64))
    return w.add("Gather", w.constant(ids, np.int64), within, axis=0)


def write_peaks(w: Writer, form: PeakForm, picture: PictureInput, ids: Sequence[int], most: int) -> Tensors:
    """The same of CenterNet's maps: a box at each peak of the heat map."""
    cells = form.height * form.width
    heat = w.cast(form.heatmap, FLOAT)
    if form.kind == "sigmoid":
        heat = w.add("Sigmoid", heat)
    around = w.add("MaxPool", heat, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    heat = w.add("Where", w.add("Less", heat, around), w.constant(0), heat)
    flat = w.add("Reshape", heat, w.constant([0, form.classes * cells], np.int64))
    most = min(most, form.classes * cells)
    best, places = w.top(flat, most)
    per_class = w.constant(cells, np.int64)
    labels = w.add("Div", places, per_class)
    cell = w.add("Sub", places, w.add("Mul", labels, per_class))
    row = w.add("Div", cell, w.constant(form.width, np.int64))
    column = w.add("Sub", cell, w.add("Mul", row, w.constant(form.width, np.int64)))
    parts = [w.unsqueeze(w.cast(each, FLOAT), 2) for each in (column, row)]
    centre = w.add("Concat", *parts, axis=2)

    def at_peaks(name: str) -> str:
        pairs = w.add("Reshape", w.cast(name, FLOAT), w.constant([0, 2, cells], np.int64))
        return w.rows(w.add("Transpose", pairs, perm=[0, 2, 1]), cell, 2)

    if form.offsets is not None:
        centre = w.add("Add", centre, at_peaks(form.offsets))
    stride = np.array([picture.width / form.width, picture.height / form.height], np.float32)
    sizes = at_peaks(form.sizes)
    if form.unit == "pixels":
        sizes = w.add("Mul", sizes, w.constant(1 / stride))
    half = w.add("Mul", sizes, w.constant(0.5))
    corners = w.add("Concat", w.add("Sub", centre, half), w.add("Add", centre, half), axis=2)
    inner = np.array([picture.inner_width, picture.inner_height], np.float32)
    offset = np.array([picture.left, picture.top], np.float32)
    boxes = _clipped(w, corners, stride / inner, -offset / inner)
    return {"boxes": boxes, "scores": best, "labels": _ids(w, labels, ids, form)}
