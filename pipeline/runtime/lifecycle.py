"""The life of a stream as a value: what happened goes in, how it stands and what to do about it comes out.

    demand   run ⇄ rest ─► leave ─► drop ─► gone            what its owner wants of it
    ending   complete ─► stopped ─► failed                  how it ends, as far as is known
    state    connecting ─► streaming ⇄ paused ─► ended      what observers were told; failed from anywhere

Each of the three goes forward only, apart from resting. No threads, no queues and no clock: `pipeline.runtime.stream`
brings those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from pipeline.state import EndReason, SourceState


class Demand(Enum):
    """What is wanted of a stream."""

    RUN = "read it"
    REST = "read nothing until it is resumed; finish what has been read"
    LEAVE = "read no further; finish what has been read, and its outputs"
    DROP = "read no further, and drop what is under way"
    GONE = "nobody knows it any more, though a thread of it may still be there"


# What happens --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Pause:
    """It shall rest."""


@dataclass(frozen=True, slots=True)
class Resume:
    """It shall go on."""


@dataclass(frozen=True, slots=True)
class Leave:
    """It shall come to its end."""


@dataclass(frozen=True, slots=True)
class Drop:
    """It has not come to its end in time: what is under way is not waited for."""


@dataclass(frozen=True, slots=True)
class Retire:
    """It was removed; its name may be another stream's from now on."""


@dataclass(frozen=True, slots=True)
class Came:
    """A frame has come out of the decoder."""


@dataclass(frozen=True, slots=True)
class Blinded:
    """Pictures come and almost none goes out, for a reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Seeing:
    """Pictures go out."""


@dataclass(frozen=True, slots=True)
class Rested:
    """The decoder has begun to rest."""


@dataclass(frozen=True, slots=True)
class ReadOut:
    """Nothing more will be read. `cut`: it was told to stop, and the source may hold more."""

    cut: bool


@dataclass(frozen=True, slots=True)
class Drained:
    """Its device will hand over no more of its frames."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Something raised. `writing`: an output did, so that no later frame may be written."""

    writing: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """Its outputs are finished. `given_up`: what was under way was dropped."""

    given_up: bool


Event = (
    Pause | Resume | Leave | Drop | Retire | Came | Blinded | Seeing | Rested | ReadOut | Drained | Failed | Finished
)


class Action(Enum):
    """What is to be done after an event."""

    PAUSE_SOURCE = "let a source that waits for somebody else rest"
    RESUME_SOURCE = "let it go on"
    STOP_SOURCE = "let it iterate no further"
    CLOSE_SLOT = "take no more frames, and forget those that wait for the engine"
    END_HANDOVER = "tell the fusing thread that nothing more comes"
    SAY = "tell observers the state"
    SAY_SIGHT = "tell observers that it is blind or sees again, which no source knows"


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """How a stream stands.

    Attributes:
        demand: what is wanted of it.
        ending: how it ends, as far as is known; `complete` until something else happens.
        state: what observers were told last; `connecting` before that.
        writing: whether its outputs take frames: not after one of them has failed.
        drained: whether its device has handed over all of its frames.
        blind: why it is.
    """

    demand: Demand = Demand.RUN
    ending: EndReason = "complete"
    state: SourceState = SourceState.CONNECTING
    writing: bool = True
    drained: bool = False
    blind: str = ""

    @property
    def reads(self) -> bool:
        """Whether it is to be read, now or once it is resumed."""
        return self.demand is Demand.RUN or self.demand is Demand.REST

    @property
    def rests(self) -> bool:
        """Whether it is to rest."""
        return self.demand is Demand.REST

    @property
    def drops(self) -> bool:
        """Whether what is under way is to be dropped."""
        return self.demand is Demand.DROP or self.demand is Demand.GONE

    @property
    def gone(self) -> bool:
        """Whether it was removed."""
        return self.demand is Demand.GONE

    @property
    def failed(self) -> bool:
        """Whether something of it has failed."""
        return self.ending == "failed"


def step(life: Lifecycle, event: Event) -> tuple[Lifecycle, tuple[Action, ...]]:
    """How the stream stands after an event, and what to do, in order. An event that comes too late changes nothing.

    Args:
        life: how it stood.
        event: what happened.
    """
    match event:
        case Pause() if life.reads:
            return replace(life, demand=Demand.REST), (Action.PAUSE_SOURCE,)
        case Resume() if life.reads:
            return replace(life, demand=Demand.RUN), (Action.RESUME_SOURCE,)
        case Leave() if life.reads:
            return replace(life, demand=Demand.LEAVE), (Action.STOP_SOURCE,)
        case Drop() if not life.drops:
            return replace(life, demand=Demand.DROP), (Action.STOP_SOURCE, Action.CLOSE_SLOT)
        case Retire():
            return replace(life, demand=Demand.GONE), ()
        case Came() if life.state in {SourceState.CONNECTING, SourceState.PAUSED}:
            return _said(life, SourceState.STREAMING)
        case Blinded(reason) if life.demand is Demand.RUN and life.state in _GOING:
            # Told again and again: what its source says meanwhile would hide it.
            blind = replace(life, blind=reason)
            return _said(blind, SourceState.BLIND, Action.SAY_SIGHT)
        case Seeing() if life.state is SourceState.BLIND:
            return _said(replace(life, blind=""), SourceState.STREAMING, Action.SAY_SIGHT)
        case Rested() if life.state in _GOING:
            return _said(life, SourceState.PAUSED)
        case ReadOut(cut):
            return (_stopped(life) if cut else life), ()
        case Drained() if not life.drained:
            return replace(life, drained=True), (Action.END_HANDOVER,)
        case Failed(writing):
            failed = replace(life, ending="failed", writing=life.writing and not writing)
            # Told once; closing and stopping again is allowed, and each failure does it.
            told, said = _said(failed, SourceState.FAILED) if not life.failed else (failed, ())
            return told, (*said, Action.CLOSE_SLOT, Action.STOP_SOURCE)
        case Finished(given_up):
            over = _stopped(life) if given_up else life
            return (over, ()) if over.failed or over.state is SourceState.ENDED else _said(over, SourceState.ENDED)
        case _:
            return life, ()


_GOING = frozenset({SourceState.CONNECTING, SourceState.STREAMING, SourceState.BLIND})


def _said(life: Lifecycle, state: SourceState, how: Action = Action.SAY) -> tuple[Lifecycle, tuple[Action, ...]]:
    """In a state that observers are told of, but for a stream that was removed: its name may be another's."""
    return (life, ()) if life.gone else (replace(life, state=state), (how,))


def _stopped(life: Lifecycle) -> Lifecycle:
    return life if life.failed else replace(life, ending="stopped")
