"""Anybody's own classes: segmentation of one's own labelled pictures, on from a model that knows the road."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.bundled import resolve
from engines.classes import IGNORE, ClassInfo
from engines.errors import SourceError, UsageError
from engines.spec import Metric, ModelSpec, read_spec
from training.data.own.classes import alike
from training.data.own.folder import Choice, Kind, open_folder
from training.data.own.samples import SPLITS, OwnPictures, load_own
from training.metrics.calibration import BINS, calibration_error, confidence_counts
from training.metrics.masks import at_size_of
from training.metrics.segmentation import confusion_matrix, iou_of_true_classes
from training.recipe import Augmentation, EncoderRecipe, UNetSettings, Whole
from training.results import Figures, Label, summarise
from training.task import EncoderTask, Outputs, View
from training.tasks.segmentation import Loss, RandomViews

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.models import Segmenter
    from training.models.graphs import Graph

PROTOCOL = (
    "one confusion matrix over the part, classes that are nowhere in the truth not counted; calibration error (ECE): "
    f"|confidence − share that is right|, {BINS} bins, over pixels"
)


class OwnRecipe(EncoderRecipe, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A run on one's own pictures.

    `start` is a bundled or exported model with this encoder and decoder to go on from, its batch norm folded; null for
    none. `classes` are those of the folder if left out. `trips` is a regular expression whose first group, in a file
    name, is the trip. Where folders say no parts, a share `held_out` is held out by `split_seed`. `strays: ignore`
    ignores what is labelled as no class. `licence` and `training_data` go into the exported model.
    """

    model: UNetSettings = UNetSettings()
    start: Path | None = None
    classes: tuple[ClassInfo, ...] = ()
    trips: str = ""
    held_out: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.2
    split_seed: Whole = 0
    strays: Literal["refuse", "ignore"] = "refuse"
    licence: str = ""
    training_data: str = ""
    augmentation: Augmentation = Augmentation()


