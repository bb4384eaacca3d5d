"""The commands, as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest
import typer
from typer.testing import CliRunner, Result

from engines.errors import CheckFailed, OutputError, RoadlensError, SourceError, UsageError
from engines.spec import read_spec
from tests.training.conftest import write_pairs
from training import cli
from training.data.contact_sheet import color_label
from training.data.inspection.cityscapes_pairs import inspect

RANDOM = ["encoder_weights=null", "frozen_stages=0"]
"""Overrides that start a run without any file of weights."""

app = typer.Typer()
app.command("train")(cli.train)
app.command("eval")(cli.evaluate)
app.command("export")(cli.export)
app.command("report")(cli.report)
app.add_typer(cli.data_app, name="data")


def call(*words: object) -> Result:
    """Run a command; a RoadlensError is raised, as the console script would get it."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, RoadlensError):
        raise result.exception
    return result


@pytest.mark.slow
def test_train_export_eval_from_end_to_end(pairs_folder: Path, tmp_path: Path) -> None:
    run, onnx = tmp_path / "run", tmp_path / "model.onnx"
    small = ["steps=1", "batch=1", "model.decoder=[16, 16, 16, 16]", "report_every=1", "evaluate_every=1"]
    small += RANDOM
    trained = call("train", "cityscapes-unet", *small, "--data", pairs_folder, "-o", run)
    assert trained.exit_code == 0, trained.output
    assert "step 1/1" in trained.output
    assert "mean IoU" in trained.output
    names = {p.name for p in run.iterdir()}
    assert {"last.ckpt", "best.ckpt", "metrics.jsonl", "recipe.yaml", "tensorboard"} <= names

    scored = call("eval", run / "best.ckpt", "--data", pairs_folder, "-o", tmp_path / "scores", "--json")
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["pictures"] == 4

    with pytest.raises(UsageError, match="too few to tell what is familiar; leave out --data"):
        call("export", run / "best.ckpt", "-o", onnx, "--data", pairs_folder)
    exported = call("export", run / "best.ckpt", "-o", onnx, "--metrics", tmp_path / "scores/evaluation.json")
    assert exported.exit_code == 0, exported.output
    spec = read_spec(onnx)
    assert (spec.name, spec.height, spec.width) == ("cityscapes-unet", 256, 256)
    assert [m.name for m in spec.metrics] == ["mean_iou", "accuracy", "calibration_error"]
    assert spec.metrics[0].split == "val"

    table = call("eval", onnx, "--data", pairs_folder, "--precision", "fp32")
    assert table.exit_code == 0, table.output
    assert "| road |" in table.output


@pytest.mark.seconds
def test_figures_of_another_model_are_not_written_into_an_export(
    tiny_run: Path, pairs_folder: Path, tmp_path: Path
) -> None:  # fmt: skip
    scored = call("eval", tiny_run / "last.ckpt", "--data", pairs_folder, "-o", tmp_path)
    assert scored.exit_code == 0, scored.output
    path = tmp_path / "evaluation.json"
    path.write_text(path.read_text().replace('"tiny-unet"', '"other"'))
    with pytest.raises(UsageError, match=r"evaluation\.json says what other reaches, and .*last\.ckpt is tiny-unet"):
        call("export", tiny_run / "last.ckpt", "-o", tmp_path / "x.onnx", "--metrics", path)


