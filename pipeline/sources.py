"""Footage in: clips, trips of clips, folders of pictures, decoded in order into upright, blendable frames."""

from __future__ import annotations

import glob
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, cast
from urllib.parse import urlsplit

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from engines.errors import SourceError
from pipeline.decoding import Decoding
from pipeline.frame import Frame, Mode
from pipeline.picture import ColorTags, blendable_format, converted, on_device, pixel_format, rotated, stays_on_device
from pipeline.redact import strip_credentials
from pipeline.state import StateChange
from pipeline.synthetic import SCHEME, SyntheticOptions, as_video_frame, parse_synthetic
from pipeline.timeline import Timeline

if TYPE_CHECKING:
    from pipeline.live_input import LiveOptions

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".flv", ".wmv",
    ".3gp", ".ogv", ".mjpeg", ".mjpg", ".h264", ".264", ".hevc", ".h265", ".265", ".asf", ".vob", ".dav",
    ".insv", ".lrv", ".mxf", ".nut", ".y4m", ".gif",
})  # fmt: skip
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class AudioPacket:
    """A compressed audio packet on its way past the models, timestamps already on the stream's timeline.

    `track` numbers the audio tracks of the stream from 0.
    """

    track: int
    packet: Packet[AudioStream]

    @property
    def time(self) -> float:
        """When it is heard, in seconds; before everything where the packet does not say."""
        pts, time_base = self.packet.pts, self.packet.time_base
        return float("-inf") if pts is None else float(pts * time_base)


@dataclass(slots=True)
class StreamInfo:
    """What is known of a stream once it is open.

    Attributes:
        width, height: size of every frame it yields, upright, in pixels.
        pixel_format: pixel format of every frame it yields.
        time_base: seconds a timestamp unit.
        rate: nominal frames a second, for display and key-frame distance; timestamps rule.
        expected_frames: how many frames the container announces, or None.
        audio: templates of the audio tracks, valid while the source is open.
        color: what the pictures say of their colours.
        latency_bound: seconds beyond which a picture is dropped rather than given out; None for a file.
    """

    width: int
    height: int
    pixel_format: str
    time_base: Fraction
    rate: Fraction
    expected_frames: int | None
    audio: tuple[AudioStream, ...] = ()
    color: ColorTags = field(default_factory=ColorTags)
    latency_bound: float | None = None

    @classmethod
    def of(
        cls,
        image: av.VideoFrame,
        time_base: Fraction,
        rate: Fraction,
        expected_frames: int | None,
        audio: tuple[AudioStream, ...] = (),
    ) -> Self:
        """What the first frame, as it will be yielded, and the container say."""
        size = image.width, image.height
        return cls(*size, pixel_format(image), time_base, rate, expected_frames, audio, ColorTags.of(image))


@dataclass(slots=True)
class SourceCounts:
    """What happened while reading.

    Attributes:
        decode_errors: packets that did not decode.
        skipped_clips: clips left out, name and reason.
        resets: timestamps that began anew.
        dropped: frames that were decoded, counted by their index and dropped before anybody got them, by reason.
    """

    decode_errors: int = 0
    skipped_clips: list[tuple[str, str]] = field(default_factory=list)
    resets: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


class Source(Protocol):
    """A stream of frames. Opened once, iterated once by one thread, closed once."""

    id: str
    address: str
    mode: Mode
    counts: SourceCounts

    def open(self) -> StreamInfo:
        """Open it and say what it is.

        Raises:
            SourceError: it cannot be opened or holds no picture.
        """
        ...

    def __iter__(self) -> Iterator[Frame | AudioPacket]: ...

    def close(self) -> None: ...


