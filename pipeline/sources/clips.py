"""Footage in: clips, trips of clips, folders of pictures, decoded in order into upright, blendable frames."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import av
import av.error
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from engines.containers import exact, why_unread
from engines.errors import SourceError
from pipeline.contracts import AudioPacket, Chapter, DataPacket, SourceCounts, StreamInfo
from pipeline.frame import Frame, Mode
from pipeline.pictures.fields import order_of
from pipeline.sources.best_effort import BestEffort
from pipeline.sources.damage import index_is_cut, missing
from pipeline.sources.decoding import Decoding
from pipeline.sources.normalizer import Normalizer
from pipeline.sources.pieces import Placing
from pipeline.sources.recording.extras import begins_with, chapters_of, data_signature, held, span
from pipeline.sources.recording.length import announced_frames, expected_frames, seconds
from pipeline.sources.recording.when import beginning, said
from pipeline.sources.timeline import Timeline
from pipeline.sources.trips.makers import recorded_at
from pipeline.sources.trips.tracks import chosen_track, picture_tracks, tracks_beside

log = logging.getLogger(__name__)

_LOOKED_AT = 12
"""Packets or pictures of a clip that are looked at to tell how fast it is, and whether its times can be believed."""


def open_clip(
    path: Path, decoding: Decoding | None = None, track: int | None = None
) -> tuple[InputContainer, VideoStream]:
    """Open a clip and pick a track of pictures: the one of that number, or the first that is a recording.

    Raises:
        SourceError: missing, unreadable, empty, or without such a track; the message starts with the path.
    """
    if not path.exists():
        raise SourceError(f"{path} does not exist; give a video file, a folder or glob of clips, or synthetic:")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes); a recording that was cut off at once? remove it or record again")
    try:
        container = (decoding or Decoding("")).open(path)
    except PermissionError:
        raise SourceError(f"{path} may not be read by this user; change its permissions") from None
    except av.error.InvalidDataError:
        raise SourceError(f"{path} cannot be opened: {missing(path)}") from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be opened: {why_unread(error)}") from None
    try:
        if not container.streams.video and index_is_cut(path):
            raise SourceError(f"{path} cannot be opened: {missing(path)}")
        return container, chosen_track(container, path, track)
    except BaseException:
        container.close()
        raise


def audio_signature(stream: AudioStream) -> str:
    """What must be alike for the packets of two sound tracks to follow each other in one."""
    context = stream.codec_context
    return f"{context.name} {context.sample_rate} {context.layout.name} {(context.extradata or b'').hex()}"


class Clip:
    """A clip, open for reading from its beginning.

    Args:
        path: the file.
        decoding: which decoder.
        decode_threads: threads of FFmpeg's decoder; 0 lets FFmpeg choose.
        track: number of its track of pictures; None for the first that is a recording.
        counts: where packets that do not decode are counted.

    Attributes:
        name: of it for people.
        video, audio: its tracks; sound of which nobody knows the codec is left out.
        others: its further tracks of pictures, in words; empty where there are none.
        first: its first picture.
        times: when its pictures are shown.
        rate: nominal frames a second.
        sample_aspect: how many times wider than high a pixel is, before the picture is turned.
        announced: frames that the container says it holds; 0 where it does not say.
        expected_frames: how many frames are likely, or None.
        frame_bytes: how many bytes of the file a frame takes, about; 0 where that is not known.
        recorded: when.
        end: when it is over by its own clock, seconds; None where it does not say.
        extras: what it holds beside pictures and sound.
        pictures: decoded so far.
        ended_early: why it could not be read to its end; empty where it could.
        broke_off: whether that is for no damage of its own: what it is read from gave no more.

    Raises:
        SourceError: it cannot be opened, or holds no picture.
    """

    def __init__(
        self, path: Path, decoding: Decoding, decode_threads: int, counts: SourceCounts, track: int | None = None
    ) -> None:
        self.path, self.name = path, str(path)
        self._threads, self._counts = decode_threads, counts
        self.times, self.others = BestEffort(), ""
        stamps = self._open(decoding, track)
        self.audio = tuple(s for s in self._container.streams.audio if s.codec_context is not None)
        self.extras = held(self._container, self.video)
        self._begins = None if self.first.pts is None else self.first.pts * exact(self.first.time_base, Fraction(1))
        if len(self.audio) < len(self._container.streams.audio):
            log.warning("%s: a sound track is of a codec that FFmpeg does not know; it is left out", path)
        self.rate = frame_rate(self.video, stamps)
        self.sample_aspect = exact(self.video.sample_aspect_ratio, Fraction(1))
        self.announced = announced_frames(self._container, self.video)
        self.expected_frames = expected_frames(self._container, self.video, self.rate, self.frame_bytes)
        tags = [self._container.metadata, *(stream.metadata for stream in self._container.streams)]
        length = seconds(self._container, self.video, self.rate, self.frame_bytes) or 0
        self.recorded = beginning(path, tags, float(length), recorded_at)
        own = span(self._container, self.video)
        self.end = None if own is None else own[0] + own[1]
        self.pictures = self._trimmed = self._empty = 0
        self.ended_early, self.broke_off = "", False

    @property
    def missing(self) -> int:
        """Frames that the container announces and that neither came nor are accounted for."""
        return self.announced - self.pictures - self._trimmed - self._empty if self.announced else 0

    def _open(self, decoding: Decoding, track: int | None, /) -> list[Fraction]:
        """Open it, and look at how it begins; the times of its first packets, in seconds."""
        self._container, self.video = open_clip(self.path, decoding, track)
        with self._container:
            self.others = tracks_beside(picture_tracks(self._container, self.path), self.path, self.video)
            self._configure()
            self.first, stamps = self._look(self._container.demux(self.video))
        # What looking consumed is read once more.
        self._container, self.video = open_clip(self.path, decoding, track)
        self._configure()
        return stamps

    def _demux(self, wanted: Sequence[Any]) -> Iterator[Packet[Any]]:
        """The packets of some of its tracks, from its beginning."""
        return self._container.demux(*wanted)

    def _configure(self) -> None:
        if self._threads:
            self.video.thread_count = self._threads
        self.video.thread_type = "AUTO"
        self.video.codec_context.flags |= Flags.copy_opaque

    def _look(self, packets: Iterator[Packet[Any]]) -> tuple[av.VideoFrame, list[Fraction]]:
        """The first picture, and the times of the first packets, in seconds. Enough pictures are decoded to know
        whether their presentation times can be believed."""
        first: av.VideoFrame | None = None
        stamps: list[Fraction] = []
        decoded = read = furthest = 0
        wanted = _LOOKED_AT if self._container.format.name == "avi" else 1  # AVI knows no presentation times
        while decoded < wanted or (len(stamps) < _LOOKED_AT and read < 4 * _LOOKED_AT):
            images: list[av.VideoFrame] = []
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                if packet.stream is not self.video:
                    continue
                if decoded < wanted and (packet.size or packet.dts is None):
                    images = packet.decode()
            except (av.error.FFmpegError, IndexError) as error:
                log.debug("%s: %s", self.name, error)
                continue
            stamp = packet.dts if packet.pts is None else packet.pts
            if packet.size and stamp is not None:
                stamps.append(stamp * exact(packet.time_base, Fraction(1)))
                furthest = max(furthest, packet.pos or 0)
            for image in images:
                self.times.of(image.pts, image.dts)
            first = first or next(iter(images), None)
            decoded, read = decoded + len(images), read + 1
        if first is None:
            raise SourceError(f"{self.name} holds no picture that can be decoded")
        self.times.restart()
        self.frame_bytes = furthest / len(stamps) if stamps else 0.0
        return first, stamps

    def packets(self, tracks: Container[int]) -> Iterator[Packet[Any]]:
        """The packets of the pictures, and of the sound and data whose streams' indices are in `tracks`, as they stand
        in the file. What the recording says is trimmed off is left out; of pictures, whose decoder needs it, by the
        decoder.
        """
        video = self.video
        wanted: list[Any] = [video, *(stream for stream in (*self.audio, *self.extras.data) if stream.index in tracks)]
        packets = self._demux(wanted)
        heard: set[int] = set()
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                self._counts.decode_errors += 1
                self.ended_early = why_unread(error)  # what was read so far is good
                self.broke_off = not isinstance(error, av.error.InvalidDataError)
                return
            except IndexError:
                # PyAV comes to the end with more streams than the file had when it was opened.
                log.warning("%s: a track begins in the middle of the file; it is left out", self.name)
                return
            if packet is None:
                return
            # Packets without data are PyAV's for flushing, of whatever index, or stand for a repeated picture; to the
            # decoder either would be the end.
            if packet.stream is video:
                self._trimmed += packet.is_discard
                self._empty += not packet.size and packet.dts is not None
                if packet.size:
                    yield packet
            elif packet.size and packet.stream.type != "audio":
                if not packet.is_discard and begins_with(packet, self._begins):
                    yield packet
            elif packet.size:
                first = packet.stream.index not in heard
                heard.add(packet.stream.index)
                if not packet.is_discard or (first and _primes(packet)):
                    yield packet

    def decode(self, packet: Packet[Any]) -> list[av.VideoFrame]:
        """The pictures that a packet brings out of the decoder."""
        try:
            images: list[av.VideoFrame] = packet.decode()
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self._counts.decode_errors += 1
            log.debug("%s: a packet does not decode: %s", self.name, error)
            return []
        self.pictures += len(images)
        return images

    def drain(self) -> list[av.VideoFrame]:
        """The pictures that the decoder still holds at the end."""
        try:
            images = self.video.decode(None)
        except av.error.FFmpegError:
            return []
        self.pictures += len(images)
        return images

    def close(self) -> None:
        self._container.close()


def _primes(packet: Packet[Any]) -> bool:
    """Whether a trimmed packet at the beginning of a track is the one that an audio decoder needs before the first
    sound: it ends where that begins."""
    return packet.pts is not None and packet.pts + 2 * (packet.duration or 0) > 0 >= packet.pts + (packet.duration or 0)


def frame_rate(video: VideoStream, stamps: Sequence[Fraction]) -> Fraction:
    """Nominal frames a second of a track: what it announces, unless the times of its first packets, in seconds, say
    something else altogether: an average over a recording with pauses is no rate.
    """
    announced = exact(video.average_rate or video.guessed_rate, Fraction(0))
    ordered = sorted(set(stamps))
    steps = sorted(after - before for before, after in pairwise(ordered))
    if not steps:
        return announced or Fraction(25)
    measured = 1 / max(steps[len(steps) // 2], Fraction(1, 1000))
    if announced and 0.5 < measured / announced < 2:
        return announced
    nearest = Fraction(round(measured))
    if nearest and abs(measured / nearest - 1) < 0.01:
        return nearest
    return measured.limit_denominator(1001) or announced or Fraction(25)


class ClipSource:
    """One video file, or several as one trip: clip follows clip on one timeline, broken clips are skipped and counted.

    Args:
        stream_id: id of the stream.
        paths: the clips, in order.
        decode_threads: threads of FFmpeg's decoder; 0 lets FFmpeg choose.
        monotonic: monotonic clock in seconds.
        decoding: which decoder; the CPU's unless given.
        track: number of the clips' track of pictures, from 1; None for the first that is a recording.
    """

    mode: Mode = "file"

    def __init__(
        self,
        stream_id: str,
        paths: Sequence[Path],
        decode_threads: int = 1,
        monotonic: Callable[[], float] = time.monotonic,
        decoding: Decoding | None = None,
        track: int | None = None,
    ) -> None:
        self.id, self.paths = stream_id, tuple(paths)
        self._decoding = decoding or Decoding(stream_id)
        self.address = str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} clips)"
        self.counts = SourceCounts()
        self._track, self._said_others = track, False
        self._decode_threads, self._monotonic = decode_threads, monotonic
        self._clip: Clip | None = None
        self._remaining: list[Path] = []
        self._normalize = Normalizer(stream_id)
        self._timeline: Timeline | None = None
        self._audio_layout: tuple[str, ...] = ()
        self._data_layout: tuple[str, ...] = ()
        self._index = 0
        self._first_time: float | None = None

    # Opening --------------------------------------------------------------------------------------------------------
    def open(self) -> StreamInfo:
        self._remaining = list(self.paths)
        if not self._open_next():
            if len(self.paths) == 1:
                raise SourceError(self.counts.skipped_clips[0][1])
            name, reason = self.counts.skipped_clips[0]
            raise SourceError(
                f"none of the {len(self.paths)} clips of stream {self.id!r} can be used; the first, {name}: {reason}"
            )
        clip = self._current()
        log.info("%s: recorded %s", self.id, said(clip.recorded))
        # The size of what will be yielded is known for sure only from a decoded frame (rotation, cropping).
        upright = self._normalize(clip.first, clip.sample_aspect)
        time_base = exact(clip.video.time_base, Fraction(1, av.time_base))
        self._timeline = Timeline(time_base, round(1 / clip.rate / time_base))
        self._audio_layout = tuple(map(audio_signature, clip.audio))
        self._data_layout = tuple(map(data_signature, clip.extras.data))
        expected, chapters = self._ahead(clip)
        info = StreamInfo.of(upright, time_base, clip.rate, expected, clip.audio)
        info.extras = replace(clip.extras, chapters=tuple(chapters))
        info.sample_aspect = self._normalize.sample_aspect
        if not self._normalize.turned:
            info.field_order = order_of(clip.first)
        return info

    def _open_next(self) -> bool:
        """Open the next clip that gives a picture; False when there is none left."""
        while self._remaining:
            path = self._remaining.pop(0)
            try:
                clip = Clip(path, self._decoding, self._decode_threads, self.counts, self._track)
            except SourceError as error:
                self.counts.skipped_clips.append((path.name, str(error)))
                if len(self.paths) > 1:
                    log.warning("%s: clip skipped: %s", self.id, error)
                continue
            self._decoding.check(clip.first)
            self._clip = clip
            if self._track is None and clip.others and not self._said_others:
                self._said_others = True
                log.info("%s: %s", self.id, clip.others)
            self.counts.recorded.append(clip.recorded)
            return True
        return False

    def _ahead(self, clip: Clip) -> tuple[int | None, list[Chapter]]:
        """How many frames are likely in all clips, None where one does not say, and their chapters on the line."""
        total, chapters, end = clip.expected_frames, [*clip.extras.chapters], clip.end
        for path in self._remaining:
            try:
                container, video = open_clip(path, track=self._track)
            except SourceError:
                continue
            with container:
                expected, own = expected_frames(container, video, clip.rate, clip.frame_bytes), span(container, video)
                if end is not None and own is not None:
                    chapters += chapters_of(container, end - own[0])
                    end += own[1]
                else:
                    end = None
            total = None if expected is None or total is None else total + expected
        return total, chapters

    def _current(self) -> Clip:
        if self._clip is None:
            raise RuntimeError(f"source {self.id!r} is not open")
        return self._clip

    # Reading --------------------------------------------------------------------------------------------------------
    def __iter__(self) -> Iterator[Frame | AudioPacket | DataPacket]:
        while True:
            yield from self._read_clip()
            self._current().close()
            if not self._open_next():
                return

    def _line(self) -> Timeline:
        if self._timeline is None:
            raise RuntimeError(f"source {self.id!r} is not open")
        return self._timeline

    def _tracks(self, clip: Clip) -> tuple[dict[int, int], dict[int, int]]:
        """The sound and the data that are read of a clip: the number of each track by its stream's index."""
        sound = {stream.index: track for track, stream in enumerate(clip.audio)}
        if tuple(map(audio_signature, clip.audio)) != self._audio_layout:
            log.warning("%s: %s has other audio tracks than the first clip; its sound is left out", self.id, clip.name)
            sound = {}
        own = tuple(map(data_signature, clip.extras.data))
        data = {stream.index: track for track, stream in enumerate(clip.extras.data)}
        if own != self._data_layout:
            log.warning("%s: %s has other tracks of text or data than the first clip; its own are left out",
                        self.id, clip.name)  # fmt: skip
            data = {}
        return sound, data

    def _read_clip(self) -> Iterator[Frame | AudioPacket | DataPacket]:
        clip = self._current()
        sound, data = self._tracks(clip)
        self._first_time = None
        placing = Placing(self._line(), first_clip=self._index == 0)
        for packet in clip.packets({*sound, *data}):
            if packet.stream_index in data:  # too sparse to tell a clock by
                yield from placing.beside(DataPacket(data[packet.stream_index], packet), placing.pieces.newest)
                continue
            piece = placing.pieces.of(packet.stream_index, _decoding_time(packet))
            if packet.stream_index == clip.video.index:
                packet.opaque = piece
                for image in clip.decode(packet):
                    yield from self._frame(clip, image, placing)
            else:
                item = AudioPacket(sound[packet.stream_index], cast("Packet[AudioStream]", packet))
                yield from placing.beside(item, piece)
        for image in clip.drain():
            yield from self._frame(clip, image, placing)
        self._balance(clip, placing)

    def _frame(self, clip: Clip, image: av.VideoFrame, placing: Placing) -> Iterator[Frame | AudioPacket | DataPacket]:
        line = self._line()
        upright = self._normalize(image, clip.sample_aspect)
        time_base = exact(image.time_base, line.time_base)
        pts = placing.picture(image.opaque, clip.times.of(image.pts, image.dts), time_base, image.duration)
        yield from placing.released()
        self.counts.resets = line.resets
        duration = round(image.duration * time_base / line.time_base)
        time = float(pts * line.time_base)
        self._first_time = time if self._first_time is None else self._first_time
        captured = clip.recorded.at + time - self._first_time
        yield Frame(
            self.id, self._index, pts, line.time_base, captured, self._monotonic(), upright, duration, clip.recorded.by
        )
        self._index += 1

    def _balance(self, clip: Clip, placing: Placing) -> None:
        """Say what a clip did not give of what it announces."""
        if clip.ended_early:
            log.warning("%s: %s ends early: %s", self.id, clip.name, clip.ended_early)
        if clip.missing > 0:
            self.counts.missing += clip.missing
            log.warning(
                "%s: %s announces %d pictures, and %d came out of it: it is cut off or damaged",
                self.id, clip.name, clip.announced, clip.pictures,
            )  # fmt: skip
        if placing.waiting:
            log.warning(
                "%s: %s holds %d packets of sound or data at times without pictures; they are left out",
                self.id, clip.name, len(placing.waiting),
            )  # fmt: skip

    def close(self) -> None:
        if self._clip is not None:
            self._clip.close()
            self._clip = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _decoding_time(packet: Packet[Any]) -> float | None:
    """When a packet is to be decoded, seconds; of sound, which is not reordered, any time will do."""
    stamp = packet.pts if packet.dts is None and packet.stream.type == "audio" else packet.dts
    return None if stamp is None else float(stamp * exact(packet.time_base, Fraction(1)))
