"""`roadlens report`: models measured side by side, as one HTML page that needs no network, and the README's table.

A section a kind of task: what measures it stands in `MEASURES`, and gives a `Section`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engines.benchmark import Benchmark
from engines.errors import OutputError, UsageError
from engines.spec import Task
from training.data.cityscapes_pairs import Split
from training.files import write_file
from training.report.segmentation import measure_segmenters
from training.report.subject import Subject, open_subjects

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["Section", "insert_table", "measure", "write_page"]

BEGIN = "<!-- models: written by `roadlens report --readme`, not by hand -->"
"""In a README: where the table begins that `insert_table` writes."""

END = "<!-- end of models -->"


class Section(Protocol):
    """What one kind of task adds to a report, measured and ready to be written."""

    title: str
    anchor: str

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


Measure = Callable[..., Section]
MEASURES: Mapping[Task, Measure] = {"segmentation": measure_segmenters}


def measure(
    models: Sequence[str], data: Path, split: Split = "val", *, runs: Mapping[str, Path] | None = None,
    seconds: float = 4.0, cache: Path | None = None, skip_broken: bool = False, say: Callable[[str], None] = print,
) -> list[Section]:  # fmt: skip
    """Measure models on a split and on this machine, a section for each kind of task among them.

    Args:
        models: bundled names, .onnx files, checkpoints.
        data: folder of the data set.
        split: of it.
        runs: folders of training runs by model, for the curves; that of a checkpoint is found beside it.
        seconds: of timing for each model in each precision.
        cache: folder for decoded data, or None.
        skip_broken: leave out pictures that cannot be read, and name them.
        say: gets a line before each step that takes a while.

    Raises:
        ModelError: no such model.
        UsageError: a model whose task has no section, one given twice, or a run of none of them.
        SourceError: the data cannot be read.
    """
    subjects = open_subjects(models, runs or {})
    by_task: dict[Task, list[Subject]] = {}
    for subject in subjects:
        if subject.task not in MEASURES:
            raise UsageError(
                f"{subject.given} does {subject.task}, for which the report has no section; leave it out (there are "
                f"sections for {', '.join(MEASURES)})"
            )
        by_task.setdefault(subject.task, []).append(subject)
    return [
        MEASURES[task](of_task, data, split, seconds=seconds, cache=cache, skip_broken=skip_broken, say=say)
        for task, of_task in by_task.items()
    ]


def write_page(sections: Sequence[Section], path: Path) -> None:
    """Write the sections as one HTML page that refers to no other file.

    Raises:
        OutputError: the file cannot be written.
    """
    from training.report.page import render

    write_file(path, render(sections).encode())


def insert_table(sections: Sequence[Section], path: Path) -> None:
    """Put the table of models between the two marks in a README, in place of what stands there.

    Raises:
        OutputError: the file cannot be read or written, or has not both marks.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror}); give a README with both marks") from None
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise OutputError(f"{path} has no place for the table of models; write the lines {BEGIN!r} and {END!r} into it")
    write_file(path, f"{before}{BEGIN}\n{table(sections)}{END}{after}".encode())


def table(sections: Sequence[Section]) -> str:
    """The tables of all sections, for a README."""
    return "\n".join(section.markdown() for section in sections)
