"""What is explained: a network that takes pixels and gives named, differentiable answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

UInt8 = NDArray[np.uint8]
Answers = dict[str, Tensor]
"""By the name of the head."""


_ROUNDING = 1e-3
"""By how much a softmax's probabilities, resized or cast, may miss 1 in sum."""

_LEAST = 1e-6
"""A probability is taken for no less, where its logarithm is wanted."""


@dataclass(frozen=True)
class Head:
    """One answer of a network.

    Attributes:
        kind: `class`: (N, K) logits or probabilities of K classes. `pixels`: (N, K, H, W) of them. `presence`: (N, 1),
            the logit of "there is one". `coordinates`: (N, K) fractions of the picture, such as a box's x0, y0, x1, y1.
        names: of the K.
        squashed: of classes: whether the network gives probabilities already, by a softmax or a sigmoid of its own.
            None where nobody knows; the numbers themselves then say so, see `probabilities`.
    """

    kind: Literal["class", "pixels", "presence", "coordinates"]
    names: tuple[str, ...]
    squashed: bool | None = None


def probabilities(values: Tensor, squashed: bool | None) -> Tensor:
    """(N, K, …) classes as a network has them → probabilities: by a softmax, unless they are some already.

    Args:
        values: of a head.
        squashed: see `Head`.
    """
    return values if _are_probabilities(values, squashed) else values.softmax(1)


def logits(values: Tensor, squashed: bool | None) -> Tensor:
    """(N, K, …) classes as a network has them → logits: of a softmax's probabilities their logarithms, which are its
    logits but for a constant, of others (a sigmoid's) log p/(1 − p). The arguments are those of `probabilities`."""
    if not _are_probabilities(values, squashed):
        return values
    kept = values.clamp(_LEAST, 1 - _LEAST)
    return kept.log() if _sum_to_one(values) else kept.log() - (1 - kept).log()


def _are_probabilities(values: Tensor, squashed: bool | None) -> bool:
    return _sum_to_one(values) if squashed is None else squashed


def _sum_to_one(values: Tensor) -> bool:
    """Whether the K are shares of one everywhere, which logits never are."""
    known = values.detach()
    sums = known.sum(1)
    return bool(known.min() >= 0 and known.max() <= 1 + _ROUNDING and (sums - 1).abs().max() <= _ROUNDING)


class Network(nn.Module):
    """A network with its normalisation in front and its answers named.

    (N, 3, H, W) float32 RGB, 0 to 255 → `Answers`. It is in evaluation mode, and no parameter asks for a gradient.

    Args:
        name: for people.
        body: takes (x − mean) / deviation.
        heads: its answers by name.
        height: H.
        width: W.
        answers: what `body` returns → the tensors of `heads`; left out where it returns the one head's tensor.
        mean: by channel, in grey levels.
        deviation: by channel, in grey levels.
    """

    def __init__(
        self,
        name: str,
        body: nn.Module,
        heads: Mapping[str, Head],
        height: int,
        width: int,
        answers: Callable[..., Answers] | None = None,
        mean: tuple[float, float, float] = (127.5, 127.5, 127.5),
        deviation: tuple[float, float, float] = (127.5, 127.5, 127.5),
    ) -> None:
        super().__init__()
        self.name, self.heads, self.height, self.width = name, dict(heads), height, width
        self.body = body.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        for module in self.body.modules():
            if hasattr(module, "inplace"):
                # What stands before it is looked at, too.
                module.inplace = False  # type: ignore[assignment]  # torch types every attribute as Tensor or Module
        self.answers = answers
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).reshape(1, 3, 1, 1), persistent=False)

    mean: Tensor
    deviation: Tensor

    def normalise(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) float32, 0 to 255 → what the body takes."""
        return (x - self.mean) / self.deviation

    def named(self, output: object) -> Answers:
        """What the body returned, by head."""
        if self.answers is not None:
            return self.answers(output)
        (only,) = self.heads
        assert isinstance(output, Tensor)
        return {only: output}

    def forward(self, x: Tensor) -> Answers:
        return self.named(self.body(self.normalise(x)))


def to_tensor(picture: UInt8) -> Tensor:
    """(H, W, 3) uint8 RGB → (1, 3, H, W) float32, 0 to 255, channels-last in memory."""
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
