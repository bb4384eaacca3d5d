"""What sources that are waited for have in common: they are paused and stopped from another thread, and say so."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from pipeline.sources.streamed.steered import Steered
from pipeline.state import SourceState, StateChange


class Own(Steered):
    """Rests once, then ends."""

    def __init__(self, told: list[StateChange], paused: threading.Event) -> None:
        self.id, self._told, self._reached = "own", told, paused
        self._steered(self._observed, lambda: 12.5)

    def _observed(self, change: StateChange) -> None:
        self._told.append(change)
        if change.state is SourceState.PAUSED:
            self._reached.set()

    def run(self) -> None:
        self._say(SourceState.CONNECTING)
        self._rest()
        self._end()
        self._end()


@pytest.mark.parametrize(
    ("go_on", "states", "cause"),
    [
        (Own.resume, [SourceState.CONNECTING, SourceState.PAUSED, SourceState.STREAMING, SourceState.ENDED], ""),
        (Own.stop, [SourceState.CONNECTING, SourceState.PAUSED, SourceState.ENDED], "stopped"),
    ],
)
def test_it_rests_until_it_is_resumed_or_stopped_and_tells_its_end_once(
    go_on: Callable[[Own], None], states: list[SourceState], cause: str
) -> None:
    told, paused = list[StateChange](), threading.Event()
    source = Own(told, paused)
    source.pause()
    thread = threading.Thread(target=source.run, daemon=True)
    thread.start()
    assert paused.wait(60), "it says that it is paused"
    go_on(source)
    thread.join(60)
    assert not thread.is_alive()
    assert [change.state for change in told] == states
    assert {change.at for change in told} == {12.5}
    assert (told[-1].reason, told[-1].cause) == (cause, cause)
    assert [change.attempt for change in told] == [1] + [0] * (len(told) - 1)
