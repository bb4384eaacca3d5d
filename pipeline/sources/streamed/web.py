"""What is behind an HTTP address, a camera or a recording: its container says it, not how the address is spelt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Self

import av
from av.container import InputContainer
from msgspec.structs import replace

from engines.errors import SourceError
from pipeline.contracts import AudioPacket, DataPacket, Source, SourceCounts, StreamInfo
from pipeline.frame import Frame, Mode
from pipeline.packets import PacketTap
from pipeline.sources.decoding import Decoding
from pipeline.sources.live.address import LiveInput, LiveOptions, open_input
from pipeline.sources.live.camera import Camera
from pipeline.sources.live.faults import Fault
from pipeline.sources.reading import Reading
from pipeline.sources.realtime import RealtimeSource
from pipeline.sources.streamed.source import StreamedSource
from pipeline.state import StateChange

log = logging.getLogger(__name__)

_PLAYLISTS = frozenset({"hls", "dash"})
_ENDLESS = frozenset({"mpjpeg"})

_READ_TIMEOUT = 30.0
"""Seconds without a byte after which a recording counts as broken off: a server may be slow, and FFmpeg asks anew."""


def kind_of(container: InputContainer) -> tuple[Mode | None, str]:
    """What an open input is, and what says so: a recording has an end. None where nothing says whether it has one."""
    name = container.format.name
    seconds = (container.duration or 0) / av.time_base
    if name in _ENDLESS:
        return "live", "pictures one by one"
    if name in _PLAYLISTS:
        return ("file", "a playlist with an end") if seconds > 0 else ("live", "a playlist to which more is added")
    # Of an MP4 in fragments FFmpeg knows how long the first one is.
    if seconds > 0 and ("mp4" not in name or any(video.frames for video in container.streams.video)):
        return "file", f"{seconds:.1f} s long"
    if (container.size or 0) > 0:  # PyAV 19 gives None where nothing is known
        return "file", f"{container.size} bytes long"
    return None, ""


class WebSource:
    """A camera or a recording, which shows when it is opened.

    Args:
        stream_id: id of the stream.
        address: what is opened; credentials in it are never printed.
        reading: how it is read.

    Attributes:
        mode: `live` until it is known.

    Raises:
        SourceError: the address is none in the network.
    """

    def __init__(self, stream_id: str, address: str, reading: Reading) -> None:
        self.id = stream_id
        self._reading, self._decoding = reading, reading.decoding or Decoding(stream_id)
        self._options = reading.live or LiveOptions()
        self._camera = Camera(
            stream_id, address, self._options, decode_threads=reading.decode_threads, observe=self._tell,
            connect=self._connected, decoding=self._decoding,
        )  # fmt: skip
        self._source: Camera | StreamedSource | RealtimeSource = self._camera
        self._found: InputContainer | None = None
        self._is_live = False
        self.address, self.mode = self._camera.address, self._mode_of(self._camera)
        self.counts: SourceCounts = self._camera.counts

    @classmethod
    def from_address(cls, stream_id: str, address: str, reading: Reading) -> Self:
        """What is at an address in the network.

        Raises:
            SourceError: the address is none.
        """
        return cls(stream_id, address, reading)

    @staticmethod
    def _mode_of(source: Source) -> Mode:
        return source.mode

    @property
    def on_packet(self) -> PacketTap | None:
        """Who is told every compressed packet of a camera; may be set until the source is opened."""
        return self._camera.on_packet

    @on_packet.setter
    def on_packet(self, tap: PacketTap | None) -> None:
        self._camera.on_packet = tap

    @property
    def content(self) -> str:
        """Tells a recording from others, once it is open."""
        return self._source.content if isinstance(self._source, StreamedSource) else ""

    def stop(self) -> None:
        """End: a waiting `next` or `open` returns. Returns at once."""
        self._source.stop()

    def pause(self) -> None:
        """Rest until `resume`. Returns at once."""
        self._source.pause()

    def resume(self) -> None:
        """Go on. Returns at once."""
        self._source.resume()

    def open(self) -> StreamInfo:
        """Connect, and find out what it is.

        Raises:
            SourceError: it cannot be opened, or nothing says what it is.
        """
        try:
            return self._camera.open()
        except SourceError:
            if self._found is None:
                raise
        found, reading = self._found, self._reading
        recording = StreamedSource(
            self.id, self.address, lambda _abandoned: found, reading.decode_threads, reading.observe, self._decoding
        )
        self._source = recording
        if reading.realtime:
            self._source = RealtimeSource(recording, self._options.latency_bound, reading.observe)
        self.mode, self.counts = self._mode_of(self._source), self._source.counts
        return self._source.open()

    def __iter__(self) -> Iterator[Frame | AudioPacket | DataPacket]:
        return iter(self._source)

    def close(self) -> None:
        """End and let go of everything. Twice is allowed."""
        self._source.close()
        if self._source is not self._camera:
            self._camera.close()

    # From the camera ------------------------------------------------------------------------------------------------
    def _tell(self, change: StateChange) -> None:
        if self._found is None:
            self._reading.observe(change)

    def _connected(self, given: LiveInput, options: LiveOptions, abandoned: Callable[[], bool]) -> InputContainer:
        """Open what is there, in the camera's thread; a recording is none of the camera's."""
        if self._is_live:
            return open_input(given, options, abandoned, self._decoding)
        patient = replace(options, read_timeout=max(options.read_timeout, _READ_TIMEOUT))
        container = open_input(given, patient, abandoned, self._decoding)
        kind, why = kind_of(container)
        if self._reading.mode == "file" and kind != "live":
            kind, why = "file", "as it was told"
        if kind == "live":
            self._is_live = True
            return container
        if kind is None:
            container.close()
            raise Fault("unsupported", f"{given.name} {_UNDECIDED}")
        log.info("%s: %s is a recording (%s): every frame is read, once", self.id, given.name, why)
        self._found = container
        self._camera.stop()
        raise Fault("ended", "it is no camera")


_UNDECIDED = (
    "says neither how long it is nor that it goes on for ever; say what it is: --mode file (mode: file) for a "
    "recording, --mode live (mode: live) for a camera"
)
