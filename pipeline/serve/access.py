"""Who may come in: the rules, without a server.

- **Host**: a page of a stranger whose name was made to point here (DNS rebinding) sends its own name; only addresses,
  `localhost` and names that were allowed are served.
- **Origin**: what a browser sends on behalf of a page of another origin is refused; no CORS header is ever sent.
- **Token**: `Authorization: Bearer …`, or the cookie that the login page gives out, compared in constant time. Players,
  which can do neither, read with the token as the password of Basic, or by a signed link.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

from pipeline.serve.links import Followed, Links

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "roadlens"
COOKIE_SECONDS = 12 * 3600

OPEN_PATHS = frozenset({"/livez", "/readyz", "/login"})
"""What anybody may ask for; so is everything below `/assets/`, which is the page without any of its data."""

READING = frozenset({"GET", "HEAD", "OPTIONS"})


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
        self._links = None if self._token is None else Links(self._token, clock)
        self._clock = clock
        self._revoked: dict[str, int] = {}
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
        named = f"{int(self._clock()) + COOKIE_SECONDS}-{secrets.token_hex(16)}"
        return f"{named}.{self._sign(named)}"

    def revoke(self, scope: Scope) -> None:
        """Let the cookies of a request be good for nothing any more: who has a copy of one is logged out, too."""
        now = self._clock()
        self._revoked = {named: until for named, until in self._revoked.items() if until > now}
        for line in header(scope, b"cookie"):
            for cookie in _cookies(line):
                if self._valid(cookie):
                    named = cookie.partition(".")[0]
                    self._revoked[named] = int(named.partition("-")[0])

    def _sign(self, named: str) -> str:
        return hmac.new(self._key, named.encode("latin-1", "replace"), "sha256").hexdigest()

    def link(self, stream: str, seconds: int) -> tuple[str, int] | None:
        """The path before `/snapshot`, `/view.mjpeg` and `/hls/…` that needs no token, and until when, Unix seconds;
        None where there is no token to do without.
        """
        if self._links is None:
            return None
        until = int(self._clock()) + seconds
        return self._links.path(stream, until), until

    def follow(self, scope: Scope) -> Followed | None:
        """Where a request leads that came by a link; None where it is none."""
        return None if self._links is None else self._links.follow(inner_path(scope))

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the sentence with which a request is refused; None where it may pass."""
        hosts = header(scope, b"host")
        if len(hosts) != 1 or not self._serves(hosts[0]):
            name = _without_port(hosts[0])[:64] if len(hosts) == 1 else ""
            called = (
                f"called {name!r}; start it with --allow-host {name}" if name else "called so; send one Host header"
            )
            return 421, f"this server is not {called}"
        method = scope.get("method", "GET")
        for origin in header(scope, b"origin"):
            if not _same_origin(origin, hosts[0], method, scope["type"]):
                return 403, (
                    f"a page of {origin[:64]!r} may not do this: the request came for {hosts[0][:64]!r}; a proxy "
                    "between them shall pass the browser's Host on (nginx: proxy_set_header Host $http_host), or send "
                    "X-Forwarded-Host and be named with --trusted-proxy ADDRESS"
                )
        path = inner_path(scope)
        if self._token is None or path in OPEN_PATHS or path.startswith("/assets/"):
            return None
        if self._authorized(scope, reading=scope["type"] == "http" and method in READING):
            return None
        followed = self.follow(scope)
        if followed is None:
            return 401, "show the token: Authorization: Bearer TOKEN, or log in at /login"
        if followed.valid and method in READING:
            return None
        return (
            401,
            f"this link is over or was not made with this token; POST /api/v1/streams/{followed.stream}/link makes one",
        )

    def _serves(self, host: str) -> bool:
        name = _without_port(host)
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.casefold().removesuffix(".") in self._hosts
        return True

    def _authorized(self, scope: Scope, reading: bool) -> bool:
        for value in header(scope, b"authorization"):
            scheme, _, shown = value.partition(" ")
            if scheme.casefold() == "bearer" and self.knows(shown.strip()):
                return True
            # A browser that once got a password sends it with what pages of others make it send: reading is harmless.
            if reading and scheme.casefold() == "basic" and self.knows(_password(shown)):
                return True
        return any(self._valid(cookie) for line in header(scope, b"cookie") for cookie in _cookies(line))

    def _valid(self, cookie: str) -> bool:
        named, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature.encode("latin-1", "replace"), self._sign(named).encode()):
            return False
        return named not in self._revoked and int(named.partition("-")[0]) > self._clock()


def header(scope: Scope, name: bytes) -> list[str]:
    """The values of a request's header, by its name in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def is_secure(scope: Scope) -> bool:
    """Whether a browser came by TLS: as the connection or a trusted proxy says, or the browser by its page's origin."""
    return scope.get("scheme") in {"https", "wss"} or any(
        origin.casefold().startswith("https://") for origin in header(scope, b"origin")
    )


def inner_path(scope: Scope) -> str:
    """The path below the sub-path that a proxy serves."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    name = name if colon and port.isascii() and port.isdigit() else host
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _same_origin(origin: str, host: str, method: str, kind: str) -> bool:
    """Whether a request may come from where it says: reading is harmless without CORS, writing and sockets are not."""
    if kind == "http" and method in READING:
        return True
    scheme, _, place = origin.casefold().partition("://")
    usual = {"https": ":443", "http": ":80"}.get(scheme, "")
    return place.removesuffix(usual) == host.casefold().removesuffix(usual)


def _password(credentials: str) -> str:
    """The password of Basic's `user:password` in base64; empty where it is none."""
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _cookies(line: str) -> Iterator[str]:
    """All values of our cookie: one server below a sub-path and another at the root are told apart by trying both."""
    for part in line.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            yield value.strip('"')
