"""Each kind of foreign model is imported by one command, says what the original says, and runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import engines
from engines.commands.models import app
from engines.foreign.checking import drawn_streets
from engines.spec import SPEC_KEY, read_spec

pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from tests.engines.foreign.exporters import HEIGHT, KINDS, WIDTH, grid

CLASSES = {
    "five": "road #804080\ncar #00008e thing\nsky\ntree\nperson #dc143c thing\n",
    "three": "red thing\ngreen\nblue\n",
    "one": "drivable #00ff00\n",
}


def run_import(model: Path, output: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["import", str(model), "-o", str(output), *options])


def imported(
    folder: Path, name: str, *more: str, make: Callable[[Path], None] | None = None
) -> tuple[Path, dict[str, Any]]:
    """The file and what was printed; `make` makes another network of the same kind."""
    kind = KINDS[name]
    (make or kind.make)(folder / "foreign.onnx")
    (folder / "classes.txt").write_text(CLASSES[kind.classes])
    output = folder / f"{name}.onnx"
    options = ("--classes", str(folder / "classes.txt"), *kind.told, "--json", *more)
    done = run_import(folder / "foreign.onnx", output, *options)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return output, json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_foreign_model_is_imported_and_runs(name: str, tmp_path: Path) -> None:
    import roadlens

    kind = KINDS[name]
    output, result = imported(tmp_path, name, "--licence", "MIT", "--author", "Ann", "--min-score", "0.1")
    check, findings = result["check"], {entry["about"]: entry["found"] for entry in result["findings"]}
    for about, words in kind.found.items():
        assert words in findings[about]
    spec = read_spec(output)
    assert (spec.name, spec.task, spec.licence) == (name, kind.task, "MIT")
    assert (spec.width, spec.height) == kind.size
    assert {entry.key: entry.value for entry in onnx.load(output).metadata_props}["author"] == "Ann"
    if kind.task == "segmentation":
        assert check["agreement"] >= 0.999
        assert check["ties"] < 0.01
    else:
        assert check["boxes"] >= 4
        assert check["found"] >= 0.98
        assert check["iou"] >= 0.99

    rng = np.random.default_rng(0)
    with engines.load(output, "cpu", "fp32", 3) as engine:  # type: ignore[attr-defined]
        pictures = [rng.integers(0, 256, (spec.height, spec.width, 3), np.uint8) for _ in range(3)]
        together = engine.submit(pictures).result()
        assert [len(each.scores) if each.scores is not None else 0 for each in together] == [
            len(each.scores) if each.scores is not None else 0 for each in map(engine, pictures)
        ]
    drive = "synthetic:?width=320&height=180&seconds=0.2"
    analyses = list(roadlens.analyse(drive, model=str(output)))
    assert analyses
    for analysis in analyses:
        if kind.task == "segmentation":
            assert analysis.class_map is not None
            assert analysis.class_map.shape == (spec.height, spec.width)
            assert {name for name, share in analysis.area.items() if share} <= {info.name for info in spec.classes}


REAL = Path(__file__).parents[4] / "shared/data/footage/highway_960x540_25fps_h264_9s.mp4"


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("name", KINDS)
def test_it_says_what_the_original_says_on_real_pictures(name: str, tmp_path: Path) -> None:
    if not REAL.exists():
        pytest.skip(f"{REAL} is not here")
    _, result = imported(tmp_path, name, "--frames", str(REAL))
    check = result["check"]
    assert check["pictures"] == 8
    if KINDS[name].task == "segmentation":
        assert check["agreement"] >= 0.999
        assert check["ties"] < 0.01
    else:
        assert check["boxes"] >= 4
        assert check["found"] >= 0.98
        assert check["iou"] >= 0.99


@pytest.mark.slow
def test_an_imported_segmenter_is_quantised_and_runs_in_int8(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    output, _ = imported(tmp_path, "torchvision-lraspp", "--licence", "MIT")
    quick = tmp_path / "quick.onnx"
    (tmp_path / "frames").mkdir()
    for number, street in enumerate(drawn_streets(8, HEIGHT, WIDTH)):
        cv2.imwrite(str(tmp_path / f"frames/{number}.png"), street)
    options = ["--frames", str(tmp_path / "frames"), "-o", str(quick), "--min-agreement", "0.9", "--json"]
    done = CliRunner().invoke(app, ["quantize", str(output), *options], catch_exceptions=False)
    result = json.loads(done.stdout)
    assert len(result["kept"]) < result["layers"]
    assert result["agreement"] >= 0.9
    before, spec = read_spec(output), read_spec(quick)
    assert (spec.precision, spec.licence, spec.classes) == ("int8", "MIT", before.classes)
    picture = drawn_streets(9, HEIGHT, WIDTH)[-1]
    with engines.load(output, "cpu", "fp32", 1) as engine:  # type: ignore[attr-defined]
        expected = engine(picture)
    with engines.load(quick, "cpu", "int8", 2) as engine:  # type: ignore[attr-defined]
        found = engine(picture)
    assert (found.class_map == expected.class_map).mean() > 0.85
    command = [Path(sys.executable).with_name("roadlens"), "run", "synthetic:?width=160&height=96&seconds=0.2"]
    ran = subprocess.run(
        [*command, "--model", quick, "--jsonl", tmp_path / "drive.jsonl"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert len((tmp_path / "drive.jsonl").read_text().splitlines()) == 5


@pytest.mark.slow
@pytest.mark.parametrize("form", ["v8", "v10", "ssd"])
def test_an_imported_detector_is_quantised_and_runs_in_int8(form: str, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    name = {"v8": "yolo-v8", "v10": "yolo-v10"}.get(form, form)
    output, _ = imported(tmp_path, name, make=grid(form, middle=3))
    (tmp_path / "frames").mkdir()
    for number, street in enumerate(drawn_streets(8, HEIGHT, WIDTH)):
        cv2.imwrite(str(tmp_path / f"frames/{number}.png"), street)
    quick = tmp_path / "quick.onnx"
    options = ["--frames", str(tmp_path / "frames"), "-o", str(quick), "--min-agreement", "0.5", "--json"]
    done = CliRunner().invoke(app, ["quantize", str(output), *options], catch_exceptions=False)
    result = json.loads(done.stdout)
    assert len(result["kept"]) < result["layers"]
    assert (result["agreement_of"], read_spec(quick).precision) == ("boxes", "int8")
    with engines.load(quick, "cpu", "int8", 2) as engine:  # type: ignore[attr-defined]
        found = engine(drawn_streets(9, HEIGHT, WIDTH)[-1])
    assert found.boxes is not None
    assert np.isfinite(found.boxes).all()


def test_the_model_says_what_the_original_says_pixel_by_pixel(tmp_path: Path) -> None:
    """Without the house's own check: by what the graph is known to compute."""
    output, _ = imported(tmp_path, "tensorflow-class-map")
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    halves = picture.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3), np.float32)
    expected = halves.argmax(-1).repeat(2, 0).repeat(2, 1)
    with engines.load(output, "cpu", "fp32", 1) as engine:  # type: ignore[attr-defined]
        assert np.array_equal(engine(picture).class_map, expected)


