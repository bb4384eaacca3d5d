"""TensorRT and CUDA as doubles, in place of what is or is not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from engines.tensorrt.plan import SideCar
from tests.engines.tensorrt import double_cuda, double_tensorrt

# msgspec resolves a struct's fields when it is first decoded. Were that while `doubles` has the modules imported anew,
# this `SideCar` would for ever hold requests of another `PlanRequest`.
msgspec.json.Decoder(SideCar)


def install() -> None:
    """Put the doubles where TensorRT and CUDA are imported from; for a process of its own."""
    sys.modules["tensorrt"] = double_tensorrt
    cuda, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
    utils = ModuleType("cuda.bindings.utils")
    utils.get_cuda_native_handle = int  # type: ignore[attr-defined]  # the double's handles are numbers
    cuda.bindings, bindings.runtime = bindings, double_cuda  # type: ignore[attr-defined]  # made here
    parts = {"runtime": double_cuda, "utils": utils}
    sys.modules.update({"cuda": cuda, "cuda.bindings": bindings})
    sys.modules.update({f"cuda.bindings.{name}": part for name, part in parts.items()})


class Doubles:
    """What the doubles were made to be and have seen."""

    @property
    def cuda(self) -> double_cuda.State:
        return double_cuda.state

    @property
    def tensorrt(self) -> double_tensorrt.State:
        return double_tensorrt.state


_OURS = ("engines.tensorrt.",)
_THEIRS = ("tensorrt", "cuda")


def _remove() -> dict[str, Any]:
    """Take out what is bound to a TensorRT or CUDA: theirs, and our modules that imported them."""
    taken = {
        name: module for name, module in sys.modules.items() if name.startswith(_OURS) or name.split(".")[0] in _THEIRS
    }
    for name in taken:
        del sys.modules[name]
    return taken


@pytest.fixture(params=["11.4.0.106", "10.16.1.11"])
def doubles(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doubles]:
    """A machine with one GPU and TensorRT 11.4, then 10.16; a cache folder of its own; nothing is left on the GPU."""
    before = _remove()
    import engines.tensorrt as package

    kept = {name: value for name, value in vars(package).items() if isinstance(value, ModuleType)}
    for name in kept:
        delattr(package, name)
    monkeypatch.setenv("ROADLENS_CACHE", str(tmp_path / "cache"))
    double_cuda.reset()
    double_tensorrt.reset(request.param)
    install()
    yield Doubles()
    monkeypatch.undo()  # later, it would put back the modules that a test had it take out
    _remove()
    sys.modules.update(before)
    for name, value in kept.items():
        setattr(package, name, value)
    assert double_cuda.state.violations == []
