"""Masks from MNIST: the foreground of a digit, or the digits of a mosaic of four; see `training.data.mnist`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import ClassInfo
from engines.errors import UsageError
from engines.spec import Metric, ModelSpec
from training.data.mnist import (
    FOREGROUND_CLASSES,
    LICENCE,
    MOSAIC_CLASSES,
    SIDE,
    Digits,
    Distortion,
    Sheets,
    Split,
    class_maps,
    compose,
    distort,
    foreground_masks,
    foreground_sheets,
    load_digits,
    mosaic_sheets,
)
from training.metrics.masks import confusions, jaccard
from training.metrics.segmentation import Scores
from training.recipe import Positive, Recipe
from training.task import Outputs, Task, View

if TYPE_CHECKING:
    from torch import Tensor

    from training.models.compact_unet import CompactUNet

UInt8 = NDArray[np.uint8]


_UNKNOWN = -1
"""Stands in the counts of sure pixels where the model does not say how sure it is."""


class MnistSegmentationRecipe(Recipe, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A small U-Net's run. `widths`: its channels from fine to coarse; `head`: those in front of the last layer;
    `overlap_weight`: factor of the Jaccard loss beside the cross-entropy."""

    pictures: Literal["digits", "mosaics"]
    task: str = "mnist_segmentation"
    height: Positive = SIDE
    width: Positive = SIDE
    widths: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)] = (32, 64)
    head: Positive = 32
    overlap_weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    distortion: Distortion = Distortion()


