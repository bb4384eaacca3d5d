"""What a recording holds beside its pictures and its sound: tags, chapters, timed text and data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from engines.containers import exact
from pipeline.contracts import Chapter, Extras

_OF_A_TRACK = ("language", "title", "handler_name")
_OF_THE_FILE = frozenset({
    "major_brand", "minor_version", "compatible_brands", "encoder", "creation_time", "keywords", "timecode", "duration",
})  # fmt: skip
"""Tags that tell of the file itself, and those that what is written has of its own."""


def held(container: InputContainer, video: VideoStream) -> Extras:
    """What a clip holds beside pictures and sound."""
    chapters = tuple(chapters_of(container))
    covers = any(int(s.disposition) & int(Disposition.attached_pic) for s in container.streams)
    files = any(s.type == "attachment" for s in container.streams)
    unread = [
        f"a data track ({marks_of(s.metadata).get('handler_name', 'without a name')})"
        for s in container.streams
        if s.type == "data" and int(s.discard) == int(Discard.all) and not (chapters and s.name == "bin_data")
    ]
    others = [*["a cover picture"] * covers, *["attached files"] * files, *unread]
    return Extras(
        tags_of(container.metadata), marks_of(video.metadata), chapters, data_streams(container), tuple(others)
    )


def data_streams(container: InputContainer) -> tuple[Any, ...]:
    """The tracks of text and of data, without those that FFmpeg has read for itself, as chapters."""
    return tuple(s for s in container.streams if s.type in ("subtitle", "data") and int(s.discard) < int(Discard.all))


def marks_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """The tags of a track that tell it from others: its language, its title, and what its recorder calls it."""
    return {key: value.strip() for key, value in tags_of(metadata).items() if key in _OF_A_TRACK}


def tags_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """The tags that stay true of whatever is made of a recording, as UTF-8 has them.

    Matroska's names are in capitals; FFmpeg gives a text in a language once more without it, and joins texts that come
    twice.
    """
    tags = {}
    for name, value in metadata.items():
        key = name.lower() if name.isupper() else name
        base = re.sub(r"-[a-z]{3}$", "", key)
        if key.lower() in _OF_THE_FILE or not value or (base != key and base in metadata):
            continue
        first, *more = value.split(";")
        text = first if more and set(more) == {first} else value
        tags[_readable(key)] = _readable(text)
    return tags


def _readable(text: str) -> str:
    """A text of a tag, whose bytes may be of any encoding, as UTF-8 can write it."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def data_signature(stream: Any) -> str:
    """What must be alike for the packets of two tracks of text or data to follow each other in one."""
    known = stream.codec_context.codec.canonical_name if stream.codec_context is not None else stream.name
    return f"{stream.type} {known}"


def begins_with(packet: Packet[Any], begins: Fraction | None) -> bool:
    """Whether a packet of text or data holds when the pictures begin, `begins` seconds by the clip's clock, or later.
    One that began before is made to begin with them: what came before was trimmed off.
    """
    if packet.pts is None or begins is None:
        return True
    unit = exact(packet.time_base, Fraction(1))
    early = round(begins / unit) - packet.pts
    if early <= 0:
        return True
    shown = packet.duration or 0
    if early >= shown:
        return False
    packet.pts += early
    packet.dts, packet.duration = packet.pts, shown - early
    return True


def chapters_of(container: InputContainer, shift: Fraction = Fraction(0)) -> list[Chapter]:
    """The chapters of a clip, `shift` seconds later than it says."""
    chapters = []
    for chapter in container.chapters():
        unit = exact(chapter["time_base"], Fraction(1, av.time_base))
        begin, end = (chapter[edge] * unit + shift for edge in ("start", "end"))
        title = tags_of(chapter["metadata"]).get("title", "")
        if 0 <= begin < end:
            chapters.append(Chapter(begin, end, title))
    return chapters


def span(container: InputContainer, video: VideoStream) -> tuple[Fraction, Fraction] | None:
    """When the pictures of a clip begin by its own clock, and how long they last, in seconds; None if it does not
    say."""
    unit = exact(video.time_base, Fraction(1))
    if video.duration:
        return (video.start_time or 0) * unit, video.duration * unit
    if container.duration:
        start = Fraction(container.start_time or 0, av.time_base)
        return start, Fraction(container.duration, av.time_base)
    return None
