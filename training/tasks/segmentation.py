"""Semantic segmentation of the road: the 19 Cityscapes classes, from Cityscapes or the image pairs made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES
from engines.errors import SourceError, UsageError
from engines.spec import Metric, ModelSpec
from training.data import load_split, recognise
from training.data.augmentation import random_geometry, random_photometry
from training.data.cityscapes_pairs import SIDE, Pairs, Split, class_frequencies, ignore_doubtful_pixels
from training.metrics.segmentation import (
    Scores,
    SegmentationEvaluation,
    calibration_of,
    confusions_of,
    count_with_confidence,
    summarise_confusions,
)
from training.recipe import Augmentation, EncoderRecipe, ModelSettings, OwnSettings, PSPNetSettings, Rate, UNetSettings
from training.results import Label
from training.task import EncoderTask, Outputs, View

if TYPE_CHECKING:
    from torch import Tensor

    from training.models import Segmenter
    from training.models.graphs import Graph

UInt8 = NDArray[np.uint8]

_DATA = {"cityscapes-pairs": "Cityscapes image pairs (pix2pix / Kaggle)", "cityscapes": "Cityscapes gtFine"}
_ARCHITECTURES = {UNetSettings: "U-Net", PSPNetSettings: "PSPNet"}
_ENCODERS = {
    "mobilenet_v2": "MobileNetV2", "resnet18": "ResNet-18", "resnet50": "ResNet-50",
    "efficientnet_lite0": "EfficientNet-Lite0", "efficientnet_lite1": "EfficientNet-Lite1",
    "efficientnet_lite2": "EfficientNet-Lite2",
}  # fmt: skip


class Loss(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cross-entropy with class balance plus Lovász-softmax; see `training.losses.segmentation`."""

    balance_power: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    balance_limit: Rate = 6.0
    lovasz_weight: Annotated[float, msgspec.Meta(ge=0)] = 0.5


