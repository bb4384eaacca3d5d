"""The streams of a session: each with what was made for it, and all that are there now by their ids."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from engines.errors import RoadlensError, UsageError
from pipeline.addresses import strip_credentials
from pipeline.capabilities import AttachedSource
from pipeline.config import StreamConfig, StreamId
from pipeline.contracts import Source, StreamInfo
from pipeline.drawing.overlay import OverlayStage
from pipeline.outputs.event_clip import EventRing
from pipeline.outputs.live.browser import BrowserView
from pipeline.outputs.live.output import LiveOutput
from pipeline.runtime.placement import Berth
from pipeline.sources.resolve import Part, look_at, stream_name
from pipeline.state import StateChange

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False, weakref_slot=True)
class RunningStream:
    """A stream of a session.

    Attributes:
        id: its id.
        config: what it was asked to be.
        source: where its frames come from; None where the address stands for nothing.
        attached: what the source can.
        change: the state entered last.
        info: what opening the source said; None until then.
        overlay: what draws its pictures; None where nothing is drawn.
        output: its live outputs; None where there are none.
        browsers: what a server's browsers get of them; None where there are none.
        ring: its newest packets, to be saved; None where none are kept.
        paused: whether it was told to rest.
        removed: whether it was told to go.
        berth: which device looks at it; None where the address stands for nothing.
    """

    id: str
    config: StreamConfig
    source: Source | None
    change: StateChange
    berth: Berth | None = None
    attached: AttachedSource = field(default_factory=AttachedSource)
    info: StreamInfo | None = None
    overlay: OverlayStage | None = None
    output: LiveOutput | None = None
    browsers: BrowserView | None = None
    ring: EventRing | None = None
    paused: bool = False
    removed: bool = False
    resources: ExitStack = field(default_factory=ExitStack)


class Streams:
    """The streams that are there now. Any thread may read; whoever changes them holds a lock of the session's.

    Attributes:
        by_id: the streams by id; replaced by another mapping where a stream comes or goes, and never changed.
        going: ids of streams that were taken out and are not closed yet.
        coming: ids of streams whose sources are being looked for.
    """

    def __init__(self) -> None:
        self.by_id: dict[str, RunningStream] = {}
        self.going: set[str] = set()
        self.coming: set[str] = set()

    def put(self, stream: RunningStream) -> None:
        """Add a stream, in place of another one of its id."""
        self.by_id = {**self.by_id, stream.id: stream}

    def take_out(self, stream: RunningStream) -> None:
        """Take out a stream, but no other one of its id."""
        self.by_id = {name: other for name, other in self.by_id.items() if other is not stream}

    def named(self, name: str) -> RunningStream:
        """The stream of that id.

        Raises:
            UsageError: there is none.
        """
        streams = self.by_id
        if name not in streams:
            raise UsageError(f"there is no stream {name!r}; the streams are: {', '.join(streams) or 'none'}")
        return streams[name]

    @property
    def taken(self) -> set[str]:
        """The ids that no further stream may have."""
        return {*self.by_id, *self.going, *self.coming}

    def close(self) -> None:
        """Stop every source, and close what was opened for its stream."""
        for stream in self.by_id.values():
            stream.removed = True
            stream.attached.stop()  # one that is still being opened is not the runtime's, and would try for ever
            stream.resources.close()


def cameras_of(streams: Iterable[StreamConfig]) -> list[StreamConfig]:
    """As `parted`, and a stream as it is where that fails: opening it says why."""
    found: list[StreamConfig] = []
    for stream in streams:
        try:
            found += parted([stream])[0]
        except RoadlensError:
            found.append(stream)
    return found


def parted(streams: Iterable[StreamConfig], *, single: bool = False) -> tuple[tuple[StreamConfig, ...], list[Path]]:
    """The streams, one for each camera and track of pictures of a source where it has several and none is named. What
    is found is said.

    Args:
        streams: as they are asked for.
        single: whether each must be one.

    Returns:
        The streams, and all footage that is where they read.

    Raises:
        RoadlensError: a source's files are not there or cannot be told apart, or it has no such camera, or several.
    """
    found: list[StreamConfig] = []
    there: list[Path] = []
    for stream in streams:
        try:
            parts, sentences, footage = look_at(stream.source, stream.camera, stream.track)
        except (OSError, ValueError, RuntimeError):
            parts, sentences, footage = [], [], []  # opening it says what is wrong with its name
        there += footage
        if single and len(parts) > 1:
            names = ", ".join(part.name for part in parts)
            shown = strip_credentials(stream.source)
            raise UsageError(f"{shown} is {len(parts)} streams ({names}); name one by its `camera` or `track`")
        for sentence in sentences:
            log.info("%s", sentence)
        if len(parts) < 2:
            found.append(stream)
            continue
        for part in parts:
            name = None if stream.id is None else f"{stream.id[: 63 - len(part.name)]}-{part.name}"
            found.append(msgspec.structs.replace(stream, id=name, camera=part.camera, track=part.track))
    return tuple(found), there


def config_of(source: Source) -> StreamConfig:
    """What a stream is asked to be that has one's own source: what the source says of itself.

    Raises:
        UsageError: the source's id goes into no file name.
    """
    try:
        name = msgspec.convert(source.id, StreamId)
    except msgspec.ValidationError:
        raise UsageError(
            f"the source {type(source).__name__} has the id {source.id!r}; give it one of letters, digits, dots, "
            "hyphens and underscores that begins with a letter or digit, 64 at most"
        ) from None
    return StreamConfig(str(source.address), name)


def unique_names(streams: Sequence[StreamConfig], others: Iterable[str] = ()) -> list[str]:
    """An id for every stream: its own, or made of its source and numbered where that is taken.

    Raises:
        UsageError: two streams ask for one id.
    """
    own = [s.id for s in streams if s.id is not None]
    for name in own:
        if own.count(name) > 1:
            raise UsageError(f"the stream id {name!r} is given twice; every stream needs one of its own")
    taken = {*others, *own}
    names = []
    for stream in streams:
        name = stream.id or free_name(stream_name(stream.source, Part(stream.camera, stream.track).name), taken)
        taken.add(name)
        names.append(name)
    return names


def free_name(made: str, taken: Collection[str]) -> str:
    """An id that was made of a source, numbered where it is taken.

    >>> free_name("front", {"front", "front-2"})
    'front-3'
    """
    name, number = made, 2
    while name in taken:
        name = f"{made}-{number}"
        number += 1
    return name
