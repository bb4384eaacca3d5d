"""What a recording holds beside pictures and sound, on its way into an MP4: tags, chapters, timed text and data.

What MP4 takes of it is found out by trying, as for sound. Text of another kind than MP4's is made MP4's.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, cast

import av
import av.error
from av.codec.codec import Properties
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.subtitles.codeccontext import SubtitleCodecContext

from engines.containers import exact, lasting
from pipeline.contracts import DataPacket, Extras
from pipeline.outputs.sound import SoundTrack, copied
from pipeline.provenance import MARK, MARK_KEY
from pipeline.sources.recording.extras import data_streams, marks_of

log = logging.getLogger(__name__)

_FAILURES = (av.error.FFmpegError, OSError, ValueError, IndexError)

_TEXT = "mov_text"
_MILLISECOND = Fraction(1, 1000)

_STYLE = b"""[Script Info]\r
ScriptType: v4.00+\r
[V4+ Styles]\r
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, \
Encoding\r
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1\r
[Events]\r
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\r
"""
"""What the encoder of MP4's text must know of text that has no style (FFmpeg's default)."""

_BLURRED = "people and number plates are blurred"
"""Comment in a file where that is so."""

_MARK_BLURRED = f"{MARK}, blurred"
"""Mark of such a file: a run that blurs does not go on with one that did not."""

_PLACES = ("location", "gps", "iso6709", "xyz")
"""What the names of tags with a place have in them."""


class _Track:
    """A track of text or data of an MP4.

    Args:
        stream: the container's.
        made: what is written of a packet of the source.

    Attributes:
        left_out: packets that could not be written.
    """

    def __init__(self, stream: Any, made: Callable[[Packet[Any]], Packet[Any]] = copied) -> None:
        self.stream, self._made = stream, made
        self.left_out = 0
        self._last: int | None = None

    def packets(self, packet: Packet[Any], *, written: bool = False) -> list[Packet[Any]]:
        """What is to be written of the next packet of the source, or of what was written before, each behind the one
        before."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            self.left_out += 1
            return []
        own, unit = exact(packet.time_base, self.stream.time_base), exact(self.stream.time_base, Fraction(1))
        at = round(stamp * own / unit)
        try:
            made = copied(packet) if written else self._made(packet)
        except _FAILURES as error:
            log.debug("a packet of text or data is left out: %s", error)
            self.left_out += 1
            return []
        if self._last is not None and at <= self._last:
            self.left_out += 1
            return []
        self._last = at
        made.stream, made.time_base = self.stream, unit
        made.pts = made.dts = at
        made.duration = round((packet.duration or 0) * own / unit)
        return [made]


@dataclass(frozen=True, slots=True)
class _Template:
    """A track of a source, by itself: what is copied of it, or what decodes its text."""

    name: str
    tags: dict[str, str]
    stream: Any = None
    decoder: SubtitleCodecContext | None = None

    @classmethod
    def of(cls, stream: Any) -> _Template:
        tags = marks_of(stream.metadata)
        codec = None if stream.codec_context is None else stream.codec_context.codec
        known = stream.name if codec is None else codec.canonical_name
        kind = "text" if stream.type == "subtitle" else "data"
        name = f"a {kind} track ({tags.get('handler_name') or known or 'of a kind nobody knows'})"
        if known is None and "timecode" in stream.metadata:
            name = "its timecode"
        if codec is None or known == _TEXT:
            return cls(name, tags, lasting(stream))
        if codec.properties & Properties.TEXT_SUB.value:
            with suppress(*_FAILURES):
                decoder = cast("SubtitleCodecContext", av.CodecContext.create(known, "r"))
                decoder.extradata = stream.codec_context.extradata
                decoder.open()
                _set_up(cast("SubtitleCodecContext", av.CodecContext.create(_TEXT, "w")), decoder).open()
                return cls(name, tags, decoder=decoder)
        return cls(name, tags)

    def added(self, container: OutputContainer) -> _Track | None:
        """The track of a container that is not begun; None where an MP4 has no place for it."""
        if self.stream is not None and _taken_by_mp4(self.stream):
            return _Track(container.add_stream_from_template(self.stream))
        if self.decoder is None:
            return None
        stream = container.add_stream(_TEXT)
        stream.time_base = _MILLISECOND
        return _Track(
            stream,
            partial(_as_text, self.decoder, _set_up(cast("SubtitleCodecContext", stream.codec_context), self.decoder)),
        )


