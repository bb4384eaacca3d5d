"""Forms that foreign outputs come in, as values: what each part is, and what has still to be done to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.foreign.original import Answers
from engines.foreign.told import Background, Corners, ScoreKind, Unit


@dataclass(frozen=True, slots=True)
class PixelForm:
    """A segmenter's output.

    Attributes:
        output: its name.
        kind: `scores` of classes along an axis; `one`, the score of one class against nothing; `map`, class ids.
        batched: whether the first axis is of pictures.
        axis: of the classes where there is one, in N×…; 1 or 3. None where there is none.
        classes: how many.
        height, width: of the output.
        level: of `one`: from which value on a pixel is of the class.
        scores: of `scores` and `one`.
    """

    output: str
    kind: str
    batched: bool
    axis: int | None
    classes: int
    height: int
    width: int
    level: float
    scores: ScoreKind


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of numbers in an output: boxes, scores or labels.

    Attributes:
        output: its name.
        batched: whether the first axis is of pictures.
        squeezed: an axis of length one that is taken away first, counted with the pictures' axis; None for none.
        turned: rows lie along the last axis, N×columns×rows.
        columns: from and to; None for all there are, or where there is no axis of columns.
        width: how many columns there are, where some are taken.
        flat: whether there is no axis of columns.
    """

    output: str
    batched: bool
    squeezed: int | None = None
    turned: bool = False
    columns: tuple[int, int] | None = None
    width: int = 0
    flat: bool = False

    def taken(self, answers: Answers) -> NDArray[np.float64]:
        """Of one picture's answers: (rows, columns), or (rows,) where it is flat."""
        array: NDArray[np.float64] = answers[self.output].astype(np.float64)
        if not self.batched:
            array = array[None]
        if self.squeezed is not None:
            array = array.squeeze(self.squeezed)
        rows: NDArray[np.float64] = array[0].T if self.turned else array[0]
        return rows if self.flat or self.columns is None else rows[:, slice(*self.columns)]


@dataclass(frozen=True, slots=True)
class BoxForm:
    """A detector's outputs, a row for each box.

    Attributes:
        boxes: rows of four.
        scores: rows of one for each class, or flat where `labels` says the class.
        labels: flat class numbers, or None.
        objectness: flat; scores are multiplied by it. None for none.
        count: the output that says how many rows are meant, or None.
        rows: how many there are, None where that changes from picture to picture.
        classes: how many columns `scores` has.
        corners, unit, kind, background: see `Told`.
        overlap: IoU at which of two boxes of a class the less likely goes; 0 for none.
    """

    boxes: Part
    scores: Part
    labels: Part | None
    objectness: Part | None
    count: str | None
    rows: int | None
    classes: int
    corners: Corners
    unit: Unit
    kind: ScoreKind
    background: Background
    overlap: float

    @property
    def batched(self) -> bool:
        """Whether all parts have an axis of pictures, and as many rows for each."""
        parts = (self.boxes, self.scores, self.labels, self.objectness)
        return self.rows is not None and all(part.batched for part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class PeakForm:
    """CenterNet's outputs: a heat map of centres for each class, and sizes and offsets where they are.

    Attributes:
        heatmap, sizes, offsets: names of outputs N×C×h×w, N×2×h×w (width, height) and N×2×h×w (x, y; or None).
        height, width: of the maps.
        classes: how many.
        kind: what has still to be done to the heat map.
        unit: of sizes: `cells` of the maps, or `pixels` of the picture. Offsets are in cells.
    """

    heatmap: str
    sizes: str
    offsets: str | None
    height: int
    width: int
    classes: int
    kind: ScoreKind
    unit: Unit


Form = PixelForm | BoxForm | PeakForm


def is_batched(form: Form) -> bool:
    """Whether the graph's outputs can be of several pictures."""
    return not isinstance(form, PixelForm | BoxForm) or form.batched
