"""Boxes fitted to heat maps, and the rule for it chosen from examples."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from engines.errors import UsageError
from training.explain.box import BoxRule, ChosenRule, box_iou, choose_rule, evidence, fit_box, stored_rules
from training.explain.heat.methods import METHODS


def blobs() -> np.ndarray:
    """A wide lukewarm rectangle, a small hot one, and heat against the target: (40, 80) float32."""
    heat = np.zeros((40, 80), np.float32)
    heat[4:24, 8:48] = 1
    heat[30:36, 60:70] = 20
    heat[0:4, 70:80] = -50
    return heat


WIDE, HOT = (8 / 80, 4 / 40, 48 / 80, 24 / 40), (60 / 80, 30 / 40, 70 / 80, 36 / 40)


@pytest.mark.parametrize(
    ("rule", "box"),
    [
        (BoxRule(0.02, "largest"), WIDE),
        (BoxRule(0.02, "hottest"), HOT),
        (BoxRule(0.5, "largest"), HOT),
        (BoxRule(0.05, "largest"), HOT),  # exceeded, not reached: 1 of 20 is no more than 0.05
    ],
)
def test_the_box_of_a_component(rule: BoxRule, box: tuple[float, ...]) -> None:
    found = fit_box(blobs(), rule)
    assert found is not None
    assert found.dtype == np.float32
    assert found == pytest.approx(box)


def test_pixels_that_touch_by_a_corner_are_one_component() -> None:
    heat = np.zeros((10, 10), np.float32)
    heat[2, 2] = heat[3, 3] = heat[4, 4] = 1
    assert fit_box(heat, BoxRule(0.5)) == pytest.approx((0.2, 0.2, 0.5, 0.5))


@pytest.mark.parametrize("heat", [np.zeros((5, 5), np.float32), np.full((5, 5), -1, np.float32)])
def test_no_evidence_no_box(heat: np.ndarray) -> None:
    assert fit_box(heat, BoxRule()) is None
    assert (evidence(heat) == 0).all()


def test_the_best_rule_is_found() -> None:
    """Heat that falls off around the true box: only one threshold cuts it there."""
    rng = np.random.default_rng(0)
    heats, boxes = [], []
    for _ in range(6):
        x, y = rng.integers(10, 30, 2)
        heat = np.full((64, 64), 0.1, np.float32)
        heat[y - 6 : y + 26, x - 6 : x + 26] = 0.3
        heat[y : y + 20, x : x + 20] = 0.9
        heat[2, 2] = 1.0
        heats.append(heat)
        boxes.append(np.array([x, y, x + 20, y + 20], np.float32) / 64)
    rule, iou = choose_rule(heats, boxes)
    assert 0.3 <= rule.threshold < 0.9
    assert iou == pytest.approx(1)
    assert all(fit_box(heat, rule) == pytest.approx(box) for heat, box in zip(heats, boxes, strict=True))


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [((0, 0, 1, 1), (0, 0, 1, 1), 1), ((0, 0, 0.5, 1), (0.5, 0, 1, 1), 0), ((0, 0, 0.5, 1), (0, 0, 1, 1), 0.5)],
)
def test_iou(a: tuple[float, ...], b: tuple[float, ...], iou: float) -> None:
    assert box_iou(np.array(a, np.float32), np.array(b, np.float32)) == pytest.approx(iou)


def test_the_stored_rules_read_and_say_where_they_come_from() -> None:
    for method, chosen in stored_rules().items():
        assert method in METHODS
        assert chosen.origin


def test_rules_come_back_from_a_file(tmp_path: Path) -> None:
    rules = {"gradcam": ChosenRule(BoxRule(0.4, "largest", 0.02), 0.5, "a model on 3 boxes of dev")}
    (tmp_path / "rules.yaml").write_bytes(msgspec.yaml.encode(rules))
    assert stored_rules(tmp_path / "rules.yaml") == rules
    (tmp_path / "wrong.yaml").write_text("gradcam: {rule: {threshold: 2}, mean_iou: 0, origin: x}")
    with pytest.raises(UsageError, match=r"wrong.yaml"):
        stored_rules(tmp_path / "wrong.yaml")
