"""Evaluation from end to end: what is opened, what it predicts, what comes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from engines.classes import IGNORE
from engines.errors import ModelError, RoadlensError
from tests.training.metrics.test_segmentation import some_pairs
from training.catalogue import open_task, read_recipe
from training.data.cityscapes_pairs import edge_band, load_pairs
from training.evaluation.opening import open_predictor
from training.evaluation.predictor import Predictor, evaluate, measure
from training.metrics.segmentation import (
    confusion_matrix,
)
from training.recipe import RECIPE_KEY


def test_counting_goes_through_batches_and_leaves_the_band_out() -> None:
    pairs, found = some_pairs(19)  # two batches of 8 and one of 3
    sizes = []

    def predict(photos: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(len(photos))
        return {"class_map": photos[..., 0]}

    task = open_task(read_recipe("cityscapes-unet"))
    rows = measure(Predictor(task, predict, "reader", "test", "fp32", 32, 32), pairs)
    whole, inner = rows[:, 0], rows[:, 1]
    assert sizes == [8, 8, 3]
    np.testing.assert_array_equal(whole.sum(0), confusion_matrix(pairs.labels, found, 19))
    band = np.stack([edge_band(label) for label in pairs.labels])
    without = np.where(band, IGNORE, pairs.labels).astype(np.uint8)
    np.testing.assert_array_equal(inner.sum(0), confusion_matrix(without, found, 19))


def test_a_checkpoint_sees_pictures_of_another_size_as_its_export_does(tiny_run: Path, tiny_export: Path) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3)).astype(np.uint8).repeat(32, 1).repeat(32, 2)
    maps = []
    for model in (tiny_run / "last.ckpt", tiny_export):
        with open_predictor(str(model), "fp32") as predictor:
            maps.append(predictor.predict(photos)["class_map"])
    assert maps[0].shape == maps[1].shape == (2, 256, 256)
    assert (maps[0] == maps[1]).mean() > 0.999


# Models -------------------------------------------------------------------------------------------------------------


def test_checkpoint_and_export_score_alike(tiny_run: Path, tiny_export: Path, pairs_folder: Path) -> None:
    pairs = load_pairs(pairs_folder, "val")
    results = {}
    for model, precision in ((tiny_run / "last.ckpt", "auto"), (tiny_export, "fp32")):
        with open_predictor(str(model), precision) as predictor:
            results[predictor.backend] = evaluate(predictor, pairs, "val")
    assert set(results) == {"torch", "openvino"}
    torch_result, engine_result = results["torch"], results["openvino"]
    assert torch_result.model == engine_result.model == "tiny-unet"
    assert engine_result.mean_iou == pytest.approx(torch_result.mean_iou, abs=1e-3)
    assert engine_result.accuracy == pytest.approx(torch_result.accuracy, abs=1e-3)


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_recipe_in_a_file_that_cannot_be_read_is_one_sentence(text: str, tiny_export: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_export)
    for entry in model.metadata_props:
        if entry.key == RECIPE_KEY:
            entry.value = text
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(RoadlensError, match=r"the recipe in .*m\.onnx"), open_predictor(str(tmp_path / "m.onnx")):
        pass


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("model", "precision", "error", "sentence"),
    [
        ("{tmp}/none.ckpt", "auto", ModelError, "there is no checkpoint"),
        ("{tmp}/none.onnx", "auto", ModelError, r"There is no model file .*none\.onnx"),
        ("{run}/last.ckpt", "int8", ModelError, "fp32 or bf16, not in int8"),
    ],
)
def test_what_cannot_be_evaluated(
    model: str, precision: str, error: type[Exception], sentence: str, tmp_path: Path, tiny_run: Path
) -> None:
    with pytest.raises(error, match=sentence), open_predictor(model.format(tmp=tmp_path, run=tiny_run), precision):
        pass
