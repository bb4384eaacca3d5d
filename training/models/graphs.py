"""Networks as they are exported: uint8 pictures in, a model file's outputs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from engines.errors import UsageError
from engines.spec import ModelSpec
from training.models.segmenter import Segmenter


@dataclass(frozen=True)
class Graph:
    """What of a network is exported.

    Attributes:
        module: (N, H, W, 3) uint8 RGB → a tuple of tensors (N, …).
        outputs: names of the tensors, in order. One that the model's spec does not name is there for the check before
            the export and is taken away when it has passed.
        candidates: (N, H, W, 3) uint8 RGB → boxes, scores and labels as the module lists them and more of them, for
            the check: where scores are as good as equal, any of them may be listed.
    """

    module: nn.Module
    outputs: tuple[str, ...]
    candidates: Callable[[Tensor], Mapping[str, Tensor]] | None = None


class PredictGraph(nn.Module):
    """The graph of a task that needs no other: what its `predict` says, in the order of `roles`.

    Args:
        predict: what `model` says of (N, H, W, 3) uint8 RGB, by role.
        model: a child of this module, so that it is put into evaluation mode and moved with it.
        roles: of the outputs that are wanted.
    """

    def __init__(
        self, predict: Callable[[Tensor], Mapping[str, Tensor]], model: nn.Module, roles: Sequence[str]
    ) -> None:
        super().__init__()
        self.predict, self.model, self.roles = predict, model, roles

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, H, W, 3) uint8 RGB → a tensor (N, …) for each role."""
        outputs = self.predict(images)
        return tuple(outputs[role] for role in self.roles)


class SegmenterGraph(nn.Module):
    """The graph of a segmenter: uint8 pictures in, uint8 class map out.

    Args:
        model: in evaluation mode.
        confidence: whether the second output is wanted.
    """

    def __init__(self, model: Segmenter, confidence: bool) -> None:
        super().__init__()
        self.model, self.confidence = model, confidence

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, H, W, 3) uint8 RGB → (N, H, W) uint8 class ids, then, where wanted, (N, H, W) uint8 confidence, the
        probability of that class times 255, and last the (N, C·r², H/r, W/r) scores that both come from."""
        # TensorRT takes uint8 at an input only with a cast right behind it.
        phases = self.model.phases(images.float().permute(0, 3, 1, 2) / 127.5 - 1)
        outputs = [self.model.class_map(phases)]
        if self.confidence:
            outputs.append(self.model.confidence(phases))
        return *outputs, phases


def segmenter_graph(model: Segmenter, spec: ModelSpec) -> Graph:
    """The graph of a segmenter, with its scores for the check.

    Args:
        model: any `Segmenter`.
        spec: `outputs` names `class_map` and, where wanted, `confidence`.

    Raises:
        UsageError: height or width is not a multiple of 32.
    """
    if spec.height % 32 or spec.width % 32:
        raise UsageError(
            f"an export is for one size, height and width multiples of 32; {spec.height}×{spec.width} is not: "
            f"take {-(-spec.height // 32) * 32}×{-(-spec.width // 32) * 32}"
        )
    names = [spec.outputs[role] for role in ("class_map", "confidence") if role in spec.outputs]
    return Graph(SegmenterGraph(model, "confidence" in spec.outputs), (*names, "scores"))
