"""ASGI middleware that stands between the network and the application: who may come in, how much, and HEAD.

- What `Access` refuses is answered here, with its sentence; the same sentence is logged once.
- A body of more than `BODY_LIMIT` bytes is refused, and what comes of it forgotten.
- Every GET answers HEAD: players, proxies and monitors ask so before they fetch.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pipeline.serve.access import Access, App, Message, Receive, Scope, Send, header, inner_path
from pipeline.serve.links import is_picture

log = logging.getLogger(__name__)

BODY_LIMIT = 64 * 1024
MOST_SAID = 16
"""Refusals that are logged; after so many different ones a stranger is at work."""

SECURITY_HEADERS = (
    (
        b"content-security-policy",
        b"; ".join(
            (
                b"default-src 'none'",
                b"script-src 'self'",
                b"style-src 'self'",
                b"img-src 'self' blob: data:",
                b"media-src 'self' blob:",
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
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


_DRAIN_LIMIT = 1024 * 1024
"""Bytes of a refused body that are read and forgotten."""
_DRAIN_SECONDS = 1.0
_TOO_LARGE = f"the body is larger than {BODY_LIMIT} bytes"


class Guard:
    """ASGI middleware that lets in what `Access` lets in, and gives every answer its security headers."""

    def __init__(self, app: App, access: Access) -> None:
        self._app, self._access = app, access
        self._said: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        refusal = self._access.refusal(scope)
        if refusal is not None:
            self._say(*refusal)
            await refuse(scope, receive, send, *refusal)
            return
        followed = self._access.follow(scope)
        if followed is not None:
            scope = {**scope, "path": scope.get("root_path", "") + followed.path}
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
        elif scope["method"] == "HEAD":
            await self._head(scope, receive, _secured(send, shared=followed is not None))
        else:
            await self._pass(scope, receive, _secured(send, shared=followed is not None))

    def _say(self, status: int, why: str) -> None:
        """Log what a proxy that is set up wrongly meets: the page that it breaks shows none of it."""
        if status in {403, 421} and why not in self._said and len(self._said) < MOST_SAID:
            self._said.add(why)
            log.warning("refused: %s", why)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = next(iter(header(scope, b"content-length")), "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > BODY_LIMIT:
            if not header(scope, b"expect"):  # who asks first has not begun to send
                await _drain(receive)
            await refuse(scope, receive, send, 413, _TOO_LARGE)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > BODY_LIMIT:
                if message.get("more_body", False):
                    await _drain(receive)
                raise HTTPException(413, _TOO_LARGE)  # raised where the application reads, and answered by it
            return message

        with suppress(ClientDisconnect):  # who leaves in the middle of a body gets no answer, and the log no traceback
            await self._app(scope, limited, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What GET would answer, without the body; an answer that would go on for ever is given up at its head."""
        begun = asyncio.Event()

        async def head_only(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})
                begun.set()

        work = asyncio.ensure_future(self._pass({**scope, "method": "GET"}, receive, head_only))
        waiting = asyncio.ensure_future(begun.wait())
        try:
            await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not begun.is_set():
                await work  # it failed before it answered, and raises here
        finally:
            work.cancel()
            waiting.cancel()
            await asyncio.gather(work, waiting, return_exceptions=True)


async def _drain(receive: Receive) -> None:
    """Read on and forget what is read, for a while: a connection that is closed with a body unread is reset, and its
    client sees that in place of the answer."""
    read = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while read <= _DRAIN_LIMIT:
                message = await receive()
                read += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def _secured(send: Send, shared: bool) -> Send:
    """`send` with the security headers. What came by a link may be shown by pages of others: it is their leave."""
    policy = b"cross-origin" if shared else b"same-origin"

    async def secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = (*SECURITY_HEADERS, (b"cross-origin-resource-policy", policy))
            message["headers"] = [*message.get("headers", ()), *own]
        await send(message)

    return secured


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, why: str) -> None:
    """Answer a request, or close a WebSocket that has not been accepted, with a sentence."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": why[:120]})
        return
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *SECURITY_HEADERS]
    body = msgspec.json.encode({"detail": why})
    if status == 401:
        accepts = next(iter(header(scope, b"accept")), "")
        if scope["method"] == "GET" and "text/html" in accepts:
            status, body = 303, b""
            headers.append((b"location", f"{scope.get('root_path', '')}/login".encode()))
        else:
            headers.append((b"www-authenticate", _challenge(scope)))
    if status == 413:
        headers.append((b"connection", b"close"))
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _challenge(scope: Scope) -> bytes:
    """Players send a password only when they are asked for one; a browser would ask its user with a box of its own."""
    by_player = is_picture(inner_path(scope)) and not header(scope, b"sec-fetch-mode")
    return b'Basic realm="roadlens"' if by_player else b'Bearer realm="roadlens"'
