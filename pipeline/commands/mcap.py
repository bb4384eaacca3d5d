"""`roadlens mcap record | replay | recover`: keep the messages of a publisher, and publish them again."""

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

from engines.commands.idle import refuse_idle
from engines.errors import UsageError
from pipeline.commands.subscribe import refuse_pictures
from pipeline.process import ending_signals, leave_terminal

if TYPE_CHECKING:
    from pipeline.messages.headers import Kind

app = typer.Typer(
    help="Record the messages of a publisher in MCAP, as `run --mcap` does, and publish them again.",
    no_args_is_help=True,
)


@app.command()
def record(
    endpoint: Annotated[str, typer.Argument(help="Where the publisher is: tcp://host:port or ipc:///path.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The recording, a .mcap that is not there yet.")],
    pull: Annotated[bool, typer.Option("--pull", help="The publisher is PUSH (reliable), not PUB.")] = False,
    stream: Annotated[list[str] | None, typer.Option(help="Only this stream. Repeatable.")] = None,
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

    Ctrl-C ends it. After a kill the file lacks its last second and its index: `roadlens mcap recover` writes the index.
    """
    from pipeline.commands.received import Strange, say_gap
    from pipeline.messages.headers import MessageError
    from pipeline.messages.mcap import FLUSH, Recorder
    from pipeline.messages.sockets.keys import client_keys
    from pipeline.messages.subscriber import SilenceError, Subscriber

    if output.suffix != ".mcap":
        raise UsageError(f"{output} is to be a recording: give a name that ends in .mcap")
    if pull:
        refuse_pictures(pictures, "--pictures")
    strange = Strange()
    kinds: list[Kind] = ["analysis", "end", "status", "heartbeat", "event"]
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
        on_gap=say_gap,
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
                except MessageError as error:
                    strange.add(error)
                    continue
                recorder.write(received.header, received.parts)
        finally:
            print(f"{recorder.written} recorded, {subscriber.missed} missed{strange}", file=sys.stderr)


@app.command()
def replay(
    context: typer.Context,
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
    from pipeline.messages.recording import read_recording
    from pipeline.messages.replay import replay as published
    from pipeline.messages.sockets.keys import CurveOptions, server_keys
    from pipeline.messages.sockets.outlet import Outlet

    wanted = [(endpoint, "pub") for endpoint in pub or ()] + [(endpoint, "push") for endpoint in push or ()]
    if not wanted:
        raise UsageError("nothing would come out: give --pub or --push with an address")
    if not realtime:
        refuse_idle(context, "is of the pace at which it came, which --fast does without", "speed")
    if not pub:
        refuse_idle(context, "is for --pub: PUSH waits for its reader anyhow", "wait")
    if server_key is None:
        refuse_idle(context, "says who may read what --server-key encrypts, which is not given", "clients")
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


@app.command()
def recover(
    recording: Annotated[Path, typer.Argument(help="A recording whose recorder was killed.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The whole one, which is not there yet.")],
) -> None:
    """Write what is whole of a recording into a new one, with the index that readers such as Foxglove want."""
    from pipeline.messages.recording import recover as written

    print(f"{written(recording, output)} messages recovered", file=sys.stderr)


@contextmanager
def _ended_by_a_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and SIGHUP set; a second Ctrl-C interrupts as ever."""
    ended = threading.Event()

    def end(number: int, _frame: object) -> None:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        leave_terminal()
        ended.set()

    before = {number: signal.signal(number, end) for number in ending_signals()}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
