"""Which encoder there is, found by opening it, and the encoder of live outputs: no look-ahead, no B-frames.

A machine's list of encoders says nothing: FFmpeg lists NVENC on every machine, H100 and A100 have none, and a consumer
card opens only so many at a time. So each is opened, in order, and the first that opens is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, cast

import av
import av.error
import msgspec
from av.container import OutputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.stream import VideoStream

from engines.errors import OutputError
from engines.loading import Degraded
from pipeline.picture import converted, copy_properties, on_device, plane, stays_on_device
from pipeline.sources import StreamInfo

log = logging.getLogger(__name__)

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]

NVENC = "h264_nvenc"

TIME_BASE = Fraction(1, 90_000)
"""Seconds a unit of every time in `EncodedPicture`."""


def open_first(
    names: Sequence[str], configure: Callable[[VideoCodecContext, str], None], what: str
) -> tuple[str, VideoCodecContext]:
    """The first of the encoders that opens, and the open context.

    Args:
        names: FFmpeg's names, in order of preference.
        configure: sets a context up, given its encoder's name.
        what: what is to be encoded, for the error's sentence.

    Raises:
        OutputError: none of them opens.
    """
    reason = ""
    for name in names:
        try:
            context = created(name)
            configure(context, name)
            context.open()
        except (av.error.FFmpegError, ValueError, OSError) as error:
            reason = str(error).split(";", maxsplit=1)[0]
            log.debug("encoder %s does not open: %s", name, error)
            continue
        if name != names[0]:
            log.debug("encoder %s is used", name)
        return name, context
    raise OutputError(f"no encoder opens for {what} (tried {', '.join(names)}: {reason})")


def created(name: str) -> VideoCodecContext:
    """A context of an encoder, not yet open."""
    return cast("VideoCodecContext", av.CodecContext.create(name, "w"))


def opened_on_device(
    configure: Callable[[VideoCodecContext, str], None], picture: av.VideoFrame
) -> tuple[VideoCodecContext, list[Packet[VideoStream]]] | None:
    """NVENC reading pictures where they lie in GPU memory, found out by encoding one; None where it does not.

    PyAV opens it with the first picture, which brings the memory that the others come from.

    Args:
        configure: sets a context up, given its encoder's name.
        picture: a frame of one's own, in GPU memory.

    Returns:
        The open context, and what it made of the picture.
    """
    context = created(NVENC)
    configure(context, NVENC)
    context.pix_fmt = "cuda"
    try:
        return context, list(context.encode(picture))
    except (av.error.FFmpegError, ValueError, OSError) as error:
        log.debug("%s does not take pictures in GPU memory: %s", NVENC, error)
        return None


def own_on_device(image: av.VideoFrame) -> av.VideoFrame:
    """Another frame of the same picture in GPU memory, without a copy: other outputs give the shared one their times.

    It is NV12 of even size.
    """
    from pipeline import device_pictures  # torch

    return device_pictures.as_frame(device_pictures.borrowed(image), image)


def no_device_encoding(stream: str) -> Degraded:
    """What is said where NVENC opens, and not for pictures in GPU memory."""
    sentence = f"{stream}: NVENC does not take this stream's pictures from GPU memory; each is downloaded for it."
    return Degraded(stream, "nvenc from gpu memory", "download", "nvenc", sentence)


class LiveEncoderOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How pictures are encoded for those who watch now.

    Attributes:
        encoder: `auto` tries NVENC, then Quick Sync, then x264, by opening them.
        preset: speed of x264, `ultrafast` to `veryslow`.
        crf: quality, 0 (lossless) to 51.
        max_bitrate: kbit/s that no second exceeds; 0 for no limit. For a narrow uplink.
        key_frame_seconds: distance of key frames, where viewers can join and recordings can be cut.
        threads: of the encoder; 0 lets it choose. Each is a slice of the same picture, so none adds delay.
    """

    encoder: Literal["auto", "libx264", "h264_nvenc", "h264_qsv"] = "auto"
    preset: Preset = "superfast"
    crf: Annotated[float, msgspec.Meta(ge=0, le=51)] = 23.0
    max_bitrate: Annotated[int, msgspec.Meta(ge=0)] = 0
    key_frame_seconds: Annotated[float, msgspec.Meta(ge=0.2, le=10)] = 1.0
    threads: Annotated[int, msgspec.Meta(ge=0, le=64)] = 1


@dataclass(frozen=True, slots=True)
class EncodedVideo:
    """What all pictures of an output have in common. Width and height in pixels; the codec is H.264."""

    width: int
    height: int
    rate: Fraction


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """One picture, compressed.

    Attributes:
        data: H.264 with start codes (Annex B); parameter sets stand before every key frame.
        pts: when it is shown, in `TIME_BASE` since the output began. There are no B-frames: it is also the decoding
            time.
        duration: how long, in `TIME_BASE`.
        key: whether decoding can begin here.
        at: wall clock of the picture, Unix seconds.
    """

    data: bytes
    pts: int
    duration: int
    key: bool
    at: float


