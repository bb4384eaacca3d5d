"""Road users: the class of each pixel and a box for each person, rider and vehicle, from the image pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.boxes import distinct
from engines.bundled import resolve
from engines.classes import CITYSCAPES_CLASSES
from engines.errors import UsageError
from engines.spec import Metric, ModelSpec
from training.data.cityscapes_pairs import SIDE, Split, class_frequencies, ignore_doubtful_pixels
from training.data.road_users import ROAD_USERS, RandomScenes, RoadUserPairs, load_road_users
from training.data.void import VOID, own_car
from training.metrics.detection import COCO_LEVELS, average_precision, judge
from training.metrics.segmentation import Scores, count_confusions
from training.recipe import Augmentation, EncoderRecipe, Positive, Share, UNetSettings
from training.results import Figures, Label, summarise
from training.task import EncoderTask, Outputs, View, at_size
from training.tasks.segmentation import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from training.models.graphs import Graph
    from training.models.road_users import RoadUserNet, Scene

OBJECTS = 100
"""Boxes that the network tells of a picture at most, K."""

LEAST_SCORE = 0.01
"""A box less likely than this is not counted when boxes are judged; it could only lengthen the tail."""

SMALL_LEVEL, LEVEL = 0.3, 0.5
"""IoU at which a box is right: of people and two-wheelers, which are a few pixels wide, and of all others."""

MIN_SCORE = 0.3
"""Score from which on a box is worth telling of. On `dev` 0.73 of the boxes from here on are right and 0.58 of the road
users are found; from 0.2 on it is 0.52 and 0.62, from 0.4 on 0.83 and 0.52."""

SMALL = ("person", "rider", "motorcycle", "bicycle")

PROTOCOL = (
    f"class map: 19 classes, one confusion matrix over the split; boxes: average precision over 101 recalls, right at "
    f"an IoU of {LEVEL:g}, for {', '.join(SMALL)} {SMALL_LEVEL:g}, coco/… at COCO's for all"
)
"""How figures are made, in a clause."""

VOID_WEIGHT = 0.135
"""Factor of the weight of pixels of no class, which lowers their scores by two logits: in doubt a pixel is of a class.
On the clips at hand 7 to 54 % remains of what was taken for none on roads, in the sky and in rain, 97 % of panels and
80 to 92 % of the lowest rows of bonnets."""

ADJUSTED_ON, ADJUSTED_STRIDE = 600, 6
"""Training pictures, and pixels between two of them each way, that scores are adjusted on: a million pixels."""

_HEADS = ("laterals", "heat", "sides")
_IDS = np.array([info.id for info in ROAD_USERS])
ROW = np.dtype([
    ("confusion", np.int64, (2, len(CITYSCAPES_CLASSES), len(CITYSCAPES_CLASSES) + 1)),
    ("wanted", np.int64, len(ROAD_USERS)),
    ("scores", np.float32, OBJECTS),
    ("labels", np.int8, OBJECTS),
    ("verdict", np.int8, (OBJECTS, 1 + len(COCO_LEVELS))),
])  # fmt: skip
"""What a picture's outputs are worth. `labels` is −1 where there is no box; `verdict` is that of `judge`, at the level
of the class first, then at those of COCO."""


class RoadUsersLoss(Loss, frozen=True, forbid_unknown_fields=True):
    """The loss of the pixels, and factors of those of the heat map and of the sides."""

    heat_weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    sides_weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0


class RoadUsersRecipe(EncoderRecipe, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A run of a network with both kinds of heads. Of the pairs every twentieth is `dev`.

    `segmenter` is a bundled or exported segmenter with the same encoder and decoder to start from; its batch norm is
    folded into its convolutions, so that of encoder and decoder stays out of the run. With `keep_heads` it is a model
    of road users, and its heads go on, too. `head_width` is the channels of the map that the heads of the objects look
    at. Pictures with road users of a class that is on less than `repeat_below` of them come more often; see `repeats`.
    With `void` the network tells the own car and what is no picture, too, and its class map says 255 there: that share
    of the views has a bonnet, bars or panels drawn into it. `damaged` is the share that is made dark, noisy or coarse.
    """

    task: str = "road_users"
    data: Literal["cityscapes-pairs"] = "cityscapes-pairs"
    model: UNetSettings = UNetSettings()
    head_width: Positive = 64
    segmenter: Path | None = None
    keep_heads: bool = False
    repeat_below: Share = 0.0
    void: Share | None = None
    damaged: Share = 0.0
    adjusted: bool = False
    augmentation: Augmentation = Augmentation()
    loss: RoadUsersLoss = RoadUsersLoss()


