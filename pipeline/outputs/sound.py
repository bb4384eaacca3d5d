"""Sound on its way into an MP4: copied where MP4 takes it, made AAC where it does not, and never in the pictures' way.

What MP4 takes is found out by trying: the first packets are written to an MP4 in memory, which is read back. The
announcement of a container is not enough: AAC of a transport stream lacks its configuration, PCM of an AVI the layout
of its channels, and an announced track may be empty.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, cast

import av
import av.error
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags
from av.container import OutputContainer
from av.packet import Packet
from numpy.typing import NDArray

from engines.containers import exact, in_words, lasting

log = logging.getLogger(__name__)

MP4 = {
    # delay_moov keeps the edit list, and with it the exact times of streams with B-frames or sound that starts before
    # the picture.
    "movflags": "delay_moov+default_base_moof+frag_discont",
    "frag_duration": "1000000",
    "flush_packets": "1",
}
"""How every MP4 is written: in fragments of a second, so that it plays wherever it ends."""

_COPIED = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})
"""Codecs that players look for in MP4. FFmpeg writes more of them (PCM, Vorbis, DTS), which few play from there."""

TRIED_PACKETS = 8
"""Packets of sound with which it is tried whether an MP4 takes them."""

_AAC_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)
_AAC_SAMPLES = 1024
_AAC_BITS = 80_000
"""Bits a second and channel."""

_GAP = 0.1
"""Seconds by which sound may be away from where it is expected before it begins anew."""

_LONGEST_STEP = 2**31 - 1
"""What a fragment can say of a packet's duration, in units of the track (ISO/IEC 14496-12 §8.8.8)."""

_OVERLAP = 2
"""Packets by which the sound of a clip may begin before that of the clip before ends; more are left out."""

_FAILURES = (av.error.FFmpegError, OSError, ValueError, IndexError)


def copied(packet: Packet[Any]) -> Packet[Any]:
    """The packet once more, without its side data: a filter takes what it is given away."""
    result: Packet[Any] = Packet(bytes(packet))
    result.pts, result.dts, result.duration = packet.pts, packet.dts, packet.duration
    result.time_base, result.is_keyframe = packet.time_base, packet.is_keyframe
    return result


class _Copying:
    """Packets as they came, without the ADTS headers that those of a transport stream have and MP4 has not."""

    def __init__(self, template: AudioStream) -> None:
        context = template.codec_context
        bare = context.codec.canonical_name == "aac" and not context.extradata
        self._filter = BitStreamFilterContext("aac_adtstoasc", template) if bare else None

    def packets(self, packet: Packet[Any]) -> list[Packet[Any]]:
        own = copied(packet)
        if self._filter is None:
            return [own]
        results = self._filter.filter(own)
        for result in results:
            result.time_base = packet.time_base
        return results

    def rest(self) -> list[Packet[Any]]:
        return []


