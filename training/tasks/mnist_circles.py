"""A digit's class and the smallest circle around its ink, from MNIST; see `training.data.mnist`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.errors import UsageError
from engines.spec import Metric, ModelSpec
from training.data.mnist import (
    DIGIT_CLASSES,
    LICENCE,
    SIDE,
    Digits,
    Distortion,
    Split,
    as_rgb,
    distort,
    enclosing_circles,
    foreground_masks,
    load_digits,
)
from training.metrics.circles import circle_overlaps, rendered_overlaps
from training.recipe import Positive, Recipe
from training.task import Outputs, Task, View

if TYPE_CHECKING:
    from torch import Tensor

    from training.models.circle_net import CircleNet

UInt8 = NDArray[np.uint8]
Float = NDArray[np.float64]
Weight = Annotated[float, msgspec.Meta(ge=0)]


class CirclesRecipe(Recipe, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A `CircleNet`'s run. `widths`: its channels at strides 2, 4 and 8; `class_weight`, `circle_weight` and
    `ink_weight`: factors of the losses of class, circle and mask."""

    task: str = "mnist_circles"
    height: Positive = SIDE
    width: Positive = SIDE
    widths: tuple[Positive, Positive, Positive] = (48, 96, 128)
    class_weight: Weight = 0.5
    circle_weight: Weight = 4.0
    ink_weight: Weight = 1.0
    distortion: Distortion = Distortion()


@dataclass(frozen=True)
class EncircledDigits:
    """Digits and the circles around them.

    Attributes:
        digits: pictures and classes.
        split: of MNIST.
    """

    digits: Digits
    split: str

    protocol = (
        "circles around the centres of the pixels above the threshold of least within-class sum of squares; "
        "the circle counts where the class is right"
    )

    @property
    def photos(self) -> UInt8:
        """(N, 28, 28, 3) uint8 RGB, read-only."""
        return as_rgb(self.digits.pictures)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.split} {i}" for i in range(len(self)))

    def __len__(self) -> int:
        return len(self.digits)


