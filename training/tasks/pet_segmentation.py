"""The cat or dog of a picture, pixel by pixel: Oxford-IIIT Pet's trimaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE, ClassInfo
from engines.errors import UsageError
from engines.spec import Metric, ModelSpec
from training.data.augmentation import random_geometry, random_photometry
from training.data.oxford_pet import Pets, Split, load_pets
from training.metrics.boxes import dice_scores, ratio
from training.metrics.masks import at_size_of
from training.recipe import Augmentation, EncoderRecipe, ModelSettings, Seed, Share, UNetSettings
from training.task import EncoderTask, Outputs, View

if TYPE_CHECKING:
    from torch import Tensor

    from training.models import Segmenter

UInt8 = NDArray[np.uint8]

CLASSES = (ClassInfo(0, "background", (40, 40, 40)), ClassInfo(1, "pet", (240, 150, 40), thing=True))

_LABELS = np.array([IGNORE, 1, 0, IGNORE], np.uint8)
"""Class ids of a trimap's values: 1 is the pet, 2 what is behind it; 3, the border, belongs to neither."""


class PetSegmentationRecipe(EncoderRecipe, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A foreground segmenter's run. `split_file` and `split_seed` as in `pet_localization`; `lovasz_weight` is the
    factor of the Lovász term beside cross-entropy."""

    task: str = "pet_segmentation"
    model: ModelSettings = UNetSettings()
    lovasz_weight: Share = 0.5
    split_seed: Seed = 0
    split_file: Path | None = None
    augmentation: Augmentation = Augmentation()


class PetSegmentation(EncoderTask[PetSegmentationRecipe, "Segmenter", Pets]):
    """See `training.task.Task`. A row of figures: hits, found and true pixels of the pet without the trimap's border,
    then the same three where the border counts as pet."""

    recipe_type = PetSegmentationRecipe
    title = "Cats and dogs against their background"
    idle = ("cache",)
    score = "foreground_iou"

    def check(self) -> None:
        super().check()
        recipe = self.recipe
        if recipe.height % 32 or recipe.width % 32:
            raise UsageError(
                f"recipe {recipe.name}: height and width are multiples of 32, {recipe.height}×{recipe.width} is not"
            )

    def build_model(self) -> Segmenter:
        from training.models import build_model

        return build_model(self.recipe.model, len(CLASSES))

    def least_batch(self) -> int:
        # Batch norm of pyramid pooling's 1×1 level has a single value a picture, and needs two to see a spread.
        return 2

    def load(
        self, folder: Path, split: str, *, size: tuple[int, int] | None = None, cache: Path | None = None,  # noqa: ARG002 - decoded in seconds
        skip_broken: bool = False, say: Callable[[str], None] = print,
    ) -> Pets:  # fmt: skip
        height, width = size or (self.recipe.height, self.recipe.width)
        return load_pets(
            folder, cast("Split", split), height, width, seed=self.recipe.split_seed, split_file=self.recipe.split_file,
            trimaps=True, skip_broken=skip_broken, say=say,
        )  # fmt: skip

    def views(self, fit: Pets) -> View:
        assert fit.trimaps is not None
        labels, options = _LABELS[fit.trimaps], self.recipe.augmentation

        def view(index: int, rng: np.random.Generator) -> tuple[UInt8, UInt8]:
            picture, label = random_geometry(fit.photos[index], labels[index], rng, options.scale, options.aspect)
            return random_photometry(picture, rng, options.photometry), label

        return view

    def loss(self, model: Segmenter, batch: tuple[Tensor, ...], step: int) -> Tensor:
        from torch import ones

        from training.losses.segmentation import auxiliary_loss, segmentation_loss
        from training.models.encoder import network_input
        from training.recipe import PSPNetSettings

        pictures, label = batch
        weights, target = ones(len(CLASSES), device=pictures.device), label.long()
        logits, auxiliary = model.training_scores(network_input(pictures))
        phase = (step % 4, step // 4 % 4)
        loss = segmentation_loss(logits, target, weights, self.recipe.lovasz_weight, phase)
        if auxiliary is not None and isinstance(self.recipe.model, PSPNetSettings):
            loss = loss + self.recipe.model.auxiliary_weight * auxiliary_loss(auxiliary, target, weights)
        return loss

    def predict(self, model: Segmenter, pictures: Tensor) -> dict[str, Tensor]:
        from torch import uint8

        from training.models.encoder import network_input

        return {"class_map": model(network_input(pictures)).argmax(1).to(uint8)}

    def measure(self, outputs: Outputs, data: Pets, indices: Sequence[int]) -> NDArray[np.float64]:
        assert data.trimaps is not None
        trimap = data.trimaps[indices]
        found = at_size_of(trimap, outputs["class_map"]) == 1
        columns = [
            mask.sum((1, 2))
            for known, truth in ((trimap != 3, trimap == 1), (np.ones_like(found), trimap != 2))
            for mask in (found & truth & known, found & known, truth & known)
        ]
        return np.stack(columns, axis=1).astype(np.float64)

    def scores(self, rows: NDArray[Any]) -> dict[str, float]:
        """`foreground_iou` and `foreground_dice` are of all pixels of the pictures together, the border left out;
        `mean_iou` and `mean_dice` are means of the pictures' own; `…_with_border` counts the border as pet."""
        hits, found, true, border_hits, border_found, border_true = rows.T
        dice = dice_scores(2 * hits, found + true)
        union = found + true - hits
        pooled = ratio(hits, union)
        whole = ratio(border_hits, border_found + border_true - border_hits)
        return {
            "foreground_iou": pooled,
            "foreground_dice": dice["pooled_dice"],
            "mean_iou": float(np.divide(hits, union, out=np.ones_like(union), where=union > 0).mean()),
            "mean_dice": dice["mean_dice"],
            "foreground_iou_with_border": whole,
        }

    def data_choice(self) -> object:
        return self.recipe.split_seed, self.recipe.split_file

    def truth(self, data: Pets, index: int) -> Outputs:
        return {} if data.trimaps is None else {"class_map": _LABELS[data.trimaps[index]]}

    def spec(self, height: int, width: int, version: str, metrics: tuple[Metric, ...]) -> ModelSpec:
        from training.tasks.pet_localization import LICENCE

        recipe = self.recipe
        return ModelSpec(
            name=recipe.name, version=version, task="segmentation", height=height, width=width, classes=CLASSES,
            outputs={"class_map": "class_map"},
            training_data=f"Oxford-IIIT Pet trimaps, part {recipe.split!r}, {recipe.width}×{recipe.height}",
            licence=LICENCE, metrics=metrics,
        )  # fmt: skip
