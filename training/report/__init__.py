"""`roadlens report`: models measured side by side, as one HTML page that needs no network, and the README's table.

A section a task and data set; a task may bring its own, see `training.task.Task.section`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engines.benchmark import Benchmark
from engines.errors import OutputError
from training.files import write_file
from training.report.measuring import COLORS, Measured, measure_model
from training.report.subject import Subject, folders_by_model, open_subjects

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["Section", "around_table", "insert_table", "measure", "write_page"]

BEGIN = "<!-- models: written by `roadlens report --readme`, not by hand -->"
"""In a README: where the table begins that `insert_table` writes."""

END = "<!-- end of models -->"


class Section(Protocol):
    """What one task adds to a report, measured and ready to be written."""

    @property
    def title(self) -> str: ...

    @property
    def anchor(self) -> str:
        """Its place in the page."""
        ...

    @property
    def models(self) -> tuple[Measured, ...]:
        """What it is about."""
        ...

    @property
    def speeds(self) -> tuple[Benchmark, ...]:
        """What its milliseconds were measured on."""
        ...

    def html(self, environment: Environment) -> Markup:
        """The section, without its heading."""
        ...

    def markdown(self) -> str:
        """Its table for a README."""
        ...


def measure(
    models: Sequence[str], data: Path | Mapping[str, Path], split: str | None = None, *,
    runs: Mapping[str, Path] | None = None, seconds: float = 4.0, cache: Path | None = None, skip_broken: bool = False,
    say: Callable[[str], None] = print,
) -> list[Section]:  # fmt: skip
    """Measure models on a split and on this machine, a section for each task and data set among them.

    Args:
        models: bundled names, .onnx files, checkpoints.
        data: folder of the data set of all models; or folders by model, with that of all others under "".
        split: of it; None takes what each task keeps for reporting.
        runs: folders of training runs by model, for the curves; that of a checkpoint is found beside it.
        seconds: of timing for each model in each precision.
        cache: folder for decoded data, or None.
        skip_broken: leave out pictures that cannot be read, and name them.
        say: gets a line before each step that takes a while.

    Raises:
        ModelError: no such model.
        UsageError: a model that does not say what it was trained for, one given twice, a split that its data do not
            have, or a run or a folder of data for none of them.
        SourceError: the data cannot be read.
    """
    subjects = open_subjects(models, runs or {})
    folders = folders_by_model(subjects, {"": data} if isinstance(data, Path) else data)
    groups: dict[tuple[str, object, Path], list[Subject]] = {}
    for subject, folder in zip(subjects, folders, strict=True):
        groups.setdefault((subject.task.recipe.task, subject.task.data_choice(), folder), []).append(subject)
    parts = [group[0].task.part(split) for group in groups.values()]
    sections = []
    for ((*_, folder), group), part in zip(groups.items(), parts, strict=True):
        first = group[0]
        # All of a group are scored on the same pixels.
        size = (first.height, first.width)
        samples = first.task.load(folder, part, size=size, cache=cache, skip_broken=skip_broken, say=say)
        measured = [measure_model(s, i % COLORS, samples, part, seconds, say) for i, s in enumerate(group)]
        sections.append(first.task.section(measured, samples, part))
    return sections


def write_page(sections: Sequence[Section], path: Path) -> None:
    """Write the sections as one HTML page that refers to no other file.

    Raises:
        OutputError: the file cannot be written.
    """
    from training.report.page import render

    write_file(path, render(sections).encode())


def around_table(path: Path) -> tuple[str, str]:
    """What stands in a README before and behind the marks between which the table of models belongs.

    Raises:
        OutputError: the file cannot be read, or has not both marks.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise OutputError(f"{path} cannot be read ({reason}); give a README with both marks") from None
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise OutputError(f"{path} has no place for the table of models; write the lines {BEGIN!r} and {END!r} into it")
    return before, after


def insert_table(sections: Sequence[Section], path: Path) -> None:
    """Put the table of models between the two marks in a README, in place of what stands there.

    Raises:
        OutputError: the file cannot be read or written, or has not both marks.
    """
    before, after = around_table(path)
    write_file(path, f"{before}{BEGIN}\n{table(sections)}{END}{after}".encode())


def table(sections: Sequence[Section]) -> str:
    """The tables of all sections, for a README."""
    return "\n".join(section.markdown() for section in sections)
