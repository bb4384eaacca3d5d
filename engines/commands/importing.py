"""`roadlens models import`: a model that others exported becomes one of the house (engines/foreign/IMPORT.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from engines.claims import keep_apart
from engines.commands.printing import print_json, print_table
from engines.errors import UsageError
from engines.foreign.told import (
    Background,
    Corners,
    ImportTask,
    Layout,
    Ledger,
    Order,
    Pixels,
    ScoreKind,
    Told,
    Unit,
)

if TYPE_CHECKING:
    from engines.foreign.importing import Import

_TAKEN = ("scores", "class_map", "boxes", "labels", "count", "heatmap", "sizes", "offsets")

_Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX file, of whichever exporter.")]
_Output = Annotated[Path, typer.Option("-o", "--output", help="File to write.")]
_Classes = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="A line for each class: NAME [#rrggbb] [thing|stuff]; or YAML; or cityscapes, coco."
    ),
]
_Frames = Annotated[
    Path | None, typer.Option(help="Video, image or folder to look at and check with; drawn streets if left out.")
]
_Size = Annotated[
    str | None, typer.Option(metavar="WIDTHxHEIGHT", help="To run at; below a fixed size the rest is padded.")
]
_Pixels = Annotated[
    Pixels | None, typer.Option(help="How pixels are scaled: as ImageNet's, 0 to 1, −1 to 1, 0 to 255.")
]
_Scale = Annotated[
    str | None, typer.Option(help="Value = (pixel · scale − mean) / std, pixels 0 to 255; 1/255 or a number.")
]
_Mean = Annotated[str | None, typer.Option(help="One number, or three.")]
_Std = Annotated[str | None, typer.Option(help="One number, or three.")]
_Order = Annotated[Order | None, typer.Option(help="Of colours.")]
_Layout = Annotated[Layout | None, typer.Option(help="Of the picture.")]
_Fill = Annotated[float, typer.Option(min=0, max=255, help="What is padded with.")]
_Inputs = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=NUMBERS", help="An input that is no picture. Repeatable.")
]
_Task = Annotated[ImportTask | None, typer.Option(help="What it does.")]
_Take = Annotated[
    list[str] | None, typer.Option(metavar="ROLE=OUTPUT", help=f"Which output is what: {', '.join(_TAKEN)}.")
]
_Boxes = Annotated[Corners | None, typer.Option(help="How boxes are told.")]
_Unit = Annotated[Unit | None, typer.Option(help="Of boxes.")]
_Scores = Annotated[ScoreKind | None, typer.Option(help="What scores are, or what makes probabilities of them.")]
_Background = Annotated[Background | None, typer.Option(help="Where the class of nothing stands.")]
_Threshold = Annotated[float, typer.Option(min=0.01, max=0.99, help="Of a segmenter of one class.")]
_Nms = Annotated[
    float | None, typer.Option(min=0, max=1, help="IoU at which two boxes of a class are one; 0 for none.")
]
_Most = Annotated[int, typer.Option(min=1, max=1000, help="Most boxes.")]
_MinScore = Annotated[float, typer.Option(min=0, max=1, help="Least score worth telling of.")]
_Confidence = Annotated[bool, typer.Option("--confidence", help="A segmenter gives its confidence, too.")]
_Name = Annotated[str | None, typer.Option(help="The file's if left out.")]
_Version = Annotated[str, typer.Option()]
_Licence = Annotated[str, typer.Option(help="Of the weights.")]
_Author = Annotated[str, typer.Option()]
_TrainingData = Annotated[str, typer.Option()]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def import_model(
    model: _Model,
    output: _Output,
    classes: _Classes = None,
    frames: _Frames = None,
    size: _Size = None,
    pixels: _Pixels = None,
    scale: _Scale = None,
    mean: _Mean = None,
    std: _Std = None,
    order: _Order = None,
    layout: _Layout = None,
    fill: _Fill = 114.0,
    inputs: _Inputs = None,
    task: _Task = None,
    take: _Take = None,
    boxes: _Boxes = None,
    unit: _Unit = None,
    scores: _Scores = None,
    background: _Background = None,
    threshold: _Threshold = 0.5,
    nms: _Nms = None,
    most: _Most = 100,
    min_score: _MinScore = 0.3,
    confidence: _Confidence = False,
    name: _Name = None,
    version: _Version = "1",
    licence: _Licence = "",
    author: _Author = "",
    training_data: _TrainingData = "",
    as_json: _AsJson = False,
) -> None:
    """Make a model of any segmenter or detector in ONNX.

    Looks at the graph, says what it found and how it is known, asks for what cannot be known, and writes one file with
    everything in the graph that `run` needs. It is checked against the original in ONNX Runtime
    (pip install '.[import]') before it is written; exit code 6 where it differs.
    """
    told = Told(
        task=task, size=_size(size), layout=layout, order=order, pixels=pixels, scale=_scale(scale),
        mean=_numbers(mean, "--mean"), std=_numbers(std, "--std"), fill=fill, inputs=_inputs(inputs or ()),
        take=_roles(take or ()), corners=boxes, unit=unit, scores=scores, background=background, threshold=threshold,
        overlap=nms, most=most, min_score=min_score,
    )  # fmt: skip
    keep_apart([output], [model, *([frames] if frames else [])])
    stated = {"name": name or output.name.split(".")[0], "version": version, "licence": licence, "author": author,
              "training_data": training_data}  # fmt: skip
    _run(model, output, told, stated, frames, classes, confidence, as_json)


def _run(
    model: Path, output: Path, told: Told, stated: dict[str, str], frames: Path | None, classes: str | None,
    confidence: bool, as_json: bool,
) -> None:  # fmt: skip
    from engines.errors import RoadlensError
    from engines.foreign.importing import Statement, import_model
    from engines.tools.frames import read_frames

    ledger = Ledger(told)
    pictures = None if frames is None else read_frames(frames, 8)
    try:
        result = import_model(
            model, output, ledger, Statement(**stated), pictures, classes=classes, confidence=confidence
        )
    except RoadlensError:
        if not as_json:  # what was found helps to answer what is asked
            _print_findings(ledger)
        raise
    if as_json:
        print_json(result)
        return
    _print_findings(ledger)
    _print_result(result)


def _print_findings(ledger: Ledger) -> None:
    if ledger.findings:
        rows = [[finding.about, finding.found, finding.how] for finding in ledger.findings]
        print_table(["", "found", "known by"], rows)


def _print_result(result: Import) -> None:
    check = result.check
    if check.agreement is not None:
        parity = f"{check.agreement:.2%} of pixels as the original's ({check.ties or 0:.2%} are ties)"
    elif check.boxes:
        parity = f"{check.found or 0:.1%} of the original's {check.boxes} likeliest boxes, IoU {check.iou or 0:.4f}"
    else:
        parity = "no box on the pictures to compare: give --frames with objects on them"
    same = "pixels" if check.agreement is not None else "boxes"
    spec = result.spec
    size = f"{spec.width}×{spec.height}"
    typer.echo(f"{result.output}: {spec.name}, {spec.task}, {size}, {len(spec.classes)} classes")
    typer.echo(
        f"checked on {check.pictures} pictures against ONNX Runtime: {parity}; in {check.precision}, as it runs here, "
        f"{check.in_precision:.1%} of {same} stay"
    )
    for warning in result.warnings:
        typer.echo(f"warning: {warning}")
    if result.unsure:
        unsure = "; ".join(f"{each.about} {each.found} ({each.how})" for each in result.unsure)
        typer.echo(f"not certain, see that it is so: {unsure}")
    if unstated := [what for what, known in (("licence", spec.licence), ("author", result.author)) if not known]:
        typer.echo(f"not stated: {' and '.join(unstated)} ({', '.join(f'--{what}' for what in unstated)})")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, mark, height = text.lower().replace("×", "x").partition("x")
    if (
        not mark
        or not width.isdecimal()
        or not height.isdecimal()
        or not 8 <= int(width) <= 8192
        or not 8 <= int(height) <= 8192
    ):
        raise UsageError(f"`{text}` is no size; give --size WIDTHxHEIGHT, as 640x384.")
    return int(width), int(height)


def _scale(text: str | None) -> float | None:
    if text is None:
        return None
    above, mark, below = text.partition("/")
    numbers = _numbers(above, "--scale"), _numbers(below, "--scale") if mark else (1.0,)
    assert numbers[0] is not None
    assert numbers[1] is not None
    if len(numbers[0]) != 1 or len(numbers[1]) != 1 or numbers[1][0] == 0 or numbers[0][0] == 0:
        raise UsageError(f"`{text}` is no scale; give --scale 1/255, or a number.")
    return numbers[0][0] / numbers[1][0]


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(each) for each in text.replace(",", " ").split())
    except ValueError:
        numbers = ()
    if not numbers or any(number != number or abs(number) == float("inf") for number in numbers):
        raise UsageError(f"`{text}` is no number; give {option} one number, or several with commas between.")
    return numbers


def _pairs(texts: Any, option: str) -> dict[str, str]:
    found = {}
    for text in texts:
        name, mark, value = text.partition("=")
        if not mark or not name or not value:
            raise UsageError(f"`{text}` is not NAME=VALUE; give {option} as its help says.")
        found[name] = value
    return found


def _inputs(texts: Any) -> dict[str, tuple[float, ...]]:
    pairs = _pairs(texts, "--set")
    return {name: cast("tuple[float, ...]", _numbers(value, "--set")) for name, value in pairs.items()}


def _roles(texts: Any) -> dict[str, str]:
    roles = _pairs(texts, "--take")
    if strange := next((role for role in roles if role not in _TAKEN), None):
        raise UsageError(f"`{strange}` is no role of an output; --take knows {', '.join(_TAKEN)}.")
    return roles
