"""A reverse proxy that ends TLS and serves below a sub-path, as small as one can be; its habits are options."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal


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
    """The address of the proxy, `https://localhost:PORT/prefix`, while the block runs.

    One thread does all of it: an OpenSSL connection that one thread reads and another writes loses data.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    host, port = urlsplit(upstream).hostname, urlsplit(upstream).port

    async def passes_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n")
            from_server, to_server = await asyncio.open_connection(host, port)
            to_server.write(habits.rewritten(head))
            await asyncio.gather(_pump(reader, to_server), _pump(from_server, writer))

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(passes_on, "127.0.0.1", 0, ssl=context)

    with start_blocking_portal("asyncio") as portal:
        server = portal.call(listen)
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}{habits.prefix}"
        portal.call(server.close)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while got := await source.read(65536):
            sink.write(got)
            await sink.drain()
    sink.close()
