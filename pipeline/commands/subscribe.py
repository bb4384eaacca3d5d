"""`roadlens subscribe`: print what a publisher sends, or write it into a folder."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engines.commands.idle import refuse_idle
from engines.errors import UsageError
from pipeline.process import ending_signals, interrupt

if TYPE_CHECKING:
    from pipeline.commands.received import Strange
    from pipeline.messages.headers import Kind
    from pipeline.messages.subscriber import Subscriber


def subscribe(
    context: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="Where the publisher is: tcp://host:port or ipc:///path.")],
    pull: Annotated[bool, typer.Option("--pull", help="The publisher is PUSH (reliable), not PUB.")] = False,
    stream: Annotated[list[str] | None, typer.Option(help="Only this stream. Repeatable.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write STREAM/RUN-SEQUENCE.json and .png (the mask) here, print nothing."),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this many analyses.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print whole headers, one JSON object a line.")] = False,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only analysis, end, status, heartbeat, event or picture. Repeatable.")
    ] = None,
    seen: Annotated[
        list[str] | None, typer.Option("--with", metavar="CLASS", help="Only frames with this class. Repeatable.")
    ] = None,
    server_key: Annotated[
        str | None, typer.Option(help="The publisher's public key, or its .key file, where it speaks CurveZMQ.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="One's own .key_secret file.")] = None,
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop when every stream seen has ended.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Give up when nothing comes for this many seconds (default: never).")
    ] = None,
) -> None:
    """Print the messages of a running roadlens, or write its masks and JSON into a folder.

    Messages go to standard output; gaps and the last line (received, missed) to standard error. Ctrl-C ends it.
    """
    # Here, not above: with NumPy, av and ZeroMQ they cost `roadlens --help` 0.15 s.
    from pipeline.commands.received import Strange, say_gap
    from pipeline.messages.sockets.keys import client_keys
    from pipeline.messages.subscriber import Subscriber

    kinds = _kinds(kind)
    _refuse_what_would_do_nothing(context, kinds, output, pull)
    subscriber = Subscriber(
        endpoint, "pull" if pull else "sub", streams=stream or None, kinds=kinds, classes=seen or None,
        timeout=timeout, until_end=until_end, on_gap=say_gap, curve=client_keys(server_key, key),
    )  # fmt: skip
    for number in ending_signals()[1:]:
        signal.signal(number, interrupt)
    strange = Strange()
    with subscriber:
        try:
            _take(subscriber, output, as_json, count, strange)
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:
            # The reader of our output (`| head`) has enough. Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        finally:
            restarts = sum(tally.restarts for tally in subscriber.tallies.values())
            print(
                f"{subscriber.received} received, {subscriber.missed} missed"
                + (f", publisher restarted {restarts}×" if restarts else "")
                + str(strange),
                file=sys.stderr,
            )


def _refuse_what_would_do_nothing(context: typer.Context, kinds: list[Kind], output: Path | None, pull: bool) -> None:
    if output is not None:
        refuse_idle(context, "prints headers, and with --output they are written instead", "as_json")
    if "analysis" not in kinds:
        refuse_idle(context, "is about analyses, and --kind asks for none", "count", "seen")
    if pull:
        refuse_pictures("picture" in kinds, "--kind picture")


def refuse_pictures(asked: bool, flag: str) -> None:
    """See that a reader of PUSH asks for no pictures.

    Raises:
        UsageError: it does.
    """
    if asked:
        raise UsageError(f"{flag} has a publisher of PUB make pictures, and one of PUSH makes none; leave it out")


def _kinds(asked: list[str] | None) -> list[Kind]:
    from pipeline.messages.headers import KINDS

    kinds = [known for known in KINDS if known in (asked or ("analysis", "status", "end", "event"))]
    if unknown := set(asked or ()) - set(kinds):
        raise UsageError(f"there are no messages of kind {', '.join(sorted(unknown))}; kinds are {', '.join(KINDS)}")
    return kinds


def _take(subscriber: Subscriber, output: Path | None, as_json: bool, count: int | None, strange: Strange) -> None:
    """Print or write what comes, until it is over or `count` analyses have come."""
    from pipeline.commands.received import describe, write_received
    from pipeline.messages.headers import AnalysisMessage, MessageError
    from pipeline.messages.wire import to_json

    analyses = 0
    while not subscriber.over:
        try:
            received = subscriber.receive()
        except MessageError as error:
            strange.add(error)
            continue
        if output is not None:
            write_received(received, output)
        else:
            print(to_json(received.header).decode() if as_json else describe(received.header), flush=True)
        analyses += isinstance(received.header, AnalysisMessage)
        if count is not None and analyses >= count:
            return
