"""The head of a cat or dog: its box, and what animal it is, in one network.

Modes, as in the classic of this data set (github.com/lars76/object-localization): the box alone; the box and "is it
class k"; the box, the species and the breed; and segmentation-like detection, where the network draws a map of where
the head is and the box is read off it.
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import ClassInfo
from engines.errors import SourceError, UsageError
from engines.settings import nearest
from engines.spec import Metric, ModelSpec, OutputRole
from training.data.box_augmentation import BoxViews, random_box_view
from training.data.oxford_pet import BREEDS, SPECIES, Pets, Split, load_pets, species_of
from training.metrics.boxes import average_precision, box_scores, dice_scores, mask_overlaps, overlaps, yes_accuracy
from training.metrics.calibration import calibration_error, confidence_counts
from training.recipe import EncoderName, EncoderRecipe, Positive, Rate, Seed, Share
from training.task import EncoderTask, Outputs, View

if TYPE_CHECKING:
    from torch import Tensor

    from training.models.localizer import Localizer

Weight = Annotated[float, msgspec.Meta(ge=0)]

SPARE = 1.25
"""Pictures to train on are kept this much larger than what the network sees, so that crops stay sharp."""

LICENCE = "weights trained on Oxford-IIIT Pet: CC BY-SA 4.0 (robots.ox.ac.uk/~vgg/data/pets)"

_COLUMNS = ("intersection", "union", "breed", "species", "yes", "is_class", "twice_shared", "both", "sure")
"""A row of figures: areas of the boxes; whether breed and species are right; the score of "is it class k" and whether
it is; what the Dice coefficient of the map is made of; how sure the breed is. NaN where a picture or a network has no
such thing."""


class PetLoss(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights and kinds of the terms; see `training.losses.boxes`.

    `box` with `l1` is the loss of the box, `cells` its weight for each cell inside the box by itself, `map` the weight
    of cross-entropy and Dice of the map (with votes: of how much a cell is believed), `classes` that of the classes,
    a focal loss with `gamma` and `smoothing`. `map_box` is the weight of the box in a network that reads it off a map.
    """

    box: Literal["mse", "log_mse", "smooth_l1", "giou", "diou", "ciou"] = "giou"
    l1: Weight = 2.0
    cells: Weight = 0.5
    map: Weight = 0.5
    map_box: Weight = 0.0
    classes: Weight = 1.0
    gamma: Weight = 1.0
    smoothing: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.05


