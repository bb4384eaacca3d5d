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


@dataclass(frozen=True)
class Head:
    """One answer of a network.

    Attributes:
        kind: `class`: (N, K) logits of K classes. `pixels`: (N, K, H, W) logits. `presence`: (N, 1), the logit of
            "there is one". `coordinates`: (N, K) fractions of the picture, such as a box's x0, y0, x1, y1.
        names: of the K.
    """

    kind: Literal["class", "pixels", "presence", "coordinates"]
    names: tuple[str, ...]


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
