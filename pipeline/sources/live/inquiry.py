"""What FFmpeg does not tell: a server that would not be read is asked by ourselves, once, what it says and when.

FFmpeg has one error for a connection that is closed, a refused PLAY and a description that is none, and one for most
statuses. It does not follow RTSP's redirects either, unless it is allowed to follow them for ever.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import re
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import av.error

from pipeline.addresses import strip_credentials
from pipeline.sources.live.faults import Fault, forbidden, number_of, unauthorized

_LONGEST = 3.0
"""Seconds for all questions and answers together."""

_MOST_BYTES = 1 << 20
"""Of an answer's head or body: no camera's description is longer."""

_MOST_LINES = 1000

CLOSED, FOREIGN = 0, 1
"""In place of a status: the connection was closed without an answer, or the answer is of another protocol."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What is asked for is elsewhere: at `url`, credentials included."""

    url: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says.

    Attributes:
        method: what it was asked.
        status: of its answer, `CLOSED` or `FOREIGN`.
        words: the status in words.
        headers: by their names in lower case; several of one name have line feeds between them.
        body: what comes with it.
    """

    method: str
    status: int
    words: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def inquire(error: Exception, url: str, name: str, transport: str, until: float) -> Fault | Moved | None:
    """Ask a server why it could not be read; None where FFmpeg's error says as much as the server does.

    Args:
        error: what FFmpeg made of it.
        url: what was asked for, credentials included.
        name: the same for people.
        transport: `tcp` or `udp`, of RTSP's pictures.
        until: monotonic time at which an answer is of no use any more.
    """
    scheme = url.partition("://")[0].lower()
    until = min(until, time.monotonic() + _LONGEST)
    denied = isinstance(error, av.error.HTTPUnauthorizedError)
    number = number_of(error)
    if not (isinstance(error, _VAGUE) or number in _VAGUE_NUMBERS or (denied and urlsplit(url).username)):
        return None
    try:
        if scheme in {"rtsp", "rtsps"}:
            answer = _Conversation(url, transport, until, known=not denied).first_no()
        elif scheme in {"http", "https"}:
            answer = _http_answer(url, until)
        else:
            return None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    if answer is None or (answer.status == 401 and not denied):
        return None
    if 300 <= answer.status < 400:
        if scheme.startswith("rtsp"):
            return _moved(answer, url, name)
        return in_a_circle(name) if number == errno.EIO else None
    return _meaning(answer, url, name, transport)


_VAGUE = (
    av.error.InvalidDataError, av.error.HTTPOtherClientError, av.error.HTTPBadRequestError, av.error.HTTPServerError,
)  # fmt: skip
_VAGUE_NUMBERS = {errno.EPERM, errno.EINVAL, errno.EPROTONOSUPPORT, errno.EIO}
"""Errors that leave a question."""


def _meaning(answer: Answer, url: str, name: str, transport: str) -> Fault:
    status, words = answer.status, f"{answer.status} {answer.words}".strip()
    if status == CLOSED:
        return Fault("ended", f"{name} closes the connection at {answer.method}; look at its log")
    if status == FOREIGN:
        return Fault(
            "refused", f"{name} does not speak RTSP: something else listens at this port; RTSP's is mostly 554"
        )
    if status == 401:
        if _is_sha(_challenge(answer)):
            return Fault(
                "unauthorized",
                f"{name} asks for the password by SHA-256, which FFmpeg does not know; allow MD5 (or Basic) in the "
                "camera's settings, and not SHA-256 beside it",
            )
        return unauthorized(url, name)
    if status == 403:
        return forbidden(url, name)
    if status in {404, 410}:
        return Fault("not_found", f"{name} is not there: the server answers, but has no such stream")
    if status == 453:
        return Fault(
            "refused", f"{name} serves no more viewers (453); close one, raise its limit, or read its second stream"
        )
    if status == 461:
        other = "udp" if transport == "tcp" else "tcp"
        return Fault(
            "unsupported", f"{name} does not send by {transport.upper()} (461); set live: {{transport: {other}}}"
        )
    who = "the server answers with an error of its own" if status >= 500 else "the server refuses"
    return Fault("refused", f"{name}: {who} ({answer.method}: {words}); look at its log")


def in_a_circle(name: str) -> Fault:
    """A redirect leads to where it came from."""
    return Fault("refused", f"{name} sends its readers round in a circle; mend its redirects")


def _moved(answer: Answer, url: str, name: str) -> Fault | Moved:
    """Where it is now; user and password go along to the same host only."""
    location = answer.headers.get("location", "")
    try:
        there, here = urlsplit(urljoin(url, location)), urlsplit(url)
    except ValueError:  # such as rtsp://[
        there, here, location = urlsplit(""), urlsplit(""), location.replace("[", "")
    if not location or there.scheme.lower() not in {"rtsp", "rtsps"} or not there.hostname:
        shown = _printable(strip_credentials(location)) or "nowhere"
        return Fault("refused", f"{name} sends its readers on to {shown}, which is no RTSP address; give the right one")
    secret, at, _ = here.netloc.rpartition("@")
    if at and "@" not in there.netloc and there.hostname == here.hostname:
        there = there._replace(netloc=f"{secret}@{there.netloc}")
    return Moved(urlunsplit(there))


# RTSP -----------------------------------------------------------------------------------------------------------------
class _Conversation:
    """What FFmpeg asks, in its order, with a connection of our own."""

    def __init__(self, url: str, transport: str, until: float, known: bool) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme.lower() == "rtsps"
        self._host, self._port = parts.hostname or "", parts.port or (322 if self._secure else 554)
        secret, at, netloc = parts.netloc.rpartition("@")
        user, _, password = secret.partition(":")
        self._user = (unquote(user), unquote(password)) if at and known else None
        self._url = urlunsplit(parts._replace(netloc=netloc))
        self._transport, self._until, self._count = transport, until, 0
        self._session = self._asks_for = ""

    def first_no(self) -> Answer | None:
        """The first answer that is no yes; None where there is none."""
        with socket.create_connection((self._host, self._port), self._left) as plain:
            peer = _insecure().wrap_socket(plain, server_hostname=self._host) if self._secure else plain
            with peer, peer.makefile("rb") as file:
                return self._first_no(peer, file)

    @property
    def _left(self) -> float:
        return max(self._until - time.monotonic(), 0.05)

    def _first_no(self, peer: socket.socket, file: BinaryIO) -> Answer | None:
        answer = self._ask(peer, file, "OPTIONS", self._url)
        if answer.status in {CLOSED, FOREIGN}:
            return answer
        described = self._ask(peer, file, "DESCRIBE", self._url, Accept="application/sdp")
        if described.status != 200:
            return described
        track = self._track(described)
        if track is None:
            return None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
            unused.bind(("", 0))
            port = unused.getsockname()[1]
            how = f"RTP/AVP/UDP;unicast;client_port={port}-{port + 1}"
            if self._transport == "tcp":
                how = "RTP/AVP/TCP;unicast;interleaved=0-1"
            setup = self._ask(peer, file, "SETUP", track, Transport=how)
        if setup.status != 200:
            return setup
        self._session = setup.headers.get("session", "").partition(";")[0]
        play = self._ask(peer, file, "PLAY", self._url, Range="npt=0.000-")
        if play.status == 200:
            self._tell(peer, "TEARDOWN", self._url)
            return None
        return play

    def _track(self, described: Answer) -> str | None:
        """The address of the pictures, by the description (RFC 2326, C.1.1)."""
        base = described.headers.get("content-base") or described.headers.get("content-location") or self._url
        for part in re.split(r"(?m)^m=", described.body.decode("latin-1"))[1:]:
            control = re.search(r"(?m)^a=control:(\S+)", part)
            if part.startswith("video"):
                return base if control is None else urljoin(base if base.endswith("/") else f"{base}/", control[1])
        return None

    def _ask(self, peer: socket.socket, file: BinaryIO, method: str, url: str, **headers: str) -> Answer:
        try:
            answer = self._asked(peer, file, method, url, headers)
            asks_for = _challenge(answer)
            if answer.status == 401 and self._user is not None and not self._asks_for and not _is_sha(asks_for):
                self._asks_for = asks_for
                answer = self._asked(peer, file, method, url, headers)
        except ConnectionError:
            return Answer(method, CLOSED)
        return answer

    def _asked(self, peer: socket.socket, file: BinaryIO, method: str, url: str, headers: dict[str, str]) -> Answer:
        peer.settimeout(self._left)
        self._tell(peer, method, url, headers)
        return _read(file, method)

    def _tell(self, peer: socket.socket, method: str, url: str, headers: dict[str, str] | None = None) -> None:
        self._count += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._count}", "User-Agent: roadlens"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if self._session:
            lines.append(f"Session: {self._session}")
        if self._user is not None and self._asks_for:
            lines.append(f"Authorization: {_credentials(self._asks_for, *self._user, method, url)}")
        peer.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())


def _read(file: BinaryIO, method: str) -> Answer:
    """The next answer; pictures in between are passed over (RFC 2326, 10.12)."""
    while (first := file.read(1)) in {b"$", b"\r", b"\n"}:
        if first == b"$":
            file.read(int.from_bytes(file.read(3)[1:], "big"))
    line = (first + file.readline(_MOST_BYTES)).decode("latin-1").strip()
    if not line:
        return Answer(method, CLOSED)
    found = re.fullmatch(r"RTSP/\d\.\d (\d{3}) ?(.*)", line)
    if found is None:
        return Answer(method, FOREIGN)
    headers: dict[str, str] = {}
    for line in _head(file):
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}\n{value}" if name in headers else value
    body = file.read(min(int(headers.get("content-length", 0)), _MOST_BYTES))
    return Answer(method, int(found[1]), _printable(found[2]), headers, body)


def _head(file: BinaryIO) -> Iterator[str]:
    """The lines up to the empty one, no more of them than any camera's answer has."""
    for _ in range(_MOST_LINES):
        line = file.readline(_MOST_BYTES).decode("latin-1").strip()
        if not line:
            return
        yield line
    raise ValueError("the head of the answer has no end")


