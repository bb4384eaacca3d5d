"""The shipped models, measured from the packaged files through the engines people run them with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import engines
import engines.bundled
from engines.engine import Precision
from engines.graphs.saturation import adds_bytes_exactly
from engines.spec import read_spec
from training.catalogue import open_task, read_recipe
from training.data.cityscapes_pairs import load_pairs
from training.data.lead_vehicle import load_lead_vehicles
from training.evaluation.opening import open_predictor
from training.evaluation.predictor import evaluate, measure
from training.metrics.segmentation import SegmentationEvaluation

PAIRS = Path(__file__).parents[3] / "shared" / "data" / "cityscapes_pairs"
ON_DISK = pytest.mark.skipif(not PAIRS.is_dir(), reason="needs the Cityscapes pairs beside the checkout")

LOSES = {"fp32": 0.0, "bf16": 0.003, "int8": 0.010}
"""Mean IoU that a precision may lose, on any CPU; `auto` is one of them."""

INT8_LOSES_AP = 0.015 if adds_bytes_exactly() else 0.020
"""The same of mean AP, in int8; 0.018 are lost where weights are rounder."""


def test_the_unet_ships_with_its_quantised_twin_and_a_card() -> None:
    path = engines.bundled.resolve("cityscapes-unet")
    assert engines.bundled.int8_file(path).is_file()
    assert path.stat().st_size < 15_000_000
    card = path.with_suffix(".md").read_text()
    for wanted in ("Cityscapes", "non-commercial", "val", "known failures"):
        assert wanted.lower() in card.lower()
    assert any(m.name == "mean_iou" and m.split == "val" for m in read_spec(path).metrics)


def test_the_lead_vehicle_localizer_ships_with_its_quantised_twin_and_a_card() -> None:
    path = engines.bundled.resolve("lead-vehicle")
    assert engines.bundled.int8_file(path).is_file()
    assert path.stat().st_size < 5_000_000
    spec = read_spec(path)
    assert (spec.task, [info.name for info in spec.classes]) == ("localization", ["lead vehicle"])
    assert {(m.name, m.split) for m in spec.metrics} >= {("presence_ap", "val"), ("mean_iou", "val")}
    card = path.with_suffix(".md").read_text()
    for wanted in ("Cityscapes", "non-commercial", "val", "known failures", "false alarms"):
        assert wanted.lower() in card.lower()


@pytest.mark.slow
@pytest.mark.realdata
@ON_DISK
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_lead_vehicle_localizer_keeps_its_figures_on_dev(precision: Precision) -> None:
    data = load_lead_vehicles(PAIRS, "dev", 256, 256)
    task = open_task(read_recipe("lead-vehicle"))
    with engines.load("lead-vehicle", device="cpu", precision=precision) as engine:
        answers = [engine(photo) for photo in data.photos]
    outputs = {role: np.stack([getattr(answer, role) for answer in answers]) for role in ("boxes", "scores")}
    found = task.scores(task.measure(outputs, data, range(len(data))))
    assert found["presence_ap"] >= 0.82
    assert found["mean_iou"] >= 0.64


def test_the_default_model_ships_with_its_quantised_twin_and_a_card() -> None:
    path = engines.bundled.resolve(engines.bundled.DEFAULT)
    assert engines.bundled.int8_file(path).is_file()
    assert path.stat().st_size < 15_000_000
    spec = read_spec(path)
    assert spec.task == "road-users"
    assert {(m.name, m.split) for m in spec.metrics} >= {("mean_iou", "val"), ("mean_ap", "val")}
    card = path.with_suffix(".md").read_text()
    for wanted in ("Cityscapes", "non-commercial", "val", "known failures", f"{spec.width}×{spec.height}"):
        assert wanted.lower() in card.lower()
    assert f"({spec.min_score:g})" in card, "the smallest score that the card tells of is the file's"


@pytest.mark.slow
@pytest.mark.realdata
@ON_DISK
def test_the_default_model_keeps_its_figures_on_dev_in_every_precision() -> None:
    found = {}
    for precision in ("fp32", "auto", "int8"):
        with open_predictor(engines.bundled.DEFAULT, precision) as predictor:
            data = predictor.task.load(PAIRS, "dev")
            found[precision] = predictor.task.scores(measure(predictor, data))
            lost = LOSES[predictor.precision]
        assert found[precision]["mean_iou"] >= found["fp32"]["mean_iou"] - lost
    assert found["fp32"]["mean_iou"] >= 0.56
    assert found["fp32"]["mean_ap"] >= 0.40
    assert found["int8"]["mean_ap"] >= found["fp32"]["mean_ap"] - INT8_LOSES_AP


@pytest.mark.slow
@pytest.mark.realdata
@ON_DISK
def test_the_unet_keeps_its_figures_on_val_in_every_precision() -> None:
    pairs = load_pairs(PAIRS, "val")
    found = {}
    for precision in ("fp32", "auto", "int8"):
        with open_predictor("cityscapes-unet", precision) as predictor:
            result = evaluate(predictor, pairs, "val")
            assert isinstance(result, SegmentationEvaluation)
            found[precision] = result
    assert found["fp32"].precision == "fp32"
    assert found["fp32"].mean_iou >= 0.40
    assert all(c.iou is not None and c.iou > 0 for c in found["fp32"].classes), "no class at zero"
    for result in found.values():
        assert result.mean_iou >= found["fp32"].mean_iou - LOSES[result.precision]
    stated = next(m for m in read_spec(engines.bundled.resolve("cityscapes-unet")).metrics if m.name == "mean_iou")
    assert found["fp32"].mean_iou == pytest.approx(stated.value, abs=0.002), "the card says what is measured"