class SegmentationRecipe(EncoderRecipe, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A segmenter's run. Of the pairs every twentieth is `dev`, of Cityscapes every twentieth picture."""

    task: str = "segmentation"
    data: Literal["cityscapes-pairs", "cityscapes"]
    model: ModelSettings
    augmentation: Augmentation = Augmentation()
    loss: Loss = Loss()


@dataclass(frozen=True)
class RandomViews:
    """Random views of labelled pictures; see `training.data.augmentation`.

    Attributes:
        photos: (N, H, W, 3) uint8 RGB.
        labels: (N, H, W) uint8, 255 ignored.
        options: ranges of the randomness.
    """

    photos: UInt8
    labels: UInt8
    options: Augmentation

    def __call__(self, index: int, rng: np.random.Generator) -> tuple[UInt8, UInt8]:
        """A view of picture `index`: (H, W, 3) and (H, W) uint8."""
        options = self.options
        picture, label = random_geometry(self.photos[index], self.labels[index], rng, options.scale, options.aspect)
        return random_photometry(picture, rng, options.photometry), label


class Segmentation(EncoderTask[SegmentationRecipe, "Segmenter", Pairs]):
    """See `training.task.Task`. A row of figures is that of `count_with_confidence`."""

    recipe_type = SegmentationRecipe
    title = "Segmentation"
    optional_outputs = ("confidence",)

    def describe(self) -> str:
        network = self.recipe.model
        name = network.network if isinstance(network, OwnSettings) else _ARCHITECTURES[type(network)]
        return f"{name} over {_ENCODERS[network.encoder]}, {super().describe()}"

    def check(self) -> None:
        super().check()
        recipe = self.recipe
        if recipe.height % 32 or recipe.width % 32:
            raise UsageError(
                f"recipe {recipe.name}: height and width are multiples of 32, {recipe.height}×{recipe.width} is not "
                "and could not be exported"
            )

    def build_model(self) -> Segmenter:
        from training.models import build_model

        return build_model(self.recipe.model, len(CITYSCAPES_CLASSES))

    def least_batch(self) -> int:
        # Batch norm of the 1×1 level of pyramid pooling has a single value a picture, and needs two to see a spread.
        return 2 if isinstance(self.recipe.model, PSPNetSettings) else 1

    def load(
        self, folder: Path, split: str, *, size: tuple[int, int] | None = None, cache: Path | None = None,
        skip_broken: bool = False, say: Callable[[str], None] = print,
    ) -> Pairs:  # fmt: skip
        """Read a split. What is trained on is the recipe's data set, at its size; a model is scored on what there is:
        the pairs come in one size, to which a class map of another is brought; Cityscapes is read at the model's."""
        data = self.recipe.data
        if size is None:
            size = (self.recipe.height, self.recipe.width)
        else:
            data = recognise(folder)
            size = (SIDE, SIDE) if data == "cityscapes-pairs" else size
        return load_split(data, folder, cast("Split", split), *size, cache, skip_broken=skip_broken, say=say)

    def views(self, fit: Pairs) -> View:
        from torch import from_numpy

        from training.losses.segmentation import class_balance

        loss, shares = self.recipe.loss, class_frequencies(fit.labels)
        if not shares.any():
            raise SourceError(
                f"{self.recipe.split} has no pixel with a class: there is nothing to learn; see data check"
            )
        frequencies = from_numpy(shares)
        self.class_weights = class_balance(frequencies, loss.balance_power, loss.balance_limit)
        labels = np.stack([ignore_doubtful_pixels(label) for label in fit.labels]) if fit.blurred else fit.labels
        return RandomViews(fit.photos, labels, self.recipe.augmentation)

    def loss(self, model: Segmenter, batch: tuple[Tensor, ...], step: int) -> Tensor:
        from training.losses.segmentation import auxiliary_loss, segmentation_loss
        from training.models.encoder import network_input

        pictures, target = batch
        labels = target.long()
        self.class_weights = self.class_weights.to(labels.device)
        logits, auxiliary = model.training_scores(network_input(pictures))
        phase = (step % 4, step // 4 % 4)
        loss = segmentation_loss(logits, labels, self.class_weights, self.recipe.loss.lovasz_weight, phase)
        if auxiliary is not None and isinstance(self.recipe.model, PSPNetSettings):
            loss = loss + self.recipe.model.auxiliary_weight * auxiliary_loss(auxiliary, labels, self.class_weights)
        return loss

    def predict(self, model: Segmenter, pictures: Tensor) -> dict[str, Tensor]:
        from torch import uint8

        from training.models.encoder import network_input

        sure, found = model(network_input(pictures)).float().softmax(1).max(1)
        return {"class_map": found.to(uint8), "confidence": (sure * 255 + 0.5).to(uint8)}

    def measure(self, outputs: Outputs, data: Pairs, indices: Sequence[int]) -> NDArray[Any]:
        confidence = outputs.get("confidence")
        return count_with_confidence(
            outputs["class_map"], confidence, data.labels[indices], len(CITYSCAPES_CLASSES)
        )  # fmt: skip

    def scores(self, rows: NDArray[Any]) -> dict[str, float]:
        """`mean_iou`, `accuracy` and IoU by class over one confusion matrix; with a confidence `calibration_error`."""
        whole = Scores.from_confusion(confusions_of(rows)[:, 0].sum(0))
        scores = {"mean_iou": whole.mean_iou, "accuracy": whole.accuracy}
        if (error := calibration_of(rows)) is not None:
            scores["calibration_error"] = error
        by_class = zip(CITYSCAPES_CLASSES, whole.iou, strict=True)
        return scores | {f"iou/{info.name}": float(iou) for info, iou in by_class}

    def evaluation(self, rows: NDArray[Any], data: Pairs, label: Label) -> SegmentationEvaluation:
        return summarise_confusions(rows, data, label)

    @classmethod
    def evaluation_type(cls) -> type[SegmentationEvaluation]:
        return SegmentationEvaluation

    def spec(self, height: int, width: int, version: str, metrics: tuple[Metric, ...]) -> ModelSpec:
        return cityscapes_spec(self.recipe, height, width, version, metrics)

    def graph(self, model: Segmenter, spec: ModelSpec) -> Graph:
        from training.models.graphs import segmenter_graph

        return segmenter_graph(model, spec)


def cityscapes_spec(
    recipe: SegmentationRecipe, height: int, width: int, version: str = "1", metrics: tuple[Metric, ...] = ()
) -> ModelSpec:
    """What a model trained on Cityscapes, or on the image pairs made from it, says about itself."""
    return ModelSpec(
        name=recipe.name, version=version, task="segmentation", height=height, width=width, classes=CITYSCAPES_CLASSES,
        outputs={"class_map": "class_map"},
        training_data=f"{_DATA[recipe.data]}, part {recipe.split!r} of train, {recipe.width}×{recipe.height}",
        licence="weights trained on Cityscapes: non-commercial research and teaching only (cityscapes-dataset.com)",
        metrics=metrics,
    )  # fmt: skip
