"""Does a graph build? Asked of TensorRT for RTX, which needs no GPU, in a process of its own.

This module is that process's program, too: it reads a request from its standard input.
"""

from __future__ import annotations

import subprocess
import sys

import msgspec

from engines.errors import DeviceError
from engines.spec import ModelSpec
from engines.tensorrt import rtx


class Request(msgspec.Struct):
    """A graph to be built, serialised ONNX, and the spec whose inputs and outputs it must have."""

    graph: bytes
    spec: ModelSpec
    max_batch: int


class Answer(msgspec.Struct):
    """What came of it: why it does not build, a sentence, or the size of the plan and the time it took."""

    refused: str | None = None
    plan_bytes: int = 0
    seconds: float = 0.0


def check(graph: bytes, spec: ModelSpec, max_batch: int) -> Answer:
    """Parse and build a graph, without keeping the plan.

    Raises:
        DeviceError: the compiler is installed and does not work.
    """
    done = subprocess.run(
        [sys.executable, "-m", "engines.tools.trial_build"],
        input=msgspec.msgpack.encode(Request(graph, spec, max_batch)), capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise DeviceError(
            f"TensorRT for RTX does not work here ({lines[-1] if lines else f'exit code {done.returncode}'}); "
            f"install it anew with pip install '.[gpu-build]', or uninstall {rtx.WHEEL}.",
            "library",
        )
    return msgspec.msgpack.decode(done.stdout, type=Answer)


def main() -> None:
    """Answer the request on standard input."""
    rtx.stand_in()
    from engines.tensorrt.builder import build
    from engines.tensorrt.logger import TensorRTError
    from engines.tensorrt.plan import BuildOptions

    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Request)
    try:
        built = build(request.graph, request.spec, BuildOptions(max_batch=request.max_batch))
        answer = Answer(plan_bytes=len(built.plan), seconds=built.seconds)
    except TensorRTError as error:
        answer = Answer(refused=str(error).replace("TensorRT", "TensorRT for RTX", 1))
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer))


if __name__ == "__main__":
    main()
