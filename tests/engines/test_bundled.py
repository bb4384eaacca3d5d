"""Names and paths of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import bundled
from engines.errors import ModelError
from engines.spec import read_spec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("road-unet.onnx", "road-unet.int8.onnx", "pet-head.onnx", "road-unet.md"):
        (tmp_path / name).touch()
    return tmp_path


def test_names_leave_out_quantised_twins_and_cards(folder: Path) -> None:
    assert bundled.names(folder) == ["pet-head", "road-unet"]


def test_names_and_paths_are_resolved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundled.resolve("road-unet", folder) == folder / "road-unet.onnx"
    assert bundled.resolve(str(folder / "pet-head.onnx")) == folder / "pet-head.onnx"
    monkeypatch.chdir(folder)
    assert bundled.resolve("pet-head.onnx") == Path("pet-head.onnx")


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("raod-unet", "no model `raod-unet`; the nearest is `road-unet`, the bundled models are pet-head, road-unet"),
        ("zzz", "no model `zzz`; the bundled models are pet-head, road-unet"),
        ("absent.onnx", r"no model file absent\.onnx"),
        ("some/where", "no model file some/where"),
        (Path("road-unet"), "no model file road-unet"),
    ],
)
def test_what_does_not_exist(folder: Path, model: str | Path, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        bundled.resolve(model, folder)


def test_a_file_without_the_suffix_is_no_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "video").touch()
    with pytest.raises(ModelError, match="video is no ONNX file"):
        bundled.resolve("video", folder)


@pytest.mark.parametrize(
    ("path", "twin"),
    [("a/road.onnx", "a/road.int8.onnx"), ("a/road.int8.onnx", "a/road.int8.onnx"), ("v1.2.onnx", "v1.2.int8.onnx")],
)
def test_the_twin_of_a_file(path: str, twin: str) -> None:
    assert bundled.int8_file(Path(path)) == Path(twin)


@pytest.mark.parametrize("path", sorted(bundled.FOLDER.glob("*.onnx")), ids=lambda path: path.name)
def test_every_bundled_file_keeps_its_word(path: Path) -> None:
    """Its spec matches its graph, its name and its precision, and a card lies beside it, one for both twins."""
    spec = read_spec(path)
    assert path.name == f"{spec.name}.int8.onnx" if spec.precision == "int8" else f"{spec.name}.onnx"
    assert spec.licence
    assert spec.training_data
    assert spec.metrics
    assert (bundled.FOLDER / f"{spec.name}.md").is_file()
    assert (spec.familiar is None) == ("class_map" not in spec.outputs)