class RoadUsers(EncoderTask[RoadUsersRecipe, "RoadUserNet", RoadUserPairs]):
    """See `training.task.Task`."""

    recipe_type = RoadUsersRecipe
    title = "Road users"
    score = "mean_iou_and_ap"
    optional_outputs = ("confidence",)

    def check(self) -> None:
        if self.recipe.height % 32 or self.recipe.width % 32:
            raise UsageError(
                f"recipe {self.recipe.name}: boxes are fractions of what the network sees, in steps of 32 pixels; give "
                f"a height and a width that are multiples of 32, not {self.recipe.height}×{self.recipe.width}"
            )
        if self.recipe.segmenter is not None:
            return
        super().check()
        if self.recipe.keep_heads:
            raise UsageError(
                f"recipe {self.recipe.name}: keep_heads = true, and there is no model to keep them of; give "
                "segmenter=FILE, a model of road users"
            )

    def build_model(self) -> RoadUserNet:
        from training.models.encoder import make_encoder
        from training.models.road_users import RoadUserNet

        settings = self.recipe.model
        return RoadUserNet(
            make_encoder(settings.encoder), len(CITYSCAPES_CLASSES), len(ROAD_USERS), settings.decoder,
            self.recipe.head_width, settings.refined, self.recipe.void is not None,
        )  # fmt: skip

    def initialise(self, model: RoadUserNet) -> None:
        from training.models.exported import load_exported
        from training.models.start import start_segmenter

        super().initialise(model)
        if self.recipe.segmenter is not None:
            path = resolve(str(self.recipe.segmenter))
            start_segmenter(model, path, range(model.classes))
            load_exported(model, path, _HEADS if self.recipe.keep_heads else ())

    def parameter_groups(self, model: RoadUserNet) -> list[dict[str, Any]]:
        groups = super().parameter_groups(model)
        if self.recipe.segmenter is None:
            return groups
        # What was trained before goes on at the encoder's rate; only the heads of the objects are fresh.
        options, frozen = self.recipe.optimizer, {id(p) for p in model.encoder.parameters()}
        fresh = [*model.laterals.parameters(), *model.heat.parameters(), *model.sides.parameters()]
        known = {id(p) for p in fresh} | frozen
        tuned = [p for p in model.parameters() if id(p) not in known]
        return [
            {"params": fresh, "lr": options.learning_rate},
            {"params": tuned, "lr": options.encoder_learning_rate}, *groups[1:],
        ]  # fmt: skip

    def training_mode(self, model: RoadUserNet) -> None:
        super().training_mode(model)
        if self.recipe.segmenter is not None:
            model.decoder.eval()
        if self.recipe.keep_heads:
            for head in _HEADS:
                model.get_submodule(head).eval()

    def load(
        self, folder: Path, split: str, *, size: tuple[int, int] | None = None,  # noqa: ARG002 - of one size
        cache: Path | None = None, skip_broken: bool = False, say: Callable[[str], None] = print,
    ) -> RoadUserPairs:  # fmt: skip
        """Read a split; the pairs come in one size, which the outputs of networks of another are brought to."""
        return load_road_users(folder, cast("Split", split), cache, skip_broken=skip_broken, say=say)

    def views(self, fit: RoadUserPairs) -> View:
        from torch import from_numpy

        from training.losses.segmentation import class_balance
        from training.models.road_users import STRIDE

        loss = self.recipe.loss
        whole = fit.pairs.labels
        if self.recipe.void is not None:
            whole = np.where(own_car(whole), np.uint8(VOID), whole)
        labels = np.stack([ignore_doubtful_pixels(label) for label in whole])
        frequencies = from_numpy(class_frequencies(whole, VOID + (self.recipe.void is not None)))
        self.class_weights = class_balance(frequencies, loss.balance_power, loss.balance_limit)
        self.class_weights[VOID:] *= VOID_WEIGHT
        counts = sum(np.bincount(b.labels[b.sure], minlength=len(ROAD_USERS)) for b in fit.boxes)
        self.object_weights = from_numpy(object_balance(np.asarray(counts)))
        size = (self.recipe.height, self.recipe.width)
        shares = repeats([boxes.labels[boxes.sure] for boxes in fit.boxes], self.recipe.repeat_below)
        return RandomScenes(
            fit.photos, labels, fit.boxes, self.recipe.augmentation, STRIDE, size, shares, self.recipe.void,
            self.recipe.damaged,
        )  # fmt: skip

    def loss(self, model: RoadUserNet, batch: tuple[Tensor, ...], step: int) -> Tensor:
        from training.losses.road_users import heat_loss, sides_loss
        from training.losses.segmentation import cell_loss
        from training.models.encoder import network_input
        from training.models.road_users import boxes_of_cells

        pictures, target, heat, truth, weight = batch
        options = self.recipe.loss
        weights, objects = self.class_weights.to(target.device), self.object_weights.to(target.device)
        scene = model.scene(network_input(pictures))
        pixels = cell_loss(scene.phases, target.long(), weights, options.lovasz_weight, step, model.cell)
        centres = heat_loss(scene.heat, heat, objects)
        boxes = sides_loss(boxes_of_cells(scene.sides), truth, weight)
        self.parts = {"pixels": pixels, "centres": centres, "boxes": boxes}
        return pixels + options.heat_weight * centres + options.sides_weight * boxes

    def conclude(self, model: RoadUserNet, fit: RoadUserPairs) -> str:
        if not self.recipe.adjusted:
            return ""
        from torch import from_numpy

        from training.metrics.adjustment import fit_biases

        chosen = np.unique(np.linspace(0, len(fit) - 1, ADJUSTED_ON).astype(int))
        scores, truth = self._pixels(model, fit, chosen)
        biases = fit_biases(scores, truth)
        model.add_to_scores(from_numpy(biases).to(model.head.weight.device))
        moved = ", ".join(f"{info.name} {by:+.1f}" for info, by in zip(CITYSCAPES_CLASSES, biases, strict=True))
        return f"scores moved for the mean IoU on {len(chosen)} training pictures: {moved}"

    def _pixels(
        self, model: RoadUserNet, fit: RoadUserPairs, chosen: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(P, C) logits and (P,) classes of every `ADJUSTED_STRIDE`th known pixel each way, no void."""
        from torch import from_numpy, no_grad

        from training.models.encoder import network_input

        classes, (height, width) = len(CITYSCAPES_CLASSES), (self.recipe.height, self.recipe.width)
        found, true = [], []
        for place, index in enumerate(chosen):
            picture = at_size(fit.photos[[index]], height, width)
            with no_grad():
                logits = model(network_input(from_numpy(picture).to(model.head.weight.device)))[0].float().cpu().numpy()
            label = fit.pairs.labels[index]
            first = place % ADJUSTED_STRIDE
            rows, columns = (np.arange(first, side, ADJUSTED_STRIDE) for side in label.shape)
            truth = label[np.ix_(rows, columns)]
            seen = logits[:, rows * height // label.shape[0]][:, :, columns * width // label.shape[1]]
            known = (truth < classes) & (seen.argmax(0) < classes)
            found.append(seen[:classes, known].T)
            true.append(truth[known].astype(np.int64))
        return np.concatenate(found), np.concatenate(true)

    def predict(self, model: RoadUserNet, pictures: Tensor) -> dict[str, Tensor]:
        from training.models.encoder import network_input

        scene = model.scene(network_input(pictures))
        return {
            "class_map": model.class_map(scene.phases),
            "confidence": model.confidence(scene.phases),
            **_objects(scene, OBJECTS),
        }

    def graph(self, model: RoadUserNet, spec: ModelSpec) -> Graph:
        from training.models.encoder import network_input
        from training.models.road_users import CANDIDATES

        def candidates(pictures: Tensor) -> dict[str, Tensor]:
            return _objects(model.scene(network_input(pictures)), CANDIDATES)

        return replace(super().graph(model, spec), candidates=candidates)

    def measure(self, outputs: Outputs, data: RoadUserPairs, indices: Sequence[int]) -> NDArray[Any]:
        rows = np.zeros(len(indices), ROW)
        rows["labels"] = -1
        rows["confusion"] = count_confusions(outputs["class_map"], data.pairs.labels[indices], len(CITYSCAPES_CLASSES))
        side = data.photos.shape[1]
        for place, index in enumerate(indices):
            row, truth = rows[place], data.boxes[index]
            boxes, scores = outputs["boxes"][place] * side, outputs["scores"][place]
            labels = np.searchsorted(_IDS, outputs["labels"][place])
            kept = distinct(boxes, scores, labels)
            kept = kept[scores[kept] >= LEAST_SCORE][:OBJECTS]
            row["scores"][: len(kept)], row["labels"][: len(kept)] = scores[kept], labels[kept]
            row["wanted"] = np.bincount(truth.labels[truth.sure], minlength=len(ROAD_USERS))
            for label, info in enumerate(ROAD_USERS):
                mine, true = labels[kept] == label, truth.labels == label
                levels = np.array([SMALL_LEVEL if info.name in SMALL else LEVEL, *COCO_LEVELS])
                chosen = kept[mine]
                verdict = judge(boxes[chosen], scores[chosen], truth.corners[true], truth.sure[true], levels)
                row["verdict"][: len(kept)][mine] = verdict
        return rows

    def scores(self, rows: NDArray[Any]) -> dict[str, float]:
        whole = Scores.from_confusion(rows["confusion"][:, 0].sum(0))
        by_class = {info.name: precision_of(rows, place, [0]) for place, info in enumerate(ROAD_USERS)}
        mean_ap = _mean([*by_class.values()])
        scores = {
            "mean_iou": whole.mean_iou, "mean_ap": mean_ap, "mean_iou_and_ap": (whole.mean_iou + mean_ap) / 2,
            "accuracy": whole.accuracy,
        }  # fmt: skip
        iou = {f"iou/{info.name}": float(value) for info, value in zip(CITYSCAPES_CLASSES, whole.iou, strict=True)}
        return scores | iou | {f"ap/{name}": value for name, value in by_class.items()}

    def evaluation(self, rows: NDArray[Any], data: RoadUserPairs, label: Label) -> Figures:
        """The scores with their intervals, and COCO's averages over overlaps without: they take ten times as long."""
        found = summarise(self.scores, rows, f"{PROTOCOL}; {data.protocol}", label)
        levels = {"ap": range(1, 11), "ap50": [1], "ap75": [6]}
        coco = {
            f"coco/{name}": _mean([precision_of(rows, place, at) for place in range(len(ROAD_USERS))])
            for name, at in levels.items()
        }
        known = {name: value if np.isfinite(value) else None for name, value in coco.items()}
        return msgspec.structs.replace(found, details=found.details | known)

    def truth(self, data: RoadUserPairs, index: int) -> Outputs:
        boxes = data.boxes[index]
        return {
            "class_map": data.pairs.labels[index],
            "boxes": boxes.corners[boxes.sure] / SIDE,
            "labels": _IDS[boxes.labels[boxes.sure]],
        }

    def spec(self, height: int, width: int, version: str, metrics: tuple[Metric, ...]) -> ModelSpec:
        return ModelSpec(
            name=self.recipe.name, version=version, task="road-users", height=height, width=width,
            classes=CITYSCAPES_CLASSES,
            outputs={"class_map": "class_map", "boxes": "boxes", "scores": "scores", "labels": "labels"},
            training_data=(
                f"Cityscapes image pairs (pix2pix / Kaggle) with the instance boxes of Cityscapes, part "
                f"{self.recipe.split!r} of train, {self.recipe.width}×{self.recipe.height}"
            ),
            licence="weights trained on Cityscapes: non-commercial research and teaching only (cityscapes-dataset.com)",
            metrics=metrics, min_score=MIN_SCORE,
        )  # fmt: skip


def _objects(scene: Scene, count: int) -> dict[str, Tensor]:
    """The likeliest objects of each picture by role."""
    from training.models.road_users import decode

    boxes, scores, places = decode(scene.heat, scene.sides, min(count, scene.heat[0].numel()))
    return {"boxes": boxes, "scores": scores, "labels": (places + ROAD_USERS[0].id).int()}


def object_balance(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weights that lift the centres of rare classes: (T,) counts → (T,) (median / count)^½, from 0.7 to 3."""
    return np.clip(np.sqrt(np.median(counts) / np.maximum(counts, 1)), 0.7, 3.0).astype(np.float32)


def repeats(present: Sequence[NDArray[np.int64]], below: float) -> NDArray[np.float64]:
    """How often each picture is to come, against the others: repeat factors (Gupta et al. 2019, "LVIS").

    Args:
        present: the classes of the objects on each of N pictures, as places in `ROAD_USERS`.
        below: a class on less than this share of the pictures is rare; where it is on a share f, those with it come
            (below / f)^½ times as often, by the rarest that they have.

    Returns:
        (N,) shares, one in sum.
    """
    pictures = sum(np.bincount(np.unique(places), minlength=len(ROAD_USERS)) for places in present)
    factors = np.sqrt(np.maximum(below * len(present) / np.maximum(pictures, 1), 1))
    often = np.array([float(factors[places].max(initial=1)) for places in present])
    often /= often.sum()
    return often


def precision_of(rows: NDArray[Any], label: int, levels: Sequence[int]) -> float:
    """Average precision of one class over rows of pictures, the mean over places in `verdict`; NaN without any.

    Args:
        rows: of `RoadUsers.measure`.
        label: place in `ROAD_USERS`.
        levels: places in the last axis of `verdict`.
    """
    mine, wanted = rows["labels"] == label, int(rows["wanted"][:, label].sum())
    scores, verdicts = rows["scores"][mine], rows["verdict"][mine]
    found = []
    for level in levels:
        counted = verdicts[:, level] >= 0
        found.append(average_precision(scores[counted], verdicts[counted, level] == 1, wanted))
    return _mean(found)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
