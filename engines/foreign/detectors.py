"""Which outputs of a foreign graph are a detector's, and how they are to be read.

The forms and who makes them:

- rows of `x y w h (objectness) scores…`: YOLOv5, v7 (objectness, N×rows×columns), v8, v9, 11 (none, N×columns×rows);
- rows of `x1 y1 x2 y2 score class`: YOLOv10 and 26, others with their suppression in the graph; seven columns with the
  picture's number first: YOLOv7, Caffe's and OpenVINO's SSD;
- boxes, scores and labels apart: torchvision, RT-DETR, TensorFlow (with a count), mmdetection (`dets` of five columns);
- boxes, and scores for each class: SSD, YOLO-NAS, DETR and its kin (as logits);
- maps: CenterNet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelError, UsageError
from engines.foreign.forms import BoxForm, Part, PeakForm
from engines.foreign.original import Output
from engines.foreign.picture import PictureInput
from engines.foreign.segmenters import shape
from engines.foreign.told import Background, Corners, How, Ledger, ScoreKind, Unit

OVERLAP = 0.6
"""IoU from which on two raw boxes of a class are one object, where nobody says otherwise; as `engines.boxes`."""

_FEW = 1000
"""Rows up to this number are objects; more are a network's raw grid, which tells of each object many times."""


def find_boxes(outputs: Sequence[Output], picture: PictureInput, ledger: Ledger) -> BoxForm | PeakForm | None:
    """The outputs of boxes; None where there are none, or where a question is open.

    Raises:
        ModelError, UsageError: what was told does not fit.
    """
    if strange := next((name for name in ledger.told.take.values() if name not in {o.name for o in outputs}), None):
        raise UsageError(f"There is no output `{strange}`; there are {', '.join(o.name for o in outputs)}.")
    return _peaks(outputs, ledger) or _apart(outputs, picture, ledger) or _rows(outputs, picture, ledger)


def _peaks(outputs: Sequence[Output], ledger: Ledger) -> PeakForm | None:
    """Maps of one size, of which one has two channels (sizes) and perhaps another (offsets)."""
    maps = [output for output in outputs if output.is_float and len(output.shape) == 4]
    take = ledger.told.take
    by_name = {output.name: output for output in maps}
    pairs = [output for output in maps if output.shape[1] == 2 and output.name != take.get("heatmap")]
    if take.get("heatmap") in by_name:
        heat = by_name[take["heatmap"]]
    else:
        others = [output for output in maps if output not in pairs]
        if not pairs or len(others) != 1 or len(maps) not in {2, 3}:
            return None
        heat = others[0]
    pairs = [output for output in pairs if output.shape[2:] == heat.shape[2:]]
    sizes = by_name.get(take.get("sizes", "")) or _called(pairs, "wh", "size", "dim") or (pairs[0] if pairs else None)
    if sizes is None:
        return None
    offsets = by_name.get(take.get("offsets", "")) or next((output for output in pairs if output is not sizes), None)
    values = heat.values
    likely = bool(values.min() >= 0 and values.max() <= 1)
    kind: ScoreKind = ledger.told.scores or ("probabilities" if likely else "sigmoid")
    unit = ledger.told.unit or "cells"
    names = [f"centres `{heat.name}`", f"sizes `{sizes.name}`", *([f"offsets `{offsets.name}`"] if offsets else [])]
    ledger.find("detector", f"CenterNet's maps: {', '.join(names)}", "told" if take else "measured")
    ledger.find("sizes", f"in {unit}", "told" if ledger.told.unit else "convention")
    classes, height, width = heat.shape[1:]
    return PeakForm(heat.name, sizes.name, offsets.name if offsets else None, height, width, classes, kind, unit)


def _called(outputs: Sequence[Output], *words: str) -> Output | None:
    return next((output for output in outputs if any(word in output.name.lower() for word in words)), None)


# Boxes, scores and labels apart ------------------------------------------------------------------------------------


