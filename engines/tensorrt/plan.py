"""What a plan is made for, and the side-car that says so beside it."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated

import msgspec

SCHEMA = 1
"""The form of side-car that this version reads and writes; others are built anew."""

Natural = Annotated[int, msgspec.Meta(ge=1)]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan is bound to besides its graph.

    Attributes:
        tensorrt: version, `11.4.0.106`; a plan runs with the very version that built it.
        gpu: NVIDIA's name of it. Two GPUs of one compute capability differ in size, and so in the best kernels.
        compute_capability: `9.0`.
        driver: major of the CUDA version that the driver offers.
    """

    tensorrt: str
    gpu: str
    compute_capability: str
    driver: int


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to build.

    Attributes:
        max_batch: most pictures in a batch.
        opt_batch: the batch size that kernels are chosen for; None is `max_batch`.
        workspace_mib: most scratch memory that a kernel may take while it is chosen.
        tf32: let fp32 convolutions round their inputs to 10 bits, which fp32 asked for by name must not.
        optimization_level: 0 (builds fast) to 5 (tries everything); TensorRT's own default is 3.
    """

    max_batch: Natural = 8
    opt_batch: Natural | None = None
    workspace_mib: Natural = 4096
    tf32: bool = False
    optimization_level: Annotated[int, msgspec.Meta(ge=0, le=5)] = 3

    @property
    def batches(self) -> tuple[int, int, int]:
        """Least, best and most pictures in a batch: the optimisation profile."""
        return 1, min(self.opt_batch or self.max_batch, self.max_batch), self.max_batch


class PlanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides what a plan is.

    Attributes:
        model, version: of the spec.
        precision: of the graph.
        graph: SHA-256 of the ONNX that TensorRT is given, in hexadecimal.
        height, width: of the input, pixels.
        machine: what it must run on.
        options: how it is built.
    """

    model: str
    version: str
    precision: str
    graph: str
    height: int
    width: int
    machine: Machine
    options: BuildOptions

    @property
    def key(self) -> str:
        """SHA-256 over all of it, in hexadecimal."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    @property
    def stem(self) -> str:
        """The files' name without suffix, readable and unique: `cityscapes-unet-fp16-b8-1f0c…`."""
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.model)[:60].strip("-.") or "model"
        return f"{readable}-{self.precision}-b{self.options.max_batch}-{self.key[:16]}"


class SideCar(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside a plan, as JSON.

    Attributes:
        schema: form of the side-car.
        request: what the plan was made for.
        plan_sha256: of the plan file, in hexadecimal.
        plan_bytes: its size.
        built_at: UTC, ISO 8601.
        build_seconds: how long the build took.
        roadlens: version that built it.
    """

    request: PlanRequest
    plan_sha256: str
    plan_bytes: int
    built_at: str
    build_seconds: float
    roadlens: str
    schema: int = SCHEMA


def mismatch(wanted: PlanRequest, found: PlanRequest) -> str | None:
    """Why a plan that was made for `found` does not do for `wanted`, as a clause; None where it does.

    What weighs most comes first: another TensorRT, GPU or driver; another graph; another shape; other options.
    """
    here, there = wanted.machine, found.machine
    pairs: list[tuple[str, object, object]] = [
        ("TensorRT", there.tensorrt, here.tensorrt),
        ("GPU", there.gpu, here.gpu),
        ("compute capability", there.compute_capability, here.compute_capability),
        ("driver for CUDA", there.driver, here.driver),
        ("version", found.version, wanted.version),
        ("input", f"{found.width}×{found.height}", f"{wanted.width}×{wanted.height}"),
        ("precision", found.precision, wanted.precision),
        *(
            (name.replace("_", " "), getattr(found.options, name), getattr(wanted.options, name))
            for name in BuildOptions.__struct_fields__
        ),
    ]
    for name, theirs, ours in pairs:
        if theirs != ours:
            return f"was built for {name} {theirs} and this is {ours}"
    if found.graph != wanted.graph:
        return "was built from another export of the model"
    return None if found == wanted else "was built for another model"


def covers(found: PlanRequest, wanted: PlanRequest) -> bool:
    """Whether a plan is for larger batches than wanted, and the same otherwise."""
    most = found.options.max_batch
    options = msgspec.structs.replace(wanted.options, max_batch=most)
    return most > wanted.options.max_batch and found == msgspec.structs.replace(wanted, options=options)
