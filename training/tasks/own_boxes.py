"""Boxes of anybody's own classes, learned from one's own pictures, on from a model that knows road users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.boxes import distinct
from engines.classes import IGNORE
from engines.errors import SourceError
from engines.spec import Metric, ModelSpec
from training.data.augmentation import affine, random_photometry, stretched, warp
from training.data.own.classes import alike
from training.data.own.samples import OwnPictures
from training.data.road_users import draw_targets, moved
from training.metrics.detection import COCO_LEVELS, judge
from training.recipe import Augmentation, Positive
from training.results import Figures, Label, summarise
from training.task import Outputs, View
from training.tasks.own import OwnRecipe, OwnTask
from training.tasks.road_users import LEAST_SCORE, MIN_SCORE, OBJECTS, object_balance, precision_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.models.box_net import BoxNet
    from training.models.graphs import Graph

LEVEL = 0.5
"""IoU at which a box is right."""

PROTOCOL = f"average precision over 101 recalls, right at an IoU of {LEVEL:g}, coco/… at COCO's mean over 0.50 to 0.95"


class BoxesLoss(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Factors of the losses of the heat map and of the sides."""

    heat_weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    sides_weight: Annotated[float, msgspec.Meta(ge=0)] = 2.0


class OwnBoxesRecipe(OwnRecipe, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See `OwnRecipe`; `head_width` is the channels of the map that the heads look at."""

    task: str = "own_boxes"
    head_width: Positive = 64
    loss: BoxesLoss = BoxesLoss()


@dataclass(frozen=True)
class BoxViews:
    """Random views of pictures with boxes.

    Attributes:
        pictures: of `load_own`.
        options: ranges of the randomness.
        classes: of objects.
        stride: pixels of a cell of the heat map.
    """

    pictures: OwnPictures
    options: Augmentation
    classes: int
    stride: int

    def __call__(self, index: int, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """A view of picture `index`: (H, W, 3) uint8, then what `draw_targets` gives."""
        photo = self.pictures.photos[index]
        height, width = photo.shape[:2]
        matrix = affine(height, width, rng, self.options.scale, self.options.aspect)
        matrix = stretched(matrix, photo, (height, width))
        picture, _ = warp(photo, np.zeros((height, width), np.uint8), matrix)
        boxes = moved(self.pictures.boxes[index], matrix, height, width)
        size = (height // self.stride, width // self.stride)
        targets = draw_targets(boxes, *size, self.stride, self.classes)
        return random_photometry(picture, rng, self.options.photometry), *targets


class OwnBoxes(OwnTask[OwnBoxesRecipe, "BoxNet"]):
    """See `training.task.Task`. A row of figures is what a picture's boxes are worth; see `row_type`."""

    recipe_type = OwnBoxesRecipe
    kind = "boxes"
    title = "Own boxes"
    score = "mean_ap"

    def build_model(self) -> BoxNet:
        from training.models.box_net import BoxNet
        from training.models.encoder import make_encoder

        settings = self.recipe.model
        things = max(len(self.recipe.classes), 1)
        encoder, channels = make_encoder(settings.encoder), settings.decoder[:3]
        return BoxNet(encoder, things, channels, self.recipe.head_width, settings.refined)

    def initialise(self, model: BoxNet) -> None:
        from training.models.start import start_boxes

        super().initialise(model)
        if self.goes_on:
            path, spec = self._start()
            start_boxes(model, path, alike(self.recipe.classes, [info for info in spec.classes if info.thing]))

    def fresh(self, model: BoxNet) -> list[nn.Module]:
        return [model.heat, model.sides, model.laterals]

    def views(self, fit: OwnPictures) -> View:
        from torch import from_numpy

        from training.models.road_users import STRIDE

        number = len(self.recipe.classes)
        counts = np.bincount(np.concatenate([b.labels[b.sure] for b in fit.boxes]), minlength=number)
        if not counts.any():
            raise SourceError("none of the pictures to train on has a box; see `roadlens data check`")
        self.weights = from_numpy(object_balance(counts))
        return BoxViews(fit, self.recipe.augmentation, number, STRIDE)

    def loss(self, model: BoxNet, batch: tuple[Tensor, ...], step: int) -> Tensor:  # noqa: ARG002
        from training.losses.road_users import heat_loss, sides_loss
        from training.models.encoder import network_input
        from training.models.road_users import boxes_of_cells

        pictures, target, truth, weight = batch
        heat, sides = model(network_input(pictures))
        options = self.recipe.loss
        centres = heat_loss(heat, target, self.weights.to(target.device))
        return options.heat_weight * centres + options.sides_weight * sides_loss(boxes_of_cells(sides), truth, weight)

    def predict(self, model: BoxNet, pictures: Tensor) -> dict[str, Tensor]:
        return self._objects(model, OBJECTS, pictures)

    def _objects(self, model: BoxNet, count: int, pictures: Tensor) -> dict[str, Tensor]:
        from training.models.encoder import network_input
        from training.models.road_users import decode

        heat, sides = model(network_input(pictures))
        boxes, scores, labels = decode(heat, sides, min(count, heat[0].numel()))
        return {"boxes": boxes, "scores": scores, "labels": labels.int()}

    def graph(self, model: BoxNet, spec: ModelSpec) -> Graph:
        from training.models.road_users import CANDIDATES

        return replace(super().graph(model, spec), candidates=partial(self._objects, model, CANDIDATES))

    def measure(self, outputs: Outputs, data: OwnPictures, indices: Sequence[int]) -> NDArray[Any]:
        classes = self.recipe.classes
        place_of = np.full(256, -1)
        place_of[[info.id for info in classes]] = np.arange(len(classes))
        rows = np.zeros(len(indices), row_type(len(classes)))
        rows["labels"] = -1
        height, width = data.photos.shape[1:3]
        levels = np.array([LEVEL, *COCO_LEVELS])
        for place, index in enumerate(indices):
            row, truth = rows[place], data.boxes[index]
            boxes = outputs["boxes"][place].astype(np.float64) * [width, height, width, height]
            scores = outputs["scores"][place]
            said = outputs["labels"][place] if "labels" in outputs else np.zeros(len(boxes), np.int64)
            labels, true = place_of[np.clip(said, 0, IGNORE)], place_of[truth.labels]
            kept = distinct(boxes, scores, labels)
            kept = kept[(scores[kept] >= LEAST_SCORE) & (labels[kept] >= 0)][:OBJECTS]
            row["scores"][: len(kept)], row["labels"][: len(kept)] = scores[kept], labels[kept]
            row["wanted"] = np.bincount(true[truth.sure], minlength=len(classes))
            for label in np.unique(labels[kept]):
                mine, theirs = labels[kept] == label, true == label
                chosen = kept[mine]
                verdict = judge(boxes[chosen], scores[chosen], truth.corners[theirs], truth.sure[theirs], levels)
                row["verdict"][: len(kept)][mine] = verdict
        return rows

    def scores(self, rows: NDArray[Any]) -> dict[str, float]:
        by_class = {info.name: precision_of(rows, place, [0]) for place, info in enumerate(self.recipe.classes)}
        known = [value for value in by_class.values() if np.isfinite(value)]
        mean = float(np.mean(known)) if known else float("nan")
        return {"mean_ap": mean} | {f"ap/{name}": value for name, value in by_class.items()}

    def evaluation(self, rows: NDArray[Any], data: OwnPictures, label: Label) -> Figures:
        found = summarise(self.scores, rows, f"{PROTOCOL}; {data.protocol}", label)
        precisions = [precision_of(rows, place, range(1, 11)) for place in range(len(self.recipe.classes))]
        known = [value for value in precisions if np.isfinite(value)]
        coco = float(np.mean(known)) if known else None
        return msgspec.structs.replace(found, details=found.details | {"coco/ap": coco})

    def truth(self, data: OwnPictures, index: int) -> Outputs:
        boxes = data.boxes[index]
        height, width = data.photos.shape[1:3]
        corners = boxes.corners[boxes.sure] / np.array([width, height, width, height], np.float32)
        return {"boxes": corners, "labels": boxes.labels[boxes.sure]}

    def fits(self, spec: ModelSpec) -> bool:
        return "boxes" in spec.outputs and spec.classes == self.recipe.classes

    def spec(self, height: int, width: int, version: str, metrics: tuple[Metric, ...]) -> ModelSpec:
        return ModelSpec(
            name=self.recipe.name, version=version, task="localization", height=height, width=width,
            classes=self.recipe.classes, outputs={"boxes": "boxes", "scores": "scores", "labels": "labels"},
            training_data=self.recipe.training_data, licence=self.recipe.licence, metrics=metrics, min_score=MIN_SCORE,
        )  # fmt: skip


def row_type(classes: int) -> np.dtype[Any]:
    """What a picture's boxes are worth: how many of each class there are; of each box that is said its score, its class
    (−1 for none) and the verdict of `judge`, at `LEVEL` first, then at COCO's levels."""
    return np.dtype([
        ("wanted", np.int64, classes), ("scores", np.float32, OBJECTS), ("labels", np.int16, OBJECTS),
        ("verdict", np.int8, (OBJECTS, 1 + len(COCO_LEVELS))),
    ])  # fmt: skip
