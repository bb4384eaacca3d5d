"""Which models look at which frames of a stream: every one, every n-th, or as its content asks for.

It is asked by the decoding thread, ahead of the engines, and taught by the fusing one, behind them. Of a file what a
look taught decides `LAG` looks later, however fast the threads are: the decoder waits for it, and every run of a file
looks at the same frames. Of a live stream what is known by then decides.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.analysis.carrying.cadence import LAG, LONGEST, Cadence, CarryingOptions, Every
from pipeline.analysis.carrying.flow import HEIGHT, WIDTH, UInt8, is_cut
from pipeline.frame import Frame, Mode
from pipeline.pictures.picture import Picture


@dataclass(frozen=True, slots=True, eq=False)
class Glance:
    """What is known of a frame ahead of the engines.

    Attributes:
        models: names of those that look at it.
        luma: its small luma, where it is needed; else None.
        scene: how many cuts came before it.
        yields: whether a newer frame may be looked at in its place, where the engine does not keep up.
    """

    models: tuple[str, ...]
    luma: UInt8 | None = None
    scene: int = 0
    yields: bool = False


class Looks:
    """Says of each frame of a stream which models look at it.

    Args:
        every: the cadence of each model, by its name.
        options: what stands between looks.
        mode: of the stream.
        moving: whether each frame goes on from the one before; else `auto` looks at every one, and nothing is moved.
        ready: held to ask and to teach; notified of both, and when `over` may have changed.
        over: whether nothing more is to be read of the stream; a decoder that waits is let go then.

    Attributes:
        sparse: names of the models that do not look at every frame.
        awaited: those of them for whose next look a frame waits, to be carried to from both sides.
        judged: names of the models that are taught by `learned`.
        waits: whether `of` may wait for what was learned.
    """

    def __init__(
        self,
        every: Mapping[str, Every],
        options: CarryingOptions,
        mode: Mode,
        moving: bool,
        ready: threading.Condition,
        over: Callable[[], bool],
    ) -> None:
        self._ready, self._over = ready, over
        self._every: dict[str, Every] = {
            name: 1 if wanted == "auto" and not moving else wanted for name, wanted in every.items()
        }
        self._all = tuple(self._every)
        self.sparse = tuple(name for name, every in self._every.items() if every != 1)
        carries = options.by == "motion" and moving
        waits = carries and mode == "file"
        self.awaited = tuple(name for name in self.sparse if waits and _short(self._every[name]))
        self._autos = {
            name: _Auto(mode, Cadence(options, both=waits)) for name, every in self._every.items() if every == "auto"
        }
        self.judged = tuple(self._autos)
        self.waits = mode == "file" and bool(self._autos)
        self._sees = bool(self.sparse) and (carries or bool(self._autos))
        self._carries, self._yields = carries, carries and mode == "live" and bool(self._autos)
        self._before: UInt8 | None = None
        self._scene = 0

    def of(self, frame: Frame) -> Glance:
        """Which models look at a frame; frames come in order. Waits, where it is a file's, for what decides."""
        if not self.sparse:
            return Glance(self._all)
        luma, cut = None, False
        if self._sees:
            luma = Picture.of(frame.image).luma(HEIGHT, WIDTH)
            cut = self._before is not None and is_cut(luma, self._before)
            self._before = luma
            self._scene += cut
        wanting = tuple(name for name, every in self._every.items() if self._wants(name, every, frame.index, cut))
        yields = self._yields and not cut and all(name in self._autos for name in wanting)
        return Glance(wanting, luma if self._carries else None, self._scene, yields)

    def learned(self, model: str, gap: int, agreement: dict[str, float]) -> None:
        """A model looked again, `gap` frames after its look before; see `Carrier`."""
        with self._ready:
            self._autos[model].learn(gap, agreement)
            self._ready.notify_all()

    def _wants(self, name: str, every: Every, index: int, cut: bool) -> bool:
        if every == "auto":
            return self._autos[name].wants(cut, self._wait)
        return index % every == 0

    def _wait(self, known: Callable[[], bool]) -> None:
        with self._ready:
            while not known() and not self._over():
                self._ready.wait()


class _Auto:
    """The looks of a model whose cadence follows the content."""

    def __init__(self, mode: Mode, cadence: Cadence) -> None:
        self._waits, self._cadence = mode == "file", cadence
        self._gaps = deque([1] * LAG)
        self._gap = 1
        self._since: int | None = None

    def learn(self, gap: int, agreement: dict[str, float]) -> None:
        self._gaps.append(self._cadence.learn(gap, agreement))

    def wants(self, cut: bool, wait: Callable[[Callable[[], bool]], None]) -> bool:
        """Whether the next frame is looked at."""
        if self._since is None:
            self._since = 0
            return True
        if self._since == 0:
            self._gap = self._next(wait)
        self._since += 1
        if cut or self._since >= self._gap:
            self._since = 0
            return True
        return False

    def _next(self, wait: Callable[[Callable[[], bool]], None]) -> int:
        """How far it is to the next look."""
        if self._waits:
            wait(lambda: bool(self._gaps))
            return self._gaps.popleft() if self._gaps else 1
        while len(self._gaps) > 1:
            self._gaps.popleft()
        return self._gaps[0]


def _short(every: Every) -> bool:
    return every == "auto" or every <= LONGEST


def said(every: Every) -> str:
    """A cadence in words.

    >>> said(1), said(3), said("auto")
    ('every frame', 'one frame in 3', 'as many frames as the content asks for')
    """
    if every == "auto":
        return "as many frames as the content asks for"
    return "every frame" if every == 1 else f"one frame in {every}"
