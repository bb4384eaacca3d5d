"""Who may come in: what stands between the network and the API.

- **Host**: a page of a stranger whose name was made to point here (DNS rebinding) sends its own name; only addresses,
  `localhost` and names that were allowed are served.
- **Origin**: what a browser sends on behalf of a page of another origin is refused; no CORS header is ever sent.
- **Token**: `Authorization: Bearer …`, or the cookie that the login page gives out; compared in constant time.
- **Size**: a body of more than `BODY_LIMIT` bytes is not read.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_LIMIT = 64 * 1024
COOKIE = "roadlens"
COOKIE_SECONDS = 12 * 3600

OPEN_PATHS = frozenset({"/livez", "/readyz", "/login"})
"""What anybody may ask for; so is everything below `/assets/`, which is the page without any of its data."""

SECURITY_HEADERS = (
    (
        b"content-security-policy",
        b"; ".join(
            (
                b"default-src 'none'",
                b"script-src 'self'",
                b"style-src 'self'",
                b"img-src 'self' blob: data:",
                b"media-src blob:",
                b"connect-src 'self'",
                b"base-uri 'none'",
                b"form-action 'self'",
                b"frame-ancestors 'none'",
            )
        ),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer a form sends the origin `null`
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


class Access:
    """The rules of who may come in.

    Args:
        token: what clients must show; None to let in everybody who reaches the address.
        hosts: names by which this server may be called, beside addresses, `localhost` and the machine's own name.
        clock: Unix time in seconds.
    """

    def __init__(self, token: str | None, hosts: Iterable[str] = (), clock: Callable[[], float] = time.time) -> None:
        self._token = None if token is None else token.encode()
        self._key = secrets.token_bytes(32)
        self._clock = clock
        self._hosts = {h.casefold() for h in (*hosts, "localhost", socket.gethostname())}

    @property
    def needs_token(self) -> bool:
        """Whether clients must show a token."""
        return self._token is not None

    def knows(self, token: str) -> bool:
        """Whether this is the token; takes as long for a wrong one."""
        given = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        return self._token is None or hmac.compare_digest(given, hashlib.sha256(self._token).digest())

    def cookie(self) -> str:
        """A fresh cookie's value, good for `COOKIE_SECONDS` and until this process ends."""
        until = str(int(self._clock()) + COOKIE_SECONDS)
        return f"{until}.{self._sign(until)}"

    def _sign(self, until: str) -> str:
        return hmac.new(self._key, until.encode(), "sha256").hexdigest()

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the sentence with which a request is refused; None where it may pass."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._serves(hosts[0]):
            return 421, "this server is not called that; start it with --allow-host NAME to serve a name"
        method = scope.get("method", "GET")
        if not _same_origin(headers.get("origin", []), hosts[0], method, scope["type"]):
            return 403, "a page of another origin may not do this"
        path = scope["path"]
        if self._token is None or path in OPEN_PATHS or path.startswith("/assets/"):
            return None
        if self._authorized(headers):
            return None
        return 401, "show the token: Authorization: Bearer TOKEN, or log in at /login"

    def _serves(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name.startswith("[") and name.endswith("]"):
            name = name[1:-1]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.casefold().removesuffix(".") in self._hosts
        return True

    def _authorized(self, headers: dict[str, list[str]]) -> bool:
        for value in headers.get("authorization", []):
            scheme, _, token = value.partition(" ")
            if scheme.casefold() == "bearer" and self.knows(token.strip()):
                return True
        for line in headers.get("cookie", []):
            try:
                morsel = SimpleCookie(line).get(COOKIE)
            except CookieError:
                continue
            if morsel is not None and self._valid(morsel.value):
                return True
        return False

    def _valid(self, cookie: str) -> bool:
        until, _, signature = cookie.partition(".")
        genuine = hmac.compare_digest(signature.encode("latin-1", "replace"), self._sign(until).encode())
        return genuine and until.isdigit() and int(until) > self._clock()


def _same_origin(origins: list[str], host: str, method: str, kind: str) -> bool:
    """Whether a request may come from where it says: reading is harmless without CORS, writing and sockets are not."""
    if kind == "http" and method in {"GET", "HEAD", "OPTIONS"}:
        return True
    return all(origin.partition("://")[2].casefold() == host.casefold() for origin in origins)


_TOO_LARGE = f"the body is larger than {BODY_LIMIT} bytes"


class Guard:
    """ASGI middleware that lets in what `Access` lets in, and gives every answer its security headers."""

    def __init__(self, app: App, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        refusal = self._access.refusal(scope)
        if scope["type"] == "websocket":
            if refusal is None:
                await self._app(scope, receive, send)
            else:
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": refusal[1][:120]})
            return
        if refusal is not None:
            await _refuse(scope, send, *refusal)
            return
        await self._pass(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = next((v for k, v in scope["headers"] if k.lower() == b"content-length"), b"0")
        if length.isdigit() and int(length[:20]) > BODY_LIMIT:
            await _refuse(scope, send, 413, _TOO_LARGE)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > BODY_LIMIT:
                raise HTTPException(413, _TOO_LARGE)  # raised where the application reads, and answered by it
            return message

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
            await send(message)

        with suppress(ClientDisconnect):  # who leaves in the middle of a body gets no answer, and the log no traceback
            await self._app(scope, limited, secured)


async def _refuse(scope: Scope, send: Send, status: int, why: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *SECURITY_HEADERS]
    body = msgspec.json.encode({"detail": why})
    if status == 401:
        accepts = next((v for k, v in scope["headers"] if k.lower() == b"accept"), b"")
        if scope["method"] == "GET" and b"text/html" in accepts:
            status, body = 303, b""
            headers.append((b"location", b"/login"))
        else:
            headers.append((b"www-authenticate", b'Bearer realm="roadlens"'))
    if status == 413:
        headers.append((b"connection", b"close"))
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
