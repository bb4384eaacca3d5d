"""What a task is: everything that the training loop, `eval`, `export` and `report` need to know of it, and no more.

A new task is one file with one class derived from `Task` (or `EncoderTask`), found by the name that a recipe gives:
no list names the tasks. A task's file imports torch inside its methods only, so that an exported model can be
evaluated where torch is not installed.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.errors import UsageError
from engines.settings import nearest
from engines.spec import Metric, ModelSpec, OutputRole

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.evaluation import Evaluation, Label
    from training.models.encoder import Encoder
    from training.recipe import EncoderRecipe, Recipe
    from training.report import Section
    from training.report.measuring import Measured

UInt8 = NDArray[np.uint8]
View = Callable[[int, np.random.Generator], tuple[NDArray[Any] | np.generic, ...]]
"""A random view of a training sample, by its number: arrays, the picture (H, W, 3) uint8 RGB usually first."""

Outputs = Mapping[str, NDArray[Any]]
"""What a model says of n pictures, by the roles of a `ModelSpec`: `class_map` (n, H, W), `boxes` (n, K, 4) …"""


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
        from training.evaluation import summarise

        return summarise(self, rows, data, label)

    @classmethod
    def evaluation_type(cls) -> type[Evaluation]:
        """The struct that `evaluation` gives, and that an evaluation.json is read as."""
        from training.evaluation import Figures

        return Figures

    # Report ---------------------------------------------------------------------------------------------------------
    def data_choice(self) -> object:
        """What of the recipe decides which samples `load` gives, hashable: models are compared where it is equal."""
        return None

    def truth(self, data: D, index: int) -> Outputs:  # noqa: ARG002 - a task may leave it out
        """What would be right to say of one picture, in the form of its outputs, without the first axis; for people."""
        return {}

    @classmethod
    def section(cls, models: Sequence[Measured], data: D, split: str) -> Section:
        """What a report says of models of this task that were measured on the same split."""
        from training.report.scores import scores_section

        return scores_section(models, data, split)

    # Export ---------------------------------------------------------------------------------------------------------
    @abstractmethod
    def spec(self, height: int, width: int, version: str, metrics: tuple[Metric, ...]) -> ModelSpec:
        """What an exported model says about itself; its outputs are among those of `predict`."""

    def export(self, model: M, spec: ModelSpec, path: Path) -> None:
        """Write the graph of `predict` as an ONNX file, after checking that it answers as the network does.

        Raises:
            UsageError: a size of input that `check` refuses in a recipe.
            CheckFailed: the graph's answers are not the network's; nothing is written.
            OutputError: the file cannot be written.
        """
        from training.export import ExportedPredict, export_graph

        type(self)(msgspec.structs.replace(self.recipe, height=spec.height, width=spec.width)).check()
        roles = tuple(spec.outputs)
        export_graph(ExportedPredict(self, model, roles), tuple(spec.outputs.values()), spec, path, self.recipe)


class Encoded(Protocol):
    """A network over an encoder."""

    encoder: Encoder


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


# Finding tasks ------------------------------------------------------------------------------------------------------


def task_class(name: str) -> type[Task[Any, Any, Any]]:
    """The task that a recipe names.

    Args:
        name: a module under `training.tasks` (`segmentation`), or the path of any other module (`mine.depth`).

    Raises:
        UsageError: no such module, one that cannot be imported, or one that does not hold exactly one task.
    """
    import training.tasks

    house = {module.name for module in pkgutil.iter_modules(training.tasks.__path__)}
    path = f"training.tasks.{name}" if name in house else name
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise UsageError(
                f"the task {name} cannot be used: its module needs {error.name}, which is not installed"
            ) from None
        close = nearest(name, house)
        hint = f"the nearest is {close}" if close else f"those of the house are {', '.join(sorted(house))}"
        raise UsageError(
            f"there is no task {name!r}; {hint}, and a task of your own is the dotted path of a module that Python "
            "finds, its folder in PYTHONPATH"
        ) from None
    except (ValueError, TypeError, SyntaxError) as error:
        raise UsageError(
            f"the module of the task {name!r} cannot be imported ({error}); give a dotted path, or mend the file"
        ) from None
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Task)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
    if len(found) != 1:
        number = f"{len(found)} classes" if found else "no class"
        raise UsageError(
            f"the module {path} holds {number} derived from training.task.Task; a task's module holds exactly one"
        )
    return found[0]


def open_task(recipe: Recipe) -> Task[Any, Any, Any]:
    """The task of a recipe.

    Raises:
        UsageError: see `task_class`.
    """
    return task_class(recipe.task)(recipe)
