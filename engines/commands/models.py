"""`roadlens models`: list, describe, import, verify, benchmark, quantise and familiarize model files.

Only typer is imported here; OpenVINO, ONNX and OpenCV are loaded by the command that needs them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from engines.claims import keep_apart
from engines.commands.idle import refuse_idle
from engines.commands.importing import import_model
from engines.commands.printing import print_json, print_table
from engines.engine import Precision

if TYPE_CHECKING:
    from engines.spec import ModelSpec
    from engines.tools.benchmark import Benchmark
    from engines.tools.quantize import Quantization
    from engines.tools.verify import Verification

app = typer.Typer(
    help="List, describe, import, verify, benchmark and quantise models.", no_args_is_help=True, rich_markup_mode=None
)
app.command("import")(import_model)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a bundled model, or path of an ONNX file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the bundled models, with the precisions that this machine runs them in."""
    from engines import bundled
    from engines.openvino import precisions_of
    from engines.spec import read_spec

    paths = [bundled.resolve(name) for name in bundled.names()]
    found = [(read_spec(path), precisions_of(path)) for path in paths]
    if as_json:
        print_json([{"precisions": precisions, "spec": spec} for spec, precisions in found])
        return
    print_table(
        ["name", "task", "size", "precisions", "metrics"],
        [
            [
                spec.name,
                spec.task,
                f"{spec.width}×{spec.height}",
                " ".join(precisions),
                ", ".join(f"{metric.name} {metric.value:.3f} ({metric.split})" for metric in spec.metrics) or "–",
            ]
            for spec, precisions in found
        ],
    )


@app.command()
def info(model: Model, as_json: AsJson = False) -> None:
    """Print what a model file says about itself."""
    from engines import bundled
    from engines.spec import read_spec

    path = bundled.resolve(model)
    spec = read_spec(path)
    if as_json:
        print_json(spec)
        return
    print_table(["", ""], _described(path, spec), header=False)
    if spec.metrics:
        rows = [[m.name, f"{m.value:.4f}", m.split, m.protocol] for m in spec.metrics]
        print_table(["metric", "value", "split", "protocol"], rows)
    classes = [[str(c.id), c.name, "#{:02x}{:02x}{:02x}".format(*c.color), _kind(c.thing)] for c in spec.classes]
    print_table(["id", "class", "colour", "kind"], classes)


