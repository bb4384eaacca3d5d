"""Which capabilities of `pipeline.contracts` a source, stage or sink has: looked up once, when it is added.

A method counts as a capability if its name and its arguments' names are those of the contract. One of the name alone is
refused: the runtime would call it for what it is not, or leave it out in silence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, get_args

from engines.errors import UsageError
from pipeline.contracts import (
    AudioPacket,
    AudioSink,
    DataPacket,
    DataSink,
    EndingSink,
    FinishingSink,
    ForeseeingStage,
    ForgettingSink,
    RememberingStage,
    Sink,
    Source,
    Stage,
    StatusSink,
    WaitingSource,
)
from pipeline.frame import Analysis, Mode
from pipeline.packets import PacketTap
from pipeline.state import EndReason, StateChange

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class AttachedSource:
    """What the runtime calls of a source beside `Source`.

    Attributes:
        waits: whether it is a `WaitingSource`; `stop`, `pause` and `resume` do nothing where it is none.
        tap: has its packets shown to the one given; None where it is no `TappedSource`.
        paths: the files that a `FileSource` reads.
    """

    waits: bool = False
    stop: Callable[[], None] = lambda: None
    pause: Callable[[], None] = lambda: None
    resume: Callable[[], None] = lambda: None
    tap: Callable[[PacketTap], None] | None = None
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class AttachedStage:
    """What the runtime calls of a stage, the name it is timed under, how many frames ahead it wants to see, and whether
    few streams at a time are in it.
    """

    name: str
    process: Callable[[Analysis], Analysis]
    remember: Callable[[Analysis], None] | None
    foresee: Callable[[Analysis], None] | None
    ahead: int
    takes_turns: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class AttachedSink:
    """What the runtime and the session call of a sink, and the name it is timed under; None where it has no such
    method.
    """

    name: str
    consume: Callable[[Analysis], None]
    consume_audio: Callable[[AudioPacket], None] | None
    consume_data: Callable[[DataPacket], None] | None
    finish: Callable[[], None] | None
    end: Callable[[str, EndReason, int | None], None] | None
    status: Callable[[StateChange], None] | None
    forget: Callable[[str], None] | None


def attach_source(source: Source) -> AttachedSource:
    """See what a source can.

    Raises:
        UsageError: it lacks what every source has, has a mode that is none or `paths` that are no paths, or has one of
            `stop`, `pause` and `resume` without the others or with other arguments.
    """
    _check_made("source", source)
    lacking = [n for n in ("id", "address", "mode", "counts", "open", "__iter__", "close") if not hasattr(source, n)]
    if lacking:
        raise UsageError(f"the source {_class(source)} has no {', '.join(lacking)}; see pipeline.contracts.Source")
    if source.mode not in get_args(Mode):
        raise UsageError(f"the source {_class(source)} has the mode {source.mode!r}; give it 'file' or 'live'")
    paths = getattr(source, "paths", ())
    if not isinstance(paths, tuple | list) or not all(isinstance(path, Path) for path in paths):
        raise UsageError(f"the source {_class(source)} has `paths` that are no pathlib.Path; give it a tuple of those")
    tap = partial(setattr, source, "on_packet") if hasattr(source, "on_packet") else None
    stop = _optional("source", source, WaitingSource.stop)
    pause = _optional("source", source, WaitingSource.pause)
    resume = _optional("source", source, WaitingSource.resume)
    if stop is not None and pause is not None and resume is not None:
        return AttachedSource(True, stop, pause, resume, tap, tuple(paths))
    methods = {"stop": stop, "pause": pause, "resume": resume}
    if has := [name for name, method in methods.items() if method is not None]:
        lacks = [name for name, method in methods.items() if method is None]
        raise UsageError(
            f"the source {_class(source)} has {' and '.join(has)} without {' and '.join(lacks)}; "
            "give it all three of stop, pause and resume (pipeline.contracts.WaitingSource), or none"
        )
    return AttachedSource(tap=tap, paths=tuple(paths))


def attach_stage(stage: Stage) -> AttachedStage:
    """See what a stage can.

    Raises:
        UsageError: it has no `process`, a method of a capability's name with other arguments, or `foresee` and does not
            say how many frames ahead.
    """
    process = _required("stage", stage, Stage.process)
    remember = _optional("stage", stage, RememberingStage.remember)
    foresee = _optional("stage", stage, ForeseeingStage.foresee)
    ahead = getattr(stage, "ahead", None) if foresee is not None else 0
    if not isinstance(ahead, int) or ahead < 0:
        raise UsageError(
            f"the stage {_class(stage)} has foresee and {ahead!r} for `ahead`; give it a number of frames from 0 on "
            "(pipeline.contracts.ForeseeingStage)"
        )
    return AttachedStage(_name(stage), process, remember, foresee, ahead, bool(getattr(stage, "takes_turns", False)))


def attach_sink(sink: Sink) -> AttachedSink:
    """See what a sink can.

    Raises:
        UsageError: it has no `consume`, or a method of a capability's name with other arguments.
    """
    return AttachedSink(
        _name(sink),
        _required("sink", sink, Sink.consume),
        _optional("sink", sink, AudioSink.consume_audio),
        _optional("sink", sink, DataSink.consume_data),
        _optional("sink", sink, FinishingSink.finish),
        _optional("sink", sink, EndingSink.end),
        _optional("sink", sink, StatusSink.status),
        _optional("sink", sink, ForgettingSink.forget),
    )


def _required(kind: str, part: object, wanted: Callable[Concatenate[Any, P], R]) -> Callable[P, R]:
    """The method that every part of its kind has; the names of its arguments are the part's own affair."""
    _check_made(kind, part)
    found = getattr(part, wanted.__name__, None)
    if not callable(found):
        raise UsageError(f"the {kind} {_class(part)} has no method {_shown(wanted)}; a {kind} is a class with it")
    _check_plain(kind, part, wanted.__name__)
    if not _takes(found, ["" for _ in _arguments(wanted)]):
        raise UsageError(
            f"the {kind} {_class(part)} has a method {wanted.__name__}{_signature(found)}, which cannot be called as "
            f"{_shown(wanted)}; give it this one argument"
        )
    return found  # type: ignore[no-any-return]  # looked up by name


