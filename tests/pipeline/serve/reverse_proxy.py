"""A reverse proxy that ends TLS and serves below a sub-path, as small as one can be; its habits are options."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit


@dataclass
class Habits:
    """What a proxy does to a request.

    Attributes:
        prefix: the sub-path that it serves below.
        strips: whether it takes the sub-path off.
        host: the Host that it sends; None for the browser's.
        adds: headers that it adds; `{host}` in one is the browser's Host.
    """

    prefix: str = "/cams"
    strips: bool = True
    host: str | None = None
    adds: dict[str, str] = field(default_factory=dict)

    def rewritten(self, head: bytes) -> bytes:
        lines = head.decode("latin-1").split("\r\n")
        method, path, version = lines[0].split(" ")
        if self.strips:
            path = path.removeprefix(self.prefix) or "/"
        browser = next(line.partition(":")[2].strip() for line in lines[1:] if line.lower().startswith("host:"))
        kept = [
            line for line in lines[1:]
            if line and not re.match(r"host:|x-forwarded-|connection: keep-alive", line, re.IGNORECASE)
        ]  # fmt: skip
        kept.append(f"Host: {self.host or browser}")
        kept += [f"{name}: {value.format(host=browser)}" for name, value in self.adds.items()]
        if not any(line.lower().startswith("upgrade:") for line in kept):
            kept.append("Connection: close")
        return "\r\n".join([f"{method} {path} {version}", *kept, "", ""]).encode("latin-1")


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of `localhost` that signs itself, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    named = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", key, "-out", cert, *named], check=True, capture_output=True)
    return cert, key


@contextmanager
def proxying(upstream: str, habits: Habits, files: tuple[Path, Path]) -> Iterator[str]:
    """The address of the proxy, `https://localhost:PORT/prefix`, while the block runs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    host, port = urlsplit(upstream).hostname, urlsplit(upstream).port
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=_pass_on, args=(context, plain, (host, port), habits), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"https://localhost:{listening.getsockname()[1]}{habits.prefix}"
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)


def _pass_on(context: ssl.SSLContext, plain: socket.socket, upstream: tuple[str, int], habits: Habits) -> None:
    with suppress(OSError), context.wrap_socket(plain, server_side=True) as client:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (got := client.recv(65536)):
                return
            head += got
        head, _, rest = head.partition(b"\r\n\r\n")
        with socket.create_connection(upstream) as server:
            server.sendall(habits.rewritten(head) + rest)
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while got := source.recv(65536):
            sink.sendall(got)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
