"""What a received message looks like to people, and as files in a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import quote

from engines.classes import ClassInfo
from engines.errors import OutputError
from pipeline.frame import note_lines
from pipeline.messages.headers import (
    AnalysisMessage,
    EndMessage,
    EventMessage,
    Header,
    HeartbeatMessage,
    MaskMessage,
    PictureMessage,
    StatusMessage,
    kind_of,
)
from pipeline.messages.masks import encode_png
from pipeline.messages.subscriber import Gap
from pipeline.messages.wire import Received, to_json
from pipeline.process import visible

MOST_SAID = 10
"""Messages that are none of which each is told of."""


class Strange:
    """What came that is no message: a publisher's mistake, or a stranger's. Those who mean well are read on."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, error: Exception) -> None:
        """Tell of one, and of the first few why."""
        self._count += 1
        if self._count <= MOST_SAID:
            print(f"passed over: {visible(str(error))[:500]}", file=sys.stderr)

    def __str__(self) -> str:
        return f", {self._count} passed over that are no messages" if self._count else ""


def say_gap(gap: Gap) -> None:
    """Tell of messages that never came."""
    if gap.restarted:
        print(f"{visible(gap.stream)}: the publisher was started again", file=sys.stderr)
    if gap.count:
        print(f"{visible(gap.stream)}: {gap.count} missed from #{gap.first} on", file=sys.stderr)


def describe(header: Header) -> str:
    """A header in one line for people, whatever its texts hold."""
    return visible(_told(header))


def _told(header: Header) -> str:
    match header:
        case EndMessage():
            told = f"{header.frames} frames, {header.dropped} dropped"
            return f"{header.stream} #{header.sequence}  end ({header.reason}): {told}"
        case StatusMessage():
            again = "" if header.retry_in is None else f", again in {header.retry_in:.1f} s"
            return f"{header.stream}  {header.state}{': ' if header.reason else ''}{header.reason}{again}"
        case HeartbeatMessage():
            state = "" if header.state is None else f"{header.state}, "
            told = f"{header.sent} messages, {header.dropped} frames dropped, up {header.uptime_s:.0f} s"
            return f"{header.stream}  alive: {state}{told}"
        case EventMessage():
            span = (
                f"from {header.start_s:.1f} s on"
                if header.end_s is None
                else f"{header.start_s:.1f} to {header.end_s:.1f} s"
            )
            return f"{header.stream}  {header.what}, {span}: {header.text} (confidence {header.confidence:.2f})"
        case PictureMessage():
            made = "".join(f", {word}" for word in ("overlaid", "anonymized") if getattr(header, word))
            return f"{header.stream} #{header.sequence}  picture {header.width}×{header.height}{made}"
    parts = [f"{header.stream} #{header.sequence}", f"frame {header.frame}", f"{header.time_s:.3f} s"]
    parts += [f"age {header.age_ms:.0f} ms"]
    if header.dropped_since_last:
        parts.append(f"{header.dropped_since_last} dropped before")
    if header.boxes:
        parts.append(", ".join(f"{box.label} {box.score:.2f}" for box in header.boxes))
    largest = sorted(header.area.items(), key=lambda item: -item[1])[:4]
    if largest:
        parts.append(" ".join(f"{name} {share:.0%}" for name, share in largest))
    parts += note_lines(header.notes)
    return "  ".join(parts)


def write_received(received: Received, folder: Path) -> None:
    """Write a message as `<folder>/<stream>/<run>-<sequence>.json`, and its mask beside it as `.png`.

    What is neither analysis nor end is numbered apart and has its kind in its name: `<run>-<sequence>-status.json`; a
    picture lies beside it as `.jpg`. The `.json` gets its name last: where there is one, the message is complete.

    Raises:
        OutputError: the folder cannot be written to.
    """
    header = received.header
    place = folder / _file_name(header.stream)
    numbered_together = isinstance(header, AnalysisMessage | EndMessage)
    name = f"{_file_name(header.run)}-{header.sequence:08d}{'' if numbered_together else '-' + kind_of(header)}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        if received.class_map is not None and isinstance(header, AnalysisMessage) and header.mask is not None:
            (place / f"{name}.png").write_bytes(_png(received, header.mask))
        if isinstance(header, PictureMessage) and received.payload is not None:
            (place / f"{name}.jpg").write_bytes(received.payload)
        partial = place / f"{name}.partial"
        partial.write_bytes(to_json(header) + b"\n")
        partial.replace(place / f"{name}.json")
    except OSError as error:
        raise OutputError(f"{place / name}.json cannot be written: {error.strerror}") from error


def _png(received: Received, mask: MaskMessage) -> bytes:
    if mask.encoding == "png" and received.payload is not None:
        return received.payload
    assert received.class_map is not None
    classes = tuple(ClassInfo(label.id, label.name, label.color, label.thing) for label in mask.labels)
    return encode_png(received.class_map, classes)


def _file_name(name: str) -> str:
    """A name from the network that stays in its folder: no separator, neither `.` nor `..`, nothing hidden."""
    quoted = quote(name, safe=" ")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted
