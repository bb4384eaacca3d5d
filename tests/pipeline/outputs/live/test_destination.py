from __future__ import annotations

import time

import pytest

from pipeline.outputs.live.destination import QueuedOutput
from pipeline.state import OutputChange, OutputState
from tests.pipeline.encoded import VIDEO, pictures


class Broken(QueuedOutput):
    """Fails in a way that nobody has thought of."""

    def _work(self) -> str:
        self._queue.get()
        raise ZeroDivisionError


def test_an_output_that_fails_by_itself_says_so_and_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    changes: list[OutputChange] = []
    dropped: list[int] = []
    broken = Broken("cam", "broken", 1.0, lambda count, _: dropped.append(count), changes.append, time.time)
    broken.begin(VIDEO, lambda: None)
    for picture in pictures(100):
        broken.put(picture, wait=True)  # would wait here for ever: a second has room
    assert broken.join(60)
    assert [(c.state, c.reason) for c in changes] == [(OutputState.CLOSED, "it failed: ZeroDivisionError")]
    assert "ZeroDivisionError" in caplog.text
    assert sum(dropped) == 99