def _challenge(answer: Answer) -> str:
    """Which of the headers `WWW-Authenticate` FFmpeg takes: the last Digest, or else the last."""
    offered = answer.headers.get("www-authenticate", "").split("\n")
    return next((each for each in reversed(offered) if each.lower().startswith("digest")), offered[-1])


def _is_sha(challenge: str) -> bool:
    return re.search(r"algorithm\s*=\s*\"?SHA-", challenge, re.IGNORECASE) is not None


def _credentials(challenge: str, user: str, password: str, method: str, url: str) -> str:
    """The header `Authorization`: Basic (RFC 7617) or Digest with MD5 (RFC 2617, 3.2.2)."""
    if challenge.lower().startswith("basic"):
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    fields = {name.lower(): value for name, value in re.findall(r'(\w+)\s*=\s*"?([^",]*)"?', challenge)}
    realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
    own, asked = _md5(f"{user}:{realm}:{password}"), _md5(f"{method}:{url}")
    given = {"username": user, "realm": realm, "nonce": nonce, "uri": url}
    if "opaque" in fields:
        given["opaque"] = fields["opaque"]
    middle, end = nonce, ""
    if "auth" in fields.get("qop", "").split(","):
        given["cnonce"] = secrets.token_hex(8)
        middle, end = f"{nonce}:00000001:{given['cnonce']}:auth", ", nc=00000001, qop=auth"
    given["response"] = _md5(f"{own}:{middle}:{asked}")
    return "Digest " + ", ".join(f'{name}="{value}"' for name, value in given.items()) + end


def _printable(text: str) -> str:
    """A stranger's words, fit for a log line."""
    return "".join(sign for sign in text if sign.isprintable())[:200]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _insecure() -> ssl.SSLContext:
    """Cameras sign their certificates themselves, and FFmpeg does not look at them either."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


# HTTP -----------------------------------------------------------------------------------------------------------------
def _http_answer(url: str, until: float) -> Answer | None:
    """The answer to one GET, without its body. Redirects are FFmpeg's, which follows eight."""
    parts = urlsplit(url)
    left = max(until - time.monotonic(), 0.05)
    if parts.scheme.lower() == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=left, context=_insecure()
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=left)
    headers = {"User-Agent": "roadlens"}
    if parts.username is not None:
        headers["Authorization"] = _credentials("Basic", unquote(parts.username), unquote(parts.password or ""), "", "")
    try:
        connection.request("GET", urlunsplit(("", "", parts.path or "/", parts.query, "")), headers=headers)
        answer = connection.getresponse()
        return None if answer.status < 300 else Answer("GET", answer.status, _printable(answer.reason))
    finally:
        connection.close()
