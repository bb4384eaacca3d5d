"""`roadlens record`, `replay` and `recover`: keep the messages of a publisher, and publish them again."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engines.errors import UsageError

if TYPE_CHECKING:
    from pipeline.messages import Kind
    from pipeline.subscriber import Gap


def record(
    endpoint: Annotated[str, typer.Argument(help="Where the publisher is: tcp://host:port or ipc:///path.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The recording, a .mcap that is not there yet.")],
    pull: Annotated[bool, typer.Option("--pull", help="The publisher is PUSH (reliable), not PUB.")] = False,
    stream: Annotated[list[str] | None, typer.Option(help="Only this stream; may be given several times.")] = None,
    pictures: Annotated[bool, typer.Option("--pictures", help="Ask for pictures, and record them too.")] = False,
    views: Annotated[bool, typer.Option(help="Write what Foxglove shows beside the messages.")] = True,
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop when every stream seen has ended.")] = False,
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after this many seconds.")] = None,
    server_key: Annotated[
        str | None, typer.Option(help="The publisher's public key, or its .key file, where it speaks CurveZMQ.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="One's own .key_secret file.")] = None,
) -> None:
    """Record the messages of a running roadlens into an MCAP file, bit for bit; it opens in Foxglove.

    Ctrl-C ends it. After a kill the file lacks its last second and its index: `roadlens recover` writes the index.
    """
    from pipeline.keys import client_keys
    from pipeline.record import FLUSH, Recorder
    from pipeline.subscriber import SilenceError, Subscriber

    if output.suffix != ".mcap":
        raise UsageError(f"{output} is to be a recording: give a name that ends in .mcap")
    kinds: list[Kind] = ["analysis", "end", "status", "heartbeat"]
    kinds += ["picture"] if pictures else []
    stop = time.monotonic() + seconds if seconds is not None else float("inf")
    with _ended_by_a_signal() as ended, Subscriber(
        endpoint,
        "pull" if pull else "sub",
        streams=stream or None,
        kinds=kinds,
        masks=False,
        timeout=FLUSH / 2,
        until_end=until_end,
        on_gap=_say,
        high_water=1000,  # it reads as fast as it can, and here old messages are as good as new ones
        curve=client_keys(server_key, key),
    ) as subscriber, Recorder(output, views=views) as recorder:  # fmt: skip
        try:
            while not ended.is_set() and time.monotonic() < stop and not (until_end and subscriber.ended):
                try:
                    received = subscriber.receive()
                except SilenceError:
                    recorder.flush()
                    continue
                recorder.write(received.header, received.parts)
        finally:
            print(f"{recorder.written} recorded, {subscriber.missed} missed", file=sys.stderr)


def replay(
    recording: Annotated[Path, typer.Argument(help="The recording, a .mcap.")],
    pub: Annotated[list[str] | None, typer.Option(help="ZeroMQ PUB address: loses rather than waits.")] = None,
    push: Annotated[list[str] | None, typer.Option(help="ZeroMQ PUSH address: waits rather than loses.")] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime/--fast", help="At the pace at which it came, or as fast as it goes.")
    ] = True,
    speed: Annotated[float, typer.Option(min=0.01, max=1000, help="Times the pace at which it came.")] = 1.0,
    wait: Annotated[bool, typer.Option("--wait", help="Begin when somebody has subscribed.")] = False,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Let other machines read.")] = False,
    server_key: Annotated[Path | None, typer.Option(help="A .key_secret file: speak CurveZMQ only.")] = None,
    clients: Annotated[str, typer.Option(help="With it: a folder of .key files of who may read, or any.")] = "any",
) -> None:
    """Publish a recording again, the same messages bit for bit. Ctrl-C ends it."""
    from pipeline.keys import CurveOptions, server_keys
    from pipeline.outlet import Outlet
    from pipeline.record import read_recording
    from pipeline.replay import replay as published

    wanted = [(endpoint, "pub") for endpoint in pub or ()] + [(endpoint, "push") for endpoint in push or ()]
    if not wanted:
        raise UsageError("nothing would come out: give --pub or --push with an address")
    curve = None if server_key is None else server_keys(CurveOptions(server_key, clients))
    with _ended_by_a_signal() as ended, ExitStack() as stack:
        outlets = []
        for endpoint, pattern in wanted:
            outlet = Outlet(
                endpoint,
                "pub" if pattern == "pub" else "push",
                stop=ended.is_set,
                allow_remote=allow_remote,
                curve=curve,
            )
            stack.callback(outlet.close)
            print(f"{pattern} {outlet.endpoint}", file=sys.stderr, flush=True)
            outlets.append(outlet)
        pace = speed if realtime else None
        result = published(read_recording(recording), outlets, speed=pace, wait=wait, stopped=ended)
    print(f"{result.read} read, {result.sent} sent", file=sys.stderr)


def recover(
    recording: Annotated[Path, typer.Argument(help="A recording whose recorder was killed.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The whole one, which is not there yet.")],
) -> None:
    """Write what is whole of a recording into a new one, with the index that readers such as Foxglove want."""
    from pipeline.record import recover as written

    print(f"{written(recording, output)} messages recovered", file=sys.stderr)


@contextmanager
def _ended_by_a_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C interrupts as ever."""
    ended = threading.Event()

    def end(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(gap: Gap) -> None:
    if gap.restarted:
        print(f"{gap.stream}: the publisher was started again", file=sys.stderr)
    if gap.count:
        print(f"{gap.stream}: {gap.count} missed from #{gap.first} on", file=sys.stderr)
