"""One explanation: a picture, a target, a method → heat map and box, with what is needed to judge them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engines.squash import squash
from training.explain.box import Box, BoxRule, evidence, fit_box
from training.explain.heat.methods import Heat, Method, heat_map
from training.explain.heat.occlusion import Occlusion
from training.explain.networks.network import Network, to_tensor
from training.explain.painting import boxed, colour, laid_over
from training.explain.targets import Region, Scale, choose_target
from training.files import write_file

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Explanation:
    """Where in a picture a network sees what it says.

    Attributes:
        model: the network's name.
        target: in words.
        method: of the heat map.
        score: the target's value for this picture, a logit, a probability or a coordinate.
        picture: (h, w, 3) uint8 RGB, as given.
        network_input: (H, W, 3) uint8 RGB, the whole picture squashed to the network's size.
        heat: (H, W) float32, see `training.explain.heat.methods.heat_map`.
        rule: by which the box was fitted.
        box: (4,) float32 xyxy fractions of the picture; None where no pixel speaks for the target.
    """

    model: str
    target: str
    method: Method
    score: float
    picture: UInt8
    network_input: UInt8
    heat: Heat
    rule: BoxRule
    box: Box | None

    @property
    def heat_picture(self) -> UInt8:
        """(H, W, 3) uint8 RGB: the heat that speaks for the target, in colours."""
        return colour(evidence(self.heat))

    @property
    def overlay(self) -> UInt8:
        """(h, w, 3) uint8 RGB: the heat over the picture."""
        return laid_over(self.picture, evidence(self.heat))

    @property
    def boxed(self) -> UInt8:
        """(h, w, 3) uint8 RGB: the picture with the box on it."""
        return boxed(self.picture, self.box)


def explain(
    network: Network,
    picture: UInt8,
    method: Method,
    rule: BoxRule,
    *,
    target: str | None = None,
    scale: Scale = "logit",
    region: Region | None = None,
    layer: str | None = None,
    occlusion: Occlusion | None = None,
) -> Explanation:
    """Explain one picture.

    Args:
        network: to explain.
        picture: (h, w, 3) uint8 RGB of any size.
        method: of the heat map.
        rule: by which the box is fitted.
        target: see `training.explain.targets.choose_target`, as `scale` and `region`.
        scale: of the score.
        region: of a segmenter's picture.
        layer: for Grad-CAM.
        occlusion: the grid of occlusion.

    Raises:
        UsageError: the network has no such target or layer, or region or grid do not fit.
    """
    squashed = squash(picture, network.height, network.width)
    x = to_tensor(squashed)
    with torch.no_grad():
        answers = network(x)
    chosen = choose_target(network, answers, target, scale, region)
    heat = heat_map(network, x, chosen, method, layer, occlusion)
    return Explanation(
        model=network.name,
        target=chosen.label,
        method=method,
        score=float(chosen.score(answers)),
        picture=picture,
        network_input=squashed,
        heat=heat,
        rule=rule,
        box=fit_box(heat, rule),
    )


def write_arrays(explanation: Explanation, path: Path) -> None:
    """Write an explanation as a NumPy archive.

    It holds `picture` (h, w, 3), `network_input` (H, W, 3), `overlay` (h, w, 3) and `boxed` (h, w, 3), all uint8 RGB;
    `heat` (H, W) float32; `box` (4,) float32 xyxy fractions of the picture, four NaN where there is none; and `about`,
    a JSON text of model, target, method, score and box rule.

    Raises:
        OutputError: the file cannot be written.
    """
    about = {
        "model": explanation.model,
        "target": explanation.target,
        "method": explanation.method,
        "score": explanation.score,
        "box_rule": {name: getattr(explanation.rule, name) for name in explanation.rule.__struct_fields__},
    }
    content = io.BytesIO()
    np.savez_compressed(
        content,
        picture=explanation.picture,
        network_input=explanation.network_input,
        heat=explanation.heat,
        overlay=explanation.overlay,
        boxed=explanation.boxed,
        box=np.full(4, np.nan, np.float32) if explanation.box is None else explanation.box,
        about=np.array(json.dumps(about)),
    )
    write_file(path, content.getvalue())
