"""Engines of a GPU, in one run: do they say what the CPU says in fp32, and how fast are they?

    python tests/benchmarks/gpu_engines.py [--device cuda:0] [--seconds 2] [--batch 1 8 32] [--limit 460] [--json FILE]

Parity is on the bundled model's own size, in every precision, against PyTorch on the CPU in fp32. Times are of the same
network with its height and width written anew, 512×256 and 1024×512, pictures coming from and results going to host
memory: PyTorch as it is, TensorRT where it is installed, and last PyTorch compiled by Inductor, which takes a minute a
row. What cannot be run is a line that says why, and no row. The file is whole after every row. Exit code 1 where a
parity is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from engines.bundled import resolve
from engines.engine import Engine
from engines.errors import RoadlensError
from engines.pytorch.engine import TorchEngine
from engines.spec import embed_spec, read_spec
from pipeline.scene.drive import SyntheticScene

SIZES = ((512, 256), (1024, 512))
AGREEMENT_AT_LEAST = {"fp32": 0.999, "fp16": 0.995, "bf16": 0.995}
PICTURES = 6


def resized(path: Path, width: int, height: int, target: Path) -> Path:
    """The model for another size: its reshapes end in height and width, or in a cell's part of them.

    Only for networks of convolutions, and only to be timed: it was trained for its own size.
    """
    spec, model = read_spec(path), onnx.load(path)
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for weight in model.graph.initializer:
        if weight.name in shapes:
            shape = onnx.numpy_helper.to_array(weight).copy()
            shape[-2:] = shape[-2] * height // spec.height, shape[-1] * width // spec.width
            weight.CopyFrom(onnx.numpy_helper.from_array(shape, weight.name))
    for value in (*model.graph.input, *model.graph.output):
        sizes = value.type.tensor_type.shape.dim
        sizes[1].dim_value, sizes[2].dim_value = height, width
    del model.graph.value_info[:]
    embed_spec(model, msgspec.structs.replace(spec, width=width, height=height, metrics=()))
    onnx.save(model, target)
    return target


def pictures(count: int, width: int, height: int) -> list[NDArray[np.uint8]]:
    """Of a drawn street, a second apart: on noise every class is as likely as another."""
    scene = SyntheticScene(width, height, Fraction(1))
    return [scene.frame(index)[0] for index in range(count)]


def parity(path: Path, device: str) -> Iterator[dict[str, Any]]:
    spec = read_spec(path)
    work = pictures(PICTURES, spec.width, spec.height)

    def maps(engine: Engine, batch: int) -> NDArray[np.uint8]:
        parts = [work[start : start + batch] for start in range(0, len(work), batch)]
        found = [prediction.class_map for part in parts for prediction in engine.submit(part).result()]
        return np.stack([each for each in found if each is not None])

    with TorchEngine(path, device="cpu", precision="fp32", max_batch=1) as engine:
        expected = maps(engine, 1)
    for precision, wanted in AGREEMENT_AT_LEAST.items():
        for batch in (1, 3):
            try:
                with TorchEngine(path, device=device, precision=precision, max_batch=3) as engine:  # type: ignore[arg-type]  # a table's keys
                    agreement = float((maps(engine, batch) == expected).mean())
            except RoadlensError as error:
                yield {"engine": f"torch {precision}", "batch": batch, "skipped": str(error)}
                continue
            yield {
                "engine": f"torch {precision}", "batch": batch, "agreement": agreement, "wanted": wanted,
                "passed": agreement >= wanted,
            }  # fmt: skip


def measured(engine: Engine, batch: int, seconds: float) -> dict[str, float]:
    """Latency of one request alone, and pictures a second with as many under way as the engine takes."""
    work = pictures(8, engine.spec.width, engine.spec.height)
    batches = [[work[(start + place) % len(work)] for place in range(batch)] for start in range(4)]
    for part in islice(cycle(batches), 8):
        engine.submit(part).result()
    latencies: list[float] = []
    end = time.perf_counter() + seconds / 2
    for part in cycle(batches):
        start = time.perf_counter()
        engine.submit(part).result()
        latencies.append(time.perf_counter() - start)
        if time.perf_counter() >= end:
            break
    done, flying = 0, []
    start = time.perf_counter()
    for part in cycle(batches):
        flying.append(engine.submit(part))
        if len(flying) > engine.in_flight:
            done += len(flying.pop(0).result())
        if time.perf_counter() - start >= seconds / 2:
            break
    done += sum(len(future.result()) for future in flying)
    return {
        "latency_ms": statistics.median(latencies) * 1e3,
        "latency_p95_ms": float(np.percentile(latencies, 95)) * 1e3,
        "throughput": done / (time.perf_counter() - start),
    }


def makers(device: str, compiled: bool) -> dict[str, Callable[[Path, str, int], Engine]]:
    def eager(path: Path, precision: Any, batch: int) -> Engine:
        return TorchEngine(path, device=device, precision=precision, max_batch=batch)

    def fused(path: Path, precision: Any, batch: int) -> Engine:
        return TorchEngine(path, device=device, precision=precision, max_batch=batch, compiled=True)

    def tensorrt(path: Path, precision: Any, batch: int) -> Engine:
        import engines

        return engines.load(path, device, precision, batch, backend="tensorrt")

    return {"torch": eager, "tensorrt": tensorrt, **({"torch compiled": fused} if compiled else {})}


def timings(
    path: Path, device: str, batches: list[int], seconds: float, compiled: bool, end: float = math.inf
) -> Iterator[dict[str, Any]]:
    """A row for each engine, precision, size and batch; none is begun after `end`, on the monotonic clock."""
    sides = makers(device, compiled)
    with tempfile.TemporaryDirectory() as folder:
        files = {size: resized(path, *size, Path(folder) / f"{size[0]}.onnx") for size in SIZES}
        for name, size, precision, batch in product(sides, SIZES, ("fp32", "fp16"), batches):
            row = {"engine": f"{name} {precision}", "width": size[0], "height": size[1], "batch": batch}
            if time.monotonic() > end:
                yield {**row, "skipped": "no time is left"}
                return
            try:
                with closing(sides[name](files[size], precision, batch)) as engine:
                    if engine.max_batch < batch:
                        yield {**row, "skipped": f"no room for batches of {batch}"}
                    else:
                        yield {**row, **measured(engine, batch, seconds)}
            except RoadlensError as error:
                yield {**row, "skipped": str(error)}


def write(target: Path | None, device: str, checks: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """What there is so far: whoever ends this keeps it."""
    if target is None:
        return
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": sys.version.split()[0]}
    name = torch.cuda.get_device_name(device) if device != "cpu" and torch.cuda.is_available() else device
    told = {"device": name, "versions": versions, "parity": checks, "timings": rows}
    target.write_text(json.dumps(told, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--model", default="cityscapes-unet")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each row")
    parser.add_argument("--no-compiled", action="store_true", help="leave Inductor out, which takes minutes")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds after which no row is begun")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    path, end = resolve(options.model), time.monotonic() + options.limit
    checks: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for check in parity(path, options.device):
        checks.append(check)
        said = check.get("skipped") or f"{check['agreement']:.3%} of pixels agree, wanted {check['wanted']:.1%}"
        print(f"parity  {check['engine']:12} batch {check['batch']}  {said}", flush=True)
        write(options.json, options.device, checks, rows)
    print(f"\n{'engine':22}{'size':>10}{'batch':>6}{'ms':>9}{'p95':>9}{'pictures/s':>12}")
    for row in timings(path, options.device, options.batch, options.seconds, not options.no_compiled, end):
        rows.append(row)
        size = f"{row['width']}×{row['height']}"
        figures = (
            f"  {row['skipped']}" if "skipped" in row
            else f"{row['latency_ms']:9.2f}{row['latency_p95_ms']:9.2f}{row['throughput']:12.0f}"
        )  # fmt: skip
        print(f"{row['engine']:22}{size:>10}{row['batch']:>6}{figures}", flush=True)
        write(options.json, options.device, checks, rows)
    compared = [check["passed"] for check in checks if "passed" in check]
    if not compared:
        print("nothing could be compared: no engine of these runs here")
    return 0 if compared and all(compared) else 1


if __name__ == "__main__":
    sys.exit(main())