def test_boxes_come_out_as_fractions_with_ids_and_without_padding(tmp_path: Path) -> None:
    output, _ = imported(tmp_path, "tensorflow-detector")
    with engines.load(output, "cpu", "fp32", 1) as engine:  # type: ignore[attr-defined]
        found = engine(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0, 0])
    assert found.labels.tolist()[:2] == [0, 2]
    assert found.boxes[:2].tolist() == [pytest.approx([0.2, 0.1, 0.6, 0.5]), pytest.approx([0.1, 0.3, 0.4, 0.9])]


def test_what_was_found_is_printed_and_kept_in_the_file(tmp_path: Path) -> None:
    KINDS["tensorflow-class-map"].make(tmp_path / "theirs.onnx")
    (tmp_path / "three.yaml").write_text("- {name: red, thing: true}\n- green\n- {name: blue, color: '#0000ff'}\n")
    cv2.imwrite(str(tmp_path / "street.png"), np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8))
    options = ("--classes", str(tmp_path / "three.yaml"), "--frames", str(tmp_path / "street.png"))
    done = run_import(tmp_path / "theirs.onnx", tmp_path / "mine.onnx", *options)
    assert done.exit_code == 0, done.output
    for words in (
        "raised to 18", "nhwc", "`classes:0`: class ids, 64×48", "100.00% of pixels as the original's",
        "not stated: licence and author", "colours rgb (assumed)",
    ):  # fmt: skip
        assert words in done.stdout
    notes = {entry.key: entry.value for entry in onnx.load(tmp_path / "mine.onnx").metadata_props}
    assert SPEC_KEY in notes
    assert json.loads(notes["roadlens.import"])["file"] == "theirs.onnx"
    assert read_spec(tmp_path / "mine.onnx").classes[2].color == (0, 0, 255)


@pytest.mark.slow
def test_an_imported_segmenter_passes_tensorrts_list(tmp_path: Path) -> None:
    from engines.tensorrt.operators import faults, tensorrt_graph

    output, _ = imported(tmp_path, "smp-unet")
    assert faults(tensorrt_graph(output, "fp16")) == []


@pytest.mark.parametrize("form", ["centernet"])
def test_boxes_run_in_pytorch_as_in_openvino(form: str, tmp_path: Path) -> None:
    from engines.pytorch.engine import TorchEngine
    from engines.tensorrt.operators import faults, tensorrt_graph

    output, _ = imported(tmp_path, {"v8": "yolo-v8"}.get(form, form))
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    with engines.load(output, "cpu", "fp32", 1) as engine:  # type: ignore[attr-defined]
        expected = engine(picture)
    with TorchEngine(output, device="cpu", max_batch=1) as engine:
        found = engine(picture)
    assert np.allclose(found.scores, expected.scores, atol=1e-4)
    assert np.isclose(found.boxes, expected.boxes, atol=1e-3).mean() > 0.98
    assert faults(tensorrt_graph(output, "fp16")) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tensorflow-class-map", "tensorflow-detector"])
def test_run_draws_and_tells_what_an_imported_model_says(name: str, tmp_path: Path) -> None:
    output, _ = imported(tmp_path, name)
    drive = "synthetic:?width=320&height=180&seconds=0.4"
    command = [Path(sys.executable).with_name("roadlens"), "run", drive, "--model", output]
    outputs = ["-o", tmp_path / "drive.mp4", "--jsonl", tmp_path / "drive.jsonl"]
    done = subprocess.run([*command, *outputs], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "drive.mp4").stat().st_size > 0
    lines = [json.loads(line) for line in (tmp_path / "drive.jsonl").read_text().splitlines()]
    assert lines
    if name == "tensorflow-class-map":
        assert all(sum(line["area"].values()) == pytest.approx(1, abs=0.01) for line in lines)
    else:
        assert {box["label"] for line in lines for box in line["boxes"]} == {"road", "sky"}