class MnistSegmentation(Task[MnistSegmentationRecipe, "CompactUNet", Sheets]):
    """See `training.task.Task`. A row of figures is two confusion matrices of a picture: of all pixels, and of those
    where one class has more than one half."""

    recipe_type = MnistSegmentationRecipe
    title = "Masks of digits"
    idle = ("cache", "skip_broken")
    splits = ("fit", "dev", "train", "test")
    optional_outputs = ("confidence",)

    @property
    def mosaics(self) -> bool:
        return self.recipe.pictures == "mosaics"

    @property
    def side(self) -> int:
        return 2 * SIDE if self.mosaics else SIDE

    def check(self) -> None:
        recipe, side = self.recipe, self.side
        if (recipe.height, recipe.width) != (side, side):
            raise UsageError(
                f"recipe {recipe.name}: {recipe.pictures} are {side}×{side} pixels, not {recipe.height}×"
                f"{recipe.width}; give height={side} width={side}"
            )
        if side % 2 ** len(recipe.widths):
            raise UsageError(
                f"recipe {recipe.name}: {len(recipe.widths)} widths halve the picture as often, and {side} pixels "
                f"cannot be; give fewer widths"
            )

    def build_model(self) -> CompactUNet:
        from training.models.compact_unet import CompactUNet

        classes = len(MOSAIC_CLASSES) if self.mosaics else 1
        return CompactUNet(classes, self.recipe.widths, head=self.recipe.head)

    def least_batch(self) -> int:
        # Batch norm of the grey levels has a single value a picture, and needs two to see a spread.
        return 2

    def load(
        self, folder: Path, split: str, *, size: tuple[int, int] | None = None, cache: Path | None = None,
        skip_broken: bool = False, say: Callable[[str], None] = print,
    ) -> Sheets:  # fmt: skip
        """Read a split; the set is small, so that nothing is kept in `cache`, and idx files are whole or not at all."""
        del cache, skip_broken, say
        if size is not None and size != (self.side, self.side):
            raise UsageError(
                f"MNIST's {self.recipe.pictures} are {self.side}×{self.side} pixels and the model takes "
                f"{size[0]}×{size[1]}; evaluate one exported at that size"
            )
        digits = load_digits(folder, cast("Split", split))
        return mosaic_sheets(digits, split) if self.mosaics else foreground_sheets(digits, split)

    # Training -------------------------------------------------------------------------------------------------------
    def views(self, fit: Sheets) -> View:
        """A distorted digit and its mask, or a new mosaic of four such and its class map."""
        digits, options = fit.digits, self.recipe.distortion
        if not self.mosaics:
            return lambda index, rng: _distorted_digit(digits, index, rng, options)
        return lambda _, rng: _new_mosaic(digits, rng, options)

    def loss(self, model: CompactUNet, batch: tuple[Tensor, ...], step: int) -> Tensor:
        """Cross-entropy, and one less the Jaccard index with probabilities in the place of masks: of each picture for
        a mask, of each digit over the batch for mosaics."""
        del step
        import torch.nn.functional as F

        from training.models.compact_unet import grey_input

        pictures, labels = batch
        logits = model(grey_input(pictures))
        if self.mosaics:
            entropy = F.cross_entropy(logits, labels.long())
            found = logits.softmax(1)[:, :-1]
            truth = F.one_hot(labels.long(), len(MOSAIC_CLASSES)).permute(0, 3, 1, 2)[:, :-1]
            together: tuple[int, ...] = (0, 2, 3)
        else:
            truth = labels.unsqueeze(1).float()
            entropy = F.binary_cross_entropy_with_logits(logits, truth)
            found, together = logits.sigmoid(), (1, 2, 3)
        shared = (found * truth).sum(together)
        union = (found + truth - found * truth).sum(together).clamp_min(1)
        distance: Tensor = (1 - shared / union).mean()
        return entropy + self.recipe.overlap_weight * distance

    # Evaluation -----------------------------------------------------------------------------------------------------
    def predict(self, model: CompactUNet, pictures: Tensor) -> dict[str, Tensor]:
        import torch

        from training.models.compact_unet import grey_input

        logits = model(grey_input(pictures))
        if self.mosaics:
            probability, found = logits.softmax(1).max(1)
        else:
            ink = logits.squeeze(1).sigmoid()
            probability, found = torch.maximum(ink, 1 - ink), ink >= 0.5
        return {"class_map": found.to(torch.uint8), "confidence": (probability * 255 + 0.5).to(torch.uint8)}

    def measure(self, outputs: Outputs, data: Sheets, indices: Sequence[int]) -> NDArray[np.int64]:
        found, truth = outputs["class_map"], data.labels[np.asarray(indices)]
        classes = len(self._classes)
        every = confusions(truth, found, classes)
        if "confidence" in outputs:
            # The confidence is rounded up from one half: 128.
            sure = confusions(truth, found, classes, outputs["confidence"] > 127)
        elif self.mosaics:
            sure = np.full_like(every, _UNKNOWN)
        else:
            sure = every  # of two classes the likelier has one half
        return np.stack([every, sure], axis=1)

    def data_choice(self) -> object:
        return self.recipe.pictures

    def truth(self, data: Sheets, index: int) -> Outputs:
        return {"class_map": data.labels[index]}

    def scores(self, rows: NDArray[Any]) -> dict[str, float]:
        """`jaccard` as the known work has it: of each picture's binary masks, the mean over pictures; not defined for
        mosaics without a confidence, which alone says what has more than one half. `jaccard_of_likeliest` takes the
        likeliest class for a pixel's mask, however likely it is, and is defined for every model. The others are of one
        confusion matrix of the whole split: `mean_iou` over the classes, background included; `ink_iou` of the
        ink alone, of whichever digit; `accuracy` over pixels."""
        whole = rows[:, 0].sum(0)
        over_all = Scores.from_confusion(whole)
        # Whichever digit it is: rows and columns of the ink's classes added up.
        is_ink = np.array([info.name != "background" for info in self._classes])
        both = np.stack([~is_ink, is_ink]).astype(np.int64)
        ink = Scores.from_confusion(both @ whole @ both.T)
        result = {
            "jaccard": float(self.picture_scores(rows).mean()),
            "jaccard_of_likeliest": float(jaccard(rows[:, 0], rows[:, 0], self._masks).mean()),
            "mean_iou": over_all.mean_iou,
            "ink_iou": float(ink.iou[1]),
            "accuracy": over_all.accuracy,
        }
        return result | {f"iou/{info.name}": float(iou) for info, iou in zip(self._classes, over_all.iou, strict=True)}

    def picture_scores(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """(n,): the Jaccard index of each picture's masks, of one or of eleven; NaN where no confidence was given."""
        found = jaccard(rows[:, 0], rows[:, 1], self._masks)
        found[rows[:, 1, 0, 0] == _UNKNOWN] = np.nan
        return found

    @property
    def _masks(self) -> slice:
        return slice(None) if self.mosaics else slice(1, 2)

    # Export ---------------------------------------------------------------------------------------------------------
    @property
    def _classes(self) -> tuple[ClassInfo, ...]:
        return MOSAIC_CLASSES if self.mosaics else FOREGROUND_CLASSES

    def spec(self, height: int, width: int, version: str, metrics: tuple[Metric, ...]) -> ModelSpec:
        what = "mosaics of four digits" if self.mosaics else "digits"
        return ModelSpec(
            name=self.recipe.name, version=version, task="segmentation", height=height, width=width,
            classes=self._classes, outputs={"class_map": "class_map"},
            training_data=f"MNIST, {what}, part {self.recipe.split!r} of the training files", licence=LICENCE,
            metrics=metrics,
        )  # fmt: skip


def _distorted_digit(digits: Digits, index: int, rng: np.random.Generator, options: Distortion) -> tuple[UInt8, UInt8]:
    picture = distort(digits.pictures[index], rng, options)
    return picture, foreground_masks(picture[None])[0]


def _new_mosaic(digits: Digits, rng: np.random.Generator, options: Distortion) -> tuple[UInt8, UInt8]:
    four = rng.integers(0, len(digits), 4)
    pictures = np.stack([distort(digits.pictures[i], rng, options) for i in four])
    maps = class_maps(foreground_masks(pictures), digits.labels[four])
    order = np.arange(4)[None]
    return compose(pictures, order)[0], compose(maps, order)[0]
