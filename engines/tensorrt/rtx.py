"""TensorRT for RTX in TensorRT's place: the library of GeForce and RTX GPUs, and a compiler for checks.

It has the parser, the types and the builder of TensorRT 11, and is another compiler: that it builds a graph says that
the graph is well formed and well typed, and nothing of TensorRT's numbers or speed. It builds with neither GPU nor
driver. A plan of its is for all GPUs of compute capability 7.5 to 8.9 and 12, and for no other; the kernels for one GPU
are made where the plan is loaded, and kept in a *runtime cache*.

The backend imports `tensorrt` by that name, and a process has one of it: the first that was asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from importlib.util import find_spec
from typing import Any

from engines.errors import DeviceError
from engines.tensorrt.plan import Machine

_MODULE = "tensorrt_rtx_bindings"
WHEEL = "tensorrt-rtx-cu13-bindings"

CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities of the GPUs that plans are built for: Turing, Ampere, Ada and Blackwell's GeForce and RTX."""
_GPUS = "GeForce and RTX GPUs"
_LEAST = {"bf16": "8.0", "fp8": "8.9"}
"""Of precisions that older GPUs do not compute in."""


def installed() -> str | None:
    """Its version, `1.7.1.116`; None where it is not installed."""
    if find_spec(_MODULE) is None:
        return None
    try:
        return version_of(WHEEL)
    except PackageNotFoundError:  # installed by other means than pip
        return "of unknown version"


def require() -> str:
    """Put TensorRT for RTX where `tensorrt` is imported from, and give its version.

    Raises:
        DeviceError: it is not installed or is broken, or this process has TensorRT already.
    """
    version = installed()
    if version is None:
        raise DeviceError(
            "TensorRT for RTX is not installed here; install it with pip install '.[gpu-build]'.",
            "library",
        )
    if "tensorrt" in sys.modules and not stands_in():
        raise DeviceError(
            "This process has TensorRT already, and TensorRT for RTX cannot be beside it; give all models one backend.",
            "library",
        )
    try:
        stand_in()
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DeviceError(
            f"TensorRT for RTX cannot be used here ({reason}); install it anew with pip install '.[gpu-build]'.",
            "library",
        ) from None
    return version


def stand_in() -> None:
    """Let `import tensorrt` give TensorRT for RTX."""
    sys.modules["tensorrt"] = import_module(_MODULE)


def stands_in() -> bool:
    """Whether this process's TensorRT is TensorRT for RTX."""
    library = sys.modules.get("tensorrt")
    return library is not None and library.__name__.startswith("tensorrt_rtx")


def check_capability(gpu: str, capability: str) -> None:
    """See that there are plans for a GPU.

    Args:
        gpu: its name.
        capability: `8.9`.

    Raises:
        DeviceError: there are none.
    """
    if capability not in CAPABILITIES:
        raise DeviceError(
            f"TensorRT for RTX does not run on {gpu} (compute capability {capability}; it takes "
            f"{', '.join(CAPABILITIES)}); use backend tensorrt.",
            "gpu",
        )


def capabilities(precision: str) -> tuple[str, ...]:
    """Compute capabilities that a plan in a precision is built for.

    >>> capabilities("fp8")
    ('8.9', '12.0', '12.1')
    """
    return CAPABILITIES[CAPABILITIES.index(_LEAST.get(precision, CAPABILITIES[0])) :]


def machine(version: str, precision: str) -> Machine:
    """What a plan is bound to: no GPU that is here, but a family of them."""
    return Machine(tensorrt=version, gpu=_GPUS, compute_capability=", ".join(capabilities(precision)), driver=0)


def is_for_any(made_for: Machine) -> bool:
    """Whether a plan is for a family of GPUs."""
    return made_for.gpu == _GPUS


def target(config: Any, targets: Sequence[str]) -> None:
    """Let an `IBuilderConfig` build for GPUs of these compute capabilities, whatever GPU is here."""
    import tensorrt as trt

    library: Any = trt  # TensorRT's stubs do not know what RTX adds
    config.num_compute_capabilities = len(targets)
    for place, capability in enumerate(targets):
        config.set_compute_capability(getattr(library.ComputeCapability, f"SM{capability.replace('.', '')}"), place)


def runtime_config(engine: Any, kept: bytes) -> Any:
    """How contexts of an `ICudaEngine` run: in memory that is given to them, with kernels for their own shapes.

    Kernels are made before the first run, for what is captured as a CUDA graph stays as it is.

    Args:
        engine: that runs.
        kept: a runtime cache of before, empty where there is none; one of another GPU or version is left unused.
    """
    import tensorrt as trt

    library: Any = trt
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(library.ExecutionContextAllocationStrategy.USER_MANAGED)
    config.dynamic_shapes_kernel_specialization_strategy = library.DynamicShapesKernelSpecializationStrategy.EAGER
    config.cuda_graph_strategy = library.CudaGraphStrategy.DISABLED  # lanes capture their own
    cache = config.create_runtime_cache()
    if kept:
        cache.deserialize(kept)
    config.set_runtime_cache(cache)
    return config
