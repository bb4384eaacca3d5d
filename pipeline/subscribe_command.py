"""`roadlens subscribe`: print what a publisher sends, or write it into a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engines.errors import UsageError

if TYPE_CHECKING:
    from pipeline.subscriber import Gap


def subscribe(
    endpoint: Annotated[str, typer.Argument(help="Where the publisher is: tcp://host:port or ipc:///path.")],
    pull: Annotated[bool, typer.Option("--pull", help="The publisher is PUSH (reliable), not PUB.")] = False,
    stream: Annotated[list[str] | None, typer.Option(help="Only this stream; may be given several times.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write STREAM/RUN-SEQUENCE.json and .png (the mask) here, print nothing.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this many analyses.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print whole headers, one JSON object a line.")] = False,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only analysis, end, status, heartbeat or picture. Repeatable.")
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
    from pipeline.keys import client_keys
    from pipeline.messages import KINDS, AnalysisMessage, to_json
    from pipeline.received import describe, write_received
    from pipeline.subscriber import Subscriber

    kinds = [known for known in KINDS if known in (kind or ("analysis", "status", "end"))]
    if unknown := set(kind or ()) - set(kinds):
        raise UsageError(f"there are no messages of kind {', '.join(sorted(unknown))}; kinds are {', '.join(KINDS)}")
    subscriber = Subscriber(
        endpoint,
        "pull" if pull else "sub",
        streams=stream or None,
        kinds=kinds,
        classes=seen or None,
        timeout=timeout,
        until_end=until_end,
        on_gap=_say,
        curve=client_keys(server_key, key),
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


def _say(gap: Gap) -> None:
    if gap.restarted:
        print(f"{gap.stream}: the publisher was started again", file=sys.stderr)
    if gap.count:
        print(f"{gap.stream}: {gap.count} missed from #{gap.first} on", file=sys.stderr)
