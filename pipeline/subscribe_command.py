"""`roadlens subscribe`: print what a publisher sends, or write it into a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from engines.classes import ClassInfo
from engines.errors import OutputError
from pipeline.messages import AnalysisMessage, Header, MaskMessage, Received, encode_png, to_json
from pipeline.subscriber import Gap, Subscriber


def subscribe(
    endpoint: Annotated[str, typer.Argument(help="Where the publisher is: tcp://host:port or ipc:///path.")],
    pull: Annotated[bool, typer.Option("--pull", help="The publisher is PUSH (reliable), not PUB.")] = False,
    stream: Annotated[list[str] | None, typer.Option(help="Only this stream; may be given several times.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write STREAM/RUN-SEQUENCE.json and .png (the mask) here, print nothing.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this many analyses.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print whole headers, one JSON object a line.")] = False,
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop when every stream seen has ended.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Give up when nothing comes for this many seconds [default: never].")
    ] = None,
) -> None:
    """Print the messages of a running roadlens, or write its masks and JSON into a folder.

    Messages go to standard output; gaps and the last line (received, missed) to standard error. Ctrl-C ends it.
    """
    subscriber = Subscriber(
        endpoint, "pull" if pull else "sub", streams=stream or None, timeout=timeout, until_end=until_end, on_gap=_say
    )
    with subscriber:
        analyses = 0
        try:
            for received in subscriber:
                if output is not None:
                    write_received(received, output)
                else:
                    line = to_json(received.header).decode() if as_json else describe(received.header)
                    print(line, flush=True)
                analyses += isinstance(received.header, AnalysisMessage)
                if count is not None and analyses >= count:
                    break
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:
            # The reader of our output (`| head`) has enough. Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        finally:
            restarts = sum(tally.restarts for tally in subscriber.tallies.values())
            print(
                f"{subscriber.received} received, {subscriber.missed} missed"
                + (f", publisher restarted {restarts}×" if restarts else ""),
                file=sys.stderr,
            )


def describe(header: Header) -> str:
    """A header in one line for people."""
    if not isinstance(header, AnalysisMessage):
        told = f"{header.frames} frames, {header.dropped} dropped"
        return f"{header.stream} #{header.sequence}  end ({header.reason}): {told}"
    parts = [f"{header.stream} #{header.sequence}", f"frame {header.frame}", f"{header.time_s:.3f} s"]
    parts += [f"age {header.age_ms:.0f} ms"]
    if header.dropped_since_last:
        parts.append(f"{header.dropped_since_last} dropped before")
    if header.boxes:
        parts.append(", ".join(f"{box.label} {box.score:.2f}" for box in header.boxes))
    largest = sorted(header.area.items(), key=lambda item: -item[1])[:4]
    if largest:
        parts.append(" ".join(f"{name} {share:.0%}" for name, share in largest))
    return "  ".join(parts)


def write_received(received: Received, folder: Path) -> None:
    """Write a message as `<folder>/<stream>/<run>-<sequence>.json`, and its mask beside it as `.png`.

    The mask is written first: where there is a `.json`, the message is complete.

    Raises:
        OutputError: the folder cannot be written to.
    """
    header = received.header
    place = folder / _file_name(header.stream)
    name = f"{_file_name(header.run)}-{header.sequence:08d}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        if received.class_map is not None and isinstance(header, AnalysisMessage) and header.mask is not None:
            (place / f"{name}.png").write_bytes(_png(received, header.mask))
        (place / f"{name}.json").write_bytes(to_json(header) + b"\n")
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


def _say(gap: Gap) -> None:
    if gap.restarted:
        print(f"{gap.stream}: the publisher was started again", file=sys.stderr)
    if gap.count:
        print(f"{gap.stream}: {gap.count} missed from #{gap.first} on", file=sys.stderr)
