"""`roadlens engines`: build, list, prune, benchmark and verify engines on GPUs.

Only typer is imported here; TensorRT, OpenVINO, ONNX and OpenCV are loaded by the command that needs them.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from engines.commands.idle import refuse_idle
from engines.commands.models import AsJson, Model, print_benchmark, print_verification
from engines.commands.printing import print_json, print_table
from engines.engine import Backend, Precision

if TYPE_CHECKING:
    from engines.loading import Observe
    from engines.spec import ModelSpec
    from engines.tensorrt.cache import Entry, PlanCache
    from engines.tensorrt.plan import BuildOptions, Machine
    from engines.tensorrt.planner import Planner

app = typer.Typer(
    help="Build, list, prune, benchmark and verify engines on NVIDIA GPUs.", no_args_is_help=True, rich_markup_mode=None
)

Device = Annotated[str, typer.Option(help="cuda, or cuda:N for another GPU than the first.")]
Cache = Annotated[
    Path | None, typer.Option(help="Folder of the plans; $ROADLENS_CACHE/plans or ~/.cache/roadlens/plans if left out.")
]

Check = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Only ask whether TensorRT takes it: the operator list, and the compiler TensorRT for RTX where it is "
        "installed and TensorRT is not. Needs no GPU.",
    ),
]


@app.command()
def build(
    context: typer.Context,
    model: Model,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp16, or int8 and fp8 of a file quantised so. Repeatable.")
    ] = None,
    device: Device = "cuda",
    batch: Annotated[int, typer.Option(min=1, help="Most pictures in a batch; `serve` asks for 32.")] = 32,
    opt_batch: Annotated[
        int | None, typer.Option(min=1, help="Batch size that kernels are chosen for; --batch if left out.")
    ] = None,
    workspace: Annotated[int, typer.Option(min=1, help="Most scratch memory of a kernel, MiB.")] = 4096,
    level: Annotated[int, typer.Option(min=0, max=5, help="0 builds fast, 5 tries everything.")] = 3,
    tf32: Annotated[bool, typer.Option("--tf32", help="Let fp32 round to 10 bits where that is faster.")] = False,
    backend: Annotated[
        Literal["tensorrt", "tensorrt-rtx"],
        typer.Option(help="Whose plans: tensorrt-rtx is for GeForce and RTX GPUs, and builds on machines without one."),
    ] = "tensorrt",
    cache: Cache = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Build plans ahead, so that no start waits for them.

    A plan that is there and fits this machine is kept. A run takes it where model and precision are the same, and its
    batches are not larger.
    """
    from engines.bundled import file_for, resolve

    path = resolve(model)
    wanted = _precisions(precision) or ["auto"]
    files = [file_for(path, each) for each in wanted]
    if check:
        built = ("device", "opt_batch", "workspace", "level", "tf32", "backend", "cache", "as_json")
        refuse_idle(context, "is about building, and --check builds nothing", *built)
        for file, each in zip(files, wanted, strict=True):
            _check(file, each, batch)
        return
    from rich.console import Console

    from engines.commands.build_bar import build_bar
    from engines.tensorrt.cache import PlanCache
    from engines.tensorrt.plan import BuildOptions

    if backend == "tensorrt-rtx":
        refuse_idle(context, "names a GPU, and a plan of tensorrt-rtx is for all of its GPUs", "device")
    options = BuildOptions(opt_batch=opt_batch, workspace_mib=workspace, tf32=tf32, optimization_level=level)
    found = []
    for file, each in zip(files, wanted, strict=True):
        with build_bar(Console(stderr=True)) as observe:
            planner = _planner(backend, file, device, each, options, PlanCache(cache), observe)
            found.append(planner.keep(batch))
    if as_json:
        print_json([entry.side_car for entry in found])
        return
    for entry in found:
        typer.echo(f"{entry.path} ({entry.size / 1e6:.1f} MB)")


