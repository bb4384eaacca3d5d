"""What is told of a foreign model, what is found in it, and what has to be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from engines.classes import ClassInfo
from engines.errors import UsageError

ImportTask = Literal["segmentation", "detection"]
Layout = Literal["nchw", "nhwc"]
Order = Literal["rgb", "bgr"]
Corners = Literal["xyxy", "cxcywh", "xywh", "yxyx"]
Unit = Literal["pixels", "fractions", "cells"]
ScoreKind = Literal["probabilities", "sigmoid", "softmax"]
Background = Literal["first", "last", "none"]
Pixels = Literal["imagenet", "unit", "signed", "bytes"]

How = Literal["told", "graph", "measured", "convention", "assumed"]
"""How something is known: somebody said so; it stands in the file; its outputs on pictures show it; models of that form
have it so; or it is only the likeliest."""

SCALING: dict[Pixels, tuple[float, tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": (1 / 255, (0, 0, 0), (1, 1, 1)),
    "signed": (1 / 127.5, (1, 1, 1), (1, 1, 1)),
    "bytes": (1, (0, 0, 0), (1, 1, 1)),
}
"""Ways in which networks want pixels: a factor on 0 to 255, then a mean taken off, then a divisor."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that is known of a model: what it is about, what was found, and how it is known."""

    about: str
    found: str
    how: How


@dataclass(frozen=True, slots=True)
class Told:
    """What the user says of a model; None, or nothing, is left to be found out.

    Attributes:
        task: what the model does.
        size: (width, height) that a picture is squashed to. Smaller than a fixed input, the rest is padded.
        layout: of the picture in the model's input.
        order: of the colours.
        pixels: a known way of scaling.
        scale, mean, std: value = (pixel · scale − mean) / std, with pixels from 0 to 255; three numbers for red, green
            and blue, in the model's own colour order.
        fill: what is padded with, 0 to 255.
        inputs: values of inputs that are no picture, by name.
        take: which output is what: `scores`, `class_map`, `boxes`, `labels`, `count`, `heatmap`, `sizes`, `offsets`.
        corners, unit: of boxes.
        scores: what has still to be done to scores.
        background: where the class of nothing stands.
        threshold: probability from which a pixel is of the one class of a one-class segmenter.
        overlap: IoU at which two boxes of a class are one object; 0 for models that tell of each object once.
        most: most boxes a picture.
        min_score: least score worth telling of.
    """

    task: ImportTask | None = None
    size: tuple[int, int] | None = None
    layout: Layout | None = None
    order: Order | None = None
    pixels: Pixels | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fill: float = 114.0
    inputs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    take: Mapping[str, str] = field(default_factory=dict)
    corners: Corners | None = None
    unit: Unit | None = None
    scores: ScoreKind | None = None
    background: Background | None = None
    threshold: float = 0.5
    overlap: float | None = None
    most: int = 100
    min_score: float = 0.3


@dataclass(slots=True)
class Ledger:
    """What is found as it is found, and the questions that stay open.

    Attributes:
        classes: of the user's file or of the model's own metadata; None where nobody says.
    """

    told: Told
    classes: tuple[ClassInfo, ...] | None = None
    findings: list[Finding] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)

    def find(self, about: str, found: str, how: How) -> None:
        self.findings.append(Finding(about, found, how))

    def ask(self, question: str) -> None:
        """Note what the graph does not say, as a clause with the option that answers it."""
        if question not in self.questions:
            self.questions.append(question)

    def require_answers(self, model: str) -> None:
        """See that no question is open.

        Raises:
            UsageError: some are, all in one sentence.
        """
        if self.questions:
            raise UsageError(f"{model} does not say {'; nor '.join(self.questions)}.")
