"""The encoder of live outputs: no look-ahead, no B-frames, key frames on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import av
import av.error
import msgspec
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.stream import VideoStream

from engines.containers import in_words
from engines.errors import DeviceError, OutputError
from pipeline.contracts import StreamInfo
from pipeline.outputs.encoded import TIME_BASE, EncodedPicture, EncodedVideo
from pipeline.outputs.encoder import NVENC, Preset, open_first, opened_on_device
from pipeline.pictures.conversion import converted
from pipeline.pictures.picture import Picture
from pipeline.pictures.planes import copy_properties, plane


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
        self._sample_aspect = info.sample_aspect
        names = ("h264_nvenc", "h264_qsv", "libx264") if options.encoder == "auto" else (options.encoder,)
        self._software_format = "yuvj420p" if full_range else "nv12" if info.pixel_format == "nv12" else "yuv420p"
        what = f"{self.video.width}×{self.video.height}"
        self.name, self._context = open_first(names, self._configure, what)
        self._format = self._pixel_format(self.name)
        self.takes_device = self.name == NVENC
        self.degraded: Callable[[], None] = lambda: None
        self._opened_on_device = False
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
        context.sample_aspect_ratio = self._sample_aspect
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

    def encode(
        self, image: av.VideoFrame, pts: int, at: float, key: bool = False, captured_at: float | None = None
    ) -> list[EncodedPicture]:
        """Encode a picture of any size and format.

        Args:
            image: left as it is.
            pts: in `TIME_BASE`, greater than the last.
            at: when it reached this machine, by its wall clock, Unix seconds.
            key: whether decoding must be able to begin here; so it does after `key_frame_seconds` in any case.
            captured_at: when it was captured, Unix seconds; `at` where nothing says.

        Raises:
            OutputError: the encoder broke down.
        """
        due = self._last_key is None or pts - self._last_key >= self._key_distance
        try:
            packets = self._packets(image, pts, PictureType.I if key or due else PictureType.NONE)
        except av.error.FFmpegError as error:
            raise OutputError(f"the encoder {self.name} broke down: {in_words(error)}") from None
        duration, captured = round(1 / self._rate / TIME_BASE), at if captured_at is None else captured_at
        encoded = []
        for packet in packets:
            if packet.is_keyframe:
                self._last_key = packet.pts
            encoded.append(EncodedPicture(bytes(packet), packet.pts or 0, duration, packet.is_keyframe, at, captured))
        return encoded

    def _packets(self, image: av.VideoFrame, pts: int, kind: PictureType) -> list[Packet[VideoStream]]:
        """Encode where the picture lies, or in host memory: NVENC that is open reads from both. The first picture in
        GPU memory shows whether it takes those."""
        picture = self._in_gpu_memory(image) if self.takes_device else None
        if picture is not None:
            picture.pts, picture.time_base, picture.pict_type = pts, TIME_BASE, kind
            if self._opened_on_device:
                return list(self._context.encode(picture))
            opened = opened_on_device(self._configure, picture)
            if opened is not None:
                self._context, packets = opened
                self._opened_on_device = True
                return packets
            self._have_downloaded()
        picture = self._in_host_memory(image)
        picture.pts, picture.time_base, picture.pict_type = pts, TIME_BASE, kind
        return list(self._context.encode(picture))

    def _in_gpu_memory(self, image: av.VideoFrame) -> av.VideoFrame | None:
        if (image.width, image.height) != (self.video.width, self.video.height):
            return None
        try:
            return Picture.of(image).for_device_encoder()
        except DeviceError:
            self._have_downloaded()
            return None

    def _have_downloaded(self) -> None:
        self.takes_device = False
        self.degraded()

    def _in_host_memory(self, image: av.VideoFrame) -> av.VideoFrame:
        """The picture in the encoder's format and size, as a frame of its own: other outputs, in other threads, give
        the shared one their times. The copy costs 0.2 ms at 720p."""
        size = (self.video.width, self.video.height)
        if (image.width, image.height) != size or image.format.name != self._format:
            return converted(image, self._format, *size)
        own = av.VideoFrame(*size, self._format)
        for index in range(len(image.planes)):
            plane(own, index)[:] = plane(image, index)
        copy_properties(image, own)
        return own
