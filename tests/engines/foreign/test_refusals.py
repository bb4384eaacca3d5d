"""What cannot be imported is refused in one sentence; what cannot be known is asked for, all at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import engines
from engines.commands.models import app
from engines.errors import ModelError, RoadlensError, UsageError
from tests.engines.tiny_models import SEGMENTER, bits_model, save

pytest.importorskip("onnxruntime")


def model(
    nodes: list[Any], outputs: dict[str, list[Any]], given: dict[str, list[Any]] | None = None, weights: Any = (),
    domains: tuple[str, ...] = (),
) -> onnx.ModelProto:  # fmt: skip
    graph = helper.make_graph(
        nodes, "foreign",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
         for name, shape in (given or {"image": [1, 3, 32, 64]}).items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        list(weights),
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def scores(channels: int = 3) -> onnx.ModelProto:
    """A 1×1 convolution: scores by pixel."""
    kernel = np.random.default_rng(0).normal(size=(channels, 3, 1, 1)).astype(np.float32)
    return model(
        [helper.make_node("Conv", ["image", "kernel"], ["scores"])], {"scores": [1, channels, 32, 64]},
        weights=[numpy_helper.from_array(kernel, "kernel")],
    )  # fmt: skip


def classifier() -> onnx.ModelProto:
    return model(
        [helper.make_node("ReduceMean", ["image", "axes"], ["probabilities"], keepdims=0)], {"probabilities": [1, 3]},
        weights=[numpy_helper.from_array(np.array([2, 3]), "axes")],
    )  # fmt: skip


def two_pictures() -> onnx.ModelProto:
    node = helper.make_node("Sub", ["left", "right"], ["flow"])
    return model([node], {"flow": [1, 3, 32, 64]}, {"left": [1, 3, 32, 64], "right": [1, 3, 32, 64]})


def infrared() -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["image"], ["heat"])], {"heat": [1, 1, 32, 64]}, {"image": [1, 1, 32, 64]})


def plugin() -> onnx.ModelProto:
    node = helper.make_node("EfficientNMS_TRT", ["image"], ["boxes"], domain="TRT")
    return model([node], {"boxes": [1, 100, 4]}, domains=("TRT",))


def batch_of_four() -> onnx.ModelProto:
    node = helper.make_node("Relu", ["image"], ["scores"])
    return model([node], {"scores": [4, 3, 32, 64]}, {"image": [4, 3, 32, 64]})


def open_size() -> onnx.ModelProto:
    node = helper.make_node("Relu", ["image"], ["scores"])
    return model([node], {"scores": ["n", 3, "h", "w"]}, {"image": ["n", 3, "h", "w"]})


def run_import(folder: Path, proto: onnx.ModelProto, *options: str, names: str = "road\ncar\nsky\n") -> str:
    (folder / "theirs.onnx").write_bytes(proto.SerializeToString())
    (folder / "classes.txt").write_text(names)
    done = CliRunner().invoke(app, ["import", str(folder / "theirs.onnx"), "-o", str(folder / "mine.onnx"), *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            classifier,
            "is neither a segmenter nor a detector that is known here: it gives `probabilities` (float32 1×3)",
        ),
        (two_pictures, "must take one picture; its inputs are `left` (float32 1×3×32×64), `right`"),
        (infrared, "is float32 1×1×32×64, and pictures have three colours"),
        (plugin, "ONNX Runtime does not take it"),
        (batch_of_four, "takes 4 pictures at a time; export it for one"),
    ],
)
def test_what_cannot_be_imported(tmp_path: Path, make: Callable[[], onnx.ModelProto], sentence: str) -> None:
    with pytest.raises(ModelError) as raised:
        run_import(tmp_path, make(), "--pixels", "unit", "--classes", str(tmp_path / "classes.txt"))
    assert sentence in str(raised.value)
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "mine.onnx").exists()


def test_everything_that_is_open_is_asked_for_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        run_import(tmp_path, open_size())
    for option in ("--size WIDTHxHEIGHT", "--pixels imagenet|unit|signed|bytes", "--classes FILE"):
        assert option in str(raised.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--size", "wide"), "`wide` is no size"),
        (("--size", "128x64"), "computes at 64×32, and a picture of 128×64 is larger"),
        (("--mean", "1,2"), "--mean takes one number or three"),
        (("--mean", "0.5,nan,0"), "is no number"),
        (("--std", "0"), "divides by nothing"),
        (("--scale", "1/0"), "is no scale"),
        (("--pixels", "unit", "--mean", "0.5"), "and not both"),
        (("--pixels", "unit", "--set", "size=1"), "There is no input `size`"),
        (("--pixels", "unit", "--set", "size"), "is not NAME=VALUE"),
        (("--pixels", "unit", "--take", "mask=scores"), "is no role of an output"),
        (("--pixels", "unit", "--take", "scores=logits"), "There is no output `logits`"),
        (("--pixels", "unit", "--layout", "nhwc"), "in nhwc that is no picture"),
    ],
)
def test_what_is_told_and_does_not_fit(tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(RoadlensError) as raised:
        run_import(tmp_path, scores(), "--classes", str(tmp_path / "classes.txt"), *options)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("road\ncar\n", "gives 3 classes and 2 are named; name each one, in its order; if one is background"),
        ("road\ncar\nsky\ntree\n", "gives 3 classes and 4 are named"),
        ("road\ncar\nroad\n", "have the name `road`"),
        ("", "names no classes"),
        ("road #12\ncar\nsky", "gives 3 classes"),
    ],
)
def test_classes_that_do_not_fit(tmp_path: Path, names: str, sentence: str) -> None:
    options = ("--pixels", "unit", "--classes", str(tmp_path / "classes.txt"))
    if "#12" in names:  # a colour is six digits; anything else is part of the name
        run_import(tmp_path, scores(), *options, names=names)
        return
    with pytest.raises(UsageError, match=sentence):
        run_import(tmp_path, scores(), *options, names=names)


def test_a_background_that_is_not_named_is_no_class(tmp_path: Path) -> None:
    options = ("--pixels", "unit", "--background", "first", "--classes", str(tmp_path / "classes.txt"))
    run_import(tmp_path, scores(), *options, names="road\ncar thing\n")
    with engines.load(tmp_path / "mine.onnx", "cpu", "fp32", 1) as engine:  # type: ignore[attr-defined]
        found = engine(np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)).class_map
    assert set(np.unique(found)) <= {0, 1, 255}


def test_a_model_of_the_house_is_not_imported_again(tmp_path: Path) -> None:
    save(bits_model(), SEGMENTER, tmp_path / "ours.onnx")
    with pytest.raises(ModelError, match="is a model of roadlens already"):
        run_import(tmp_path, onnx.load(tmp_path / "ours.onnx"), "--pixels", "unit")


def test_weights_that_were_not_copied(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    kept = {"save_as_external_data": True, "location": "theirs.data", "size_threshold": 0}
    onnx.save(scores(), tmp_path / "there" / "theirs.onnx", **kept)
    (tmp_path / "there" / "theirs.onnx").rename(tmp_path / "theirs.onnx")
    for ask in (lambda: engines.load(tmp_path / "theirs.onnx"), lambda: run_import(tmp_path, moved(tmp_path))):
        with pytest.raises(ModelError, match=r"keeps its weights in the file theirs\.data, which is not beside it"):
            ask()


def moved(folder: Path) -> onnx.ModelProto:
    return onnx.load(folder / "theirs.onnx", load_external_data=False)


def test_weights_that_were_copied_are_in_the_one_file_that_comes_of_it(tmp_path: Path) -> None:
    kept = {"save_as_external_data": True, "location": "theirs.data", "size_threshold": 0}
    onnx.save(scores(), tmp_path / "theirs.onnx", **kept)
    run_import(tmp_path, moved(tmp_path), "--pixels", "unit", "--classes", str(tmp_path / "classes.txt"))
    (tmp_path / "theirs.data").unlink()
    engines.load(tmp_path / "mine.onnx", "cpu", "fp32", 1).close()


def test_names_that_are_not_utf8_are_written_anew(tmp_path: Path) -> None:
    odd = scores().SerializeToString().replace(b"image", b"im\xe4ge").replace(b"kernel", b"k\xe9rnel")
    (tmp_path / "theirs.onnx").write_bytes(odd)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    options = ["--pixels", "unit", "--classes", str(tmp_path / "classes.txt"), "-o", str(tmp_path / "mine.onnx")]
    done = CliRunner().invoke(app, ["import", str(tmp_path / "theirs.onnx"), *options])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "not UTF-8" in done.stdout
    engines.load(tmp_path / "mine.onnx", "cpu", "fp32", 1).close()


def test_the_way_here_is_said_by_who_refuses_a_foreign_file(tmp_path: Path) -> None:
    onnx.save(scores(), tmp_path / "theirs.onnx")
    with pytest.raises(ModelError, match=r"roadlens models import .*theirs\.onnx -o NAME\.onnx"):
        engines.load(tmp_path / "theirs.onnx")
