"""The commands of the training package: `roadlens train`, `eval`, `export`, `report` and `data`.

Only typer is imported here; torch, OpenVINO and OpenCV are loaded by the command that needs them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engines.claims import keep_apart
from engines.commands.idle import refuse_idle
from engines.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from engines.spec import ModelSpec
    from training.task import AnyTask

data_app = typer.Typer(help="Check, look at and fetch training data.", no_args_is_help=True, rich_markup_mode=None)

DataFolder = Annotated[
    Path, typer.Option("--data", help="Folder of the data set, such as the pairs' with train/ and val/.")
]
Cache = Annotated[Path | None, typer.Option("--cache", help="Keep decoded data here (270 MB a thousand pairs).")]
SkipBroken = Annotated[bool, typer.Option("--skip-broken", help="Leave unreadable pictures out, and name them.")]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help="Recipe of a model that does not say which one made it.")
]
DataSetFolder = Annotated[Path, typer.Argument(help="Folder of the data set, which is recognised by its layout.")]
SetOption = Annotated[
    str | None, typer.Option("--set", help="Which data set it is, where that cannot be seen; or the path of a module.")
]
SplitOption = Annotated[
    str | None,
    typer.Option(help="Part of the data: dev and fit are the parts of train; if left out, the one for reporting."),
]


def _need_training(command: str, also: tuple[str, ...] = ()) -> None:
    """Say in one sentence what is missing where only the runtime is installed."""
    wanted = ("torch", "torchvision", "lightning", "onnxscript", *also)
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"`roadlens {command}` needs libraries that are not installed ({', '.join(missing)}); "
            f"install them with: pip install '.[train]'"
        )


def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A bundled recipe's name, or a YAML file.")],
    data: DataFolder,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]…", help="Changes, such as optimizer.learning_rate=1e-3.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for checkpoints and metrics; runs/<name> if left out.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the output.")] = False,
    cache: Cache = None,
    skip_broken: SkipBroken = False,
    devices: Annotated[
        int | None, typer.Option(min=1, help="GPUs of a node, or processes on a CPU; every GPU if left out.")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Machines that run this same command.")] = 1,
) -> None:
    """Train a model from a recipe; killed or stopped, it goes on with --resume as if nothing had been."""
    from training.catalogue import open_task, read_recipe

    began = time.monotonic()
    settings = read_recipe(recipe, overrides or [])
    task = open_task(settings)
    refuse_idle(context, f"changes nothing of {task.recipe.name}, whose data are read in seconds", *task.idle)
    _need_training("train", also=("tensorboard",))
    task.check()
    from training.loop.run import BEST
    from training.loop.run import train as run

    folder = output or Path("runs") / settings.name
    last = run(
        settings, data, folder, cache, resume=resume, skip_broken=skip_broken, devices=devices, nodes=nodes,
        say=typer.echo,
    )  # fmt: skip
    if task.deliverable(data) is not None:
        from training.report.delivery import deliver

        deliver(folder, data, task, skip_broken=skip_broken, say=typer.echo)
        typer.echo(f"{(time.monotonic() - began) / 60:.1f} minutes from the folder to the model")
        return
    # A run whose score was never defined on `dev` (nothing of what it looks for is there) has no best.
    best = folder / BEST
    typer.echo(f"done: {last}; next: roadlens export {best if best.exists() else last} -o {settings.name}.onnx")


def evaluate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A checkpoint (.ckpt), an exported .onnx, or a bundled model's name.")],
    data: DataFolder,
    split: SplitOption = None,
    precision: Annotated[Literal["auto", "fp32", "bf16", "int8"], typer.Option(help="To compute in.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for evaluation.json, evaluation.md and pictures.")
    ] = None,
    recipe: RecipeOption = None,
    cache: Cache = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Score a model on a split, as its task does; of a segmenter IoU by class, mean IoU and accuracy."""
    if model.endswith(".ckpt"):
        _need_training("eval with a checkpoint")
    from training.catalogue import read_recipe
    from training.evaluation.opening import open_predictor, task_there
    from training.evaluation.predictor import evaluate as score
    from training.results import as_json as json_of
    from training.results import write_evaluation

    stated = read_recipe(recipe) if recipe else None
    with open_predictor(model, precision, recipe=stated) as opened:
        spec = opened.task.spec(opened.height, opened.width, "", ())
        predictor = replace(opened, task=task_there(opened.task, spec, data))
        idle = predictor.task.idle
        refuse_idle(context, f"changes nothing of {predictor.name}, whose data are read in seconds", *idle)
        part = predictor.task.part(split)
        size = (predictor.height, predictor.width)
        samples = predictor.task.load(data, part, size=size, cache=cache, skip_broken=skip_broken, say=_complain)
        result = score(predictor, samples, part)
    if output is not None:
        write_evaluation(result, output)
    typer.echo(json_of(result).decode() if as_json else result.markdown())


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A .ckpt that `roadlens train` wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx to write.")],
    height: Annotated[int | None, typer.Option(min=1, help="Of the input; the recipe's if left out.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Of the input; the recipe's if left out.")] = None,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Add a segmenter's confidence map as a second output.")
    ] = False,
    version: Annotated[str, typer.Option(help="Of the model, written into its spec.")] = "1",
    metrics: Annotated[
        Path | None, typer.Option(help="evaluation.json of `roadlens eval`, whose figures go into the spec.")
    ] = None,
    blend: Annotated[
        Path | None, typer.Option(help="The export that the run went on from: the mean of both is written.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder that it was trained on, so that it can tell how new pictures are to it.")
    ] = None,
    recipe: RecipeOption = None,
) -> None:
    """Write a checkpoint as one ONNX file with its spec, after checking that it answers as the checkpoint does."""
    _need_training("export")
    import msgspec

    from training.catalogue import read_recipe
    from training.checkpoint import open_checkpoint
    from training.export import export as write
    from training.models.exported import blend_exported
    from training.results import read_evaluation

    keep_apart([output], [checkpoint, metrics, blend, data, Path(recipe) if recipe else None])
    task, model = open_checkpoint(checkpoint, read_recipe(recipe) if recipe else None)
    if blend is not None:
        blend_exported(model, blend)
    settings = task.recipe
    evaluation = None if metrics is None else read_evaluation(metrics, task.evaluation_type())
    if evaluation is not None and evaluation.model != settings.name:
        raise UsageError(f"{metrics} says what {evaluation.model} reaches, and {checkpoint} is {settings.name}")
    measured = () if evaluation is None else evaluation.metrics()
    spec = task.spec(height or settings.height, width or settings.width, version, measured)
    if confidence:
        if "confidence" not in task.optional_outputs:
            raise UsageError(f"a model of {settings.name} has no confidence map; leave out --confidence")
        spec = msgspec.structs.replace(spec, outputs={**spec.outputs, "confidence": "confidence"})
    if data is not None:
        spec = _familiarized(task, model, spec, data)
    write(task, model, spec, output)
    typer.echo(f"{output}: {spec.name} {version}, {spec.height}×{spec.width}, checked at batch 1 and 3")