@app.command()
def verify(
    context: typer.Context,
    model: Model,
    precision: Annotated[Precision, typer.Option(help="The precision that is compared with fp32.")] = "auto",
    footage: Annotated[
        Path | None, typer.Option(help="Video, image, or folder of them: do both give the same classes?")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Folder with images/ and labels/ (grey PNGs of class ids, 255 ignored).")
    ] = None,
    min_agreement: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least share of equal pixels (0.97 with --footage).")
    ] = None,
    max_miou_drop: Annotated[
        float | None, typer.Option(help="Most points of mean IoU that may be lost (1.0 with --labels).")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Most pictures; of footage, spread evenly.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a precision with fp32.

    On footage, or on labelled pictures; exit code 6 past a bound.
    """
    from engines import bundled
    from engines.errors import UsageError
    from engines.spec import read_spec
    from engines.tools.frames import read_frames, read_labelled
    from engines.tools.verify import check
    from engines.tools.verify import verify as run

    if (footage is None) == (labels is None):
        raise UsageError("Verifying needs pictures: give either --footage or --labels.")
    if labels is None:
        refuse_idle(context, "needs pictures whose classes are known, which --labels has", "max_miou_drop")
        assert footage is not None
        result = run(model, precision, read_frames(footage, count or 200))
    else:
        ids = frozenset(entry.id for entry in read_spec(bundled.resolve(model)).classes)
        result = run(model, precision, labelled=read_labelled(labels, ids), limit=count)
    if as_json:
        print_json(result)
    else:
        print_verification(result)
    if labels is None:
        # Files whose mIoU is within 0.2 points of fp32's on labelled pictures agree on 97.4 to 97.9 % of a motorway's.
        check(result, 0.97 if min_agreement is None else min_agreement)
    else:
        check(result, min_agreement, 1.0 if max_miou_drop is None else max_miou_drop)


@app.command()
def bench(
    model: Model,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp32, bf16 or int8; all if left out. Repeatable.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch size. Repeatable.")] = None,
    against: Annotated[Literal["onnxruntime"] | None, typer.Option(help="Another runtime beside, in fp32.")] = None,
    footage: Annotated[Path | None, typer.Option(help="Video, image or folder to run on; random if left out.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time for each side at each batch size.")] = 4.0,
    in_flight: Annotated[int, typer.Option(min=1, help="Requests under way for the throughput.")] = 2,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each side.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure latency and throughput.

    All precisions in turn in one run, beside ONNX Runtime where asked.
    """
    from engines.tools.benchmark import DISTINCT_BATCHES, benchmark
    from engines.tools.frames import read_frames

    batches = batch or [1]
    frames = list(read_frames(footage, DISTINCT_BATCHES * max(batches))) if footage else []
    # typer takes no list of literals; `load` names what is no precision.
    sides = cast("list[Precision]", precision or [])
    result = benchmark(
        model, sides, batches, frames=frames, against=against,
        seconds=seconds, in_flight=in_flight, threads=threads,
    )  # fmt: skip
    if as_json:
        print_json(result)
    else:
        print_benchmark(result)


@app.command()
def convert(
    model: Model,
    frames: Annotated[Path, typer.Option(help="Video, image or folder to check with, from where it will run.")],
    precision: Annotated[Literal["fp16", "bf16"], typer.Option(help="What the file is to be computed in.")] = "fp16",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; NAME.fp16.onnx here if left out.")
    ] = None,
    min_agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Least share of pixels that must agree with fp32.")
    ] = 0.995,
    count: Annotated[int, typer.Option(min=1, help="Pictures to check with, spread evenly.")] = 16,
    as_json: AsJson = False,
) -> None:
    """Write a half-precision file of an fp32 one.

    Engines on GPUs lower fp32 files by themselves; this is for those who want the file. It is checked against fp32
    with PyTorch (pip install '.[gpu]'); exit code 6 where it differs. For int8 and fp8 see `quantize`.
    """
    from engines import bundled
    from engines.tools.convert import convert as run
    from engines.tools.frames import read_frames

    path = bundled.resolve(model)
    target = output or Path(f"{path.stem}.{precision}.onnx")
    keep_apart([target], [path, frames])
    result = run(path, precision, read_frames(frames, count), target, min_agreement=min_agreement, count=count)
    if as_json:
        print_json(result)
        return
    parity = (
        f"{result.agreement:.2%} of pixels agree with fp32"
        if result.agreement is not None
        else f"boxes and scores within {result.box_error:.2g} of fp32"
    )
    typer.echo(
        f"{result.output}: {result.precision}, {result.bytes_after / 1e6:.1f} MB in place of "
        f"{result.bytes_before / 1e6:.1f}, {parity} on {result.frames} pictures"
    )