def natural_order(path: Path) -> tuple[tuple[int, int, str], ...]:
    """A sort key under which clip_2 stands before clip_10."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name.lower())
    )


class Normalizer:
    """Makes every frame of a stream upright, of one size and of one blendable pixel format."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shape: tuple[int, int, str] | None = None
        self._said: set[str] = set()

    def __call__(self, image: av.VideoFrame) -> av.VideoFrame:
        # The display matrix's sense is counter-clockwise positive in PyAV, clockwise to turn upright.
        if image.rotation % 360:
            image = rotated(image, image.rotation)
        if self.shape is None:
            chosen = blendable_format(pixel_format(image), image.width, image.height)
            self.shape = (image.width, image.height, chosen)
        width, height, chosen = self.shape
        own = pixel_format(image)
        if (image.width, image.height, own) == self.shape and (stays_on_device(image) or not on_device(image)):
            return image
        if (image.width, image.height) != (width, height):
            self._say(
                f"the picture size changes to {image.width}×{image.height}; frames are scaled to {width}×{height}"
            )
        else:
            self._say(f"{own} pictures are converted to {chosen}")
        return converted(image, chosen, width, height)

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.info("%s: %s", self.name, what)


def _reason(error: Exception) -> str:
    """What FFmpeg says went wrong, without its code and the path."""
    if isinstance(error, av.error.InvalidDataError):
        return "not a video file FFmpeg can read, or damaged at its head"
    if isinstance(error, av.error.FFmpegError):
        return (error.strerror or str(error)).rstrip(".").lower()
    return str(error)


def _open_clip(path: Path, decoding: Decoding | None = None) -> tuple[InputContainer, VideoStream]:
    """Open a clip and pick its picture track; cover art does not count.

    Raises:
        SourceError: missing, unreadable, empty, or without a picture track; the message starts with the path.
    """
    if not path.exists():
        raise SourceError(f"{path} does not exist; give a video file, a folder or glob of clips, or synthetic:")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes); a recording that was cut off at once? remove it or record again")
    try:
        container = (decoding or Decoding("")).open(str(path))
    except PermissionError:
        raise SourceError(f"{path} may not be read by this user; change its permissions") from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be opened: {_reason(error)}") from None
    pictures = [s for s in container.streams.video if not int(s.disposition) & int(av.stream.Disposition.attached_pic)]
    if not pictures or pictures[0].codec_context is None:
        tracks = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        container.close()
        raise SourceError(f"{path} has no video track (it holds {tracks}); give a file with pictures")
    return container, pictures[0]