class _Encoding:
    """Packets decoded and made AAC, mono or stereo. A gap in the sound stays one."""

    def __init__(self, rate: int, channels: int, context: AudioCodecContext | None = None) -> None:
        self.rate = min((r for r in _AAC_RATES if r >= rate), default=48_000)
        self.layout = "mono" if channels == 1 else "stereo"
        self.context = context
        self._resampler = AudioResampler("fltp", self.layout, self.rate)
        self._samples: NDArray[np.float32] = np.zeros((1 if channels == 1 else 2, 0), np.float32)
        self._at: int | None = None

    def open(self, context: AudioCodecContext) -> None:
        """Set an encoder up."""
        context.sample_rate, context.layout, context.format = self.rate, self.layout, "fltp"
        context.time_base = Fraction(1, self.rate)
        context.bit_rate = _AAC_BITS * len(self._samples)
        context.flags |= Flags.global_header
        context.open()
        self.context = context

    def packets(self, packet: Packet[Any]) -> list[Packet[Any]]:
        results: list[Packet[Any]] = []
        for decoded in cast("Packet[AudioStream]", packet).decode():
            if decoded.pts is None and self._at is None:
                decoded.pts, decoded.time_base = packet.pts or packet.dts or 0, packet.time_base
            time = None if decoded.pts is None else decoded.pts * exact(decoded.time_base, Fraction(1, self.rate))
            decoded.pts = None  # the samples are counted here
            for frame in self._resampler.resample(decoded):
                results += self._taken(cast("NDArray[np.float32]", frame.to_ndarray()), time)
                time = None
        return results

    def _taken(self, samples: NDArray[np.float32], time: Fraction | None) -> list[Packet[Any]]:
        results: list[Packet[Any]] = []
        at = self._at
        if time is not None:
            begin = round(time * self.rate)
            expected = begin if at is None else at + self._samples.shape[1]
            if at is None or begin - expected > _GAP * self.rate:
                results = self._whole(pad=True)
                self._at = begin
            elif expected - begin > _GAP * self.rate:
                samples = samples[:, min(expected - begin, samples.shape[1]) :]
        if self._at is None:
            self._at = 0
        self._samples = np.concatenate((self._samples, samples), axis=1)
        return results + self._whole()

    def _whole(self, *, pad: bool = False) -> list[Packet[Any]]:
        """What whole frames of AAC there are, encoded; the rest, too, if it may be padded with silence."""
        if self.context is None:
            raise RuntimeError("the encoder is not open")
        results: list[Packet[Any]] = []
        if pad and (missing := -self._samples.shape[1] % _AAC_SAMPLES):
            self._samples = np.pad(self._samples, ((0, 0), (0, missing)))
        while self._at is not None and self._samples.shape[1] >= _AAC_SAMPLES:
            block = np.ascontiguousarray(self._samples[:, :_AAC_SAMPLES])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=self.layout)
            frame.sample_rate, frame.pts, frame.time_base = self.rate, self._at, Fraction(1, self.rate)
            results += self.context.encode(frame)
            self._samples = self._samples[:, _AAC_SAMPLES:]
            self._at += _AAC_SAMPLES
        for result in results:
            result.time_base = Fraction(1, self.rate)
        return results

    def rest(self) -> list[Packet[Any]]:
        results = self._whole(pad=True)
        if self._at is not None and self.context is not None:
            results += self.context.encode(None)
        for result in results:
            result.time_base = Fraction(1, self.rate)
        return results


