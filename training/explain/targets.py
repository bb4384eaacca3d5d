"""What is explained about a picture: one number of a network's answers, chosen in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engines.errors import UsageError
from engines.settings import nearest
from training.explain.networks.network import Answers, Head, Network, logits, probabilities

Scale = Literal["logit", "probability"]
Region = tuple[float, float, float, float]
"""x0, y0, x1, y1 as fractions of the picture, right and bottom exclusive."""


@dataclass(frozen=True)
class Target:
    """One number of the answers to each picture.

    Attributes:
        head: which of the network's answers.
        index: of the class or coordinate in it.
        label: in words.
        scale: `logit` as the network has it; `probability` after the softmax over the classes (the classic way, whose
            gradient fades where the network is sure, and mixes in what speaks for the other classes), or after the
            sigmoid of a presence. A coordinate is a fraction of the picture, whatever is chosen.
        pixels: of a head of pixels: (H, W) bool, the score is the mean over these.
        squashed: of classes: whether the network gives probabilities already, see `Head`.
    """

    head: str
    index: int
    label: str
    scale: Scale
    kind: Literal["class", "pixels", "presence", "coordinates"]
    pixels: Tensor | None = None
    squashed: bool | None = None

    def score(self, answers: Answers) -> Tensor:
        """(N,): the number for each picture."""
        values = answers[self.head]
        if self.kind == "presence" and self.scale == "probability":
            values = values.sigmoid()
        elif self.kind in ("class", "pixels"):
            values = (probabilities if self.scale == "probability" else logits)(values, self.squashed)
        chosen = values[:, self.index]
        return chosen if self.pixels is None else chosen[:, self.pixels.to(chosen.device)].mean(1)


def choose_target(
    network: Network,
    answers: Answers,
    text: str | None = None,
    scale: Scale = "logit",
    region: Region | None = None,
) -> Target:
    """The target that `text` names.

    Args:
        network: has the heads.
        answers: to the one picture that is explained, for what is left to the network's own choice.
        text: a class by name or number, `presence`, a coordinate (`x0`); `head=name` where two heads have the name.
            Left out: presence where there is such a head, else the class that is predicted; of a segmenter the class
            that most pixels of the region have.
        scale: see `Target`.
        region: of a segmenter's picture; left out: where the class is predicted.

    Raises:
        UsageError: the network has no such target, it is not predicted anywhere and no region is given, or the region
            is empty, or does not go with the network.
    """
    head, index = _find(network.heads, text) if text is not None else _default(network.heads, answers, region)
    kind, name = network.heads[head].kind, network.heads[head].names[index]
    if kind == "coordinates" and scale == "probability":
        raise UsageError(f"{name} is a coordinate, not a class: it has no probability; leave --score out")
    if kind != "pixels":
        if region is not None:
            raise UsageError(f"--region is for segmenters, and {name} of {network.name} is no class of pixels")
        label = name if len(network.heads) == 1 else f"{head} {name}"
        return Target(head, index, label, scale, kind, squashed=network.heads[head].squashed)
    predicted = answers[head][0].argmax(0) == index
    pixels = predicted if region is None else region_mask(region, network.height, network.width)
    if not pixels.any():
        raise UsageError(
            f"{network.name} sees no {name} in this picture; say where to look with --region x0,y0,x1,y1, or take "
            f"another target"
        )
    where = "where predicted" if region is None else "in {:g},{:g},{:g},{:g}".format(*region)
    return Target(head, index, f"{name} {where}", scale, kind, pixels, network.heads[head].squashed)


def region_mask(region: Region, height: int, width: int) -> Tensor:
    """(H, W) bool: the pixels whose centres lie in the region.

    Raises:
        UsageError: it is empty or reaches outside the picture.
    """
    x0, y0, x1, y1 = region
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise UsageError(
            f"the region {x0:g},{y0:g},{x1:g},{y1:g} is no part of the picture; give x0,y0,x1,y1 as fractions, 0 to 1"
        )
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / width
    mask = ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None]
    if not mask.any():
        raise UsageError(f"the region {x0:g},{y0:g},{x1:g},{y1:g} holds no pixel of {width}×{height}; make it larger")
    return mask


def _default(heads: Mapping[str, Head], answers: Answers, region: Region | None) -> tuple[str, int]:
    for kind in ("presence", "pixels", "class", "coordinates"):
        for name, head in heads.items():
            if head.kind != kind:
                continue
            if kind == "pixels":
                found = answers[name][0].argmax(0)
                if region is not None:
                    found = found[region_mask(region, *found.shape)]
                return name, int(found.flatten().bincount().argmax())
            return name, int(answers[name][0].argmax()) if kind == "class" else 0
    raise ValueError("a network without heads")


def _find(heads: Mapping[str, Head], text: str) -> tuple[str, int]:
    wanted, equals, name = text.partition("=")
    searched = {wanted: heads[wanted]} if equals and wanted in heads else heads
    name = name if equals and wanted in heads else text
    found = [
        (head, index)
        for head, content in searched.items()
        for index, known in enumerate(content.names)
        if known.casefold() == name.casefold()
    ]
    if not found and name.isdecimal():
        found = [
            (head, int(name))
            for head, content in searched.items()
            if content.kind in ("class", "pixels") and int(name) < len(content.names)
        ]
    if len(found) == 1:
        return found[0]
    if found:
        way = " or ".join(dict.fromkeys(f"{head}={index}" for head, index in found))
        raise UsageError(f"{text} is the name of {len(found)} targets; say which: {way}")
    names = [known for head in searched.values() for known in head.names]
    close = nearest(name, names)
    meant = f"the nearest is {close}; " if close else ""
    raise UsageError(f"the model has no target {text}; {meant}it has {describe(searched)}")


def describe(heads: Mapping[str, Head]) -> str:
    """What there is to explain, in a clause."""
    parts = []
    for name, head in heads.items():
        shown = ", ".join(head.names if len(head.names) <= 40 else [*head.names[:3], "…", head.names[-1]])
        if head.kind in ("class", "pixels"):
            parts.append(f"{len(head.names)} classes of {name} ({shown})")
        else:
            parts.append(shown)
    return " and ".join(parts)
