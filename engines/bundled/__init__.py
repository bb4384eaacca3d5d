"""The models that come with the package: `<name>.onnx`, its quantised twin `<name>.int8.onnx`, a card."""

from __future__ import annotations

from pathlib import Path

from engines.errors import ModelError
from engines.settings import nearest

FOLDER = Path(__file__).parent

DEFAULT = "cityscapes-road-users"
"""The model of runs that name none: classes of pixels, and a box for each road user."""


def names(folder: Path = FOLDER) -> list[str]:
    """The names that `resolve` knows, sorted."""
    return sorted(path.name.removesuffix(".onnx") for path in folder.glob("*.onnx") if not is_quantized_file(path))


def resolve(model: str | Path, folder: Path = FOLDER) -> Path:
    """The file of a model given by name or by path.

    A `Path`, and text that ends in `.onnx` or has a folder in it, is a path; any other text is a name.

    Raises:
        ModelError: no bundled model has that name (the sentence gives the nearest one and all there are), or there is
            no file at that path.
    """
    path = Path(model)
    if isinstance(model, Path) or path.suffix == ".onnx" or len(path.parts) > 1:
        if not path.is_file():
            raise ModelError(f"There is no model file {path}; give the path of an ONNX file or the name of a model.")
        return path
    known = names(folder)
    if model in known:
        return folder / f"{model}.onnx"
    if path.is_file():
        raise ModelError(f"{model} is no ONNX file; give a file that ends in .onnx, or the name of a model.")
    close = nearest(model, known)
    meant = f"the nearest is `{close}`, " if close else ""
    have = f"the bundled models are {', '.join(known)}" if known else "this installation has no bundled models"
    raise ModelError(f"There is no model `{model}`; {meant}{have} (or give the path of an ONNX file).")


QUANTIZED = ("int8", "fp8")
"""The precisions that a file of its own is made for."""


def is_quantized_file(path: Path) -> bool:
    """Whether a file is named as a quantised twin."""
    return any(path.name.endswith(f".{precision}.onnx") for precision in QUANTIZED)


def quantized_file(path: Path, precision: str) -> Path:
    """Where a quantised twin of a model file lies: `drive.onnx` → `drive.fp8.onnx`; a twin is its own."""
    return path if is_quantized_file(path) else path.with_suffix(f".{precision}.onnx")


def int8_file(path: Path) -> Path:
    """Where the int8 twin of a model file lies: `drive.onnx` → `drive.int8.onnx`."""
    return quantized_file(path, "int8")


def bundled_twin(path: Path) -> Path:
    """The int8 twin of a bundled model, for its card tells what int8 costs; any other file itself."""
    twin = int8_file(path)
    return twin if path.parent == FOLDER and twin.is_file() else path


def file_for(path: Path, precision: str) -> Path:
    """The file to load for a precision: the quantised twin where one is asked for and lies beside, else the file."""
    twin = quantized_file(path, precision)
    return twin if precision in QUANTIZED and twin.is_file() else path


def fp32_file(path: Path) -> Path:
    """Where the file lies that a quantised twin was made from: `drive.int8.onnx` → `drive.onnx`."""
    return path.with_name(path.name.rsplit(".", 2)[0] + ".onnx") if is_quantized_file(path) else path
