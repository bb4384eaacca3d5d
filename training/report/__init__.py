"""`roadlens report`: models measured side by side, as one HTML page that needs no network, and the README's table.

A section a task and data set; `SECTIONS` says which kinds of evaluation have one of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.errors import OutputError
from training.files import write_file
from training.metrics.segmentation import SegmentationEvaluation
from training.report.measuring import COLORS, Measured, measure_model
from training.report.scores import ScoresSection, scores_section
from training.report.section import Section
from training.report.segmentation import SegmentationSection, segmentation_section
from training.report.subject import Subject, folders_by_model, on_folder, open_subjects
from training.results import Evaluation

__all__ = ["Section", "around_table", "insert_table", "measure", "write_page"]

BEGIN = "<!-- models: written by `roadlens report --readme`, not by hand -->"
"""In a README: where the table begins that `insert_table` writes."""

END = "<!-- end of models -->"

SECTIONS: dict[type[Evaluation], Callable[[Sequence[Measured], Any, str], Section]] = {
    SegmentationEvaluation: segmentation_section,
}
"""Sections by the kind of evaluation of a task; all other kinds get `scores_section`."""


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
    subjects = [on_folder(subject, folder) for subject, folder in zip(subjects, folders, strict=True)]
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
        make = SECTIONS.get(first.task.evaluation_type(), scores_section)
        sections.append(make(measured, samples, part))
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
    write_file(path, f"{before}{BEGIN}\n{table_of_models(sections)}{END}{after}".encode())


def table(sections: Sequence[Section]) -> str:
    """The tables of all sections, in Markdown."""
    return "\n".join(section.markdown() for section in sections)


def table_of_models(sections: Sequence[Section]) -> str:
    """The same for a README: models that give a class map stand in one table, whatever else they give."""
    segmenters = next((section for section in sections if isinstance(section, SegmentationSection)), None)
    if segmenters is None:
        return table(sections)
    others = [section for section in sections if section is not segmenters]
    joined = [section for section in others if _on_the_same(section, segmenters)]
    also = [model for section in joined for model in section.models]
    left = table([section for section in others if section not in joined])
    return "\n".join(filter(None, (segmenters.markdown(also), left)))


def _on_the_same(section: Section, segmenters: SegmentationSection) -> bool:
    """Whether the class maps of all its models were scored on the segmenters' pictures."""
    return (
        isinstance(section, ScoresSection)
        and (section.split, section.pictures) == (segmenters.split, segmenters.pictures)
        and all("mean_iou" in model.shown.evaluation.headline() for model in section.models)
    )
