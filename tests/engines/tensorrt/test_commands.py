"""`roadlens engines …` and `engines.load`, on a machine with TensorRT, with half of it, and with nothing."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import engines
from engines.commands.engines import app
from engines.errors import CheckFailed, DeviceError, ModelError, OutputError, RoadlensError, UsageError
from engines.loading import Degraded
from engines.tensorrt.cache import PlanCache
from tests.engines.tensorrt.conftest import Doubles
from tests.engines.tiny_models import CONV, SEGMENTER, bits_model, bits_of, conv_model, save

Pictures = Callable[[int], list[NDArray[np.uint8]]]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_build_list_and_prune(conv: Path, doubles: Doubles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "cache" / "plans"
    assert "There are no plans in" in run("list")
    said = run("build", conv, "--precision", "fp32", "--precision", "auto", "--batch", 4)
    assert said.count(".plan (") == 2
    assert doubles.tensorrt.builds == 2
    run("build", conv, "--batch", 4)
    assert doubles.tensorrt.builds == 2, "what is there is kept"
    with engines.load(conv, "cuda", max_batch=2):  # type: ignore[attr-defined]  # every engine is a context manager
        assert doubles.tensorrt.builds == 2, "and a run finds it"
    table = " ".join(run("list").split())
    assert "conv 1 fp16 4" in table
    assert table.count("ready") == 2
    (entry, _) = json.loads(run("list", "--json"))
    assert (entry["state"], entry["side_car"]["request"]["precision"]) == ("ready", "fp16")
    assert "0 plans would go" in run("prune", "--dry-run")
    doubles.cuda.name = "NVIDIA Other"
    assert "of another machine" in run("list")
    damaged = next(folder.glob("*.plan"))
    damaged.write_bytes(b"")
    assert "is damaged (0 bytes" in run("prune", "--dry-run")
    doubles.cuda.count = 0
    assert "1 plans deleted" in run("prune"), "without a GPU only what is damaged goes"
    assert "1 plans deleted" in run("prune", "--all")
    assert list(folder.glob("*.plan")) == []


@pytest.mark.seconds
def test_a_check_needs_no_gpu(conv: Path, tmp_path: Path) -> None:
    assert "TensorRT 10.15 takes every operator in fp16" in run("build", conv, "--check")
    assert "in bf16" in run("build", "cityscapes-unet", "--check", "--precision", "bf16")
    model = conv_model()
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Conjure"
    with pytest.raises(CheckFailed, match=r"does not take .*\(Conjure\) is not taken"):
        run("build", save(model, CONV, tmp_path / "odd.onnx"), "--check", "--precision", "fp32")


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (["build", "absent.onnx"], ModelError, "no model file absent.onnx"),
        (["build", "MODEL", "--device", "cuda:7"], DeviceError, "no GPU cuda:7 here, only cuda:0"),
        (["build", "MODEL", "--precision", "int8"], ModelError, "is not quantised"),
        (["build", "MODEL", "--precision", "fp4"], UsageError, "no precision `fp4`; use one of auto, fp32, fp16"),
        (["bench", "MODEL", "--backend", "onnx"], UsageError, "no backend `onnx`"),
        (["build", "MODEL", "--cache", "FILE"], OutputError, "cannot be kept in"),
        (["bench", "MODEL", "--device", "cpu"], DeviceError, "TensorRT runs on NVIDIA GPUs and not on the CPU"),
        (["verify", "MODEL", "--footage", "absent.mp4"], RoadlensError, "There is no absent.mp4"),
    ],
)
def test_mistakes(
    conv: Path, doubles: Doubles, tmp_path: Path, arguments: list[str], error: type[RoadlensError], sentence: str
) -> None:
    (tmp_path / "file").touch()
    names = {"MODEL": conv, "FILE": tmp_path / "file"}
    with pytest.raises(error, match=sentence) as raised:
        run(*(names.get(argument, argument) for argument in arguments))
    assert "\n" not in str(raised.value)


@pytest.mark.seconds
def test_bench_and_verify(conv: Path, doubles: Doubles, tmp_path: Path) -> None:
    import cv2

    folder = tmp_path / "footage"
    folder.mkdir()
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 256, (32, 64, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    result = json.loads(run("bench", conv, "--batch", 2, "--seconds", 0.1, "--backend", "tensorrt", "--json"))
    assert [row["side"] for row in result["rows"]] == ["tensorrt fp32", "tensorrt fp16"]
    assert result["device"] == "NVIDIA Double 80GB"
    said = run("verify", conv, "--footage", folder, "--min-agreement", 0.98)
    assert "fp16 against fp32 on 3 pictures, NVIDIA Double 80GB" in said


@pytest.fixture
def model(tmp_path: Path) -> Path:
    engines._say_once.cache_clear()
    return save(bits_model(), SEGMENTER, tmp_path / "bits.onnx")


def test_without_a_gpu_auto_is_the_cpu_and_nothing_is_amiss(
    model: Path, doubles: Doubles, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubles.cuda.driver = 0
    monkeypatch.setattr(engines, "_has_nvidia", lambda: False)
    seen: list[Any] = []
    engine = engines.load(model, observe=seen.append)
    engine.close()
    assert (engine.backend, seen, caplog.text) == ("openvino", [], "")


def test_a_driver_that_is_too_old_is_said_once_and_told_every_time(
    model: Path, doubles: Doubles, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubles.cuda.driver = 12020
    monkeypatch.setattr(engines, "_has_nvidia", lambda: True)
    seen: list[Any] = []
    for _ in range(2):
        engines.load(model, observe=seen.append).close()
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert "The NVIDIA driver is for CUDA 12.2" in lines[0]
    assert lines[0].endswith("Going on with the CPU.")
    assert [(event.wanted, event.instead, event.lacking) for event in seen] == [("cuda", "cpu", "driver")] * 2


def test_without_tensorrt_the_next_best_is_taken(
    model: Path, pictures: Pictures, doubles: Doubles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No TensorRT and no PyTorch: the CPU for `auto`, a sentence for `cuda`."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    found = importlib.util.find_spec
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "torch" else found(name))
    seen: list[Any] = []
    engine = engines.load(model, observe=seen.append)
    (image,) = pictures(1)
    np.testing.assert_array_equal(engine(image).class_map, bits_of(image))
    engine.close()
    assert [(event.wanted, event.instead, event.lacking) for event in seen if isinstance(event, Degraded)] == [
        ("tensorrt", "torch", "library"),
        ("torch", "openvino", "library"),
    ]
    with pytest.raises(DeviceError, match=r"PyTorch is not installed here; .*'\.\[gpu\]'"):
        engines.load(model, "cuda")
    with pytest.raises(DeviceError, match="TensorRT cannot be used here"):
        engines.load(model, backend="tensorrt")


@pytest.mark.parametrize("version", ["10.15.1", "8.6.1"])
def test_an_old_tensorrt_is_not_used(
    model: Path, doubles: Doubles, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", version)
    with pytest.raises(DeviceError, match=rf"TensorRT {version} is older than 10.16"):
        engines.load(model, "cuda", backend="tensorrt")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"device": "cpu", "backend": "tensorrt"}, "TensorRT runs on NVIDIA GPUs and not on the CPU"),
        ({"device": "cuda", "backend": "openvino"}, "OpenVINO runs on the CPU and not on `cuda`"),
        ({"backend": "onnx"}, "no backend `onnx`; use auto, openvino, tensorrt, tensorrt-rtx, torch"),
        ({"device": "cuda:2"}, "no GPU cuda:2 here, only cuda:0"),
        ({"device": "gpu"}, "no device `gpu`; use auto, cpu, cuda or cuda:N"),
    ],
)
def test_what_does_not_go_together(model: Path, doubles: Doubles, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DeviceError, match=sentence):
        engines.load(model, **options)


def test_the_cache_folder_is_the_users_to_choose(model: Path, doubles: Doubles, tmp_path: Path) -> None:
    run("build", model, "--precision", "fp32", "--cache", tmp_path / "elsewhere")
    assert len(PlanCache(tmp_path / "elsewhere").entries()) == 1
    assert not (tmp_path / "cache").exists()


def test_pytorch_by_name_and_a_pytorch_that_is_broken(
    model: Path, pictures: Pictures, doubles: Doubles, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    seen: list[Any] = []
    engine = engines.load(model, "cpu", "fp32", backend="torch", observe=seen.append)
    (image,) = pictures(1)
    np.testing.assert_array_equal(engine(image).class_map, bits_of(image))
    engine.close()
    assert (engine.backend, seen) == ("torch", [])
    monkeypatch.setitem(sys.modules, "engines.pytorch.engine", None)
    with pytest.raises(DeviceError, match="PyTorch cannot be used here"):
        engines.load(model, "cuda")