class MnistCircles(Task[CirclesRecipe, "CircleNet", EncircledDigits]):
    """See `training.task.Task`. A row of figures: whether the class is right; areas of intersection and union of the
    circles, exactly; the same as pixels of rendered circles."""

    recipe_type = CirclesRecipe
    title = "Circles around digits"
    idle = ("cache", "skip_broken")
    splits = ("fit", "dev", "train", "test")
    score = "circle_iou"

    def check(self) -> None:
        if (self.recipe.height, self.recipe.width) != (SIDE, SIDE):
            raise UsageError(
                f"recipe {self.recipe.name}: digits are {SIDE}×{SIDE} pixels, not {self.recipe.height}×"
                f"{self.recipe.width}; leave out height and width"
            )

    def build_model(self) -> CircleNet:
        from training.models.circle_net import CircleNet

        return CircleNet(SIDE, len(DIGIT_CLASSES), self.recipe.widths)

    def least_batch(self) -> int:
        # Batch norm of the grey levels has a single value a picture, and needs two to see a spread.
        return 2

    def load(
        self, folder: Path, split: str, *, size: tuple[int, int] | None = None, cache: Path | None = None,
        skip_broken: bool = False, say: Callable[[str], None] = print,
    ) -> EncircledDigits:  # fmt: skip
        """Read a split; the set is small, so that nothing is kept in `cache`, and idx files are whole or not at all."""
        del cache, skip_broken, say
        if size is not None and size != (SIDE, SIDE):
            raise UsageError(
                f"MNIST's digits are {SIDE}×{SIDE} pixels and the model takes {size[0]}×{size[1]}; evaluate one "
                f"exported at that size"
            )
        return EncircledDigits(load_digits(folder, cast("Split", split)), split)

    # Training -------------------------------------------------------------------------------------------------------
    def views(self, fit: EncircledDigits) -> View:
        """A distorted digit, its class, its circle and its mask."""
        digits, options = fit.digits, self.recipe.distortion

        def view(index: int, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
            picture = distort(digits.pictures[index], rng, options)
            mask = foreground_masks(picture[None])
            return picture, np.asarray(digits.labels[index]), enclosing_circles(mask)[0], mask[0]

        return view

    def loss(self, model: CircleNet, batch: tuple[Tensor, ...], step: int) -> Tensor:
        del step
        import torch.nn.functional as F

        from training.losses.circles import outline_loss
        from training.models.compact_unet import grey_input

        pictures, labels, circles, masks = batch
        found, recipe = model(grey_input(pictures)), self.recipe
        return (
            recipe.class_weight * F.cross_entropy(found.classes, labels.long())
            + recipe.circle_weight * outline_loss(found.circles, circles).mean()
            + recipe.ink_weight * F.binary_cross_entropy_with_logits(found.ink, masks.float())
        )

    # Evaluation -----------------------------------------------------------------------------------------------------
    def predict(self, model: CircleNet, pictures: Tensor) -> dict[str, Tensor]:
        """One box a picture: the square around the circle, which like the circle may reach beyond the frame, so that
        its middle and half its side are the circle; the label is the digit, the score its probability."""
        import torch

        from training.models.compact_unet import grey_input

        found = model(grey_input(pictures))
        middle, radius = found.circles[:, :2], found.circles[:, 2:]
        boxes = torch.cat([middle - radius, middle + radius], dim=1) / model.side
        scores, labels = found.classes.softmax(1).max(1, keepdim=True)
        return {"boxes": boxes.unsqueeze(1), "scores": scores, "labels": labels.to(torch.int32)}

    def measure(self, outputs: Outputs, data: EncircledDigits, indices: Sequence[int]) -> Float:
        chosen = np.asarray(indices)
        circles, truth = circles_of(outputs["boxes"][:, 0]), data.digits.circles[chosen]
        right = outputs["labels"][:, 0] == data.digits.labels[chosen]
        areas, pixels = circle_overlaps(circles, truth), rendered_overlaps(circles, truth, SIDE, SIDE)
        return np.stack([right.astype(np.float64), *areas, *pixels], axis=1)

    def truth(self, data: EncircledDigits, index: int) -> Outputs:
        x, y, radius = data.digits.circles[index]
        box = np.array([[x - radius, y - radius, x + radius, y + radius]], np.float32) / SIDE
        return {"boxes": box, "labels": data.digits.labels[[index]].astype(np.int32)}

    def scores(self, rows: NDArray[Any]) -> dict[str, float]:
        """A circle under a wrong class has no intersection. `jaccard` as the known work has it: of the circles
        rendered as masks, the mean over pictures; `circle_iou`: of the circles themselves, the mean over pictures;
        `pooled_iou`: the sum of all their intersections over the sum of all unions; `accuracy` of the class;
        `circle_iou/whatever the class` counts every circle."""
        right, shared, union, shared_pixels, union_pixels = rows.T
        iou = shared / union
        return {
            "jaccard": float((right * shared_pixels / np.maximum(union_pixels, 1)).mean()),
            "circle_iou": float((right * iou).mean()),
            "pooled_iou": float((right * shared).sum() / union.sum()),
            "accuracy": float(right.mean()),
            "circle_iou/whatever the class": float(iou.mean()),
        }

    # Export ---------------------------------------------------------------------------------------------------------
    def spec(self, height: int, width: int, version: str, metrics: tuple[Metric, ...]) -> ModelSpec:
        return ModelSpec(
            name=self.recipe.name, version=version, task="localization", height=height, width=width,
            classes=DIGIT_CLASSES, outputs={"boxes": "boxes", "scores": "scores", "labels": "labels"},
            training_data=f"MNIST, part {self.recipe.split!r} of the training files; a box is the square around the "
            "digit's smallest enclosing circle, and may reach beyond the frame",
            licence=LICENCE, metrics=metrics,
        )  # fmt: skip


def circles_of(boxes: NDArray[np.floating]) -> Float:
    """(N, 4) squares in fractions of the frame → (N, 3) circles in pixels: their middles, half their sides."""
    corners = np.asarray(boxes, np.float64) * SIDE
    sides = (corners[:, 2:] - corners[:, :2]).mean(1, keepdims=True)
    return np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, sides / 2], axis=1)