class ExtrasWriter:
    """Carries what a recording holds beside pictures and sound into an MP4.

    Args:
        extras: what it holds; its tracks need not outlive this call.
        sound: the recording's sound tracks.
        path: of the MP4, for what is said.
    """

    def __init__(self, extras: Extras, sound: Sequence[Stream], path: Path) -> None:
        self._extras, self._path = extras, path
        self._sound = [marks_of(stream.metadata) for stream in sound]
        self._templates = [_Template.of(stream) for stream in extras.data]
        self._tracks: dict[int, _Track] = {}

    def options(self, muxer: Mapping[str, str]) -> dict[str, str]:
        """The muxer's options, with those that the extras need."""
        options = dict(muxer)
        if self._extras.tags:
            options["movflags"] += "+use_metadata_tags"  # MP4 has places of its own for a few only
        if self._templates:
            options["max_interleave_delta"] = "1000000"  # no packet waits for text for longer than a fragment lasts
        return options

    def begin(
        self, container: OutputContainer, video: Stream, sound: Mapping[int, SoundTrack], *, blurred: bool
    ) -> None:
        """Say all in a container that is about to begin. Where people are blurred, nobody is to learn where it was:
        places, and text and data in which they may be, are left out.

        Args:
            container: the MP4.
            video: its pictures.
            sound: its sound tracks, by the numbers of the source's.
            blurred: whether people are blurred.
        """
        extras = self._extras
        places = {key for key in extras.tags if any(place in key.lower() for place in _PLACES)} if blurred else set()
        container.metadata.update({key: value for key, value in extras.tags.items() if key not in places})
        container.metadata[MARK_KEY] = _MARK_BLURRED if blurred else MARK
        if blurred:
            container.metadata["comment"] = "; ".join([*filter(None, [extras.tags.get("comment")]), _BLURRED])
        container.set_chapters([
            {
                "id": number, "start": round(one.begin * 1000), "end": round(one.end * 1000),
                "time_base": _MILLISECOND, "metadata": {"title": one.title},
            }
            for number, one in enumerate(extras.chapters)
        ])  # fmt: skip
        video.metadata.update(extras.video_tags)
        for number, heard in sound.items():
            heard.stream.metadata.update(self._sound[number])
        lost = list(extras.others)
        for number, template in enumerate(self._templates if not blurred else ()):
            track = template.added(container)
            if track is None:
                lost.append(template.name)
            else:
                track.stream.metadata.update(template.tags)
                self._tracks[number] = track
        if lost:
            log.warning("%s: an MP4 has no place for %s; left out", self._path, ", ".join(lost))
        if blurred and (places or self._templates):
            named = [*["the place"] * bool(places), *(template.name for template in self._templates)]
            log.info("%s: people are blurred; left out is what may say where they were: %s",
                     self._path, ", ".join(named))  # fmt: skip

    def resumed(self, old: InputContainer) -> dict[int, int]:
        """The number of each track of an earlier recording, made of the same footage, by its stream's index."""
        return {s.index: number for s, number in zip(data_streams(old), self._tracks, strict=False)}

    def packets(self, item: DataPacket, *, written: bool = False) -> list[Packet[Any]]:
        """What is to be written of a packet of the source, or of an earlier recording."""
        track = self._tracks.get(item.track)
        return [] if track is None else track.packets(item.packet, written=written)

    def finish(self) -> None:
        """Say what could not be written of the tracks."""
        if left_out := sum(track.left_out for track in self._tracks.values()):
            log.warning(
                "%s: %d packets of text or data are damaged or lie back; they are left out", self._path, left_out
            )


def is_blurred(container: InputContainer) -> bool:
    """Whether people are blurred in a video that was written here."""
    return container.metadata.get(MARK_KEY) == _MARK_BLURRED


def _set_up(encoder: SubtitleCodecContext, decoder: SubtitleCodecContext) -> SubtitleCodecContext:
    """The encoder of MP4's text, told of the style of the text."""
    encoder.subtitle_header, encoder.time_base = decoder.subtitle_header or _STYLE, _MILLISECOND
    return encoder


def _as_text(decoder: SubtitleCodecContext, encoder: SubtitleCodecContext, packet: Packet[Any]) -> Packet[Any]:
    """A packet of whatever text as MP4's.

    Raises:
        ValueError: it holds no text.
    """
    text = decoder.decode2(packet)
    if text is None:
        raise ValueError("no text")
    return encoder.encode_subtitle(text)


def _taken_by_mp4(template: Any) -> bool:
    """Whether an MP4 has a place for a track."""
    try:
        with av.open(io.BytesIO(), "w", format="mp4", options={"movflags": "empty_moov"}) as trial:
            trial.add_stream_from_template(template)
            trial.start_encoding()
    except _FAILURES as error:
        log.debug("a trial with a track in MP4 fails: %s", error)
        return False
    return True
