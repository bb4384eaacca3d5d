"""`roadlens explain` and `roadlens explain-eval`.

Only typer is imported here; torch and OpenCV are loaded by the command that needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engines.claims import keep_apart
from engines.commands.idle import refuse_idle
from engines.errors import UsageError

if TYPE_CHECKING:
    from training.data.oxford_pet import Pets
    from training.explain.box import BoxRule, ChosenRule
    from training.explain.explanation import UInt8
    from training.explain.heat.methods import Method
    from training.explain.targets import Region

Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="A checkpoint (.ckpt), an .onnx, a bundled model, or a torchvision classifier: vgg16."
    ),
]
Weights = Annotated[
    str | None, typer.Option("--weights", help="Of a classifier: a file, `imagenet` (a download) or `random`.")
]
Input = Annotated[
    Literal["imagenet", "symmetric"] | None,
    typer.Option("--input", help="What a classifier's weights want: ImageNet's mean and deviation, or RGB/127.5 - 1."),
]
Size = Annotated[int | None, typer.Option("--size", min=32, help="Side of a classifier's input, in pixels.")]
Window = Annotated[int, typer.Option("--window", min=1, help="Side of occlusion's square, in pixels of the input.")]
Stride = Annotated[int, typer.Option("--stride", min=1, help="Between places of the square, in pixels of the input.")]
Layer = Annotated[str | None, typer.Option("--layer", help="Where Grad-CAM looks; the last map of the coarsest grid.")]
Score = Annotated[Literal["logit", "probability"], typer.Option("--score", help="Of a class, what is explained.")]
MethodName = Literal["gradient", "smoothgrad", "gradcam", "occlusion"]


def explain(
    context: typer.Context,
    model: Model,
    image: Annotated[Path | None, typer.Argument(help="The picture; or give --video and --at.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="A class by name or number, `presence`, or a coordinate (x0); what is predicted if left out."
        ),
    ] = None,
    method: Annotated[MethodName, typer.Option(help="Of the heat map.")] = "gradcam",
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture of five panels.")] = Path("explained.png"),
    arrays: Annotated[Path | None, typer.Option(help="The same as a NumPy archive (.npz).")] = None,
    video: Annotated[Path | None, typer.Option(help="Footage to take a frame of, in place of a picture.")] = None,
    at: Annotated[str | None, typer.Option(help="When the frame is shown: 12.4s, or 1:02.5.")] = None,
    region: Annotated[
        str | None, typer.Option(help="x0,y0,x1,y1 as fractions: where a segmenter's class is explained.")
    ] = None,
    score: Score = "logit",
    layer: Layer = None,
    window: Window = 25,
    stride: Stride = 5,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=0.99, help="Of the box, share of the hottest; the chosen one if left out."),
    ] = None,
    weights: Weights = None,
    normalisation: Input = None,
    size: Size = None,
) -> None:
    """Show where in a picture a network sees what it says, as a heat map and a box fitted to it."""
    _refuse_of_other_methods(context, [method])
    _need_captum("explain")
    keep_apart([output, arrays], [Path(model), image, video, Path(weights) if weights else None])
    picture = _picture(image, video, at)  # before torch is loaded: a wrong path is said at once
    where = None if region is None else _parse_region(region)

    from training.explain.explanation import explain as run
    from training.explain.explanation import write_arrays
    from training.explain.heat.occlusion import Occlusion
    from training.explain.networks.opening import open_network
    from training.explain.panels import draw_panels
    from training.files import write_picture

    network = open_network(model, weights, normalisation, size)
    explanation = run(
        network, picture, method, _rule(method, threshold), target=target, scale=score, region=where, layer=layer,
        occlusion=Occlusion(window, stride),
    )  # fmt: skip
    write_picture(output, draw_panels(explanation))
    if arrays is not None:
        write_arrays(explanation, arrays)
    place = "no box" if explanation.box is None else "box {:.3f},{:.3f},{:.3f},{:.3f}".format(*explanation.box)
    typer.echo(f"{output}: {network.name}, {explanation.target}: {explanation.score:.4g}; {method}, {place}")


def explain_eval(
    context: typer.Context,
    model: Model,
    data: Annotated[Path, typer.Option("--data", help="Folder of the Oxford-IIIT Pet set (images/, annotations/).")],
    method: Annotated[list[str] | None, typer.Option(help="All if left out. Repeatable.")] = None,
    split: Annotated[Literal["val", "dev", "fit"], typer.Option(help="Whose pictures are reported.")] = "val",
    chosen_on: Annotated[
        Literal["dev", "fit", "train"], typer.Option(help="Whose pictures the box rules are chosen on.")
    ] = "dev",
    target: Annotated[
        str | None, typer.Option(help="`truth` for each picture's own breed; what is predicted if left out.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most pictures of each split, spread evenly.")] = None,
    rules: Annotated[
        Path | None, typer.Option(help="Take the box rules of this file; where there is none, write them there.")
    ] = None,
    sanity: Annotated[int, typer.Option(min=0, help="Pictures of the weight-randomisation test.")] = 8,
    layer: Layer = None,
    window: Window = 48,
    stride: Stride = 16,
    weights: Weights = None,
    normalisation: Input = None,
    size: Size = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for explain-eval.json and explain-eval.md.")
    ] = None,
) -> None:
    """Score heat maps on pets: pointing game, boxes, masks, insertion and deletion, weight randomisation."""
    _refuse_of_other_methods(context, method or ["gradcam", "occlusion"])
    _need_captum("explain-eval")
    import msgspec

    from training.explain.evaluation import Options, choose_rules, evaluate
    from training.explain.heat.occlusion import Occlusion
    from training.explain.networks.opening import open_network
    from training.files import write_file

    _require_apart(split, chosen_on)
    methods = _methods(method)
    network = open_network(model, weights, normalisation, size)
    options = Options(
        methods, Occlusion(window, stride), target, layer, spoilt_steps=4 if sanity else 0, spoilt_pictures=sanity
    )
    load = partial(_boxed_pets, data, network.height, network.width, _division(model), limit)
    aside = load(chosen_on)
    chosen = _given_rules(rules, methods)
    if chosen is None:
        chosen = choose_rules(network, aside, chosen_on, options, _complain)
        if rules is not None:
            write_file(rules, msgspec.yaml.encode(chosen))
    result = evaluate(network, load(split), split, chosen, options, aside.boxes.mean(0), _complain)
    text = msgspec.json.format(msgspec.json.encode(result), indent=2)
    if output is not None:
        write_file(output / "explain-eval.json", text)
        write_file(output / "explain-eval.md", result.markdown().encode())
    typer.echo(text.decode() if as_json else result.markdown())


def _refuse_of_other_methods(context: typer.Context, methods: Sequence[str]) -> None:
    if "occlusion" not in methods:
        refuse_idle(context, "is of the method occlusion, which is not asked for", "window", "stride")
    if "gradcam" not in methods:
        refuse_idle(context, "is of the method gradcam, which is not asked for", "layer")


def _require_apart(split: str, chosen_on: str) -> None:
    if split == chosen_on or (chosen_on == "train" and split != "val"):
        raise UsageError(
            f"--split {split} and --chosen-on {chosen_on} share pictures; the box rules must come from others"
        )


def _boxed_pets(
    folder: Path, height: int, width: int, division: tuple[int, Path | None], limit: int | None,
    part: Literal["val", "dev", "fit", "train"],
) -> Pets:  # fmt: skip
    """Pets with boxes at the size of a network, at most `limit` of a part."""
    from training.data.oxford_pet import load_pets
    from training.explain.evaluation import with_boxes

    seed, split_file = division
    pets = load_pets(
        folder, part, height, width, seed=seed, split_file=split_file, trimaps=True, skip_broken=True, say=_complain
    )
    return with_boxes(pets, limit)


def _methods(names: list[str] | None) -> list[Method]:
    """Those that were asked for, in the order of the house; all if none was. Typer takes no list of literals."""
    from training.explain.heat.methods import METHODS

    if strange := [name for name in names or () if name not in METHODS]:
        raise UsageError(f"there is no method {strange[0]}; there are {', '.join(METHODS)}")
    return [name for name in METHODS if names is None or name in names]


def _given_rules(path: Path | None, methods: list[Method]) -> dict[Method, ChosenRule] | None:
    """The box rules of a file; None where there is none."""
    from training.explain.box import stored_rules

    if path is None or not path.is_file():
        return None
    given = stored_rules(path)
    if absent := [name for name in methods if name not in given]:
        raise UsageError(f"{path} has no rule for {absent[0]}; leave --rules out, or give a file that has it")
    return given


def _division(model: str) -> tuple[int, Path | None]:
    """Seed and list by which the recipe of a model divides the pets: what it was trained on is not to be scored."""
    from engines import bundled
    from engines.spec import read_spec
    from training.checkpoint import stored_recipe
    from training.evaluation.opening import stated_recipe
    from training.recipe import Recipe

    recipe: Recipe | None = None
    if model.endswith(".ckpt"):
        recipe = stored_recipe(Path(model))
    elif model.endswith(".onnx") or model in bundled.names():
        path = bundled.resolve(model)
        recipe = stated_recipe(path, read_spec(path))
    return getattr(recipe, "split_seed", 0), getattr(recipe, "split_file", None)


def _complain(line: str) -> None:
    typer.echo(line, err=True)


def _need_captum(command: str) -> None:
    missing = [
        name for name in ("torch", "torchvision", "lightning", "torchmetrics", "captum") if find_spec(name) is None
    ]
    if missing:
        raise UsageError(
            f"`roadlens {command}` needs libraries that are not installed ({', '.join(missing)}); "
            f"install them with: pip install '.[train]'"
        )


def _rule(method: Method, threshold: float | None) -> BoxRule:
    """The rule chosen for a method, with another threshold if one is given."""
    import msgspec

    from training.explain.box import BoxRule, stored_rules

    chosen = stored_rules().get(method)
    rule = BoxRule() if chosen is None else chosen.rule
    return rule if threshold is None else msgspec.structs.replace(rule, threshold=threshold)


def _picture(image: Path | None, video: Path | None, at: str | None) -> UInt8:
    from engines.errors import SourceError
    from engines.tools.frames import read_frame_at
    from engines.tools.pictures import read_picture

    if (image is None) == (video is None):
        raise UsageError("give one thing to explain: a picture, or --video FILE with --at 12.4s")
    if video is None:
        assert image is not None
        if at is not None:
            raise UsageError(f"--at {at} is for --video; {image} is a picture")
        if not image.is_file():
            raise SourceError(f"there is no picture {image}; give the path of one")
        return read_picture(image)
    if at is None:
        raise UsageError(f"say which frame of {video} with --at, such as --at 12.4s")
    return read_frame_at(video, _parse_time(at))


def _parse_time(text: str) -> float:
    """Seconds of `12.4s`, `12.4`, `1:02.5` or `1:00:02`."""
    try:
        parts = [float(part) for part in text.removesuffix("s").split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or not all(0 <= part < float("inf") for part in parts):
        raise UsageError(f"--at {text} is no time; give seconds, such as 12.4s, or 1:02.5")
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + part
    return seconds


def _parse_region(text: str) -> Region:
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--region {text} is no region; give x0,y0,x1,y1 as fractions from 0 to 1") from None
    return x0, y0, x1, y1