class ClipSource:
    """One video file, or several as one trip: clip follows clip on one timeline, broken clips are skipped and counted.

    Args:
        stream_id: id of the stream.
        paths: the clips, in order.
        decode_threads: threads of FFmpeg's decoder; 0 lets FFmpeg choose.
        wall_clock: Unix time in seconds.
        monotonic: monotonic clock in seconds.
        decoding: which decoder; the CPU's unless given.
    """

    mode: Mode = "file"

    def __init__(
        self,
        stream_id: str,
        paths: Sequence[Path],
        decode_threads: int = 1,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        decoding: Decoding | None = None,
    ) -> None:
        self.id, self.paths = stream_id, tuple(paths)
        self._decoding = decoding or Decoding(stream_id)
        self.address = str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} clips)"
        self.counts = SourceCounts()
        self._decode_threads, self._wall, self._monotonic = decode_threads, wall_clock, monotonic
        self._container: InputContainer | None = None
        self._video: VideoStream | None = None
        self._remaining: list[Path] = []
        self._normalize = Normalizer(stream_id)
        self._timeline: Timeline | None = None
        self._audio_layout: tuple[str, ...] = ()
        self._index = 0

    # Opening --------------------------------------------------------------------------------------------------------
    def open(self) -> StreamInfo:
        self._remaining = list(self.paths)
        first_frame = self._open_next()
        if first_frame is None:
            if len(self.paths) == 1:
                raise SourceError(self.counts.skipped_clips[0][1])
            name, reason = self.counts.skipped_clips[0]
            raise SourceError(
                f"none of the {len(self.paths)} clips of stream {self.id!r} can be used; the first, {name}: {reason}"
            )
        _, video = self._current()
        # The size of what will be yielded is known for sure only from a decoded frame (rotation, cropping).
        upright = self._normalize(first_frame)
        rate = video.average_rate or video.guessed_rate or Fraction(25)
        time_base = cast("Fraction", video.time_base)
        self._timeline = Timeline(time_base, round(1 / rate / time_base))
        self._rewind()
        audio = tuple(self._current()[0].streams.audio)
        self._audio_layout = tuple(_audio_signature(s) for s in audio)
        return StreamInfo.of(upright, time_base, rate, self._expected_frames(rate), audio)

    def _open_next(self) -> av.VideoFrame | None:
        """Open the next clip that gives a picture, and return its first one; None when there is none left."""
        while self._remaining:
            path = self._remaining.pop(0)
            try:
                container, video = _open_clip(path, self._decoding)
            except SourceError as error:
                self._skip(path, str(error))
                continue
            self._configure(video)
            frame = None
            try:
                for packet in container.demux(video):
                    with suppress(av.error.FFmpegError):
                        frame = next(iter(packet.decode()), None)
                    if frame is not None:
                        break
            except av.error.FFmpegError as error:
                log.debug("%s: %s", path, error)
            if frame is None:
                container.close()
                self._skip(path, f"{path} holds no picture that can be decoded")
                continue
            self._decoding.check(frame)
            self._container, self._video, self._path = container, video, path
            return frame
        return None

    def _configure(self, video: VideoStream) -> None:
        if self._decode_threads:
            video.thread_count = self._decode_threads
        video.thread_type = "AUTO"

    def _rewind(self) -> None:
        """Start the open clip again: what looking at the first frame consumed is read once more."""
        container, _ = self._current()
        container.close()
        self._container, self._video = _open_clip(self._path, self._decoding)
        self._configure(self._video)

    def _skip(self, path: Path, reason: str) -> None:
        self.counts.skipped_clips.append((path.name, reason))
        if len(self.paths) > 1:
            log.warning("%s: clip skipped: %s", self.id, reason)

    def _expected_frames(self, rate: Fraction) -> int | None:
        total = 0
        for path in (self._path, *self._remaining):
            try:
                container, video = _open_clip(path)
            except SourceError:
                continue
            with container:
                if video.frames:
                    total += video.frames
                elif video.duration and video.time_base:
                    total += round(video.duration * video.time_base * rate)
                elif container.duration:
                    total += round(Fraction(container.duration, av.time_base) * rate)
                else:
                    return None
        return total

    def _current(self) -> tuple[InputContainer, VideoStream]:
        if self._container is None or self._video is None:
            raise RuntimeError(f"source {self.id!r} is not open")
        return self._container, self._video

    # Reading --------------------------------------------------------------------------------------------------------
    def __iter__(self) -> Iterator[Frame | AudioPacket]:
        while True:
            yield from self._read_clip()
            container, _ = self._current()
            container.close()
            first = self._open_next()
            if first is None:
                return
            self._rewind()
            self._line().join_clip(first.pts, first.time_base or self._line().time_base)

    def _line(self) -> Timeline:
        if self._timeline is None:
            raise RuntimeError(f"source {self.id!r} is not open")
        return self._timeline

    def _read_clip(self) -> Iterator[Frame | AudioPacket]:
        container, video = self._current()
        audio = {s.index: track for track, s in enumerate(container.streams.audio)}
        if tuple(_audio_signature(s) for s in container.streams.audio) != self._audio_layout:
            audio = {}
            log.warning("%s: %s has other audio tracks than the first clip; its sound is left out", self.id, self._path)
        wanted: list[Any] = [video, *(s for s in container.streams.audio if s.index in audio)]
        packets = container.demux(*wanted)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                # A truncated file ends here; what was read so far is good.
                self.counts.decode_errors += 1
                log.warning("%s: %s ends early: %s", self.id, self._path, _reason(error))
                yield from self._frames(self._drain(video))
                return
            if packet is None:
                return
            if packet.stream_index == video.index:
                yield from self._frames(self._decode(packet))
            elif packet.pts is not None and packet.stream_index in audio:
                shifted = self._line().place_packet(packet.pts, packet.time_base)
                delta = shifted - packet.pts
                packet.pts = shifted
                if packet.dts is not None:
                    packet.dts += delta
                yield AudioPacket(audio[packet.stream_index], packet)

    def _decode(self, packet: Packet[Any]) -> list[av.VideoFrame]:
        try:
            return packet.decode()
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self.counts.decode_errors += 1
            log.debug("%s: a packet does not decode: %s", self.id, error)
            return []

    def _drain(self, video: VideoStream) -> list[av.VideoFrame]:
        try:
            return video.decode(None)
        except av.error.FFmpegError:
            return []

    def _frames(self, images: list[av.VideoFrame]) -> Iterator[Frame]:
        line = self._line()
        for image in images:
            upright = self._normalize(image)
            time_base = image.time_base or line.time_base
            pts = line.place(image.pts, time_base, image.duration)
            self.counts.resets = line.resets
            duration = round(image.duration * time_base / line.time_base)
            yield Frame(self.id, self._index, pts, line.time_base, self._wall(), self._monotonic(), upright, duration)
            self._index += 1

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ImageSource:
    """A folder of pictures as a stream: one frame a file in natural order, `rate` frames a second.

    Args:
        stream_id: id of the stream.
        paths: the pictures, in order.
        rate: frames a second of the timeline the pictures are laid on.
        wall_clock: Unix time in seconds.
        monotonic: monotonic clock in seconds.
    """

    mode: Mode = "file"

    def __init__(
        self,
        stream_id: str,
        paths: Sequence[Path],
        rate: Fraction = Fraction(25),
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id, self.paths, self.rate = stream_id, tuple(paths), rate
        self.address = f"{paths[0].parent} ({len(paths)} pictures)"
        self.counts = SourceCounts()
        self._wall, self._monotonic = wall_clock, monotonic
        self._normalize = Normalizer(stream_id)

    def open(self) -> StreamInfo:
        for path in self.paths:
            image = self._read(path)
            if image is not None:
                upright = self._normalize(image)
                self.counts = SourceCounts()
                return StreamInfo.of(upright, 1 / self.rate, self.rate, len(self.paths))
        raise SourceError(f"none of the {len(self.paths)} pictures in {self.paths[0].parent} can be read")

    def _read(self, path: Path) -> av.VideoFrame | None:
        try:
            container, video = _open_clip(path)
            with container:
                return next(container.decode(video))
        except (SourceError, av.error.FFmpegError, StopIteration) as error:
            self.counts.skipped_clips.append((path.name, str(error) or "no picture in it"))
            log.warning("%s: picture skipped: %s", self.id, error or path)
            return None

    def __iter__(self) -> Iterator[Frame | AudioPacket]:
        index = 0
        for path in self.paths:
            image = self._read(path)
            if image is not None:
                upright = self._normalize(image)
                yield Frame(self.id, index, index, 1 / self.rate, self._wall(), self._monotonic(), upright, 1)
                index += 1

    def close(self) -> None:
        """Nothing stays open between pictures."""


class SyntheticSource:
    """A procedural drive as a stream; see `pipeline.synthetic`."""

    mode: Mode = "file"

    def __init__(self, stream_id: str, options: SyntheticOptions) -> None:
        self.id, self.address, self.options = stream_id, SCHEME, options
        self.counts = SourceCounts()
        self._normalize = Normalizer(stream_id)

    def open(self) -> StreamInfo:
        options = self.options
        first = self._normalize(as_video_frame(np.zeros((options.height, options.width, 3), np.uint8)))
        return StreamInfo.of(first, options.time_base, options.fps, options.frames)

    def __iter__(self) -> Iterator[Frame | AudioPacket]:
        scene = self.options.scene()
        for index in range(self.options.frames):
            image = self._normalize(as_video_frame(scene.picture(index)))
            yield Frame(self.id, index, index, self.options.time_base, time.time(), time.monotonic(), image, 1)

    def close(self) -> None:
        """Nothing is open."""


def resolve_source(
    address: str,
    stream_id: str,
    decode_threads: int = 1,
    rate: Fraction = Fraction(25),
    *,
    live: LiveOptions | None = None,
    realtime: bool = False,
    observe: Callable[[StateChange], None] = lambda _change: None,
    decoding: Decoding | None = None,
) -> Source:
    """The source that an address stands for, not yet open.

    A file is a stream; a folder is one too, a trip when it holds clips and a picture a frame when it holds pictures;
    so is a glob (`'trip/*.mp4'`), quoted so that the shell leaves it alone. A camera's address, a V4L2 device and `-`
    are live sources; see `pipeline.live_input.is_live`.

    Args:
        address: what to read.
        stream_id: id of the stream.
        decode_threads: threads of the decoder.
        rate: frames a second of a folder of pictures.
        live: how a live source is read.
        realtime: play what is no live source as if it were one.
        observe: told the changes of state of a live source, from its threads; must not wait.
        decoding: which decoder; the CPU's unless given.

    Raises:
        SourceError: nothing there, or a folder with neither clips nor pictures, or with both.
        UsageError: a `synthetic:` address with a wrong key.
    """
    from pipeline.live import LiveSource
    from pipeline.live_input import is_live
    from pipeline.realtime import RealtimeSource

    if is_live(address):
        return LiveSource(stream_id, address, live, decode_threads=decode_threads, observe=observe, decoding=decoding)
    source = _recorded(address, stream_id, decode_threads, rate, decoding)
    if not realtime:
        return source
    return (
        RealtimeSource(source, observe=observe) if live is None else RealtimeSource(source, live.latency_bound, observe)
    )


def _recorded(address: str, stream_id: str, decode_threads: int, rate: Fraction, decoding: Decoding | None) -> Source:
    """The source of something that is not live."""
    if address.startswith(SCHEME):
        return SyntheticSource(stream_id, parse_synthetic(address))
    if "://" in address:
        scheme = address.split("://", 1)[0]
        raise SourceError(
            f"{scheme}:// is not read; give an rtsp, http, rtmp, srt, udp or tcp address, a device (/dev/video0), "
            f"- for standard input, a video file, a folder, a glob or {SCHEME}"
        )
    path = Path(address).expanduser()
    if path.is_dir():
        found = sorted((p for p in path.iterdir() if p.is_file()), key=natural_order)
    elif path.exists() or not set("*?[") & set(address):
        found = [path]
    else:
        found = sorted((Path(p) for p in glob.glob(str(path)) if Path(p).is_file()), key=natural_order)  # noqa: PTH207  # pathlib globs only below a folder
        if not found:
            raise SourceError(f"no file matches {address!r}; check the pattern")
    pictures = [p for p in found if p.suffix.lower() in IMAGE_SUFFIXES]
    if path.is_file() and not pictures:
        return ClipSource(stream_id, found, decode_threads, decoding=decoding)
    if path.is_file():
        return ImageSource(stream_id, pictures, rate)
    clips = [p for p in found if p.suffix.lower() in VIDEO_SUFFIXES]
    if pictures and clips:
        raise SourceError(
            f"{address} holds {len(clips)} clips and {len(pictures)} pictures; give a glob of the ones that are meant, "
            f"such as '{address.rstrip('/')}/*{clips[0].suffix}'"
        )
    if not pictures and not clips:
        if path.exists() and path.is_dir():
            raise SourceError(f"the folder {address} holds neither video clips nor pictures")
        return ClipSource(stream_id, found, decode_threads, decoding=decoding)
    if pictures:
        return ImageSource(stream_id, pictures, rate)
    return ClipSource(stream_id, clips, decode_threads, decoding=decoding)


def stream_name(address: str) -> str:
    """A stream id made of an address: the file's or folder's name, without what does not go into names.

    >>> stream_name("trips/Front cam.mp4"), stream_name("clips/*.mp4"), stream_name("synthetic:?seed=3")
    ('Front-cam', 'clips', 'synthetic')
    >>> stream_name("rtsp://admin:secret@10.0.0.7:554/live/ch1?key=x"), stream_name("/dev/video0"), stream_name("-")
    ('10.0.0.7-live-ch1', 'video0', 'stdin')
    """
    if address.startswith(SCHEME):
        return SCHEME.rstrip(":")
    if address == "-":
        return "stdin"
    if "://" in address:
        # The host tells cameras apart, the path often does not; of credentials nothing may stay.
        url = urlsplit(strip_credentials(address))
        address = f"{url.hostname or ''}{url.path}".replace("/", "-")
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", address).strip("-.")[:64] or url.scheme
    path = Path(address.removeprefix("v4l2:"))
    if set("*?[") & set(path.name):
        path = path.parent
    name = path.resolve().name if path.name in ("", ".", "..") else path.name
    stem = Path(name).stem if Path(name).suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES else name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:64] or "stream"


def _audio_signature(stream: AudioStream) -> str:
    context = stream.codec_context
    return f"{context.name} {context.sample_rate} {context.layout.name} {len(context.extradata or b'')}"