class SegmenterRecipe(OwnRecipe, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same with the loss of pixels."""

    task: str = "own"
    loss: Loss = Loss()


R = TypeVar("R", bound=OwnRecipe)
M = TypeVar("M", bound="nn.Module")


class OwnTask(EncoderTask[R, M, OwnPictures]):
    """What segmenters and detectors of one's own share: the folder, the start, the end."""

    kind: ClassVar[Kind]
    splits = SPLITS
    idle = ("cache",)

    # The folder -----------------------------------------------------------------------------------------------------
    def choice(self) -> Choice:
        """What of the reading the recipe chooses."""
        recipe = self.recipe
        return Choice(recipe.trips, recipe.held_out, recipe.split_seed, recipe.strays == "ignore")

    def settled(self, folder: Path, say: Callable[[str], None]) -> R:
        found = open_folder(folder, self.kind, self.choice())
        recipe = self.recipe
        classes = recipe.classes or found.legend.classes
        if self.kind == "boxes":
            classes = tuple(msgspec.structs.replace(info, thing=True) for info in classes)
        parts = found.parts
        if "train" not in parts or "val" not in parts:
            have = ", ".join(f"{count} of {part}" for part, count in parts.items())
            raise SourceError(
                f"{folder} has {have}; wanted are pictures to train on (train) and others to look at (val)"
            )
        say(f"{folder}: {found.form}, " + ", ".join(f"{count} pictures of {part}" for part, count in parts.items()))
        say(f"classes: {', '.join(info.name for info in classes)} ({found.legend.source})")
        for note in found.notes:
            say(note)
        licence = recipe.licence
        if recipe.start is not None and not licence:
            spec = read_spec(resolve(str(recipe.start)))
            licence = f"goes on from {spec.name}, whose terms hold: {spec.licence}" if spec.licence else ""
        trips = len({item.trip for item in found.of("train")})
        data = recipe.training_data or f"{parts['train']} pictures of one's own, {trips} trips"
        changed = msgspec.structs.replace(recipe, classes=classes, licence=licence, training_data=data)
        if recipe.start is None and recipe.encoder_weights is None:
            say("training starts from nothing: every layer is trained, at one rate")
            rate = msgspec.structs.replace(recipe.optimizer, encoder_learning_rate=recipe.optimizer.learning_rate)
            changed = msgspec.structs.replace(changed, frozen_stages=0, freeze_encoder_norm=False, optimizer=rate)
        return changed

    def deliverable(self, folder: Path) -> Literal["last", "best"] | None:
        # What chose a checkpoint cannot be what it is reported on.
        return "best" if "test" in open_folder(folder, self.kind, self.choice()).parts else "last"

    def load(
        self, folder: Path, split: str, *, size: tuple[int, int] | None = None, cache: Path | None = None,  # noqa: ARG002
        skip_broken: bool = False, say: Callable[[str], None] = print,
    ) -> OwnPictures:  # fmt: skip
        """Read a part; a model is scored at its own size."""
        return load_own(
            folder, self.kind, split, size or (self.recipe.height, self.recipe.width), self.recipe.classes,
            self.choice(), skip_broken=skip_broken, say=say,
        )  # fmt: skip

    def data_choice(self) -> object:
        return self.choice(), self.recipe.classes

    # Training -------------------------------------------------------------------------------------------------------
    def check(self) -> None:
        height, width = self.recipe.height, self.recipe.width
        if height % 32 or width % 32:
            near = f"height={max(32, round(height / 32) * 32)} width={max(32, round(width / 32) * 32)}"
            raise UsageError(
                f"recipe {self.recipe.name}: height and width are multiples of 32, and {height}×{width} are not; the "
                f"nearest are {near}"
            )

    @property
    def goes_on(self) -> bool:
        """Whether the network starts from a model's file."""
        return self.recipe.start is not None

    @abstractmethod
    def fresh(self, model: M) -> list[nn.Module]:
        """Layers that no start has weights for."""

    def parameter_groups(self, model: M) -> list[dict[str, Any]]:
        groups = super().parameter_groups(model)
        if not self.goes_on:
            return groups
        fresh = [p for layer in self.fresh(model) for p in layer.parameters()]
        apart = {id(p) for p in fresh}
        tuned = [p for p in groups[0]["params"] if id(p) not in apart]
        rate = self.recipe.optimizer
        return [
            {"params": fresh, "lr": rate.learning_rate},
            {"params": tuned, "lr": rate.encoder_learning_rate},
            *groups[1:],
        ]  # fmt: skip

    def training_mode(self, model: M) -> None:
        super().training_mode(model)
        if self.goes_on:
            # Their batch norm lies in the convolutions they came with, and what is left of it has no statistics.
            for name, child in model.named_children():
                if name in ("encoder", "decoder", "laterals", "sides", "heat"):
                    child.eval()

    def _start(self) -> tuple[Path, ModelSpec]:
        path = resolve(str(self.recipe.start))
        return path, read_spec(path)

    def describe(self) -> str:
        start = f"from {Path(self.recipe.start).stem}" if self.recipe.start is not None else "from nothing"
        return f"{start}, {super().describe()}"


class Own(OwnTask[SegmenterRecipe, "Segmenter"]):
    """See `training.task.Task`. A row of figures is a picture's confusion matrix and its histogram of confidence."""

    recipe_type = SegmenterRecipe
    kind = "masks"
    title = "Own classes"
    optional_outputs = ("confidence",)

    def build_model(self) -> Segmenter:
        from training.models import build_model

        return build_model(self.recipe.model, max(len(self.recipe.classes), 1))

    def initialise(self, model: Segmenter) -> None:
        from training.models.start import start_segmenter
        from training.models.unet import UNet

        super().initialise(model)
        if self.goes_on:
            assert isinstance(model, UNet)
            path, spec = self._start()
            start_segmenter(model, path, alike(self.recipe.classes, spec.classes))

    def fresh(self, model: Segmenter) -> list[nn.Module]:
        return [model.get_submodule("head")]

    def views(self, fit: OwnPictures) -> View:
        from torch import from_numpy

        from training.losses.segmentation import class_balance

        loss, number = self.recipe.loss, len(self.recipe.classes)
        counts = np.bincount(fit.labels.ravel(), minlength=256)[:number].astype(np.float64)
        if not counts.sum():
            raise SourceError("no pixel of the pictures to train on has a class; see `roadlens data check`")
        # A class that is nowhere to be learned from is not to lift its weight to the limit.
        shares = np.where(counts > 0, counts, np.median(counts[counts > 0])) / counts.sum()
        self.class_weights = class_balance(from_numpy(shares), loss.balance_power, loss.balance_limit)
        return RandomViews(fit.photos, fit.labels, self.recipe.augmentation)

    def loss(self, model: Segmenter, batch: tuple[Tensor, ...], step: int) -> Tensor:
        from training.losses.segmentation import cell_loss
        from training.models.encoder import network_input

        pictures, target = batch
        weights = self.class_weights.to(target.device)
        phases = model.phases(network_input(pictures))
        return cell_loss(phases, target.long(), weights, self.recipe.loss.lovasz_weight, step, model.cell)

    def predict(self, model: Segmenter, pictures: Tensor) -> dict[str, Tensor]:
        from training.models.encoder import network_input

        phases = model.phases(network_input(pictures))
        return {"class_map": model.class_map(phases), "confidence": model.confidence(phases)}

    def measure(self, outputs: Outputs, data: OwnPictures, indices: Sequence[int]) -> NDArray[Any]:
        number = len(self.recipe.classes)
        places = np.full(256, IGNORE, np.uint8)  # what is no class of the model is none, whatever it is
        places[[info.id for info in self.recipe.classes]] = np.arange(number)
        labels, maps = data.labels[list(indices)], outputs["class_map"]
        truth, found = places[labels], places[at_size_of(labels, maps)]
        confidence = at_size_of(labels, outputs["confidence"]) if "confidence" in outputs else None
        rows = np.zeros(len(labels), row_type(number))
        for place, row in enumerate(rows):
            row["confusion"] = confusion_matrix(truth[place], found[place], number)
            if confidence is not None:
                known = truth[place] != IGNORE
                right = truth[place][known] == found[place][known]
                row["confidence"] = confidence_counts(confidence[place][known], right)
        return rows

    def scores(self, rows: NDArray[Any]) -> dict[str, float]:
        matrix = rows["confusion"].sum(0)
        iou, total = iou_of_true_classes(matrix), matrix.sum()
        scores = {
            "mean_iou": float(np.nanmean(iou)) if total else float("nan"),
            "accuracy": float(np.diag(matrix).sum() / total) if total else float("nan"),
        }
        counts = rows["confidence"].sum(0)
        if counts.any():
            scores["calibration_error"] = calibration_error(counts)
        return scores | {f"iou/{info.name}": float(value) for info, value in zip(self.recipe.classes, iou, strict=True)}

    def evaluation(self, rows: NDArray[Any], data: OwnPictures, label: Label) -> Figures:
        return summarise(self.scores, rows, f"{PROTOCOL}; {data.protocol}", label)

    def truth(self, data: OwnPictures, index: int) -> Outputs:
        return {"class_map": data.labels[index]}

    def fits(self, spec: ModelSpec) -> bool:
        return "class_map" in spec.outputs and spec.classes == self.recipe.classes

    def spec(self, height: int, width: int, version: str, metrics: tuple[Metric, ...]) -> ModelSpec:
        return ModelSpec(
            name=self.recipe.name, version=version, task="segmentation", height=height, width=width,
            classes=self.recipe.classes, outputs={"class_map": "class_map"}, training_data=self.recipe.training_data,
            licence=self.recipe.licence, metrics=metrics,
        )  # fmt: skip

    def graph(self, model: Segmenter, spec: ModelSpec) -> Graph:
        from training.models.graphs import segmenter_graph

        return segmenter_graph(model, spec)


def row_type(classes: int) -> np.dtype[Any]:
    """What a picture's class map is worth: counts of (true, said) class, the last column for what is none; and for each
    bin of confidence the pixels, those that are right, and the sum of their confidence."""
    return np.dtype([("confusion", np.int64, (classes, classes + 1)), ("confidence", np.float64, (BINS, 3))])
