"""Names and what they stand for: recipes by the names of their files, tasks by the names of their modules."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

import training.tasks
from engines.errors import UsageError
from engines.settings import decode, nearest, parse_scalar, read_yaml
from training.modules import check_own_module
from training.recipe import Recipe
from training.task import AnyTask, Task

# Tasks --------------------------------------------------------------------------------------------------------------


def task_class(name: str) -> type[AnyTask]:
    """The task that a recipe names.

    Args:
        name: a module under `training.tasks` (`segmentation`), or the path of any other module (`mine.depth`).

    Raises:
        UsageError: no such module, one that cannot be imported, or one that does not hold exactly one task.
    """
    house = {module.name for module in pkgutil.iter_modules(training.tasks.__path__)}
    path = f"training.tasks.{name}" if name in house else name
    check_own_module(path, "task")
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


def open_task(recipe: Recipe) -> AnyTask:
    """The task of a recipe.

    Raises:
        UsageError: see `task_class`.
    """
    return task_class(recipe.task)(recipe)


# Recipes ------------------------------------------------------------------------------------------------------------


class _Named(msgspec.Struct):
    """As much of a recipe as says how to read the rest. Before there were other tasks, recipes named none."""

    task: str = "segmentation"


def bundled_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("training"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by the path of its file or the name of a bundled one, with `key=value` changes.

    Args:
        name: `cityscapes-unet`, or a path that ends in `.yaml`.
        overrides: `steps=100`, `optimizer.learning_rate=1e-3`; values as YAML.

    Returns:
        The recipe struct of the task that the file names.

    Raises:
        UsageError: no such recipe, no such task, or a key or value that does not fit.
    """
    bundled = bundled_recipes()
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in bundled:
            close = nearest(name, bundled)
            hint = f"the nearest is {close}" if close else f"known are {', '.join(bundled)}"
            raise UsageError(f"There is no recipe {name!r}; {hint}; or give the path of a YAML file.")
        path = bundled[name]
    recipe = read_yaml(path, task_class(read_yaml(path, _Named).task).recipe_type)
    return override(recipe, overrides) if overrides else recipe


def override(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """The recipe with `key=value` changes; dots reach into a group.

    Raises:
        UsageError: a change that is not `key=value`, or a key or value that does not fit.
    """
    plain = recipe_as_dict(recipe)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise UsageError(f"{change!r} is not an override; write key=value, such as optimizer.learning_rate=1e-3.")
        *groups, last = key.split(".")
        place = plain
        for group in groups:
            inside = place.setdefault(group, {})
            if not isinstance(inside, dict):
                raise UsageError(f"{change!r}: {group} is a value, not a group of keys; leave out what follows it.")
            place = inside
        place[last] = parse_scalar(text)
    return decode_recipe(plain, "overrides")


def decode_recipe(plain: object, where: str) -> Recipe:
    """The recipe in plain values, as they stand in YAML, in a checkpoint or in an exported file.

    Args:
        plain: a mapping of keys to values.
        where: what a sentence names in place of a file.

    Raises:
        UsageError: no such task, or a key or value that does not fit.
    """
    recipe: Recipe = decode(plain, task_class(decode(plain, _Named, where).task).recipe_type, where)
    return recipe


def recipe_as_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, as they stand in YAML."""
    plain: dict[str, Any] = msgspec.to_builtins(recipe, enc_hook=str)
    return plain
