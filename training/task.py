"""What a task is: everything that the training loop, `eval`, `export` and `report` need to know of it, and no more.

A new task is one file with one class derived from `Task` (or `EncoderTask`), found by the name that a recipe gives
(`training.catalogue`): no list names the tasks. A task's file imports torch inside its methods only, so that an
exported model can be evaluated where torch is not installed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.errors import UsageError
from engines.settings import nearest
from engines.spec import Metric, ModelSpec, OutputRole
from engines.squash import squash
from training.results import Evaluation, Figures, Label, summarise

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.models.encoder import Encoder
    from training.models.graphs import Graph
    from training.recipe import EncoderRecipe, Recipe

UInt8 = NDArray[np.uint8]
View = Callable[[int, np.random.Generator], tuple[NDArray[Any] | np.generic, ...]]
"""A random view of a training sample, by its number: arrays, the picture (H, W, 3) uint8 RGB usually first."""

Outputs = Mapping[str, NDArray[Any]]
"""What a model says of n pictures, by the roles of a `ModelSpec`: `class_map` (n, H, W), `boxes` (n, K, 4) …"""


def as_arrays(outputs: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """A network's outputs on the host, floats as float32."""
    return {
        name: (value.float() if value.is_floating_point() else value).detach().cpu().numpy()
        for name, value in outputs.items()
    }


def at_size(photos: UInt8, height: int, width: int) -> UInt8:
    """(n, h, w, 3) uint8 at the size of a model, as an engine squashes one picture: (n, height, width, 3)."""
    if photos.shape[1:3] == (height, width):
        return photos
    return np.stack([squash(photo, height, width) for photo in photos])


