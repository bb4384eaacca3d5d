"""`roadlens serve`: an HTTP server before, while and as long as streams run; and a stop that takes less than 5 s."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from engines.errors import OutputError, RoadlensError, UsageError
from pipeline.config import Config, ServeOptions
from pipeline.process import ending_signals, leave, leave_terminal
from pipeline.serve.access import Access, App
from pipeline.serve.service import Service
from pipeline.serve.token import read_token

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)

STOP_SECONDS = 4.5
"""After this long a stop is over, whatever still runs: a service manager soon kills."""

SEND_BUFFER = 128 * 1024
"""Bytes the kernel holds for one client. Left to itself it takes megabytes, which is seconds of old pictures."""


def serve(config: Config, inputs: Sequence[Path] = ()) -> int:
    """Serve a configuration until a signal; returns the exit code. `inputs` are further files that it was read from.

    Raises:
        RoadlensError: the address cannot be used, or a model cannot be loaded.
    """
    options = config.serve
    token = read_token(options)
    uvicorn_server, listening, service = _server(config, Access(token, (*options.allow_hosts, options.host)), inputs)
    stop = threading.Event()
    http = threading.Thread(target=uvicorn_server.run, args=([listening],), name="http", daemon=True)
    with _signals(stop):
        http.start()
        print(f"roadlens serves at {url(listening)}" + ("" if token is None else ", with the token"), file=sys.stderr)
        opened = _Opening(service)
        try:
            while not (stop.is_set() or opened.over):
                stop.wait(0.1)
            while not stop.is_set() and opened.error is None and not service.over:
                stop.wait(0.2)
        finally:
            code = _stop(service, opened, uvicorn_server, http)
    if opened.error is not None:
        raise opened.error
    return code


def url(listening: socket.socket) -> str:
    """What to open in a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


class _Opening:
    """Loads the engines in a thread of its own: a signal is heard meanwhile."""

    def __init__(self, service: Service) -> None:
        self.error: Exception | None = None
        self._service = service
        self.thread = threading.Thread(target=self._open, name="open", daemon=True)
        self.thread.start()

    def _open(self) -> None:
        try:
            self._service.open()
        except Exception as error:  # noqa: BLE001  # raised again in the main thread
            self.error = error

    @property
    def over(self) -> bool:
        return not self.thread.is_alive()


def _server(
    config: Config, access: Access, inputs: Sequence[Path] = ()
) -> tuple[uvicorn.Server, socket.socket, Service]:
    try:
        import uvicorn
        import websockets  # noqa: F401  # uvicorn's: without it every view would stay black, and nothing would say so

        from pipeline.serve.app import create_app
        from pipeline.serve.guard import Guard
        from pipeline.serve.limits.connections import Connection
        from pipeline.serve.proxies import Proxies
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"pipeline", "engines"}:
            raise
        raise UsageError(
            f"serving needs the package {error.name}; install it in the folder of roadlens with: pip install '.[serve]'"
        ) from None
    listening = _listen(config.serve)
    service: Service
    app: App
    if config.workers > 1:
        from pipeline.serve.workers.gateway import Gateway
        from pipeline.serve.workers.service import FleetService

        fleet = FleetService(config, inputs)
        service, app = fleet, Gateway(create_app(fleet, access), fleet)
    else:
        service = Service(config, inputs)
        app = create_app(service, access)
    settings = uvicorn.Config(
        Proxies(Guard(app, access), config.serve.trusted_proxies, config.serve.root_path),
        http=Connection, log_config=None, access_log=False, lifespan="off", server_header=False, proxy_headers=False,
        timeout_graceful_shutdown=1, ws_max_size=4096, ws_per_message_deflate=False,
    )  # fmt: skip
    return uvicorn.Server(settings), listening, service


def _listen(options: ServeOptions) -> socket.socket:
    host = options.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        listening.bind((host, options.port))
        listening.listen(128)
    except (OSError, UnicodeError) as error:
        listening.close()
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise OutputError(f"{host}:{options.port} is in use: choose another --port or stop that process") from None
        if number == errno.EACCES:
            raise OutputError(f"{host}:{options.port} may not be bound by this user; take a port above 1023") from None
        raise OutputError(f"{host}:{options.port} is no address to listen on: {error}") from None
    return listening


def _stop(service: Service, opened: _Opening, server: uvicorn.Server, http: threading.Thread) -> int:
    """Finish within `STOP_SECONDS`: the streams first, then the open answers; what hangs is left behind."""
    began = time.monotonic()
    error = opened.error
    service.close("" if error is None else str(error))
    server.should_exit = True
    code, over = service.finish(began + STOP_SECONDS)
    over = over and opened.over
    http.join(max(0.1, began + STOP_SECONDS - time.monotonic()))
    server.force_exit = True
    if not over or http.is_alive():
        # Native code that never returns, such as a compiler at work, would hold up the interpreter's own end.
        leave(
            error.exit_code if isinstance(error, RoadlensError) else code,
            lambda: log.warning("stopped, and left behind what did not stop by itself"),
        )
    return code


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP stop; the second one at once."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        leave_terminal()
        stop.set()

    before = {s: signal.signal(s, on_signal) for s in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