@app.command()
def quantize(
    model: Model,
    frames: Annotated[Path, typer.Option(help="Video, image or folder to calibrate with, from where it will run.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; NAME.int8.onnx here if left out.")
    ] = None,
    precision: Annotated[Literal["int8", "fp8"], typer.Option(help="fp8 is for GPUs from Ada and Hopper on.")] = "int8",
    subset_size: Annotated[int, typer.Option(min=1, help="Pictures to calibrate with, spread evenly.")] = 300,
    min_agreement: Annotated[
        float,
        typer.Option(min=0, max=1, help="Put layers back until this share of pixels, or of boxes, agrees with fp32."),
    ] = 0.98,
    keep: Annotated[
        list[str] | None, typer.Option(help="Layers to leave in floating point: a pattern of names. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Quantise a model to int8 or fp8.

    With NNCF (pip install '.[quantize]'), calibrated on pictures from where the model will run.
    """
    from engines import bundled
    from engines.tools.frames import read_frames
    from engines.tools.quantize import quantize as run

    path = bundled.resolve(model)
    target = output or Path(bundled.quantized_file(path, precision).name)
    keep_apart([target], [path, frames])
    pictures = read_frames(frames, subset_size)
    result = run(path, pictures, target, subset_size, precision=precision, keep=keep or (), min_agreement=min_agreement)
    if as_json:
        print_json(result)
    else:
        _print_quantization(result)


@app.command()
def familiarize(
    model: Model,
    frames: Annotated[Path, typer.Option(help="Video, image or folder: what the model was trained on, or like it.")],
    count: Annotated[int, typer.Option(min=1, help="Pictures to take, spread evenly.")] = 600,
    as_json: AsJson = False,
) -> None:
    """Tell a model what it is familiar with, for the novelty of other pictures.

    Writes NAME.familiar.json beside the model; the model file stays as it is. What `roadlens train own` writes, and
    `roadlens export --data`, has it already.
    """
    from engines import bundled
    from engines.novelty.familiar import write_beside
    from engines.tools.familiarize import familiar_with
    from engines.tools.frames import read_frames

    path = bundled.resolve(model)
    familiar = familiar_with(path, read_frames(frames, count), frames.resolve().name)
    written = write_beside(path, familiar)
    if as_json:
        print_json(familiar)
    else:
        typer.echo(f"{written}: {familiar.source}; 99 in 100 have a novelty of {familiar.limit:g} or less")


def _described(path: Path, spec: ModelSpec) -> list[list[str]]:
    return [
        ["name", f"{spec.name} {spec.version}"],
        ["file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"],
        ["task", spec.task],
        ["input", f"uint8 RGB N×{spec.height}×{spec.width}×3, the whole frame squashed"],
        ["outputs", ", ".join(f"{role} ← {name}" for role, name in spec.outputs.items())],
        ["precision", spec.precision],
        ["classes", str(len(spec.classes))],
        ["training data", spec.training_data or "–"],
        ["licence", spec.licence or "–"],
        ["familiar", _familiar(spec)],
    ]


def _familiar(spec: ModelSpec) -> str:
    known = spec.familiar
    return "–" if known is None else f"{known.source}; 99 in 100 have a novelty of {known.limit:g} or less"


def _kind(thing: bool) -> str:
    return "thing" if thing else "stuff"


def print_verification(result: Verification) -> None:
    """Classes in a table, the whole in a line."""
    labelled = result.fp32_mean_iou is not None
    columns = ["class", "share", "agreement (IoU)", *(["fp32 IoU", f"{result.precision} IoU"] if labelled else [])]
    rows = [
        [entry.name, f"{entry.share:.2%}", _figure(entry.iou)]
        + ([_figure(entry.fp32_iou), _figure(entry.precision_iou)] if labelled else [])
        for entry in result.classes
    ]
    means = [_figure(result.fp32_mean_iou), _figure(result.precision_mean_iou)] if labelled else []
    print_table(columns, [*rows, ["mean", "", _figure(result.mean_iou), *means]])
    typer.echo(
        f"{result.model}: {result.precision} against fp32 on {result.frames} pictures, {result.device}: "
        f"{result.agreement:.2%} of pixels agree"
        + (f", mean IoU {result.miou_drop:+.2f} points lost" if result.miou_drop is not None else "")
    )


def print_benchmark(result: Benchmark) -> None:
    """Sides in a table, and what they were measured on."""
    first = result.rows[0].side
    print_table(
        ["side", "batch", "latency", "p95", "pictures/s", "CPU", "×"],
        [
            [
                row.side,
                str(row.batch),
                f"{row.latency_ms:.1f}",
                f"{row.latency_p95_ms:.1f}",
                f"{row.throughput:.1f}",
                f"{row.cpu_ms:.1f}",
                f"{row.speedup:.2f}",
            ]
            for row in result.rows
        ],
    )
    versions = ", ".join(f"{name} {number}" for name, number in result.versions.items())
    threads = "threads by default" if result.threads is None else f"{result.threads} threads"
    typer.echo(
        f"Milliseconds; CPU time a picture; × is throughput against {first}.\n"
        f"{result.model} {result.width}×{result.height} on {result.device}, {result.cores} cores, {threads}, "
        f"{result.in_flight} in flight, load {result.load:.1f} before; {versions}; {result.measured_at}"
    )


def _print_quantization(result: Quantization) -> None:
    agreement = f", {result.agreement:.2%} of {result.agreement_of} agree with fp32"
    typer.echo(
        f"{result.output}: {result.layers - len(result.kept)} of {result.layers} layers in {result.precision}, "
        f"{result.bytes_after / 1e6:.1f} MB in place of {result.bytes_before / 1e6:.1f}, "
        f"{result.frames} calibration pictures{agreement}"
    )
    typer.echo(f"in floating point: {', '.join(result.kept)}")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