def _apart(outputs: Sequence[Output], picture: PictureInput, ledger: Ledger) -> BoxForm | None:
    take = ledger.told.take
    boxes = _boxes_output(outputs, take.get("boxes"))
    if boxes is None:
        return None
    batched, squeezed = _axes(boxes)
    rows = boxes.shape[-2] if squeezed is None else boxes.shape[1]
    five = boxes.shape[-1] == 5
    others = [output for output in outputs if output is not boxes]
    labels = next((o for o in others if o.name == take.get("labels")), None) or _labels(others, rows, five)
    scores = (
        boxes if five
        else next((o for o in others if o.name == take.get("scores")), None)
        or _scores(others, rows, labels, ledger)
    )  # fmt: skip
    if scores is None:
        return None
    count = next((o for o in others if o.name == take.get("count")), None) or next(
        (o for o in others if o.answers[0].size == 1 and o.is_whole and o is not labels and o is not scores), None
    )
    boxes_part = Part(boxes.name, batched, squeezed, columns=(0, 4) if five else None, width=5)
    if five:
        scores_part, classes = Part(boxes.name, batched, squeezed, columns=(4, 5), width=5), 1
    else:
        scores_part, classes = _scores_part(scores, rows)
    flat_scores = five or scores_part.flat
    used = list(dict.fromkeys(output.name for output in (boxes, scores, labels, count) if output is not None))
    what = ", ".join(f"`{name}`" for name in used)
    ledger.find("detector", f"boxes, scores and labels in {what}", "told" if take else "measured")
    if left := [f"`{output.name}`" for output in outputs if output.name not in used]:
        ledger.find("left out", ", ".join(left), "measured")
    found = boxes_part, scores_part
    labels_part = None if labels is None or not flat_scores else _flat(labels)
    return _completed(
        outputs, picture, ledger, found, labels_part, None, None if count is None else count.name,
        _open(boxes, 2 if squeezed == 1 else len(boxes.shape) - (2 if squeezed is None else 3)), classes, "cxcywh",
    )  # fmt: skip


def _boxes_output(outputs: Sequence[Output], name: str | None) -> Output | None:
    if name is not None:
        return next(output for output in outputs if output.name == name)
    fitting = [
        o for o in outputs
        if o.is_float and len(o.shape) in {2, 3, 4} and o.shape[-1] in {4, 5}
        and (len(o.shape) < 4 or 1 in o.shape[1:3]) and len(outputs) > 1
    ]  # fmt: skip
    return _called(fitting, "pred_boxes", "boxes", "dets", "bbox", "loc") or (fitting[0] if fitting else None)


def _axes(output: Output) -> tuple[bool, int | None]:
    """Whether the first axis is of pictures, and the axis of length one that stands in the way."""
    if len(output.shape) == 4:
        return True, 2 if output.shape[2] == 1 else 1
    return len(output.shape) == 3, None


def _labels(others: Sequence[Output], rows: int, five: bool) -> Output | None:
    """Class numbers: whole, one for each box."""
    fitting = [
        o for o in others
        if o.is_whole and o.answers[0].size == rows and o.shape[-1] == rows
        and (rows > 1 or five or any(word in o.name.lower() for word in ("label", "class", "cls")))
    ]  # fmt: skip
    integers = [output for output in fitting if not output.is_float]
    return _called(fitting, "label", "class", "cls") or next(iter(integers or fitting), None)


def _scores(others: Sequence[Output], rows: int, labels: Output | None, ledger: Ledger) -> Output | None:
    fitting = [
        o for o in others
        if o.is_float and o is not labels and len(o.shape) in {1, 2, 3} and rows in o.shape[-2:]
        and (labels is None or o.answers[0].size == rows)
    ]  # fmt: skip
    if not fitting and labels is not None:  # the labels are there beside scores of all classes
        fitting = [o for o in others if o.is_float and o is not labels and len(o.shape) == 3 and rows in o.shape[-2:]]
    wanted = {len(ledger.classes) + more for more in (0, 1)} if ledger.classes else set()
    exact = [output for output in fitting if wanted & set(output.shape[-2:])]
    return _called(exact or fitting, "score", "conf", "logit", "prob") or next(iter(exact or fitting), None)


def _scores_part(scores: Output, rows: int) -> tuple[Part, int]:
    if scores.answers[0].size == rows and scores.shape[-1] == rows:
        return _flat(scores), 1
    batched, turned = len(scores.shape) == 3, scores.shape[-1] == rows and scores.shape[-2] != rows
    return Part(scores.name, batched, turned=turned), scores.shape[-2 if turned else -1]


def _flat(output: Output) -> Part:
    """A number for each row: N×rows, or rows alone."""
    if len(output.shape) == 3:
        return Part(output.name, True, 2 if output.shape[2] == 1 else 1, flat=True)
    return Part(output.name, len(output.shape) == 2, flat=True)


# Rows with all in them ---------------------------------------------------------------------------------------------


