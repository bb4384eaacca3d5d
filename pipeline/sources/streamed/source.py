"""A recording that is read once, as it comes: every frame, in order, to its end."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, cast

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from engines.containers import recorded_streams
from engines.errors import SourceError
from pipeline.contracts import AudioPacket, DataPacket, SourceCounts, StreamInfo
from pipeline.frame import Frame
from pipeline.sources.clips import Clip, ClipSource
from pipeline.sources.decoding import Decoding
from pipeline.sources.pieces import Placing
from pipeline.sources.recording.extras import held
from pipeline.sources.streamed.steered import Steered
from pipeline.state import SourceState, StateChange

log = logging.getLogger(__name__)

_GAP = 1.0
"""Seconds between two pictures of a playlist that are a segment which could not be read."""


class StreamedClip(Clip):
    """A clip that cannot be read a second time: what was looked at is kept.

    Args:
        name: of it for people.
        container: the clip, open; it is closed where it holds no picture.
        decode_threads: threads of FFmpeg's decoder; 0 lets FFmpeg choose.
        counts: where packets that do not decode are counted.

    Attributes:
        content: tells its beginning from others'.
        seconds: how long a playlist says that it is; 0 for what is none.

    Raises:
        SourceError: it holds no picture.
    """

    def __init__(self, name: str, container: InputContainer, decode_threads: int, counts: SourceCounts) -> None:
        self._given, self._shown = container, name
        self._kept: list[Packet[Any]] = []
        self._failure: av.error.FFmpegError | None = None
        super().__init__(Path(name.partition("?")[0]), Decoding(""), decode_threads, counts)
        self.name = name
        self.seconds = (container.duration or 0) / av.time_base if container.format.name == "hls" else 0.0
        data = b"".join(bytes(packet) for packet in self._kept)
        self.content = hashlib.sha256(data + str((container.size, container.duration)).encode()).hexdigest()

    def _open(self, _decoding: Decoding, _track: int | None, /) -> list[Fraction]:
        self._container, self.name = self._given, self._shown
        try:
            self.video = self._picture_track()
            self._configure()
            sound = [s for s in self._container.streams.audio if s.codec_context is not None]
            data = held(self._container, self.video).data
            self._packets = self._container.demux(self.video, *sound, *data)
            try:
                self.first, stamps = self._look(self._keeping())
            except SourceError:
                raise SourceError(self._without_picture()) from None
        except BaseException:
            self._container.close()
            raise
        self.video.codec_context.flush_buffers()
        return stamps

    def _picture_track(self) -> VideoStream:
        """The first track of pictures that can be decoded; telling several apart would take a second look."""
        tracks = [s for s in recorded_streams(self._given) if cast("object | None", s.codec_context) is not None]
        if not tracks:
            kinds = ", ".join(sorted({stream.type for stream in self._given.streams})) or "nothing"
            raise SourceError(f"{self.name} has no video track that can be read (it holds {kinds}); give another")
        if len(tracks) > 1:
            self.others = (
                f"of {self.name} the first of {len(tracks)} video tracks is read; to choose, give the file itself"
            )
        return tracks[0]

    def _keeping(self) -> Iterator[Packet[Any]]:
        try:
            for packet in self._packets:
                self._kept.append(packet)
                yield packet
        except av.error.FFmpegError as error:
            self._failure = error

    def _demux(self, wanted: Sequence[Any]) -> Iterator[Packet[Any]]:
        indices = {stream.index for stream in wanted}
        kept, self._kept = self._kept, []
        for packet in chain(kept, self._rest()):
            if packet.stream_index in indices:
                yield packet

    def _rest(self) -> Iterable[Packet[Any]]:
        if self._failure is not None:
            raise self._failure
        return self._packets

    def _without_picture(self) -> str:
        if "mp4" in self._given.format.name:
            return (
                f"{self.name} has its index at its end, or is cut off, and cannot be read from there; give the file "
                "itself, or move the index to its beginning: ffmpeg -i in.mp4 -c copy -movflags +faststart out.mp4"
            )
        return f"{self.name} holds no picture that can be decoded"


class StreamedSource(Steered, ClipSource):
    """A stream that is a recording which comes from elsewhere. It waits for whoever sends it, as a camera does.

    Args:
        stream_id: id of the stream.
        name: what it is read from, for people.
        connect: opens it; asked a few times a second, its argument says whether nobody waits any more.
        decode_threads: threads of FFmpeg's decoder; 0 lets FFmpeg choose.
        observe: told every change of state; must not wait.
        decoding: which decoder; the CPU's unless given.
    """

    def __init__(
        self,
        stream_id: str,
        name: str,
        connect: Callable[[Callable[[], bool]], InputContainer],
        decode_threads: int = 1,
        observe: Callable[[StateChange], None] = lambda _change: None,
        decoding: Decoding | None = None,
    ) -> None:
        super().__init__(stream_id, [Path(name)], decode_threads, decoding=decoding)
        self.address, self.paths = name, ()
        self._connect, self._opened = connect, False
        self._steered(observe)
        self._first_time: float | None = None
        self._last_time: float | None = None

    @property
    def content(self) -> str:
        """Tells what is read from other recordings, once it is open."""
        return self._clip.content if isinstance(self._clip, StreamedClip) else ""

    # Opening and iterating ------------------------------------------------------------------------------------------
    def open(self) -> StreamInfo:
        self._say(SourceState.CONNECTING)
        return super().open()

    def _open_next(self) -> bool:
        if self._opened:
            return False
        self._opened = True
        container = self._connect(lambda: self._stopped)
        clip = StreamedClip(self.address, container, self._decode_threads, self.counts)
        self._decoding.check(clip.first)
        self._clip = clip
        return True

    def __iter__(self) -> Iterator[Frame | AudioPacket | DataPacket]:
        for item in super().__iter__():
            if self._paused:
                self._rest()
            if self._stopped:
                break
            if isinstance(item, Frame):
                if item.index == 0:
                    self._say(SourceState.STREAMING)
                self._look_for_gap(item.time)
            yield item
        self._end()

    def _look_for_gap(self, time: float) -> None:
        """Count what a playlist lacks: FFmpeg goes on with the next segment where one cannot be had."""
        last, self._last_time = self._last_time, time
        if last is None:
            self._first_time = time
        elif self._seconds and time - last > _GAP:
            self._count_gap(time - last, f"{last:.1f} s")

    def _count_gap(self, seconds: float, where: str) -> None:
        missing = max(round(seconds * self._current().rate) - 1, 1)
        self.counts.missing += missing
        log.warning(
            "%s: %s gives no pictures for %.1f s from %s on, about %d of them: a segment could not be read",
            self.id, self.address, seconds, where, missing,
        )  # fmt: skip

    @property
    def _seconds(self) -> float:
        return self._clip.seconds if isinstance(self._clip, StreamedClip) else 0.0

    def _balance(self, clip: Clip, placing: Placing) -> None:
        if self._stopped:
            return
        super()._balance(clip, placing)
        if self._seconds and self._first_time is not None and self._last_time is not None:
            short = self._seconds - (self._last_time - self._first_time)
            if short > _GAP:
                self._count_gap(short, "its beginning or its end")
        if clip.broke_off:
            raise SourceError(
                f"{clip.name} broke off behind {clip.pictures} pictures ({clip.ended_early}); what came up to there is "
                "written. Run it again, or fetch the file first"
            )

    def close(self) -> None:
        self.stop()
        super().close()
        if self._opened:
            self._end()
