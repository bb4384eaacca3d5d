"""How a source is to be read: what a stream's configuration and the run say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

from pipeline.contracts import Source
from pipeline.sources.decoding import Decoding
from pipeline.sources.live.address import LiveOptions
from pipeline.state import StateChange

Wanted = Literal["auto", "file", "live"]
"""What a source is to be read as: a recording, a camera, or what it shows itself to be."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source is to be read; each takes what concerns it.

    Attributes:
        decode_threads: threads of the decoder.
        rate: frames a second of what has no time of its own.
        live: how a live source is read; None for as usual.
        observe: told the changes of state of a source that waits, from its threads; must not wait.
        decoding: which decoder; the CPU's unless given.
        mode: what it is to be read as.
        realtime: play what turns out to be a recording as if it were a camera's.
        camera: whose clips of a folder; None where there is one camera's alone.
        track: which track of pictures of a clip, from 1; None for the first one that is no preview.
    """

    decode_threads: int = 1
    rate: Fraction = Fraction(25)
    live: LiveOptions | None = None
    observe: Callable[[StateChange], None] = lambda _change: None
    decoding: Decoding | None = None
    mode: Wanted = "auto"
    realtime: bool = False
    camera: str | None = None
    track: int | None = None


class AddressedSource(Protocol):
    """A class of sources that addresses stand for; see `pipeline.sources.resolve.SCHEMES`."""

    def from_address(self, stream_id: str, address: str, reading: Reading, /) -> Source:
        """The source that an address stands for, not yet open.

        Raises:
            RoadlensError: the address stands for nothing.
        """
        ...
