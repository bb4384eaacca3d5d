"""Video out: fragmented MP4 with the input's timestamps and sound, playable whatever kills the process."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import av
import msgspec
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from engines.containers import in_words, lasting, local
from engines.errors import DeviceError, OutputError
from engines.loading import Degraded
from pipeline.contracts import AudioPacket, DataPacket, StreamInfo
from pipeline.files import earlier_name, partial_name
from pipeline.frame import Analysis
from pipeline.outputs.encoder import NVENC, Preset, no_device_encoding, open_first, opened_on_device
from pipeline.outputs.extras import ExtrasWriter, is_blurred
from pipeline.outputs.fragments import EarlierRecording, ResumePoint, cut_torn_tail, find_resume_point
from pipeline.outputs.sound import MP4, TRIED_PACKETS, SoundTrack
from pipeline.pictures.conversion import converted, for_players
from pipeline.pictures.fields import LOWER, UPPER, FieldMarks
from pipeline.pictures.picture import Picture

log = logging.getLogger(__name__)

_SOUND_SECONDS = 1
"""How long the first packets are held back for a track of sound that has not begun: as long as a fragment lasts, which
is not in the file before either."""

_KEY_FRAME_SECONDS = 2

_FIELDS = {UPPER: "tff=1", LOWER: "bff=1"}
"""Which field of an interlaced picture x264 is to take for the first one shown."""


class VideoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How video is encoded.

    Attributes:
        encoder: `auto` tries NVENC, then x264, by opening them.
        preset: speed of x264, `ultrafast` to `veryslow`.
        crf: quality, 0 (lossless) to 51; about 23 looks like the source.
        threads: of the encoder; 0 lets it choose.
        audio: whether the sound is copied.
        chroma: `420`, which every player takes, or the `source`'s.
    """

    encoder: Literal["auto", "libx264", "h264_nvenc"] = "auto"
    preset: Preset = "veryfast"
    crf: float = 23
    threads: int = 0
    audio: bool = True
    chroma: Literal["420", "source"] = "420"


def open_encoder(container: OutputContainer, info: StreamInfo, options: VideoOptions) -> VideoStream:
    """The first encoder of the wanted ones that opens for this stream, as an open stream of the container.

    Raises:
        OutputError: none of them does.
    """
    names = ("h264_nvenc", "libx264") if options.encoder == "auto" else (options.encoder,)
    name, _ = open_first(
        names,
        lambda context, name: _configure(context, info, options, name),
        f"{info.width}×{info.height} {info.pixel_format}",
    )
    stream = cast("VideoStream", container.add_stream(name, rate=info.rate))
    _configure(stream.codec_context, info, options, name)
    stream.time_base = info.time_base
    return stream


def _configure(context: VideoCodecContext, info: StreamInfo, options: VideoOptions, name: str) -> None:
    context.width, context.height, context.pix_fmt = info.width, info.height, info.pixel_format
    context.time_base, context.framerate = info.time_base, info.rate
    context.colorspace, context.color_range = info.color.matrix, info.color.range
    context.color_primaries, context.color_trc = info.color.primaries, info.color.transfer
    context.sample_aspect_ratio = info.sample_aspect
    context.gop_size = max(1, round(_KEY_FRAME_SECONDS * info.rate))
    context.thread_count = options.threads
    if name == "h264_nvenc":
        context.options = {"preset": "p4", "rc": "vbr", "cq": str(options.crf)}
    else:
        context.options = {"preset": options.preset, "crf": str(options.crf)}
        if info.field_order in _FIELDS:
            context.field_order = info.field_order
            context.options = {**context.options, "x264-params": _FIELDS[info.field_order]}


def _opens_on_device(info: StreamInfo, options: VideoOptions, trial: av.VideoFrame) -> bool:
    """Whether NVENC opens with a picture in GPU memory."""
    return opened_on_device(lambda context, name: _configure(context, info, options, name), trial) is not None