def _familiarized(task: AnyTask, model: nn.Module, spec: ModelSpec, data: Path) -> ModelSpec:
    from training.export import with_familiar

    split = task.recipe.split
    if "class_map" not in spec.outputs:
        raise UsageError(f"a model of {spec.name} gives no class map, by which novelty is told; leave out --data")
    fit = task.load(data, split, size=(spec.height, spec.width), say=_complain)
    spec = with_familiar(task, model, spec, fit, split)
    if spec.familiar is None:
        raise UsageError(
            f"{data} has {len(fit)} pictures of {split}, too few to tell what is familiar; leave out --data"
        )
    return spec


def report(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Bundled names, .onnx files or checkpoints.")],
    data: Annotated[
        list[str],
        typer.Option(
            "--data", metavar="[MODEL=]FOLDER", help="Folder of the data: of all models, or of one. Repeatable."
        ),
    ],
    split: SplitOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page to write; report.html if nothing else is asked for.")
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option(
            "--run", metavar="MODEL=DIR", help="Folder of a model's training run, for its curves. Repeatable."
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of models as Markdown.")] = False,
    readme: Annotated[
        Path | None, typer.Option("--readme", help="Write that table between the marks in this README.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of timing, for each model in each precision.")] = 4.0,
    cache: Cache = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Measure models side by side and write one HTML page: table, curves, classes, confusions, pictures."""
    _need_training("report", also=("jinja2",))
    from training.report import around_table, insert_table, measure, table, write_page

    folders: dict[str, Path] = {}
    for text in runs or []:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UsageError(
                f"--run {text} is not MODEL=DIR; write a model as it is given, = and the folder of its run"
            )
        folders[name] = Path(folder)
    places = data_folders(data)
    if readme is not None:
        around_table(readme)  # before minutes of measuring
    page = output or (None if markdown or readme else Path("report.html"))
    keep_apart([page], [*map(Path, models), *places.values()])
    sections = measure(
        models, places, split, runs=folders, seconds=seconds, cache=cache, skip_broken=skip_broken, say=_complain
    )
    if page is not None:
        write_page(sections, page)
        _complain(f"{page}: open it in a browser")
    if readme is not None:
        insert_table(sections, readme)
    if markdown:
        typer.echo(table(sections), nl=False)


def data_folders(texts: list[str]) -> dict[str, Path]:
    """`--data` of a report: folders by model, that of all others under "". A folder that exists is never `MODEL=`…"""
    folders: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        name, folder = (name, folder) if equals and not Path(text).exists() else ("", text)
        if name in folders:
            whose = f"for {name}" if name else "for all models"
            raise UsageError(f"--data was given twice {whose}; give it once, and MODEL=FOLDER for a model of its own")
        folders[name] = Path(folder)
    return folders


@data_app.command("check")
def data_check(
    folder: DataSetFolder,
    name: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
) -> None:
    """Count what a data set holds, find what cannot be read, and show how classes and boxes are spread."""
    import msgspec

    from training.data.sets import data_set_in

    found = data_set_in(folder, name).inspect(folder)
    typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() if as_json else found.markdown())
    found.raise_if_bad(folder)


@data_app.command("show")
def data_show(
    folder: DataSetFolder,
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture to write, .png or .jpg.")] = Path(
        "contact-sheet.png"
    ),
    split: Annotated[
        str | None, typer.Option(help="Part of the data, such as dev, the part of train set aside; train if left out.")
    ] = None,
    number: Annotated[int, typer.Option("-n", min=1, max=400, help="Samples, spread evenly over the split.")] = 24,
    name: SetOption = None,
) -> None:
    """Draw a contact sheet: samples of a data set with what is true of them."""
    from engines.settings import nearest
    from training.data.sets import data_set_in
    from training.files import write_picture

    data_set = data_set_in(folder, name)
    part = split or data_set.SPLITS[0]
    if part not in data_set.SPLITS:
        close = nearest(part, data_set.SPLITS)
        hint = f"the nearest is {close}" if close else f"there are {', '.join(data_set.SPLITS)}"
        raise UsageError(f"--split {part}: {data_set.NAME} has none of that name; {hint}")
    keep_apart([output], [folder])
    write_picture(output, data_set.draw_contact_sheet(folder, part, number))
    typer.echo(str(output))


@data_app.command("split")
def data_split(
    folder: DataSetFolder,
    output: Annotated[Path, typer.Option("-o", "--output", help="The list to write.")] = Path("split.txt"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the split; a recipe's split_seed.")] = 0,
    name: SetOption = None,
) -> None:
    """Write which picture is trained on and which is held out, as a list that a recipe takes with split_file."""
    from training.data.sets import data_set_in

    data_set = data_set_in(folder, name)
    publish = getattr(data_set, "publish_split", None)
    if publish is None:
        raise UsageError(f"{data_set.NAME} comes with its own parts ({', '.join(data_set.SPLITS)}); there is no choice")
    counts = publish(folder, output, seed)
    typer.echo(f"{output}: " + ", ".join(f"{number} {part}" for part, number in sorted(counts.items())))


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="The data set: cityscapes-pairs, oxford-iiit-pet, mnist.")],
    folder: Annotated[Path, typer.Argument(help="Where it shall lie afterwards.")],
) -> None:
    """Download a data set from where it is published."""
    from training.data.sets import named

    fetch = getattr(named(name), "fetch", None)
    if fetch is None:
        raise UsageError(f"{name} cannot be downloaded without an account; get it where it is published")
    typer.echo(str(fetch(folder)))


def _complain(line: str) -> None:
    typer.echo(line, err=True)
