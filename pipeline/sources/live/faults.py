"""What FFmpeg's errors mean to people: a word for machines, and one line with what to do about it."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import av.error

from pipeline.addresses import strip_credentials


@dataclass
class Fault(Exception):  # noqa: N818  # what is wrong with a source, not with the program
    """Why a connection failed: a word for machines (see `StateChange.cause`) and one line for people."""

    cause: str
    reason: str

    def __str__(self) -> str:
        return self.reason


def fault(error: Exception, url: str, name: str, timeout: float) -> Fault:
    """What an error of FFmpeg's means, in one line without credentials.

    Args:
        error: what was raised while opening or reading.
        url: what was being read.
        name: the same for people.
        timeout: seconds that it had.
    """
    if isinstance(error, Fault):
        return error
    if isinstance(error, av.error.ExitError | TimeoutError) or number_of(error) == errno.ETIMEDOUT:
        return Fault("timeout", f"no answer from {name} within {timeout:g} s")
    if isinstance(error, ConnectionRefusedError):
        return Fault("refused", f"nobody listens at {name} (connection refused)")
    if isinstance(error, av.error.ProtocolNotFoundError):
        scheme = url.partition("://")[0].lower()
        way = ", such as: srt-live-transmit srt://… udp://127.0.0.1:5000" if scheme == "srt" else ""
        reason = f"{name} cannot be read: this FFmpeg is built without {scheme.upper()}; have it sent another way"
        return Fault("unsupported", reason + way)
    status = _status(error, url, name)
    if status is not None:
        return status
    if isinstance(error, av.error.EOFError | ConnectionResetError | BrokenPipeError):
        return Fault("ended", f"{name} closed the connection")
    if isinstance(error, PermissionError) and "://" not in url:
        return Fault("unauthorized", f"{name} may not be read by this user; change its permissions")
    if number_of(error) == errno.EBUSY:
        return Fault("refused", f"{name} is in use by another program")
    if number_of(error) in _UNREACHABLE:
        return Fault("unreachable", f"{name} cannot be reached: {_words(error)}")
    host = urlsplit(url).hostname if "://" in url else None
    if host is not None and number_of(error) == errno.EIO and not _resolves(host):
        hint = f"; {_ENCODED}" if "@" in url.partition("://")[2].partition("/")[2] else ""
        return Fault("unreachable", f"{name} cannot be reached: the name {host} is not known{hint}")
    if url.lower().startswith("rtsp") and isinstance(error, av.error.InvalidDataError | PermissionError):
        # What `rtsp_read_header` makes of a connection that is closed, or of a PLAY that is refused.
        return Fault("ended", f"{name} closed the connection before pictures came; look at the camera's log")
    if isinstance(error, av.error.InvalidDataError):
        return Fault("damaged", f"{name} sends nothing that FFmpeg can read as video")
    return Fault("damaged", f"{name} cannot be read: {_words(error)}")


def _status(error: Exception, url: str, name: str) -> Fault | None:
    """What a status of HTTP's or RTSP's means; None where the error is none."""
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return unauthorized(url, name)
    if isinstance(error, av.error.HTTPForbiddenError):
        return forbidden(url, name)
    if isinstance(error, av.error.HTTPNotFoundError):
        return Fault("not_found", f"{name} is not there: the server answers, but has no such stream")
    if isinstance(error, av.error.HTTPServerError):
        return Fault("refused", f"{name}: the server answers with an error of its own (5xx); look at its log")
    return None


_ENCODED = "in a user or password write / as %2F, # as %23 and ? as %3F"


def unauthorized(url: str, name: str) -> Fault:
    """Who asks is not known (401)."""
    if not _names_user(url):
        return Fault("unauthorized", f"{name} wants a user and a password (user:password@)")
    hint = "; in it, write % as %25" if "%" in url.partition("@")[0] else ""
    return Fault("unauthorized", f"{name} does not accept this user and password{hint}")


def forbidden(url: str, name: str) -> Fault:
    """Who asks may not have it (403)."""
    who = "this user" if _names_user(url) else "strangers"
    more = "give it the right in the server's settings" if _names_user(url) else "give a user (user:password@)"
    return Fault("unauthorized", f"{name} is forbidden to {who} (403); {more}")


def _names_user(url: str) -> bool:
    return urlsplit(url).username is not None


_UNREACHABLE = frozenset({
    errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.ENODEV,
    errno.ENXIO, errno.ECONNABORTED,
})  # fmt: skip


def number_of(error: Exception) -> int | None:
    """The error's number, of the system or of FFmpeg."""
    return error.errno if isinstance(error, OSError | av.error.FFmpegError) else None


def _words(error: Exception) -> str:
    """What happened, on one line, without the address that PyAV appends."""
    told = error.strerror if isinstance(error, OSError | av.error.FFmpegError) else str(error)
    return strip_credentials(" ".join((told or type(error).__name__).split())).rstrip(".").lower()


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def mistake(error: Exception, address: str, known: set[str]) -> tuple[Fault, bool]:
    """A failure that is none of the source's, and whether it is new: the log has its traceback once, not with every
    attempt.

    Args:
        error: what was raised.
        address: of what was being read, for people.
        known: those that stand in the log; a new one is added.
    """
    what = f"{type(error).__name__}: {' '.join(strip_credentials(str(error)).split())}".rstrip(": ")
    new = what not in known and len(known) < _MOST_MISTAKES
    if new:
        known.add(what)
    reason = f"reading {address} failed in roadlens itself ({what}); please report it with the log"
    return Fault("internal", reason), new


_MOST_MISTAKES = 16