def _optional(kind: str, part: object, wanted: Callable[Concatenate[Any, P], R]) -> Callable[P, R] | None:
    """The method of a capability, or None where there is none of its name."""
    found = getattr(part, wanted.__name__, None)
    if not callable(found):
        return None
    _check_plain(kind, part, wanted.__name__)
    if not _takes(found, _arguments(wanted)):
        raise UsageError(
            f"the {kind} {_class(part)} has a method {wanted.__name__}{_signature(found)}, but the runtime calls a "
            f"{kind}'s {_shown(wanted)}; rename the method, or give it these arguments (pipeline.contracts)"
        )
    return found  # type: ignore[no-any-return]  # looked up by name


def _check_made(kind: str, part: object) -> None:
    if isinstance(part, type):
        raise UsageError(f"{part.__qualname__} is a class, not a {kind}; give an object of it, {part.__qualname__}(…)")


def _check_plain(kind: str, part: object, name: str) -> None:
    if inspect.iscoroutinefunction(getattr(part, name)):
        raise UsageError(f"the {kind} {_class(part)} has `async def {name}`; nothing awaits it, make it a plain `def`")


def _arguments(wanted: Callable[..., object]) -> list[str]:
    """Names of a contract's arguments, without `self`."""
    return list(inspect.signature(wanted).parameters)[1:]


def _takes(found: Callable[..., object], arguments: Sequence[str]) -> bool:
    """Whether a method can be called with as many arguments, and those it names are of these names."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return True  # written in C, and does not say
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    by_place = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    own = [p.name.lstrip("_") for p in signature.parameters.values() if p.kind in by_place]
    return all("" in (name, wanted) or name == wanted for name, wanted in zip(own, arguments, strict=False))


def _signature(found: Callable[..., object]) -> str:
    return f"({', '.join(inspect.signature(found).parameters)})"


def _shown(wanted: Callable[..., object]) -> str:
    return f"{wanted.__name__}({', '.join(_arguments(wanted))})"


def _class(part: object) -> str:
    return type(part).__qualname__.rpartition(".")[2]


def _name(part: object) -> str:
    """What a stage or sink is timed as: its `name` if it has one, else its class'."""
    return str(getattr(part, "name", type(part).__name__))