def _rows(outputs: Sequence[Output], picture: PictureInput, ledger: Ledger) -> BoxForm | None:
    """One output whose rows hold box, scores and class."""
    name = ledger.told.take.get("boxes")
    fitting = [o for o in outputs if o.is_float and (name is None or o.name == name) and _is_table(o)]
    if not fitting:
        return None
    table = max(fitting, key=lambda output: output.answers[0].size)
    if left := [f"`{output.name}`" for output in outputs if output is not table]:
        ledger.find("left out", ", ".join(left), "measured")
    batched = len(table.shape) > 2
    squeezed = 1 if len(table.shape) == 4 else None
    height, width = table.shape[-2:]
    if width in {6, 7} and height <= _FEW:
        found = _table(table, Part(table.name, batched, squeezed), ledger)
        if found is not None:
            boxes, scores, labels, fallback = found
            # In seven columns they are of all pictures, each with its number.
            rows = None if width == 7 else _open(table, len(table.shape) - 2)
            return _completed(outputs, picture, ledger, (boxes, scores), labels, None, None, rows, 1, fallback)
    turned = height < width
    columns, rows = (height, width) if turned else (width, height)
    objectness, classes = _grid_columns(outputs, table, columns, ledger)
    if classes < 1:
        return None
    first = 5 if objectness else 4

    def part(begin: int, end: int) -> Part:
        return Part(table.name, batched, squeezed, turned, (begin, end), columns)

    form = f"{rows} rows of a box{', objectness' if objectness else ''} and {classes} scores"
    ledger.find("detector", f"`{table.name}`: {form} (YOLO)", "measured")
    is_open = _open(table, len(table.shape) - (1 if turned else 2))
    return _completed(
        outputs, picture, ledger, (part(0, 4), part(first, first + classes)), None, part(4, 5) if objectness else None,
        None, is_open, classes, "cxcywh", grid=True,
    )  # fmt: skip


def _is_table(output: Output) -> bool:
    sizes = output.shape
    if len(sizes) == 4:
        return sizes[:2] == (1, 1) and sizes[3] == 7
    return (len(sizes) == 2 or (len(sizes) == 3 and sizes[0] == 1)) and min(sizes[-2:]) >= 5


def _open(output: Output, axis: int) -> int | None:
    """How many rows there are, where the graph or all pictures say the same."""
    counts = {answer.shape[axis] for answer in output.answers}
    stated = output.sizes[axis] if axis < len(output.sizes) else None
    return stated if stated is not None and counts == {stated} else None


def _table(table: Output, whole: Part, ledger: Ledger) -> tuple[Part, Part, Part, Corners] | None:
    """Columns of a table of objects: which are box, score and class is told by their numbers."""
    width = table.shape[-1]
    rows = np.concatenate([whole.taken({table.name: answer}) for answer in table.answers])

    def columns(*places: int) -> tuple[Part, ...]:
        return tuple(
            Part(table.name, whole.batched, whole.squeezed, columns=(place, place + 1), width=width) for place in places
        )

    def part(begin: int, end: int) -> Part:
        return Part(table.name, whole.batched, whole.squeezed, columns=(begin, end), width=width)

    forms = {
        6: {(4, 5): part(0, 4), (1, 0): part(2, 6)},
        7: {(6, 5): part(1, 5), (2, 1): part(3, 7)},
    }
    names = {(4, 5): "box, score, class", (1, 0): "class, score, box", (6, 5): "picture, box, class, score",
             (2, 1): "picture, class, score, box"}  # fmt: skip
    fitting = [key for key in forms[table.shape[-1]] if _are_scores(rows[:, key[0]]) and _are_labels(rows[:, key[1]])]
    if not fitting:
        return None
    (score, label), *more = fitting
    ledger.find("detector", f"`{table.name}`: rows of {names[score, label]}", "assumed" if more else "measured")
    scores, labels = columns(score, label)
    return forms[table.shape[-1]][score, label], scores, labels, "xyxy"


def _are_scores(column: NDArray[np.float64]) -> bool:
    return bool((column >= -1).all() and (column <= 1).all())


def _are_labels(column: NDArray[np.float64]) -> bool:
    return bool((column == np.round(column)).all() and (column >= -1).all() and (column < 1000).all())


def _grid_columns(outputs: Sequence[Output], table: Output, columns: int, ledger: Ledger) -> tuple[bool, int]:
    """Whether rows have objectness, and how many classes.

    YOLO's segmenters have as many columns more as another output has prototypes, which are left out.
    """
    masks = [o.shape[1] for o in outputs if o is not table and len(o.shape) == 4 and o.shape[1] < columns - 4]
    columns -= masks[0] if masks else 0
    if ledger.classes is None:
        ledger.ask("the names of its classes (--classes FILE), which say how its columns are meant")
        return False, columns - 4
    named = len(ledger.classes)
    if named in {columns - 4, columns - 5}:
        return named == columns - 5, named
    raise UsageError(
        f"The rows of `{table.name}` have {columns} columns, a box and {columns - 4} scores, or one less with "
        f"objectness, and {named} classes are named; name each one, in its order."
    )


# What all have in common -------------------------------------------------------------------------------------------