class Samples(Protocol):
    """A split of a data set held in memory."""

    @property
    def photos(self) -> UInt8:
        """(N, H, W, 3) uint8 RGB."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """N names of pictures, for people."""
        ...

    @property
    def protocol(self) -> str:
        """Where pictures and truth come from, and what became of them, in a clause."""
        ...

    def __len__(self) -> int: ...


R = TypeVar("R", bound="Recipe")
M = TypeVar("M", bound="nn.Module")
D = TypeVar("D", bound=Samples)


class Task(ABC, Generic[R, M, D]):
    """One kind of training run: its recipe R, its network M, its data D.

    A subclass gives `recipe_type` and the abstract methods; a recipe names the module that it stands in. The object
    belongs to one recipe and may keep what `views` found out about the training data.
    """

    recipe_type: ClassVar[type[Any]]
    """The struct that recipes of this task are read as, derived from `training.recipe.Recipe`."""

    splits: ClassVar[tuple[str, ...]] = ("fit", "dev", "train", "val")
    """Parts of the data: `train` is `fit` and `dev`; the last one is for reporting only, and never trained on."""

    title: ClassVar[str] = ""
    """What a report calls it; the name of its module if left out."""

    optional_outputs: ClassVar[tuple[OutputRole, ...]] = ()
    """Roles that an export can have besides those of `spec`, where they are asked for."""

    idle: ClassVar[tuple[str, ...]] = ()
    """Arguments of `load` that change nothing, of `cache` and `skip_broken`: the commands refuse their options."""

    score: ClassVar[str] = "mean_iou"
    """The score on `dev` whose highest value picks `best.ckpt`."""

    def __init__(self, recipe: R) -> None:
        self.recipe = recipe

    def part(self, split: str | None) -> str:
        """A split by name, or the one for reporting.

        Raises:
            UsageError: the data of this task have no such split.
        """
        if split is None:
            return self.splits[-1]
        if split not in self.splits:
            close = nearest(split, self.splits)
            meant = f"the nearest is {close}, " if close else ""
            raise UsageError(
                f"--split {split}: the data of {self.recipe.name} have none of that name; {meant}"
                f"there are {', '.join(self.splits)}"
            )
        return split

    def class_heads(self) -> dict[str, tuple[str, ...]]:
        """Names of the classes of each class head of a `Localizer`, in its order, for `roadlens explain`."""
        return {}

    def describe(self) -> str:
        """The recipe in words, short enough for a table."""
        return f"{self.recipe.steps:,} steps of {self.recipe.batch}"

    # Training -------------------------------------------------------------------------------------------------------
    def settled(self, folder: Path, say: Callable[[str], None]) -> R:  # noqa: ARG002 - a task may have nothing to settle
        """The recipe with what only the data say, such as their classes; that of a new run, and of one that goes on.

        Args:
            folder: of the data set.
            say: gets a sentence for what was found out.

        Raises:
            SourceError: not the data set.
        """
        return self.recipe

    def deliverable(self, folder: Path) -> Literal["last", "best"] | None:  # noqa: ARG002
        """Which checkpoint a run on a folder ends in as a model file with a report beside it; None for neither."""
        return None

    def fits(self, spec: ModelSpec) -> bool:
        """Whether a model does what models of this task do."""
        made = self.spec(spec.height, spec.width, spec.version, ())
        return made.task == spec.task and made.classes == spec.classes

    def check(self) -> None:
        """Refuse a recipe whose keys fit one by one and not together.

        Raises:
            UsageError: what contradicts what, and how to mend it.
        """

    @abstractmethod
    def build_model(self) -> M:
        """The network with random weights, from the recipe alone: a checkpoint opens without data."""

    def initialise(self, model: M) -> None:
        """Load what a new run starts from, in place; a run that goes on has it in its checkpoint.

        Raises:
            ModelError: weights that cannot be read or do not fit.
        """

    def parameter_groups(self, model: M) -> list[dict[str, Any]]:
        """What is trained, as groups of the optimizer with their peak learning rates; the rest is frozen for good."""
        return [{"params": list(model.parameters()), "lr": self.recipe.optimizer.learning_rate}]

    def training_mode(self, model: M) -> None:
        """Put parts of a model in training mode back into evaluation mode; called before each step."""

    def least_batch(self) -> int:
        """Pictures that a process needs in a step."""
        return 1

    @abstractmethod
    def load(
        self, folder: Path, split: str, *, size: tuple[int, int] | None = None, cache: Path | None = None,
        skip_broken: bool = False, say: Callable[[str], None] = print,
    ) -> D:  # fmt: skip
        """Read a split of the data into memory.

        Args:
            folder: of the data set.
            split: one of `splits`.
            size: height and width that a model to be evaluated takes, for data that come in any size; None for
                training, at the recipe's size.
            cache: folder for decoded data, or None.
            skip_broken: leave out what cannot be used, and name it to `say`.
            say: gets one sentence for each picture left out.

        Raises:
            SourceError: not the data set, or a file that cannot be used.
        """

    @abstractmethod
    def views(self, fit: D) -> View:
        """Random views of the training data; what the loss has to know of the data is worked out here, too.

        The function is called from several threads at once and is a pure function of its arguments.
        """

    @abstractmethod
    def loss(self, model: M, batch: tuple[Tensor, ...], step: int) -> Tensor:
        """The loss of one step, a scalar.

        Args:
            model: in training mode, the parts of `training_mode` aside.
            batch: the arrays of `views`, stacked, on the model's device.
            step: number of steps done.
        """

    def conclude(self, model: M, fit: D) -> str:  # noqa: ARG002 - most tasks end with their last step
        """Put a network right behind its last step, in place, before it is evaluated for the last time.

        Args:
            model: the moving average, in evaluation mode.
            fit: the training data.

        Returns:
            What was done, a sentence for people; empty for nothing.
        """
        return ""

    # Evaluation -----------------------------------------------------------------------------------------------------
    @abstractmethod
    def predict(self, model: M, pictures: Tensor) -> dict[str, Tensor]:
        """What the exported graph says: (N, H, W, 3) uint8 RGB → outputs by the roles of a `ModelSpec`.

        Names that are no roles are what a checkpoint can say and an exported file cannot.
        """

    @abstractmethod
    def measure(self, outputs: Outputs, data: D, indices: Sequence[int]) -> NDArray[Any]:
        """Compare outputs with the truth: (n, …), one row of figures a picture.

        Args:
            outputs: for n pictures.
            data: the split.
            indices: which n pictures of it.
        """

    @abstractmethod
    def scores(self, rows: NDArray[Any]) -> dict[str, float]:
        """The scores of a set of pictures from its rows: of a split, or of one drawn from it with replacement.

        NaN where a score is not defined. Names in snake case; one with a slash (`iou/car`) is a detail.
        """

    def evaluation(self, rows: NDArray[Any], data: D, label: Label) -> Evaluation:
        """The result of a split from the rows of its pictures: here the scores with their intervals."""
        return summarise(self.scores, rows, data.protocol, label)

    @classmethod
    def evaluation_type(cls) -> type[Evaluation]:
        """The struct that `evaluation` gives, and that an evaluation.json is read as."""
        return Figures

    # Report ---------------------------------------------------------------------------------------------------------
    def data_choice(self) -> object:
        """What of the recipe decides which samples `load` gives, hashable: models are compared where it is equal."""
        return None

    def truth(self, data: D, index: int) -> Outputs:  # noqa: ARG002 - a task may leave it out
        """What would be right to say of one picture, in the form of its outputs, without the first axis; for people."""
        return {}

    # Export ---------------------------------------------------------------------------------------------------------
    @abstractmethod
    def spec(self, height: int, width: int, version: str, metrics: tuple[Metric, ...]) -> ModelSpec:
        """What an exported model says about itself; its outputs are among those of `predict`."""

    def graph(self, model: M, spec: ModelSpec) -> Graph:
        """What `training.export.export` writes: a module that answers as `predict` does, and the names of its outputs.

        Raises:
            UsageError: a size of input that the graph cannot have; here one that `check` refuses in a recipe.
        """
        from training.models.graphs import Graph, PredictGraph

        type(self)(msgspec.structs.replace(self.recipe, height=spec.height, width=spec.width)).check()
        roles = tuple(spec.outputs)
        return Graph(PredictGraph(partial(self.predict, model), model, roles), tuple(spec.outputs.values()))


AnyTask = Task[Any, Any, Any]


E = TypeVar("E", bound="EncoderRecipe")


class EncoderTask(Task[E, M, D]):
    """A task whose network has an `encoder` trained elsewhere: its weights, its frozen stages, its learning rate."""

    def check(self) -> None:
        if self.recipe.frozen_stages and self.recipe.encoder_weights is None:
            raise UsageError(
                f"recipe {self.recipe.name}: frozen_stages = {self.recipe.frozen_stages} would freeze random weights; "
                "give encoder_weights=imagenet (a download) or a file, or frozen_stages=0"
            )

    def initialise(self, model: M) -> None:
        from training.models.encoder import load_encoder

        if self.recipe.encoder_weights is not None:
            load_encoder(_encoder(model), self.recipe.encoder_weights)

    def parameter_groups(self, model: M) -> list[dict[str, Any]]:
        encoder, options = _encoder(model), self.recipe.optimizer
        known = {id(p) for p in encoder.parameters()}
        frozen = {id(p) for p in encoder.stage_parameters(self.recipe.frozen_stages)}
        fresh = [p for p in model.parameters() if id(p) not in known]
        groups: list[dict[str, Any]] = [{"params": fresh, "lr": options.learning_rate}]
        if tuned := [p for p in encoder.parameters() if id(p) not in frozen]:
            groups.append({"params": tuned, "lr": options.encoder_learning_rate})
        return groups

    def training_mode(self, model: M) -> None:
        # Batch norm of a MobileNet-like encoder drifts under small batches; its statistics stay as they were loaded.
        if self.recipe.freeze_encoder_norm:
            _encoder(model).eval()


def _encoder(model: nn.Module) -> Encoder:
    encoder: Encoder = model.encoder  # type: ignore[assignment]  # torch types every attribute as Tensor or Module
    return encoder
