"""`ModelSpec`: what a model file says about itself, carried inside the ONNX as one metadata property."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from engines.classes import ClassInfo

SPEC_KEY = "roadlens.spec"
"""The key in the ONNX file's `metadata_props` whose value is the `ModelSpec` as JSON."""

Task = Literal["segmentation", "localization"]
OutputRole = Literal["class_map", "confidence", "boxes", "scores", "labels"]
GraphPrecision = Literal["fp32", "fp16", "bf16", "int8"]
Size = Annotated[int, msgspec.Meta(ge=1)]


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A measured figure and how it was measured: `mean_iou`, 0.47, split `val`, protocol in one sentence."""

    name: str
    value: float
    split: str
    protocol: str


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model is, takes and gives. Same for every model of the house:

    - input: one tensor, uint8, N×H×W×3, RGB; normalisation is inside the graph. H×W is static, N dynamic.
    - a whole frame is squashed to H×W (`geometry`), so a point at (x, y) of an input of width W is at
      (x·frame width / W, …) of the frame.
    - `segmentation` outputs `class_map`, uint8 N×H×W, and optionally `confidence`, uint8 N×H×W (255 = certain).
    - `localization` outputs `boxes`, float32 N×K×4, xyxy as fractions of the frame (0 to 1, right and bottom
      exclusive), `scores`, float32 N×K in 0 to 1, and `labels`, int32 N×K class ids (left out: all of class 0).

    `outputs` maps each role to the graph's output name.
    """

    name: str
    version: str
    task: Task
    height: Size
    width: Size
    classes: tuple[ClassInfo, ...]
    outputs: dict[OutputRole, str]
    geometry: Literal["squash"] = "squash"
    precision: GraphPrecision = "fp32"
    training_data: str = ""
    licence: str = ""
    metrics: tuple[Metric, ...] = ()
    schema: int = 1
