"""What a reverse proxy says of a request that it passes on, and the sub-path below which it serves.

`X-Forwarded-Proto`, `-Host` and `-Prefix` are believed of proxies that were named, and of nobody else: whoever may say
that a connection is TLS, or by which name it came, gets around the rules that stand on it. Of a list the last value
counts, the one that the nearest proxy added.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from pipeline.addresses import Network, is_within, networks
from pipeline.config import ROOT_PATH
from pipeline.serve.access import App, Receive, Scope, Send, header
from pipeline.serve.guard import refuse

log = logging.getLogger(__name__)

MOST_SAID = 16
"""Addresses that are logged as not believed; after so many it is no forgotten option."""

_HEADERS = (b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix")


class Proxies:
    """ASGI middleware that makes a request look as it did before its proxy.

    Args:
        app: what is asked then.
        trusted: addresses and networks of the proxies that are believed.
        root_path: the sub-path, such as `/cams`; empty for none. A proxy may take it off the path or leave it.
    """

    def __init__(self, app: App, trusted: Iterable[str] = (), root_path: str = "") -> None:
        self._app, self._root_path = app, root_path
        self._trusted: list[Network] = networks(trusted)
        self._said: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        try:
            seen = self._as_seen(scope)
        except ValueError as error:
            await refuse(scope, receive, send, 400, str(error))
            return
        await self._app(seen, receive, send)

    def _as_seen(self, scope: Scope) -> Scope:
        """The request as it came to the proxy.

        Raises:
            ValueError: a trusted proxy says what cannot be.
        """
        seen, root = {**scope}, self._root_path
        said = {name: value for name in _HEADERS if (value := _last(header(scope, name)))}
        if said and self._believes(scope):
            root = _prefix(said.get(b"x-forwarded-prefix", root))
            if b"x-forwarded-proto" in said:
                seen["scheme"] = _scheme(said[b"x-forwarded-proto"], scope["type"])
            if b"x-forwarded-host" in said:
                others = [(n, v) for n, v in scope["headers"] if n.lower() != b"host"]
                seen["headers"] = [*others, (b"host", said[b"x-forwarded-host"].encode("latin-1"))]
        path = scope["path"]
        if root and (path + "/").startswith(root + "/"):
            path = path[len(root) :] or "/"
        seen["root_path"], seen["path"] = root, root + path
        return seen

    def _believes(self, scope: Scope) -> bool:
        address = (scope.get("client") or ("",))[0]
        if is_within(address, self._trusted):
            return True
        if address not in self._said and len(self._said) < MOST_SAID:
            self._said.add(address)
            log.warning(
                "the X-Forwarded headers from %s are not believed; if that is your proxy, start with "
                "--trusted-proxy %s",
                address or "an unknown address", address or "ADDRESS",
            )  # fmt: skip
        return False


def _last(values: list[str]) -> str:
    return values[-1].rpartition(",")[2].strip() if values else ""


def _prefix(said: str) -> str:
    prefix = said.rstrip("/")
    if re.match(ROOT_PATH, prefix) is None:
        raise ValueError(
            f"the proxy's X-Forwarded-Prefix {said[:64]!r} is no path such as /cams, or one of the server's own"
        )
    return prefix


def _scheme(said: str, kind: str) -> str:
    secure = {"https": True, "wss": True, "http": False, "ws": False}.get(said.casefold())
    if secure is None:
        raise ValueError(f"the proxy's X-Forwarded-Proto {said[:64]!r} is neither http nor https")
    return ("wss" if secure else "ws") if kind == "websocket" else ("https" if secure else "http")
