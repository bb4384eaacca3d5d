"""What a runtime is given: the models, and the streams with their stages and sinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engines.engine import Engine
from engines.errors import UsageError
from pipeline.analysis.carrying.cadence import Every
from pipeline.analysis.ignore import IgnoredRegions
from pipeline.contracts import Sink, Source, Stage, StreamInfo
from pipeline.runtime.placement import Berth


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An engine and its cadence: it looks at every `every`-th frame of each stream, or as their content asks for.

    `others` are engines of the same model on further devices, in the order of the run's devices.
    """

    engine: Engine
    every: Every = 1
    others: tuple[Engine, ...] = ()

    @property
    def name(self) -> str:
        return self.engine.spec.name

    @property
    def engines(self) -> tuple[Engine, ...]:
        """One for each device."""
        return (self.engine, *self.others)

    @property
    def device(self) -> str:
        """What they run on, for people."""
        return ", ".join(engine.device for engine in self.engines)


@dataclass(slots=True)
class StreamPlan:
    """A stream to run: an opened source, its own stages and sinks.

    Attributes:
        source: already open.
        info: what opening it said.
        stages: after fusing, in order.
        regions: what of its frames is not looked at; None where all of them is.
        own_car: whether the own car is kept in mind from frame to frame.
        sinks: outputs of this stream and shared ones, in order.
        first_frame: index of the first frame to give out; a resumed run skips those before it.
        warm_up: how many of those of a file are looked at all the same, for what is remembered from frame to frame.
        first_track: number of the first track.
        stopped: called before the outputs of a stream that is stopped ahead of its end are finished, with the number
            of frames given out.
        berth: which device looks at it; of a runtime's own choice when left out.
    """

    source: Source
    info: StreamInfo
    stages: Sequence[Stage] = ()
    sinks: Sequence[Sink] = ()
    first_frame: int = 0
    warm_up: int = 0
    first_track: int = 1
    stopped: Callable[[int], None] = lambda _frames: None
    berth: Berth | None = None
    regions: IgnoredRegions | None = None
    own_car: bool = True

    def check_reached(self, frames: int) -> None:
        """That a resumed stream has as many frames as the outputs that it goes on with.

        Raises:
            UsageError: it has fewer.
        """
        if frames < self.first_frame:
            raise UsageError(
                f"{self.source.id}: the outputs hold {self.first_frame} frames, but {self.source.address} has only "
                f"{frames}; they are not of this footage: run without --resume"
            )