class SoundTrack:
    """A sound track of an MP4.

    Attributes:
        stream: the container's.
        encoded: whether the sound is made AAC.
        written, left_out: packets.
    """

    def __init__(self, stream: AudioStream, way: _Copying | _Encoding) -> None:
        self.stream, self._way = stream, way
        self.encoded = isinstance(way, _Encoding)
        self.written = self.left_out = 0
        self._last: int | None = None
        self._over = False

    @classmethod
    def added(
        cls,
        container: OutputContainer,
        template: AudioStream,
        first: Sequence[Packet[Any]],
        name: str,
        warn: Callable[[str], None] = log.warning,
    ) -> SoundTrack | None:
        """A track added to a container that is not begun; None where its sound can neither be copied nor encoded.

        Args:
            container: the MP4.
            template: the source's track.
            first: its first packets; none where the track may be empty.
            name: of the MP4 or its stream, for what is said.
            warn: told in a sentence what becomes of sound that is not copied.
        """
        codec = template.codec_context.codec.canonical_name
        if codec in _COPIED and first and _taken_by_mp4(template, first):
            return cls(container.add_stream_from_template(template), _Copying(template))
        try:
            way = _encoding_of(template, first)
            stream = container.add_stream("aac", rate=way.rate)
            way.open(stream.codec_context)
        except _FAILURES as error:
            warn(f"{name}: a {codec} sound track can neither be copied nor decoded ({in_words(error)}); it is left out")
            return None
        if first:
            warn(f"{name}: the {codec} sound cannot be copied into an MP4; it is made AAC")
        else:
            log.info("%s: a %s sound track begins late, or never; what comes of it is made AAC", name, codec)
        return cls(stream, way)

    @classmethod
    def resumed(cls, container: OutputContainer, template: AudioStream, earlier: AudioStream) -> SoundTrack:
        """A track that goes on with the sound of an earlier recording."""
        own, old = template.codec_context, earlier.codec_context
        stream = container.add_stream_from_template(earlier)
        same = own.codec.canonical_name == old.codec.canonical_name
        if same and (not own.extradata or own.extradata == old.extradata):
            return cls(stream, _Copying(template))
        way = _Encoding(old.sample_rate, old.layout.nb_channels)
        way.open(av.CodecContext.create("aac", "w"))
        return cls(stream, way)

    def packets(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """What is to be written of the next packet of the source; nothing where it is damaged."""
        try:
            made = self._way.packets(packet)
        except _FAILURES as error:
            log.debug("a packet of sound is left out: %s", error)
            self.left_out += 1
            return []
        return self.placed(made)

    def rest(self) -> list[Packet[Any]]:
        """What is to be written at the end; once."""
        if self._over:
            return []
        self._over = True
        return self.placed(self._way.rest())

    def placed(self, packets: list[Packet[Any]]) -> list[Packet[Any]]:
        """The packets with times that the container takes: each behind the one before, in units of the track. Those
        that lie back, after a reset of the source's clock or where the sound of one clip is longer than its pictures,
        are left out but for a few, which are put close together.
        """
        results = []
        for packet in packets:
            own, unit = exact(packet.time_base, Fraction(1)), exact(self.stream.time_base, Fraction(1))
            duration = round((packet.duration or 0) * own / unit)
            stamp = packet.pts if packet.dts is None else packet.dts
            last = self._last
            at = (last or 0) + max(duration, 1) if stamp is None else round(stamp * own / unit)
            if last is not None and (at <= last - _OVERLAP * duration or at - last > _LONGEST_STEP):
                self.left_out += 1
                continue
            if last is not None and at <= last:
                at = last + 1
            self._last = at
            packet.time_base = unit
            packet.dts = packet.pts = at
            packet.duration = duration
            packet.stream = self.stream
            results.append(packet)
        self.written += len(results)
        return results


def _encoding_of(template: AudioStream, first: Sequence[Packet[Any]]) -> _Encoding:
    """How the sound of a track is made AAC. What is announced may not say how many channels, or at what rate, and may
    be of a codec that FFmpeg knows and does not decode; the first frame says it.

    Raises:
        FFmpegError, OSError, ValueError: none of the first packets can be decoded.
    """
    context = template.codec_context
    decoder, failed = lasting(template).codec_context, None
    for packet in first:
        try:
            for frame in decoder.decode(copied(packet)):
                return _Encoding(frame.sample_rate, frame.layout.nb_channels)
        except _FAILURES as error:
            failed = error
    if failed is not None:
        raise failed
    return _Encoding(context.sample_rate or 48_000, context.layout.nb_channels or 2)


def _taken_by_mp4(template: AudioStream, packets: Sequence[Packet[Any]]) -> bool:
    """Whether an MP4 with these packets of a track can be read back."""
    file, written = io.BytesIO(), 0
    try:
        way = _Copying(template)
        with av.open(file, "w", format="mp4", options=MP4) as trial:
            track = SoundTrack(trial.add_stream_from_template(template), way)
            trial.start_encoding()
            for packet in packets:
                made = track.packets(packet)
                written += len(made)
                trial.mux(made)
        file.seek(0)
        with av.open(file, "r") as read:
            (stream,) = read.streams.audio
            right = bool(stream.codec_context.sample_rate and stream.codec_context.layout.nb_channels)
            return right and 0 < written == sum(packet.size > 0 for packet in read.demux(stream))
    except _FAILURES as error:
        log.debug("a trial with %s sound in MP4 fails: %s", template.codec_context.name, error)
        return False
