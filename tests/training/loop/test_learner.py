"""What the learner makes of an evaluation, without a trainer's run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.training.loop.shade_task import Shade, ShadeRecipe, write_shades
from training.loop.fingerprint import fingerprint
from training.loop.learner import Learner


class Ordered(Shade):
    """Remembers the rows that it is asked to score."""

    seen: np.ndarray

    def scores(self, rows: np.ndarray) -> dict[str, float]:
        self.seen = rows
        return {"agreement": 0.0}


@pytest.mark.parametrize("shares", [[[3, 1], [0, 2]], [[0, 1, 2, 3]], [[2], [3], [0], [1]]])
def test_rows_are_scored_in_the_order_of_the_pictures_whoever_measured_them(
    shares: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Ordered(ShadeRecipe(name="shade", steps=1))
    folder = write_shades(tmp_path)
    learner = Learner(task, task.build_model(), task.load(folder, "fit"), task.load(folder, "dev"), print)
    monkeypatch.setattr(Learner, "trainer", SimpleNamespace(world_size=1))
    monkeypatch.setattr(Learner, "log", lambda *_: None)
    learner.rows = [(np.array(share), np.array(share, float)[:, None] * 10) for share in shares]
    learner.on_validation_epoch_end()
    np.testing.assert_array_equal(task.seen, [[0], [10], [20], [30]])


def test_a_fingerprint_is_of_pictures_names_and_truth_and_of_nothing_else(tmp_path: Path) -> None:
    task = Shade(ShadeRecipe(name="shade", steps=1))
    data = task.load(write_shades(tmp_path), "fit")
    same = type(data)(data.photos.copy(), data.bright.copy(), data.names, protocol="in other words")
    assert fingerprint(same) == fingerprint(data)
    photos, bright = data.photos.copy(), data.bright.copy()
    photos[7, 15, 15, 2] += 1
    bright[0] = not bright[0]
    others = [
        type(data)(photos, data.bright, data.names),
        type(data)(data.photos, bright, data.names),
        type(data)(data.photos, data.bright, (*data.names[:-1], "another")),
        task.load(tmp_path, "dev"),
    ]
    assert len({fingerprint(each) for each in (data, *others)}) == 5