def test_eval_of_an_export_needs_no_torch(tiny_export: Path, pairs_folder: Path) -> None:
    code = f"""
import sys
for name in ("torch", "lightning", "torchvision"):
    sys.modules[name] = None  # as if it were not installed: importing it fails, and it is not found
import typer
from engines.errors import UsageError
from training import cli
none = typer.Context(typer.core.TyperCommand("eval"))
cli.evaluate(none, {str(tiny_export)!r}, {str(pairs_folder)!r} and __import__("pathlib").Path({str(pairs_folder)!r}),
             precision="fp32", split="val", as_json=True, output=None, recipe=None, cache=None, skip_broken=False)
for command in (lambda: cli.train(none, "cityscapes-unet", None), lambda: cli.export("x.ckpt", "x.onnx"),
                lambda: cli.evaluate(none, "x.ckpt", None)):
    try:
        command()
    except UsageError as error:
        print(error, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["backend"] == "openvino"
    lines = done.stderr.splitlines()
    assert len([line for line in lines if "pip install '.[train]'" in line]) == 3


def test_help_is_quick_to_import() -> None:
    code = "import sys, training.cli; print([m for m in ('torch', 'cv2', 'openvino', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Data ---------------------------------------------------------------------------------------------------------------


def test_data_check_counts(pairs_folder: Path) -> None:
    report = inspect(pairs_folder)
    assert {name: split.pairs for name, split in report.splits.items()} == {"train": 40, "val": 4}
    train = report.splits["train"]
    assert train.broken == ()
    assert sum(train.class_shares.values()) == pytest.approx(1)
    drawn = {"road", "building", "vegetation", "sky", "car"}
    assert sum(train.class_shares[name] for name in drawn) > 0.9  # JPEG blends make some of other classes


def test_data_check_names_what_is_broken(tmp_path: Path) -> None:
    root = write_pairs(tmp_path, train=3, val=1)
    (root / "train/2.jpg").write_bytes(b"x")
    with pytest.raises(CheckFailed, match=r"1 pairs of .* cannot be used"):
        call("data", "check", root)
    result = CliRunner().invoke(app, ["data", "check", str(root)])
    assert "2.jpg cannot be decoded as an image" in result.output
    as_json = CliRunner().invoke(app, ["data", "check", str(root), "--json"])
    assert json.loads(as_json.stdout)["splits"]["train"]["pairs"] == 3


def test_data_check_prints_the_share_outside_the_palette(tmp_path: Path) -> None:
    from tests.training.data.test_cityscapes_pairs import write_partly_foreign

    write_pairs(tmp_path, train=1, val=1)
    write_partly_foreign(tmp_path, 0.25)
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    (line,) = [line for line in result.output.splitlines() if "outside the palette" in line and "1.jpg: 2" in line]
    assert float(line.split(": ")[1].split("%")[0]) == pytest.approx(25, abs=2)


def test_data_check_misses_classes(pairs_folder: Path) -> None:
    with pytest.raises(CheckFailed, match="has no pixel of"):
        call("data", "check", pairs_folder)


def test_data_show_draws_every_label_in_its_colours(pairs_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    result = call("data", "show", pairs_folder, "-o", path, "-n", 3)
    assert result.exit_code == 0, result.output
    sheet = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    height, width = 18 + 256 + 8, 3 * 256 + 8
    assert sheet.shape == (2 * height, 2 * width, 3)
    from training.data.cityscapes_pairs import decode_label, read_pair

    photo, colors = read_pair(pairs_folder / "train/1.jpg")
    tile = sheet[18 : 18 + 256, : 3 * 256]
    assert (tile[:, :256] == photo).all()
    assert (tile[:, 256:512] == color_label(decode_label(colors))).all()


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        (["data", "show", "{pairs}", "-o", "sheet.gif"], OutputError, "must end in .png or .jpg"),
        (["data", "show", "{pairs}", "-o", "/dev/null/sheet.png"], OutputError, "could not be written"),
        (["data", "show", "{tmp}"], SourceError, "is none of the data sets that are known"),
        (["data", "show", "{tmp}", "--set", "cityscapes-pairs"], SourceError, "is not the Cityscapes pairs set"),
        (["data", "check", "{tmp}"], SourceError, r"is none of the data sets .*cityscapes-pairs.*say with --set"),
        (["data", "check", "{tmp}/none"], SourceError, "there is no folder"),
        (["data", "check", "{tmp}", "--set", "cityscape"], UsageError, "the nearest is cityscapes"),
        (["data", "check", "{tmp}", "--set", "json"], UsageError, "json is no data set: it has no `NAME`"),
        (["data", "show", "{pairs}", "--split", "deb"], UsageError, "none of that name; the nearest is dev"),
        (["data", "fetch", "mnits", "{tmp}"], UsageError, "there is no data set 'mnits'; the nearest is mnist"),
        (["data", "fetch", "cityscapes", "{tmp}"], UsageError, "cannot be downloaded without an account"),
        (["eval", "{run}/last.ckpt", "--data", "{pairs}", "--split", "vall"], UsageError, "the nearest is val"),
        (["report", "{run}/last.ckpt", "--data", "{pairs}", "--data", "{tmp}"], UsageError, "given twice for all"),
        (["report", "{run}/last.ckpt", "--data", "x.ckpt={tmp}"], UsageError, "--data x.ckpt=… is for a model that"),
        (["data", "fetch", "cityscapes-pairs", "{pairs}"], OutputError, "holds train/ or val/ already"),
        (["train", "cityscapes-unet", *RANDOM, "--data", "{tmp}", "-o", "{tmp}/run"], SourceError, "is not the Cit"),
        (
            ["train", "cityscapes-unet", "encoder_weights=null", "--data", "{pairs}"],
            UsageError,
            "freeze random weights",
        ),
        (["train", "cityscapes-unet", "stps=1", "--data", "{tmp}"], UsageError, "the nearest is `steps`"),
        (
            ["train", "cityscapes-unet", *RANDOM, "--data", "{pairs}", "-o", "/dev/null/x"],
            OutputError,
            "cannot be written to",
        ),
        (["export", "{run}/last.ckpt", "-o", "x.onnx", "--height", "250"], UsageError, "take 256×256"),
        (["export", "{tmp}/none.ckpt", "-o", "x.onnx"], RoadlensError, "there is no checkpoint"),
        (["export", "{run}/last.ckpt", "-o", "x.onnx", "--metrics", "{tmp}/no.json"], UsageError, "no.json cannot be"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], error: type[RoadlensError], sentence: str, pairs_folder: Path, tiny_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence) as caught:
        call(*(word.format(pairs=pairs_folder, tmp=tmp_path, run=tiny_run) for word in words))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(find_spec("kagglehub") is not None, reason="kagglehub is installed")
def test_fetching_without_kagglehub_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs kagglehub; install it with: pip install '\.\[train\]'"):
        call("data", "fetch", "cityscapes-pairs", tmp_path / "set")


@pytest.mark.seconds
def test_fetching_without_a_network_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("kagglehub")
    code = f"""
from pathlib import Path
from engines.errors import SourceError
from training.data.fetch import fetch_pairs
try:
    fetch_pairs(Path({str(tmp_path / "set")!r}))
except SourceError as error:
    print(error)
"""
    # Nothing listens there: the connection is refused at once.
    nowhere = {"KAGGLE_API_ENDPOINT": "http://127.0.0.1:9", "KAGGLEHUB_CACHE": str(tmp_path / "cache")}
    environment = {**os.environ, **nowhere, "http_proxy": "", "HTTP_PROXY": "", "no_proxy": "*"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    (line,) = done.stdout.splitlines()
    assert "could not be downloaded" in line
    assert "download it in a browser" in line
    assert not (tmp_path / "set").exists()
