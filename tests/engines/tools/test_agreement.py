"""How far two files agree: pixels, or boxes with partners."""

from __future__ import annotations

import numpy as np
import pytest

from engines.tools.agreement import agreement, answers
from tests.engines.tiny_models import LOCALIZER, corners_model

ONE, MOVED, ELSEWHERE = [0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.505, 0.5], [0.6, 0.6, 0.9, 0.9]


def said(boxes: list, scores: list, labels: list | None = None) -> dict[str, np.ndarray]:
    found = {"boxes": np.array([boxes], np.float32), "scores": np.array([scores], np.float32)}
    return found if labels is None else {**found, "labels": np.array([labels], np.int32)}


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        (said([ONE], [0.9]), said([MOVED], [0.8]), 1.0),
        (said([ONE], [0.9]), said([ELSEWHERE], [0.9]), 0.0),
        (said([ONE], [0.9], [0]), said([ONE], [0.9], [1]), 0.0),  # another class
        (said([ONE, ELSEWHERE], [0.9, 0.8]), said([ONE, ELSEWHERE], [0.9, 0.3]), 2 / 3),  # one is no longer told of
        (said([ONE, ELSEWHERE], [0.9, 0.1]), said([MOVED, ONE], [0.9, 0.1]), 1.0),  # what is not told of may move
        (said([ONE], [0.2]), said([ELSEWHERE], [0.2]), 0.0),  # the surest counts, however unsure
        (said([], [0.2][:0]), said([], [0.2][:0]), 1.0),
        ({"class_map": np.array([[0, 1, 1, 1]])}, {"class_map": np.array([[0, 1, 1, 2]])}, 0.75),
    ],
)
def test_shares(first: dict[str, np.ndarray], second: dict[str, np.ndarray], share: float) -> None:
    for each in (first, second):
        if "boxes" in each:
            each["boxes"] = each["boxes"].reshape(1, -1, 4)
    assert agreement(first, second, 0.5) == pytest.approx(share)


def test_a_localizer_answers_with_its_boxes_and_agrees_with_itself() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (1, 16, 32, 3), np.uint8) for _ in range(3)]
    found = answers(corners_model(), LOCALIZER, pictures)
    assert set(found) == set(LOCALIZER.outputs)
    assert len(found["boxes"]) == 3
    assert agreement(found, found, 0.5) == 1.0
