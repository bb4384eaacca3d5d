from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outputs.naming import TimedNames, utc

DAY = 86_400.0


@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=30), st.sets(st.integers(0, 29)))
def test_names_sort_in_the_order_in_which_the_files_were_made(times: Sequence[float], restarts: set[int]) -> None:
    """Whatever the clock does, and whenever the program is started anew."""
    with tempfile.TemporaryDirectory() as kept:
        folder, made = Path(kept), []
        names = TimedNames("cam")
        for index, at in enumerate(times):
            if index in restarts:
                names = TimedNames("cam")
            path = names.next(folder, at)
            assert names.ours(path.name)
            path.touch(exist_ok=False)
            made.append(path.name)
    assert all(a < b for a, b in pairwise(made))


def test_a_clock_that_runs_on_gives_its_own_times(tmp_path: Path) -> None:
    names = TimedNames("cam", "_[a-z]+")
    made = [names.next(tmp_path, at, "_event").name for at in (1.0, 1.5, 999_999_999.0, 1_700_000_000.001)]
    assert made == [
        "cam_19700101T000001.000Z_event.mp4", "cam_19700101T000001.500Z_event.mp4",
        "cam_20010909T014639.000Z_event.mp4", "cam_20231114T221320.001Z_event.mp4",
    ]  # fmt: skip


def test_files_of_a_clock_that_was_ahead_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cam_20380101T000000.000Z.mp4").touch()
    (tmp_path / "cam_20999999T999999.999Z.mp4").touch()  # no time
    (tmp_path / "other_20990101T000000.000Z.mp4").touch()
    names = TimedNames("cam")
    with caplog.at_level(logging.WARNING):
        made = [names.next(tmp_path, 1_700_000_000.0 + second).name for second in range(3)]
    assert made == [f"cam_20380101T000000.00{count}Z.mp4" for count in (1, 2, 3)]
    (said,) = [record.getMessage() for record in caplog.records]
    assert "is named 2038-01-01T00:00:00.000Z, ahead of this machine's clock" in said


def test_a_clock_of_before_1970_is_a_name_too(tmp_path: Path) -> None:
    assert TimedNames("cam").next(tmp_path, -5.0).name == "cam_19700101T000000.001Z.mp4"
    assert utc(-5.0) == "1969-12-31T23:59:55.000Z"