class LiveEncoder:
    """Encodes the pictures of one stream for its live outputs, as 8-bit 4:2:0, which every player takes.

    Args:
        info: the stream; its size and colours hold, whatever size comes later.
        options: the encoder's.

    Attributes:
        name: the encoder that opened.
        video: what it makes.
        takes_device: whether it encodes pictures in GPU memory where they lie, as far as is known.
        degraded: told once where it does not.

    Raises:
        OutputError: no encoder opens.
    """

    def __init__(self, info: StreamInfo, options: LiveEncoderOptions) -> None:
        full_range = info.pixel_format.startswith("yuvj")
        self.video = EncodedVideo(info.width & ~1, info.height & ~1, info.rate)
        self._options, self._rate, self._color = options, info.rate, info.color
        names = ("h264_nvenc", "h264_qsv", "libx264") if options.encoder == "auto" else (options.encoder,)
        self._software_format = "yuvj420p" if full_range else "nv12" if info.pixel_format == "nv12" else "yuv420p"
        what = f"{self.video.width}×{self.video.height}"
        self.name, self._context = open_first(names, self._configure, what)
        self._format = self._pixel_format(self.name)
        self.takes_device = self.name == NVENC
        self.degraded: Callable[[], None] = lambda: None
        self._on_device = False
        self._key_distance = round(options.key_frame_seconds / TIME_BASE)
        self._last_key: int | None = None

    def _pixel_format(self, name: str) -> str:
        return "nv12" if name == "h264_qsv" else self._software_format

    def _configure(self, context: VideoCodecContext, name: str) -> None:
        options, color = self._options, self._color
        context.width, context.height, context.pix_fmt = self.video.width, self.video.height, self._pixel_format(name)
        context.time_base, context.framerate = TIME_BASE, self._rate
        context.colorspace, context.color_range = color.matrix, color.range
        context.color_primaries, context.color_trc = color.primaries, color.transfer
        # Key frames are asked for by time, whatever the frame rate is; this is the far end.
        context.gop_size = max(1, round(4 * options.key_frame_seconds * self._rate))
        context.max_b_frames = 0
        context.thread_count = options.threads
        limit = {"maxrate": f"{options.max_bitrate}k", "bufsize": f"{options.max_bitrate}k"}
        context.options = {
            "libx264": {"preset": options.preset, "tune": "zerolatency", "crf": str(options.crf), "forced-idr": "1"},
            "h264_nvenc": {
                "preset": "p4", "tune": "ull", "zerolatency": "1", "delay": "0", "forced-idr": "1", "rc": "vbr",
                "cq": str(options.crf),
            },
            "h264_qsv": {
                "preset": "veryfast", "async_depth": "1", "forced_idr": "1", "global_quality": f"{options.crf:.0f}",
            },
        }[name] | (limit if options.max_bitrate else {})  # fmt: skip

    def encode(self, image: av.VideoFrame, pts: int, at: float, key: bool = False) -> list[EncodedPicture]:
        """Encode a picture of any size and format.

        Args:
            image: left as it is.
            pts: in `TIME_BASE`, greater than the last.
            at: wall clock, Unix seconds.
            key: whether decoding must be able to begin here; so it does after `key_frame_seconds` in any case.

        Raises:
            OutputError: the encoder broke down.
        """
        picture = self._own(image)
        due = self._last_key is None or pts - self._last_key >= self._key_distance
        picture.pts, picture.time_base = pts, TIME_BASE
        picture.pict_type = PictureType.I if key or due else PictureType.NONE
        try:
            packets = self._packets(picture)
        except av.error.FFmpegError as error:
            raise OutputError(f"the encoder {self.name} broke down: {error.strerror or error}") from None
        encoded = []
        for packet in packets:
            if packet.is_keyframe:
                self._last_key = packet.pts
            encoded.append(
                EncodedPicture(
                    bytes(packet), packet.pts or 0, round(1 / self._rate / TIME_BASE), packet.is_keyframe, at
                )
            )
        return encoded

    def _packets(self, picture: av.VideoFrame) -> list[Packet[VideoStream]]:
        """Encode; the first picture in GPU memory shows whether NVENC takes those."""
        if not on_device(picture) or self._on_device:
            return list(self._context.encode(picture))
        opened = opened_on_device(self._configure, picture)
        if opened is None:
            self.takes_device = False
            self.degraded()
            host = self._own(picture)
            host.pts, host.time_base, host.pict_type = picture.pts, TIME_BASE, picture.pict_type
            return list(self._context.encode(host))
        self._context, packets = opened
        self._on_device = True
        return packets

    def _own(self, image: av.VideoFrame) -> av.VideoFrame:
        """The picture in the encoder's format and size, as a frame of its own: other outputs, in other threads, give
        the shared one their times. The copy costs 0.2 ms at 720p."""
        size = (self.video.width, self.video.height)
        if self.takes_device and stays_on_device(image) and (image.width, image.height) == size:
            return own_on_device(image)
        if (image.width, image.height) != size or image.format.name != self._format:
            return converted(image, self._format, *size)
        own = av.VideoFrame(*size, self._format)
        for index in range(len(image.planes)):
            plane(own, index)[:] = plane(image, index)
        copy_properties(image, own)
        return own


def add_video(container: OutputContainer, video: EncodedVideo) -> VideoStream:
    """A track for pictures that are encoded already; its parameter sets are taken from the first of them."""
    size = {"width": video.width, "height": video.height}
    return cast("VideoStream", container.add_mux_stream("h264", rate=video.rate, time_base=TIME_BASE, **size))


def as_packet(picture: EncodedPicture, stream: VideoStream, start: int = 0) -> Packet[Any]:
    """An encoded picture as a packet of a container's track, its times counted from `start`."""
    packet: Packet[Any] = Packet(picture.data)
    packet.pts = packet.dts = picture.pts - start
    packet.duration, packet.time_base, packet.is_keyframe = picture.duration, TIME_BASE, picture.key
    packet.stream = stream
    return packet
