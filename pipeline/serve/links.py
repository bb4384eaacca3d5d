"""Signed links: pictures of one stream, for a time, for players and pages that can show no token.

The signature stands in the path, not in the query: an HLS playlist names its segments relative to itself, and no player
carries a query over to them. It is made with a key that is derived from the token, so that a link outlives the process
and ends with its time or with the token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.serve import API

_PICTURE = r"/streams/(?P<stream>[^/]+)/(?:snapshot|view\.mjpeg|hls/[^/]+)"
_PLAIN = re.compile(API + _PICTURE)
_LINK = re.compile(API + r"/links/(?P<until>[0-9]{1,12})\.(?P<signature>[0-9a-f]{64})(?P<picture>" + _PICTURE + ")")


@dataclass(frozen=True, slots=True)
class Followed:
    """Where a link leads.

    Attributes:
        stream: id of the stream.
        path: of the picture, as who shows the token asks for it.
        valid: whether the link is one of ours and its time is not over.
    """

    stream: str
    path: str
    valid: bool


class Links:
    """Makes and checks the links of a server.

    Args:
        token: what the key is derived from.
        clock: Unix time in seconds.
    """

    def __init__(self, token: bytes, clock: Callable[[], float]) -> None:
        # Slow on purpose: who holds a link must not be able to try tokens by the million.
        self._key = hashlib.scrypt(token, salt=b"roadlens links", n=2**14, r=8, p=1)
        self._clock = clock

    def path(self, stream: str, until: int) -> str:
        """What stands before `/snapshot`, `/view.mjpeg` and `/hls/…` of a stream, good until a Unix time."""
        return f"{API}/links/{until}.{self._sign(stream, until)}/streams/{stream}"

    def follow(self, path: str) -> Followed | None:
        """Where a path leads; None where it is no link."""
        link = _LINK.fullmatch(path)
        if link is None:
            return None
        until = int(link["until"])
        genuine = hmac.compare_digest(link["signature"], self._sign(link["stream"], until))
        return Followed(link["stream"], API + link["picture"], genuine and until > self._clock())

    def _sign(self, stream: str, until: int) -> str:
        return hmac.new(self._key, f"{until} {stream}".encode("utf-8", "surrogatepass"), "sha256").hexdigest()


def is_picture(path: str) -> bool:
    """Whether a path is one that players open: a snapshot, MJPEG, or of HLS; with or without a link."""
    return _PLAIN.fullmatch(path) is not None or _LINK.fullmatch(path) is not None
