"""How far what was carried agrees with what is seen."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.analysis.carrying.agreement import BAND, of_boxes, of_maps
from pipeline.frame import Box


def test_pixels_along_edges_are_not_compared_and_all_others_are() -> None:
    seen = np.zeros((40, 40), np.uint8)
    seen[:, 20:] = 13
    late = np.zeros((40, 40), np.uint8)
    late[:, 20 + BAND :] = 13  # the edge, two pixels on
    assert of_maps(seen, late) == 1.0
    later = np.zeros((40, 40), np.uint8)
    later[:, 20 + BAND + 4 :] = 13
    assert of_maps(seen, later) == pytest.approx(1 - 4 / (40 - 2 * BAND))


def test_maps_that_are_edges_all_over_agree() -> None:
    checks = np.indices((8, 8)).sum(0).astype(np.uint8) % 2
    assert of_maps(checks, 1 - checks) == 1.0


def box(x: float, label: str = "car", width: float = 10.0) -> Box:
    return Box(x, 0, x + width, 10, 13, label, 0.9, "m")


@pytest.mark.parametrize(
    ("seen", "carried", "share"),
    [
        ([box(0)], [box(0)], 1.0),
        ([box(0)], [box(0, width=8)], 0.8),
        ([box(0), box(100)], [box(0, width=8)], 0.8),
        ([box(0), box(1)], [box(0)], 1.0),
        ([box(0)], [box(6)], None),
        ([box(0)], [box(0, "truck")], None),
        ([box(0)], [], None),
        ([], [], None),
    ],
    ids=["same", "narrower", "one on one side", "best alone", "apart", "another class", "gone", "none"],
)
def test_boxes_on_both_sides_are_compared(seen: list[Box], carried: list[Box], share: float | None) -> None:
    assert of_boxes(seen, carried) == (None if share is None else pytest.approx(share))
    assert of_boxes(carried, seen) == (None if share is None else pytest.approx(share))
