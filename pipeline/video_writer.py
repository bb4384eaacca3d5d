"""Video out: fragmented MP4 with the input's timestamps and sound, playable whatever kills the process."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

import av
import msgspec
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from engines.errors import OutputError
from engines.loading import Degraded
from pipeline.encoder import NVENC, Preset, no_device_encoding, open_first, opened_on_device, own_on_device
from pipeline.fragments import ResumePoint, cut_torn_tail, find_resume_point
from pipeline.frame import Analysis
from pipeline.picture import on_device, on_host, stays_on_device
from pipeline.sources import AudioPacket, StreamInfo

log = logging.getLogger(__name__)

_FRAGMENT_SECONDS = 1
_KEY_FRAME_SECONDS = 2

_BLURRED = "people and number plates are blurred"
"""Comment in the file where that is so: a run that blurs does not go on with one that did not."""


class VideoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How video is encoded.

    Attributes:
        encoder: `auto` tries NVENC, then x264, by opening them.
        preset: speed of x264, `ultrafast` to `veryslow`.
        crf: quality, 0 (lossless) to 51; about 23 looks like the source.
        threads: of the encoder; 0 lets it choose.
        audio: whether the sound is copied.
    """

    encoder: Literal["auto", "libx264", "h264_nvenc"] = "auto"
    preset: Preset = "veryfast"
    crf: float = 23
    threads: int = 0
    audio: bool = True


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
    context.gop_size = max(1, round(_KEY_FRAME_SECONDS * info.rate))
    context.thread_count = options.threads
    if name == "h264_nvenc":
        context.options = {"preset": "p4", "rc": "vbr", "cq": str(options.crf)}
    else:
        context.options = {"preset": options.preset, "crf": str(options.crf)}


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
        self._info, self._options = info, options
        self._audio: dict[int, AudioStream] = {}
        self._last_audio: dict[int, int] = {}
        self._closed = False
        self._begun = resume is not None
        self._early: list[AudioPacket] = []
        self._blurred: bool | None = None
        self._degraded: Callable[[Degraded], None] = lambda _what: None
        earlier = self.partial.with_name(f"{path.stem}.earlier.mp4")
        try:
            if resume is None:
                earlier.unlink(missing_ok=True)
            elif not earlier.exists():
                self.partial.replace(earlier)
            self.partial.touch()  # FFmpeg opens the file with the first packet only
            self._container: OutputContainer = av.open(
                str(self.partial),
                "w",
                format="mp4",
                options={
                    # delay_moov keeps the edit list, and with it the exact times of streams with B-frames or sound
                    # that starts before the picture.
                    "movflags": "delay_moov+default_base_moof+frag_discont",
                    "frag_duration": str(_FRAGMENT_SECONDS * 1_000_000),
                    "flush_packets": "1",
                },
            )
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None
        try:
            self._video = open_encoder(self._container, info, options)
            self.encoder = self._video.codec_context.name
            # A recording that goes on opens its encoder before there is a picture.
            self.takes_device = self.encoder == NVENC and not self._begun
            self._add_audio()
            if resume is not None:
                self._copy_earlier(earlier, resume)
                earlier.unlink()
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
        earlier = path.with_name(f"{path.stem}.earlier.mp4")
        partial = earlier if earlier.exists() else partial_name(path)
        if not partial.exists():
            return None
        cut_torn_tail(partial)
        return find_resume_point(partial, at_most)

    def _add_audio(self) -> None:
        if not self._options.audio:
            return
        for track, template in enumerate(self._info.audio):
            name = template.codec_context.name
            if name not in self._container.supported_codecs:
                log.warning("%s: the %s sound track cannot be stored in MP4; it is left out", self.path, name)
                continue
            self._audio[track] = self._container.add_stream_from_template(template)

    def _copy_earlier(self, earlier: Path, resume: ResumePoint) -> None:
        with av.open(str(earlier)) as old:
            video = old.streams.video[0]
            self._say_blurred(old.metadata.get("comment") == _BLURRED)
            self._container.start_encoding()
            if not _same_parameter_sets(self._video.codec_context.extradata, video.codec_context.extradata):
                raise OutputError(
                    f"{self.partial} was made with other encoder settings or another picture size; "
                    f"resume with the same ones, or remove {earlier}"
                )
            tracks = {s.index: track for track, s in zip(self._audio, old.streams.audio, strict=False)}
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
                elif packet.stream_index in tracks and packet.pts * packet.time_base < resume.time:
                    self.consume_audio(AudioPacket(tracks[packet.stream_index], cast("Packet[AudioStream]", packet)))

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
        if self._blurred is None:
            self._say_blurred(analysis.anonymized)
        elif self._blurred != analysis.anonymized:
            how = "with" if self._blurred else "without"
            raise OutputError(f"{self.partial} was made {how} `anonymize`; resume {how} it, or remove the file")
        # Without an overlay the decoder's frame goes out as it is: its planes are shared, its time and type are not.
        image = self._for_encoder(frame.image if analysis.picture is None else analysis.picture, analysis)
        image.pts, image.time_base, image.duration = frame.pts, frame.time_base, frame.duration
        image.pict_type = 0  # the encoder decides, not the decoder's frame types
        packets = self._video.encode(image)
        self._begin()
        self._mux(packets)

    def _say_blurred(self, blurred: bool) -> None:
        self._blurred = blurred
        if blurred:
            self._container.metadata["comment"] = _BLURRED

    def _begin(self) -> None:
        """Write the sound that came before the first picture."""
        self._begun = True
        early, self._early = self._early, []
        for item in early:
            self.consume_audio(item)

    def _for_encoder(self, image: av.VideoFrame, analysis: Analysis) -> av.VideoFrame:
        """The picture in the memory that the encoder reads. What it is opened with, the first picture, decides: NVENC
        takes pictures in GPU memory then, and PyAV brings it those that come from elsewhere."""
        if not on_device(image):
            self.takes_device = self.takes_device and self._begun
            return image
        if self.takes_device and not stays_on_device(image):
            self.takes_device = False
        if self.takes_device and not self._begun:
            trial = own_on_device(image)
            trial.pts, trial.time_base = 0, analysis.frame.time_base
            opened = opened_on_device(lambda context, name: _configure(context, self._info, self._options, name), trial)
            if opened is None:
                self.takes_device = False
                self._degraded(no_device_encoding(analysis.frame.stream))
            else:
                self._video.codec_context.pix_fmt = "cuda"
        return own_on_device(image) if self.takes_device else on_host(image)

    def consume_audio(self, item: AudioPacket) -> None:
        """Copy a sound packet; one whose time runs backwards (after a reset of the source's clock) is left out."""
        if not self._begun:
            self._early.append(item)  # with the first picture it is known what the head of the file says
            return
        stream, packet = self._audio.get(item.track), item.packet
        if stream is None or packet.dts is None:
            return
        if packet.dts <= self._last_audio.get(item.track, packet.dts - 1):
            return
        self._last_audio[item.track] = packet.dts
        packet.stream = stream
        self._mux([packet])

    def _mux(self, packets: Sequence[Packet[Any]]) -> None:
        try:
            self._container.mux(packets)
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> OutputError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return OutputError(f"no space is left to write {self.partial}; what was written up to here plays")
        return OutputError(f"{self.partial} cannot be written: {error.strerror or error}")

    def finish(self) -> None:
        """Write what is buffered and give the file its final name.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        if self._closed:
            return
        self._closed = True
        self._begin()
        try:
            self._container.mux(self._video.encode(None))
            self._container.close()
            self.partial.replace(self.path)
        except OSError as error:
            self._abandon()
            raise self._failure(error) from None

    def close(self) -> None:
        """Stop without finishing: the partial file stays, cut to its last whole fragment, for `--resume`; one in which
        nothing has been written goes."""
        if not self._closed:
            self._closed = True
            self._abandon()

    def _abandon(self) -> None:
        with suppress(OSError):
            self._container.close()
        if self.partial.exists():
            cut_torn_tail(self.partial)
            if self.partial.stat().st_size == 0:
                self.partial.unlink()

    def _discard(self) -> None:
        self._closed = True
        with suppress(OSError):
            self._container.close()
        self.partial.unlink(missing_ok=True)


def _same_parameter_sets(start_coded: bytes | None, stored: bytes | None) -> bool:
    """Whether an MP4's decoder configuration holds every SPS and PPS of an encoder's (H.264, NAL types 7 and 8)."""
    units = re.split(rb"\x00{2,3}\x01", start_coded or b"")
    wanted = [unit for unit in units if unit and unit[0] & 31 in (7, 8)]
    return bool(wanted) and all(unit in (stored or b"") for unit in wanted)


def partial_name(path: Path) -> Path:
    """Where an output is while it is being written: `drive.mp4` → `drive.partial.mp4`."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")