class PetLocalizationRecipe(EncoderRecipe, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A localizer's run.

    `encoder_width` is a factor of the encoder's channels, `stride` that of the grid and `channels` its channels.
    `head` says where boxes come from: `votes` of the cells, or an `objectness` map. `classes` adds species and breed;
    `is_class` asks for one of them (`cat`, `Abyssinian` …) with yes or no. Pictures without a box teach classes only.
    `split_file` is a list of `roadlens data split`; without one `split_seed` divides the set. `box_share` of the
    training boxes are used, for learning curves.
    """

    task: str = "pet_localization"
    encoder: EncoderName = "mobilenet_v2"
    encoder_width: Rate = 1.0
    stride: Literal[4, 8, 16, 32] = 16
    channels: Positive = 96
    head: Literal["votes", "objectness"] = "votes"
    classes: bool = False
    is_class: str | None = None
    dropout: Share = 0.2
    split_seed: Seed = 0
    split_file: Path | None = None
    box_share: Share = 1.0
    loss: PetLoss = PetLoss()
    views: BoxViews = BoxViews()


class PetLocalization(EncoderTask[PetLocalizationRecipe, "Localizer", Pets]):
    """See `training.task.Task`. A row of figures is what `_COLUMNS` names."""

    recipe_type = PetLocalizationRecipe
    title = "Heads of cats and dogs"
    idle = ("cache",)

    def check(self) -> None:
        super().check()
        recipe = self.recipe
        if recipe.height % 32 or recipe.width % 32:
            raise UsageError(
                f"recipe {recipe.name}: height and width are multiples of 32, {recipe.height}×{recipe.width} is not"
            )
        if recipe.is_class is not None and recipe.is_class not in (*SPECIES, *BREEDS):
            close = nearest(recipe.is_class, (*SPECIES, *BREEDS))
            hint = f"the nearest is {close}" if close else "give cat, dog or a breed, such as Abyssinian"
            raise UsageError(f"recipe {recipe.name}: is_class = {recipe.is_class!r} is no species and no breed; {hint}")

    def build_model(self) -> Localizer:
        from training.models.encoder import make_encoder
        from training.models.localizer import Localizer

        recipe = self.recipe
        heads = recipe.classes or recipe.is_class is not None
        return Localizer(
            make_encoder(recipe.encoder, width=recipe.encoder_width, classifier_layer=heads),
            stride=recipe.stride, width=recipe.channels, head=recipe.head, presence=recipe.is_class is not None,
            classes=(len(SPECIES), len(BREEDS)) if recipe.classes else (), dropout=recipe.dropout,
        )  # fmt: skip

    def class_heads(self) -> dict[str, tuple[str, ...]]:
        return {"species": SPECIES, "breed": BREEDS} if self.recipe.classes else {}

    # Data -----------------------------------------------------------------------------------------------------------
    def load(
        self, folder: Path, split: str, *, size: tuple[int, int] | None = None, cache: Path | None = None,  # noqa: ARG002 - decoded in seconds
        skip_broken: bool = False, say: Callable[[str], None] = print,
    ) -> Pets:  # fmt: skip
        """Read a split. To train on, pictures are kept `SPARE` larger than the network's; and where nothing is to be
        learned from a picture without a box, or to be scored on it, only those with one."""
        recipe = self.recipe
        height, width = size or (recipe.height, recipe.width)
        training = size is None and split == recipe.split
        if training:
            height, width = round(height * SPARE), round(width * SPARE)
        pets = load_pets(
            folder, cast("Split", split), height, width, seed=recipe.split_seed, split_file=recipe.split_file,
            skip_broken=skip_broken, say=say,
        )  # fmt: skip
        if training and recipe.box_share < 1:
            pets = with_fewer_boxes(pets, recipe.box_share)
        return pets if recipe.classes or recipe.is_class else only_boxed(pets, folder, split)

    def views(self, fit: Pets) -> View:
        recipe = self.recipe
        if recipe.is_class is not None:
            asked = np.array([self._asked(int(breed)) for breed in fit.breeds])
            if not asked.any() or asked.all():
                which = "shows no" if not asked.any() else "shows nothing but the"
                raise SourceError(
                    f"{recipe.split} {which} {recipe.is_class}: yes and no cannot be learned from it; give data with "
                    "both, or another is_class"
                )

        def view(index: int, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
            box = fit.boxes[index] if np.isfinite(fit.boxes[index]).all() else None
            picture, seen = random_box_view(fit.photos[index], box, rng, recipe.views, recipe.height, recipe.width)
            return picture, seen, fit.breeds[index : index + 1]

        return view

    # Training -------------------------------------------------------------------------------------------------------
    def loss(self, model: Localizer, batch: tuple[Tensor, ...], step: int) -> Tensor:  # noqa: ARG002 - the same at every step
        from training.losses.boxes import (
            binary_focal_loss,
            box_loss,
            box_mask,
            cell_box_loss,
            focal_loss,
            mean_over,
            objectness_loss,
        )
        from training.models.encoder import network_input

        pictures, truth, breeds = batch
        breeds = breeds.squeeze(1)
        options = self.recipe.loss
        boxed = truth.isfinite().all(1)
        truth = truth.nan_to_num(0.5)
        found = model(network_input(pictures))
        scale = float(max(pictures.shape[1:3]))
        each = options.map * objectness_loss(found.objectness, box_mask(truth, *found.objectness.shape[1:]))
        if found.cell_boxes is not None:
            each = each + box_loss(found.boxes, truth, options.box, options.l1, scale)
            if options.cells:
                each = each + options.cells * cell_box_loss(found.cell_boxes, truth, options.box, options.l1, scale)
        elif options.map_box:
            each = each + options.map_box * box_loss(found.boxes, truth, options.box, options.l1, scale)
        loss = mean_over(each, boxed)
        if found.classes:
            species, breed = found.classes
            dogs = (breeds >= self._first_dog).long()
            for logits, target in ((species, dogs), (breed, breeds)):
                loss = loss + options.classes * focal_loss(logits, target, options.gamma, options.smoothing).mean()
        if found.presence is not None:
            asked = breeds.new_tensor([self._asked(b) for b in range(len(BREEDS))])[breeds]
            loss = loss + options.classes * binary_focal_loss(found.presence, asked, options.gamma).mean()
        return loss

    _first_dog = next(breed for breed in range(len(BREEDS)) if species_of(breed) == SPECIES.index("dog"))

    def _asked(self, breed: int) -> bool:
        """Whether a breed is what `is_class` asks for."""
        return self.recipe.is_class in (BREEDS[breed], SPECIES[species_of(breed)])

    # Evaluation -----------------------------------------------------------------------------------------------------
    def predict(self, model: Localizer, pictures: Tensor) -> dict[str, Tensor]:
        """`boxes`, `scores` and, with classes, `labels`; besides, what a file does not carry: the `map` of cells in 0
        to 1, and `species`. A score is the probability of the breed, of the class that is asked for, or, where there
        are no classes, of the surest cell of the map; votes alone are always sure: 1."""
        import torch

        from training.models.encoder import network_input

        found = model(network_input(pictures))
        outputs = {"boxes": found.boxes.clamp(0, 1).unsqueeze(1)}
        certainty = found.objectness.float().sigmoid()
        if found.classes:
            species, breed = found.classes
            probability, label = breed.float().softmax(1).max(1)
            outputs |= {"scores": probability.unsqueeze(1), "labels": label.unsqueeze(1).to(torch.int32)}
            outputs["species"] = species.argmax(1)
        elif found.presence is not None:
            outputs["scores"] = found.presence.float().sigmoid().unsqueeze(1)
        elif found.cell_boxes is None:
            outputs["scores"] = certainty.amax((1, 2)).unsqueeze(1)
        else:
            # Ones, one a picture, without asking a graph for its batch's size, which not every backend answers.
            outputs["scores"] = found.boxes[:, :1].clamp(1, 1)
        return outputs if found.cell_boxes is not None else outputs | {"map": certainty}

    def measure(self, outputs: Outputs, data: Pets, indices: Sequence[int]) -> NDArray[np.float64]:
        truth, breeds = data.boxes[indices].astype(np.float64), data.breeds[indices]
        boxed = data.boxed[indices]
        rows = {name: np.full(len(indices), np.nan) for name in _COLUMNS}
        rows["intersection"], rows["union"] = overlaps(outputs["boxes"][:, 0].astype(np.float64), truth)
        if "labels" in outputs:
            found = outputs["labels"][:, 0]
            rows["breed"] = (found == breeds).astype(np.float64)
            rows["sure"] = outputs["scores"][:, 0].astype(np.float64)
            # An exported file names the breed only, from which the species follows.
            species = outputs.get("species", np.array([species_of(int(b)) for b in found]))
            rows["species"] = (species == data.species[indices]).astype(np.float64)
        elif self.recipe.is_class is not None:
            rows["yes"] = outputs["scores"][:, 0].astype(np.float64)
            rows["is_class"] = np.array([self._asked(int(breed)) for breed in breeds], np.float64)
        if "map" in outputs:
            height, width = outputs["map"].shape[1:]
            filled = np.stack([filled_cells(box, height, width) for box in np.nan_to_num(truth)])
            rows["twice_shared"], rows["both"] = mask_overlaps(outputs["map"] >= 0.5, filled)
        for name in ("intersection", "union", "twice_shared", "both"):
            rows[name][~boxed] = np.nan
        return np.stack([rows[name] for name in _COLUMNS], axis=1)

    def scores(self, rows: NDArray[Any]) -> dict[str, float]:
        column = dict(zip(_COLUMNS, rows.T, strict=True))
        boxed = np.isfinite(column["union"])
        right, scores = None, {}
        if np.isfinite(column["breed"]).any():
            right = column["breed"][boxed] > 0
            scores = {
                "species_accuracy": float(column["species"].mean()), "breed_accuracy": float(column["breed"].mean()),
                "calibration_error": calibration_error(confidence_counts(column["sure"], column["breed"] > 0)),
            }  # fmt: skip
        elif np.isfinite(column["yes"]).any():
            agrees = (column["yes"] >= 0.5) == (column["is_class"] > 0)
            right = agrees[boxed]
            scores = {
                "accuracy": yes_accuracy(column["yes"], column["is_class"] > 0),
                "average_precision": average_precision(column["yes"], column["is_class"] > 0),
                "calibration_error": calibration_error(
                    confidence_counts(np.maximum(column["yes"], 1 - column["yes"]), agrees)
                ),
            }
        scores |= box_scores(column["intersection"][boxed], column["union"][boxed], right)
        mapped = np.isfinite(column["both"])
        return scores | dice_scores(column["twice_shared"][mapped], column["both"][mapped]) if mapped.any() else scores

    def data_choice(self) -> object:
        recipe = self.recipe
        return recipe.split_seed, recipe.split_file, recipe.classes or recipe.is_class is not None

    def truth(self, data: Pets, index: int) -> Outputs:
        if not data.boxed[index]:
            return {}
        return {"boxes": data.boxes[index : index + 1], "labels": data.breeds[index : index + 1].astype(np.int32)}

    # Export ---------------------------------------------------------------------------------------------------------
    def spec(self, height: int, width: int, version: str, metrics: tuple[Metric, ...]) -> ModelSpec:
        recipe = self.recipe
        outputs: dict[OutputRole, str] = {"boxes": "boxes", "scores": "scores"}
        names: Sequence[str] = (recipe.is_class or "head",)
        if recipe.classes:
            outputs["labels"] = "labels"
            names = BREEDS
        return ModelSpec(
            name=recipe.name, version=version, task="localization", height=height, width=width,
            classes=tuple(_class_info(i, name, len(names)) for i, name in enumerate(names)), outputs=outputs,
            training_data=f"Oxford-IIIT Pet, part {recipe.split!r}, {recipe.width}×{recipe.height}", licence=LICENCE,
            metrics=metrics,
        )  # fmt: skip


def filled_cells(box: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """The mask that the classic scores its map against: cells from round((n − 1)·edge) of a side of n cells to the
    other edge's, exclusive. (4,) fractions → (height, width) bool."""
    left, top, right, bottom = np.rint(box * [width - 1, height - 1, width - 1, height - 1]).astype(int)
    mask = np.zeros((height, width), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def only_boxed(pets: Pets, folder: Path, split: str) -> Pets:
    """The pictures with a box.

    Raises:
        SourceError: there is none.
    """
    chosen = np.flatnonzero(pets.boxed)
    if not len(chosen):
        raise SourceError(f"no picture of {folder} ({split}) has a box; unpack annotations.tar.gz with its xmls/ there")
    return replace(
        pets, photos=pets.photos[chosen], names=tuple(pets.names[i] for i in chosen), breeds=pets.breeds[chosen],
        boxes=pets.boxes[chosen], trimaps=None if pets.trimaps is None else pets.trimaps[chosen],
    )  # fmt: skip


def with_fewer_boxes(pets: Pets, share: float) -> Pets:
    """A share of the boxes, of every breed alike and by a hash of the names: what 25 % keep, 50 % keep, too."""
    boxes = pets.boxes.copy()
    for breed in np.unique(pets.breeds):
        own = np.flatnonzero(pets.boxed & (pets.breeds == breed))
        order = sorted(own, key=lambda i: hashlib.sha256(pets.names[i].encode()).digest())
        boxes[order[max(1, round(share * len(order))) :]] = np.nan
    return replace(pets, boxes=boxes)


def _class_info(number: int, name: str, count: int) -> ClassInfo:
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(number / count, 0.75, 0.9))
    return ClassInfo(number, name, (red, green, blue), thing=True)
