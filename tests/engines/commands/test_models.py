"""`roadlens models …`: what it prints, and that a user's mistake is an error of ours."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from engines import bundled
from engines.commands.models import app
from engines.errors import CheckFailed, ModelError, RoadlensError, SourceError, UsageError
from engines.novelty.familiar import Familiar, place_of
from engines.spec import ModelSpec, read_spec
from engines.tools.benchmark import Benchmark
from engines.tools.verify import Verification
from tests.engines.tiny_models import SEGMENTER, bits_model, save


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    folder = tmp_path / "footage"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(
            str(folder / f"{number}.png"), np.random.default_rng(number).integers(0, 256, (16, 32, 3), np.uint8)
        )
    return folder


def test_list_names_every_bundled_model() -> None:
    table, names = run("list"), [entry["spec"]["name"] for entry in json.loads(run("list", "--json"))]
    assert names == bundled.names()
    assert all(name in table for name in names)


def test_info_prints_the_spec(segmenter: Path) -> None:
    assert msgspec.json.decode(run("info", segmenter, "--json"), type=ModelSpec) == SEGMENTER
    table = run("info", segmenter)
    for words in ("bits 1", "segmentation", "class_map ← map", "class 7", "#070707"):
        assert words in table


def test_verify_on_footage(segmenter: Path, footage: Path) -> None:
    result = msgspec.json.decode(run("verify", segmenter, "--footage", footage, "--json"), type=Verification)
    assert (result.frames, result.agreement) == (3, 1.0)
    assert "100.00% of pixels agree" in run("verify", segmenter, "--footage", footage, "--count", 2)


def test_verify_on_labels(segmenter: Path, footage: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "labels").mkdir(parents=True)
    footage.rename(data / "images")
    for number in range(3):
        cv2.imwrite(str(data / "labels" / f"{number}.png"), np.zeros((16, 32), np.uint8))
    result = msgspec.json.decode(run("verify", segmenter, "--labels", data, "--json"), type=Verification)
    assert result.miou_drop == 0.0
    assert "mean IoU +0.00 points lost" in run("verify", segmenter, "--labels", data)


def test_verify_fails_past_its_bound_and_prints_what_it_found(segmenter: Path, footage: Path) -> None:
    spec = msgspec.structs.replace(SEGMENTER, precision="int8")
    model = bits_model()
    next(node for node in model.graph.node if node.op_type == "Greater").op_type = "Less"
    save(model, spec, segmenter.with_suffix(".int8.onnx"))
    result = CliRunner().invoke(app, ["verify", str(segmenter), "--precision", "int8", "--footage", str(footage)])
    assert isinstance(result.exception, CheckFailed)
    assert result.exception.exit_code == 6
    assert "0.00% of pixels agree" in result.stdout


def test_familiarize_writes_beside_the_model_and_info_says_so(segmenter: Path, tmp_path: Path) -> None:
    model, pictures = segmenter, tmp_path / "pictures"
    pictures.mkdir()
    assert "familiar" in run("info", model)
    with pytest.raises(SourceError, match="holds no image and no video"):
        run("familiarize", model, "--frames", pictures)
    for number in range(120):
        noise = np.random.default_rng(number).integers(0, 256, (16, 32, 3), np.uint8)
        cv2.imwrite(str(pictures / f"{number}.png"), noise)
    with pytest.raises(ModelError, match=r"told by 100 pictures at least; there are 20\."):
        run("familiarize", model, "--frames", pictures, "--count", 20)
    assert not place_of(model).exists()
    before = model.read_bytes()
    assert "bits.familiar.json: 120 pictures of pictures; 99 in 100 have a novelty of" in run(
        "familiarize", model, "--frames", pictures
    )
    assert model.read_bytes() == before
    known = read_spec(model).familiar
    assert known is not None
    assert (known.pictures, known.source) == (120, "120 pictures of pictures")
    assert known.means[-1] == pytest.approx(0.5, abs=0.02)  # the model's confidence is how red a pixel is
    assert "120 pictures of pictures; 99 in 100" in run("info", model)
    assert msgspec.json.decode(run("familiarize", model, "--frames", pictures, "--json"), type=Familiar) == known


def test_bench_prints_a_table_and_json(segmenter: Path, footage: Path) -> None:
    arguments = ("bench", segmenter, "--precision", "fp32", "--against", "onnxruntime", "--seconds", 0.1)
    table = run(*arguments)
    assert "onnxruntime fp32" in table
    assert "openvino fp32" in table
    result = msgspec.json.decode(run(*arguments, "--footage", footage, "--batch", 2, "--json"), type=Benchmark)
    assert [row.batch for row in result.rows] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (["info", "cityscape-unet"], ModelError, "There is no model `cityscape-unet`"),
        (["info", "absent.onnx"], ModelError, "no model file absent.onnx"),
        (["verify", "MODEL"], UsageError, "give either --footage or --labels"),
        (["verify", "MODEL", "--footage", "a", "--labels", "b"], UsageError, "give either --footage or --labels"),
        (["verify", "MODEL", "--footage", "absent.mp4"], RoadlensError, "There is no absent.mp4"),
        (["verify", "MODEL", "--labels", "absent"], RoadlensError, "There is no folder absent/images"),
        (["bench", "MODEL", "--precision", "fp4"], ModelError, "no precision `fp4`"),
        (["familiarize", "MODEL", "--frames", "absent.mp4"], RoadlensError, "There is no absent.mp4"),
        (["familiarize", "lead-vehicle", "--frames", "absent.mp4"], UsageError, "lead-vehicle gives no class map"),
        (["quantize", "MODEL", "--frames", "absent.mp4"], RoadlensError, "There is no absent.mp4|no layer to quantise"),
    ],
)
def test_mistakes(segmenter: Path, arguments: list[str], error: type[RoadlensError], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        run(*(segmenter if argument == "MODEL" else argument for argument in arguments))