def _completed(
    outputs: Sequence[Output], picture: PictureInput, ledger: Ledger, found: tuple[Part, Part], labels: Part | None,
    objectness: Part | None, count: str | None, rows: int | None, classes: int, fallback: Corners,
    grid: bool = False,
) -> BoxForm | None:  # fmt: skip
    """The form of parts that were found, with what their numbers say; `grid` for raw rows of a network's cells."""
    boxes, scores = found
    told = ledger.told
    answers = [{output.name: output.answers[number] for output in outputs} for number in range(len(outputs[0].answers))]
    corners = np.concatenate([boxes.taken(each) for each in answers])
    values = np.concatenate([scores.taken(each).ravel() for each in answers])
    if not len(corners) and (told.corners is None or told.unit is None):
        ledger.ask(
            "what its boxes are, as there are none on the pictures (--frames with objects on them, or --boxes and "
            "--unit)"
        )
        return None
    kind, background = _score_kind(values, classes if labels is None else 0, labels is None, ledger)
    # A class of nothing that comes first is SSD's, whose rows are a grid, too.
    raw = grid or (labels is None and rows is not None and (rows > _FEW or background == "first"))
    overlap = told.overlap if told.overlap is not None else (OVERLAP if raw else 0.0)
    said = f"of a class, from an IoU of {overlap:g} on" if overlap else "none: it tells of each object once"
    ledger.find("suppression", said, "told" if told.overlap is not None else "convention")
    form, unit = _corners(corners, fallback, ledger), _unit(corners, picture, ledger)
    return BoxForm(
        boxes, scores, labels, objectness, count, rows, classes, form, unit, kind, background, overlap
    )  # fmt: skip


def _corners(boxes: NDArray[np.float64], fallback: Corners, ledger: Ledger) -> Corners:
    """Corners, or centre and size: of corners the second is never left of the first."""
    if ledger.told.corners is not None:
        ledger.find("boxes", ledger.told.corners, "told")
        return ledger.told.corners
    known = boxes[np.isfinite(boxes).all(1)]
    ordered = float((known[:, 2:] >= known[:, :2]).all(1).mean()) if len(known) else 0.0
    if ordered == 1:
        form, how = "xyxy", "measured" if len(known) >= 20 else "assumed"
    elif ordered < 0.95:
        form, how = "cxcywh", "measured" if len(known) >= 20 else "assumed"
    else:
        form, how = fallback, "assumed"
    ledger.find("boxes", f"{form} ({ordered:.0%} of {len(known)} have the second corner behind the first)", how)  # type: ignore[arg-type]
    return form  # type: ignore[return-value]


def _unit(boxes: NDArray[np.float64], picture: PictureInput, ledger: Ledger) -> Unit:
    if ledger.told.unit == "cells":
        raise UsageError("--unit cells is for CenterNet's maps; give pixels or fractions.")
    if ledger.told.unit is not None:
        ledger.find("unit of boxes", ledger.told.unit, "told")
        return ledger.told.unit
    most = float(np.nanmax(np.abs(boxes), initial=0))
    unit: Unit = "fractions" if most <= 4 and min(picture.height, picture.width) > 16 else "pixels"
    ledger.find("unit of boxes", f"{unit} (they reach {most:.4g})", "measured")
    return unit


def _score_kind(
    values: NDArray[np.float64], columns: int, by_class: bool, ledger: Ledger
) -> tuple[ScoreKind, Background]:
    """What has to be done to scores, and which column is nothing."""
    told, named = ledger.told, len(ledger.classes or ())
    likely = bool(values.size == 0 or (np.nanmin(values) >= 0 and np.nanmax(values) <= 1))
    if not by_class:  # one score a row, and its class apart
        kind: ScoreKind = told.scores or ("probabilities" if likely or bool(np.nanmin(values) >= -1) else "sigmoid")
        ledger.find("scores", kind, "told" if told.scores else "measured")
        return kind, told.background or "none"
    background: Background = told.background or "none"
    how: How = "told" if told.background else "measured"
    if told.background is None and named and columns == named + 1:
        # Softmax within the graph is SSD's, whose first class is nothing; logits are DETR's, whose last is.
        background, how = ("first" if likely else "last"), "convention"
    if named and columns != named + (background != "none"):
        raise UsageError(
            f"The model gives scores of {columns} classes and {named} are named; name each one, in its order "
            "(one that stands for nothing is not named: --background first or last)."
        )
    if told.scores is not None:
        kind = told.scores
    elif likely:
        kind = "probabilities"
    else:
        kind = "softmax" if background != "none" else "sigmoid"
    ledger.find("scores", f"{kind}, of {columns} classes", "told" if told.scores else "measured")
    if background != "none":
        ledger.find("background", background, how)
    return kind, background


def refuse(outputs: Sequence[Output], path: object) -> ModelError:
    """The sentence for a model that does something else."""
    given = ", ".join(f"`{output.name}` ({shape(output)})" for output in outputs)
    return ModelError(
        f"{path} is neither a segmenter nor a detector that is known here: it gives {given}; "
        "say what is what with --take, or export it with its usual head."
    )