@app.command("list")
def list_plans(cache: Cache = None, as_json: AsJson = False) -> None:
    """List the plans there are, and which of them this machine can run."""
    from engines.tensorrt.cache import PlanCache

    here = _machine()
    plans = PlanCache(cache)
    entries = plans.entries()
    if as_json:
        print_json([
            {"path": str(entry.path), "bytes": entry.size, "state": _state(entry, here), "side_car": entry.side_car}
            for entry in entries
        ])  # fmt: skip
        return
    if not entries:
        typer.echo(f"There are no plans in {plans.folder}; build one with `roadlens engines build MODEL`.")
        return
    rows = []
    for entry in entries:
        request = None if entry.side_car is None else entry.side_car.request
        made = ["–"] * 4 if request is None else [
            f"{request.model} {request.version}", request.precision, str(request.options.max_batch),
            f"{request.machine.gpu}, TensorRT {request.machine.tensorrt}",
        ]  # fmt: skip
        used = datetime.fromtimestamp(entry.used, UTC).strftime("%Y-%m-%d")
        rows.append([*made, f"{entry.size / 1e6:.1f} MB", used, _state(entry, here)])
    print_table(["model", "precision", "batch", "machine", "size", "used", "state"], rows)
    typer.echo(str(plans.folder))


@app.command()
def prune(
    context: typer.Context,
    cache: Cache = None,
    days: Annotated[int | None, typer.Option(min=0, help="Those that were not used for so many days, too.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All plans.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
) -> None:
    """Delete plans that are damaged or were built for another machine than this.

    Where no GPU is found, of which machine a plan is decides nothing.
    """
    from engines.tensorrt.cache import PlanCache

    if every:
        refuse_idle(context, "chooses plans, and --all means every one", "days")
    here = _machine()
    now = time.time()

    def unwanted(entry: Entry) -> bool:
        old = days is not None and now - entry.used > days * 86400
        return every or old or _state(entry, here) not in {"ready", "unknown"}

    gone = PlanCache(cache).prune(unwanted, dry_run=dry_run)
    for entry in gone:
        typer.echo(f"{entry.path.name} ({_state(entry, here)})")
    size = sum(entry.size for entry in gone) / 1e6
    typer.echo(f"{len(gone)} plans {'would go' if dry_run else 'deleted'}, {size:.1f} MB")


@app.command()
def bench(
    model: Model,
    precision: Annotated[list[str] | None, typer.Option(help="Repeatable; fp32 and fp16 if left out.")] = None,
    backend: Annotated[list[str] | None, typer.Option(help="Repeatable; tensorrt if left out.")] = None,
    device: Device = "cuda",
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Repeatable; 1, 8 and 32 if left out.")] = None,
    footage: Annotated[Path | None, typer.Option(help="Video, image or folder to run on; random if left out.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time for each side at each batch size.")] = 4.0,
    in_flight: Annotated[int, typer.Option(min=1, help="Requests under way for the throughput.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Measure latency and throughput of backends and precisions, in turn in one run."""
    from engines.tools.benchmark import DISTINCT_BATCHES, benchmark
    from engines.tools.frames import read_frames

    batches = batch or [1, 8, 32]
    frames = list(read_frames(footage, DISTINCT_BATCHES * max(batches))) if footage else []
    result = benchmark(
        model, _precisions(precision), batches, frames=frames, seconds=seconds, in_flight=in_flight, device=device,
        backends=_backends(backend) or ["tensorrt"],
    )  # fmt: skip
    if as_json:
        print_json(result)
    else:
        print_benchmark(result)


@app.command()
def verify(
    context: typer.Context,
    model: Model,
    footage: Annotated[Path, typer.Option(help="Video, image, or folder of them.")],
    precision: Annotated[Precision, typer.Option(help="The precision that is compared with fp32.")] = "auto",
    backend: Annotated[Backend, typer.Option(help="That computes it.")] = "tensorrt",
    device: Device = "cuda",
    min_agreement: Annotated[float, typer.Option(min=0, max=1, help="Least share of equal pixels.")] = 0.995,
    count: Annotated[int, typer.Option(min=1, help="Most pictures, spread evenly.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Compare an engine with fp32 on the CPU; exit code 6 past the bound."""
    from engines.tools.frames import read_frames
    from engines.tools.verify import check
    from engines.tools.verify import verify as run

    if backend == "openvino":
        refuse_idle(context, "names a GPU, and OpenVINO runs on the CPU", "device")
    where = "cpu" if backend == "openvino" else device
    result = run(model, precision, read_frames(footage, count), device=where, backend=backend)
    if as_json:
        print_json(result)
    else:
        print_verification(result)
    check(result, min_agreement)


def _precisions(given: list[str] | None) -> list[Precision]:
    """typer takes no list of literals."""
    from engines.errors import UsageError

    for each in given or ():
        if each not in get_args(Precision):
            raise UsageError(f"There is no precision `{each}`; use one of {', '.join(get_args(Precision))}.")
    return cast("list[Precision]", given or [])


def _backends(given: list[str] | None) -> list[Backend]:
    from engines.errors import UsageError

    for each in given or ():
        if each not in get_args(Backend):
            raise UsageError(f"There is no backend `{each}`; use one of {', '.join(get_args(Backend))}.")
    return cast("list[Backend]", given or [])


def _planner(
    backend: Literal["tensorrt", "tensorrt-rtx"],
    path: Path,
    device: str,
    precision: Precision,
    options: BuildOptions,
    cache: PlanCache,
    observe: Observe,
) -> Planner:
    """What builds a plan: TensorRT's on its GPU, where it is loaded, too; TensorRT for RTX's anywhere."""
    from engines.spec import read_spec

    spec = read_spec(path)
    if backend == "tensorrt":
        from engines.tensorrt.library import require

        require()
        from engines.tensorrt.loader import PlanLoader

        return PlanLoader(path, spec, device, precision, options, cache, observe)
    from engines.tensorrt import rtx

    rtx.require()
    from engines.tensorrt.library import version_here
    from engines.tensorrt.planner import Planner

    chosen = _stated(precision, spec)
    return Planner(path, spec, chosen, rtx.machine(version_here(), chosen), options, cache, observe)


def _stated(precision: Precision, spec: ModelSpec) -> str:
    """A precision that is not `auto`."""
    if precision != "auto":
        return precision
    return "fp16" if spec.precision == "fp32" else spec.precision


def _check(path: Path, precision: Precision, batch: int) -> None:
    from importlib.util import find_spec

    from engines.errors import CheckFailed
    from engines.spec import read_spec
    from engines.tensorrt import rtx
    from engines.tensorrt.operators import faults, operator_list, tensorrt_graph
    from engines.tools.trial_build import check as check_build

    spec = read_spec(path)
    chosen = _stated(precision, spec)
    known = operator_list()
    graph = tensorrt_graph(path, chosen)
    if found := faults(graph):
        raise CheckFailed(
            f"{known.version} does not take {path} in {chosen}: {found[0]}"
            + (f", and {len(found) - 1} more" if len(found) > 1 else "") + "; export it without."
        )  # fmt: skip
    typer.echo(f"{path}: {known.version} takes every operator in {chosen} ({known.source})")
    version = rtx.installed()
    if version is None or (find_spec("tensorrt") is not None and not rtx.stands_in()):
        return
    answer = check_build(graph.SerializeToString(), spec, batch)
    if answer.refused is not None:
        raise CheckFailed(f"{path} in {chosen}: {answer.refused}")
    typer.echo(
        f"{path}: TensorRT for RTX {version} builds it in {chosen} for batches up to {batch} "
        f"({answer.plan_bytes / 1e6:.1f} MB in {answer.seconds:.1f} s). It is another compiler than TensorRT, which is "
        "not installed here: this proves types and operators, not numbers or speed."
    )


def _machine() -> Machine | None:
    """What plans run on here; None where there is no TensorRT or GPU."""
    from engines.errors import DeviceError

    try:
        from engines.tensorrt.library import require

        version = require()
        from engines.tensorrt.cuda import open_gpu
        from engines.tensorrt.loader import machine_of

        return machine_of(version, open_gpu("cuda"))
    except DeviceError:
        return None


def _state(entry: Entry, here: Machine | None) -> str:
    """`ready`, `unknown` (no GPU to ask), or what is wrong with a plan."""
    from engines.tensorrt import rtx

    if entry.side_car is None or entry.fault is not None:
        return entry.fault or "damaged"
    made_for = entry.side_car.request.machine
    if rtx.is_for_any(made_for):
        return "ready" if made_for.tensorrt == f"rtx-{rtx.installed()}" else "of another version"
    if here is None:
        return "unknown"
    return "ready" if entry.side_car.request.machine == here else "of another machine"
