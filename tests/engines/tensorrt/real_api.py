"""NVIDIA's real API to check against, as stubs (from the development folder) and as bindings (from the package index).

python -m tests.engines.tensorrt.real_api bindings DIR 11.4.0.106
LD_LIBRARY_PATH=DIR/lib PYTHONPATH=DIR python -c 'import tensorrt_bindings as trt; print(trt.__version__)'
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VERSIONS = {"11.4": "11.4.0.106", "10.16": "10.16.1.11"}
"""The versions checked, and their wheels'."""

STUBS = Path(__file__).parents[4] / "shared" / "tensorrt"

# What the generator of the stubs did not see or could not write: what it forgot to import, Python's own words as names
# of arguments, a `bool` of TensorRT's that hides Python's, attributes of the package's own Python, and that memory of
# the host can be read as a buffer.
_REPAIRS = (
    ("import typing\n", "import typing\nimport typing_extensions\n"),
    (" in: collections", " in_: collections"),
    (
        "power: Weights = None, channel_axis: typing.SupportsInt)",
        "power: Weights = None, channel_axis: typing.Any = 0)",
    ),
    ("\nbool: DataType\n", "\n__version__: str\n"),
    (
        "    def nbytes(self) -> int:\n        ...\nclass InterfaceInfo",
        "    def nbytes(self) -> int: ...\n    def __buffer__(self, _: int, /) -> memoryview: ...\nclass InterfaceInfo",
    ),
)


def write_stubs(version: str, folder: Path) -> None:
    """Put the stubs of a version, `11.4`, where mypy finds them as the package `tensorrt`."""
    text = (STUBS / f"tensorrt-{version}.pyi").read_text()
    for wrong, right in _REPAIRS:
        assert wrong in text
        text = text.replace(wrong, right)
    package = folder / "tensorrt"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.pyi").write_text(text)


# What the bindings' libraries must export for them to be imported. Nothing can be built or run: every factory is null.
_FACTORIES = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry",
    "getPluginRegistry", "initLibNvInferPlugins",
)  # fmt: skip
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


def install_bindings(folder: Path, wheel: str) -> None:
    """Make the real bindings importable from a folder, with libraries that do nothing.

    Raises:
        subprocess.CalledProcessError: pip cannot fetch the wheel, or there is no C compiler.
    """
    libraries = folder / "lib"
    libraries.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run(
        [*pip, "--target", str(folder), f"tensorrt-cu13-bindings=={wheel}"], check=True, capture_output=True, text=True
    )
    source = libraries / "null.c"
    lines = [f"void *{name}(void) {{ return 0; }}" for name in _FACTORIES]
    source.write_text("\n".join([*lines, "int getNvOnnxParserVersion(void) { return 0; }", ""]))
    major = wheel.split(".")[0]
    for library in _LIBRARIES:
        name = f"lib{library}.so.{major}"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-o", str(libraries / name), f"-Wl,-soname,{name}", str(source)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip


if __name__ == "__main__":
    _, _, target, chosen = sys.argv
    install_bindings(Path(target), chosen)