class VideoWriter:
    """A sink that encodes the pictures with their overlay, or the frames as they are where there is none.

    While it runs the video is at `<name>.partial.mp4`, in fragments of a second that play wherever the file ends;
    `finish` gives it its final name. Frames may come in any time base; their times are kept.

    Args:
        path: final name, `.mp4`.
        info: the stream.
        options: the encoder's.
        resume: where an earlier recording at the partial name goes on; see `VideoWriter.resume_point`.

    Attributes:
        encoder: the one that opened.
        stays_partial: whether the file keeps its partial name when it is finished.
        takes_device: whether it encodes pictures in GPU memory where they lie, as far as is known.

    Raises:
        OutputError: the path cannot be written, or no encoder opens.
    """

    name = "encode"

    def __init__(
        self,
        path: Path,
        info: StreamInfo,
        options: VideoOptions,
        resume: ResumePoint | None = None,
    ) -> None:
        self.path, self.partial = path, partial_name(path)
        if options.chroma == "420":
            info = replace(info, pixel_format=for_players(info.pixel_format, info.width, info.height))
        self._info, self._options = info, options
        self._extras = ExtrasWriter(info.extras, info.audio, path)
        self._templates = {track: lasting(template) for track, template in enumerate(info.audio) if options.audio}
        self._sound: dict[int, SoundTrack] = {}
        self._closed = self.stays_partial = False
        self._frames = 0 if resume is None else resume.frames
        self._begun = resume is not None
        self._early: list[AudioPacket | DataPacket] = []
        self._held: list[Packet[VideoStream]] = []
        self._first_time: float | None = None
        self._blurred: bool | None = None
        self._marks = FieldMarks(info.field_order) if info.field_order in _FIELDS else None
        self._degraded: Callable[[Degraded], None] = lambda _what: None
        self._earlier: EarlierRecording | None = None
        earlier = earlier_name(path)
        try:
            if resume is None:
                earlier.unlink(missing_ok=True)
            elif not earlier.exists():
                self.partial.replace(earlier)
            self.partial.touch()  # FFmpeg opens the file with the first packet only
            self._container: OutputContainer = av.open(
                local(self.partial),
                "w",
                format="mp4",
                options=self._extras.options(MP4),
            )
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {in_words(error)}") from None
        try:
            self._video = open_encoder(self._container, info, options)
            self.encoder = self._video.codec_context.name
            # A recording that goes on opens its encoder before there is a picture.
            self.takes_device = self.encoder == NVENC and not self._begun
            if resume is not None:
                self._copy_earlier(earlier, resume)
                self._earlier = EarlierRecording(earlier, self.partial, resume, info.rate)
        except BaseException:
            self._discard()
            raise

    @staticmethod
    def resume_point(path: Path, at_most: int | None = None) -> ResumePoint | None:
        """Where the recording that an earlier, killed run left beside `path` can go on; None without one.

        Args:
            path: final name.
            at_most: frames that the other outputs of the run hold; the recording goes on no later.
        """
        earlier = earlier_name(path)
        partial = earlier if earlier.exists() else partial_name(path)
        if not partial.exists():
            return None
        cut_torn_tail(partial)
        return find_resume_point(partial, at_most)

    def _copy_earlier(self, earlier: Path, resume: ResumePoint) -> None:
        with av.open(local(earlier)) as old:
            video = old.streams.video[0]
            self._blurred = is_blurred(old)
            made = old.metadata.get("creation_time", "").split(";")[0]  # PyAV 19 joins those of two places
            self._container.metadata.update({"creation_time": made} if made else {})
            for (track, template), sound in zip(self._templates.items(), old.streams.audio, strict=False):
                self._sound[track] = SoundTrack.resumed(self._container, template, sound)
            self._extras.begin(self._container, self._video, self._sound, blurred=self._blurred)
            data = self._extras.resumed(old)
            self._container.start_encoding()
            if not _same_parameter_sets(self._video.codec_context.extradata, video.codec_context.extradata):
                raise OutputError(
                    f"{self.partial} was made with other encoder settings or another picture size; "
                    f"resume with the same ones, or remove {earlier}"
                )
            tracks = {s.index: track for track, s in zip(self._sound, old.streams.audio, strict=False)}
            pictures = 0
            # The encoder hands start codes to the muxer, so the copied packets must come with start codes too.
            to_start_codes = BitStreamFilterContext("h264_mp4toannexb", video)
            for packet in old.demux():
                if packet.pts is None or not packet.size:
                    continue
                if packet.stream_index == video.index:
                    pictures += 1
                    if pictures > resume.packets:
                        continue
                    for copied in to_start_codes.filter(packet):
                        copied.stream = self._video
                        self._mux([copied])
                elif packet.stream_index in data and packet.pts * packet.time_base < resume.time:
                    item = DataPacket(data[packet.stream_index], packet)
                    self._mux(self._extras.packets(item, written=True))
                elif packet.stream_index in tracks and packet.pts * packet.time_base < resume.time:
                    self._mux(self._sound[tracks[packet.stream_index]].placed([packet]))

    def observe(self, degraded: Callable[[Degraded], None]) -> None:
        """Have what the encoder goes without told to `degraded`."""
        self._degraded = degraded

    def consume(self, analysis: Analysis) -> None:
        """Encode one frame.

        Raises:
            OutputError: the disk is full or the file cannot be written; what was written stays playable. Or what is
                there already is blurred, and this frame is not, or the other way round.
        """
        frame = analysis.frame
        self._container.metadata.setdefault("creation_time", _utc(frame.captured_at))
        if self._blurred is None:
            self._blurred = analysis.anonymized
        elif self._blurred != analysis.anonymized:
            how = "with" if self._blurred else "without"
            raise OutputError(f"{self.partial} was made {how} `anonymize`; resume {how} it, or remove the file")
        # Without an overlay the decoder's frame goes out as it is: its planes are shared, its time and type are not.
        image = self._for_encoder(frame.image if analysis.picture is None else analysis.picture, analysis)
        image.pts, image.time_base, image.duration = frame.pts, frame.time_base, frame.duration
        image.pict_type = 0  # the encoder decides, not the decoder's frame types
        try:
            packets = self._video.encode(image)
        except av.error.FFmpegError as error:
            raise OutputError(f"{self.partial}: the encoder fails: {in_words(error)}") from None
        self._frames += 1
        if self._earlier is not None:
            self._earlier.follow(self._frames)
        if self._begun:
            self._mux(packets)
            return
        self._held += packets
        self._first_time = frame.time if self._first_time is None else self._first_time
        heard = {item.track for item in self._early if isinstance(item, AudioPacket)}
        if frame.time - self._first_time >= _SOUND_SECONDS or self._templates.keys() == heard:
            self._begin()

    def _begin(self) -> None:
        """Write what was held back until it was known which sound there is."""
        if self._begun:
            return
        self._begun = True
        early, self._early = self._early, []
        for track, template in self._templates.items():
            first = [item.packet for item in early if isinstance(item, AudioPacket) and item.track == track]
            added = SoundTrack.added(self._container, template, first[:TRIED_PACKETS], str(self.path))
            if added is not None:
                self._sound[track] = added
        self._extras.begin(self._container, self._video, self._sound, blurred=bool(self._blurred))
        try:
            self._container.start_encoding()
        except (av.error.FFmpegError, OSError) as error:
            raise _failure(self.partial, error) from None
        held, self._held = self._held, []
        self._mux(held)
        for item in early:
            if isinstance(item, DataPacket):
                self.consume_data(item)
            else:
                self.consume_audio(item)

    def _for_encoder(self, image: av.VideoFrame, analysis: Analysis) -> av.VideoFrame:
        """The picture in the memory that the encoder reads, and in its format."""
        there = self._in_gpu_memory(image, analysis) if self.takes_device else None
        return self._in_host_memory(image) if there is None else there

    def _in_gpu_memory(self, image: av.VideoFrame, analysis: Analysis) -> av.VideoFrame | None:
        """The picture in GPU memory, as a frame of its own; None where host memory is read. What the encoder is opened
        with, the first picture, decides: NVENC takes pictures in GPU memory then, and PyAV brings it those that come
        from elsewhere."""
        picture, opened = Picture.of(image), self._frames > 0
        try:
            own = picture.for_device_encoder()
            if own is None:
                self.takes_device = opened
                return None
            if opened:
                return own
            own.pts, own.time_base = 0, analysis.frame.time_base
            if _opens_on_device(self._info, self._options, own):
                self._video.codec_context.pix_fmt = "cuda"
                return picture.for_device_encoder()
        except DeviceError as error:
            log.debug("%s", error)
        self.takes_device = False
        self._degraded(no_device_encoding(analysis.frame.stream))
        return None

    def _in_host_memory(self, image: av.VideoFrame) -> av.VideoFrame:
        image = Picture.of(image).on_host()
        if image.format.name != self._info.pixel_format:
            image = converted(image, self._info.pixel_format)
        return image if self._marks is None else self._marks(image)

    def consume_audio(self, item: AudioPacket) -> None:
        """Take a packet of sound. What cannot be written of it is left out and counted: it never costs pictures."""
        if not self._begun:
            if self._options.audio:
                self._early.append(item)  # with the first packets of all tracks it is known what the head says
            return
        track = self._sound.get(item.track)
        if track is not None:
            self._mux(track.packets(item.packet))

    def consume_data(self, item: DataPacket) -> None:
        """Take a packet of timed text or data."""
        if self._begun:
            self._mux(self._extras.packets(item))
        else:
            self._early.append(item)

    def _mux(self, packets: Sequence[Packet[Any]]) -> None:
        try:
            self._container.mux(packets)
        except (av.error.FFmpegError, OSError) as error:
            raise _failure(self.partial, error) from None

    def finish(self) -> None:
        """Write what is buffered and give the file its final name; one in which nothing has been written goes.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        if self._closed:
            return
        if not self._frames:
            self._discard()
            return
        self._closed = True
        try:
            self._begin()
            self._container.mux(self._video.encode(None))
            for track in self._sound.values():
                self._mux(track.rest())
            self._container.close()
            _check_readable(self.partial, len(self._sound))
            if not self.stays_partial:
                self.partial.replace(self.path)
            if self._earlier is not None:
                self._earlier.compare() if self.stays_partial else self._earlier.remove()
        except (av.error.FFmpegError, OSError) as error:
            self._abandon()
            raise _failure(self.partial, error) from None
        except OutputError:
            self._abandon()
            raise
        self._extras.finish()
        left_out = sum(track.left_out for track in self._sound.values())
        if left_out:
            log.warning("%s: %d packets of sound are damaged or overlap others; they are left out", self.path, left_out)

    def close(self) -> None:
        """Stop without finishing: the partial file stays, cut to its last whole fragment, for `--resume`; one in which
        nothing has been written goes. Where it holds less than the interrupted run had, that recording stays, too."""
        if not self._closed:
            self._closed = True
            self._abandon()

    def _abandon(self) -> None:
        with suppress(OSError, av.error.FFmpegError):
            self._container.close()
        if self.partial.exists():
            cut_torn_tail(self.partial)
            if self.partial.stat().st_size == 0:
                self.partial.unlink()
            elif self._earlier is not None:
                with suppress(OutputError):  # it has no whole fragment yet
                    self._earlier.compare()

    def _discard(self) -> None:
        self._closed = True
        with suppress(OSError, av.error.FFmpegError):
            self._container.close()
        self.partial.unlink(missing_ok=True)


def _failure(path: Path, error: av.error.FFmpegError | OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(f"no space is left to write {path}; what was written up to here plays")
    return OutputError(f"{path} cannot be written: {in_words(error)}")


def _check_readable(path: Path, tracks: int) -> None:
    """Open what was written, as whoever plays it will: pictures, and as many tracks of sound."""
    try:
        with av.open(local(path)) as read:
            first = next(read.decode(read.streams.video[0]), None)
            sound = [s for s in read.streams.audio if s.codec_context is not None and s.codec_context.sample_rate]
    except (av.error.FFmpegError, OSError, IndexError, ValueError) as error:
        raise OutputError(f"{path} was written and cannot be read back: {in_words(error)}") from None
    if first is None or len(sound) != tracks:
        raise OutputError(f"{path} was written, and its pictures or its sound cannot be read back")


def _utc(at: float) -> str:
    """Unix seconds as MP4's tags have them."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def _same_parameter_sets(start_coded: bytes | None, stored: bytes | None) -> bool:
    """Whether an MP4's decoder configuration holds every SPS and PPS of an encoder's (H.264, NAL types 7 and 8)."""
    units = re.split(rb"\x00{2,3}\x01", start_coded or b"")
    wanted = [unit for unit in units if unit and unit[0] & 31 in (7, 8)]
    return bool(wanted) and all(unit in (stored or b"") for unit in wanted)
