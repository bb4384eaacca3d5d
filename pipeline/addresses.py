"""Addresses: URLs without their secrets for logs, labels and messages; and which of them only this machine reaches."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import SplitResult, unquote_plus, urlsplit

from engines.errors import SourceError, UsageError

HIDDEN = "***"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,31}://"
_URL = re.compile(rf"(?P<scheme>{_SCHEME})(?P<rest>(?:(?!{_SCHEME})[^\r\n])*@[^\s'\"<>@]*|[^\s'\"<>]*)")
"""In a text a URL ends where no URL goes on, but not before the last `@` of its line: FFmpeg takes any sign in a
password, blanks and quotes too."""

_ALONE = re.compile(rf"(?P<scheme>{_SCHEME})(?P<rest>\S*)")
_APP = re.compile(r"([^/]*/[^/?#]+/).+")
_SEGMENT = re.compile(r"(?<=/)(?=[^/?#]*[a-z])(?=[^/?#]*[A-Z])(?=[^/?#]*[0-9])[A-Za-z0-9]{16,}(?=[/?#]|$)")
"""A part of a path that no person chose, as cameras and servers that ask for no password have."""

_PARAMETER = re.compile(r"(?P<before>[?&;#])(?P<item>[^?&;#]+)")
_SECRET_NAME = re.compile(
    r"token|key|pass|pwd|secret|sig|auth|cred|session|jwt|login|user|account|code|hash|streamid|ticket|nonce|policy",
    re.IGNORECASE,
)
_OPAQUE = re.compile(r"[A-Za-z0-9_+/=.~%-]{20,}")
"""A value this long without a blank is a token, whatever its name."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address, with or without an IPv6 address's brackets and zone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False  # a machine's or an interface's name: of which machine is not known here


def networks(texts: Iterable[str]) -> list[Network]:
    """IP addresses and networks, such as `10.0.0.7`, `10.0.0.0/24` or `fd00::/8`.

    Raises:
        UsageError: one of them is neither.
    """
    made: list[Network] = []
    for text in texts:
        try:
            made.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise UsageError(
                f"{text!r} is neither an IP address nor a network; write one such as 10.0.0.7 or 10.0.0.0/24"
            ) from None
    return made


def is_within(host: str, where: Iterable[Network]) -> bool:
    """Whether an IP address lies in one of the networks; an IPv4 address that came over IPv6 counts as itself."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in network for network in where)


def strip_credentials(text: str) -> str:
    """The URL, or the text around URLs, with user, password and secret parameters taken out.

    User and password disappear; the values of parameters that look like secrets, by their name or by being long and
    opaque, become `***`, and so do the name of an RTMP stream and a part of a path that looks made at random. In doubt
    it hides: what comes out is for people to recognise a source by, not to open it.

    >>> strip_credentials("rtsp://admin:p@ss@10.0.0.7:554/live?channel=1&token=f00")
    'rtsp://10.0.0.7:554/live?channel=1&token=***'
    >>> strip_credentials("'rtsp://admin:12/o'ne two@host/live' and rtmp://host/app/key")
    "'rtsp://host/live' and rtmp://host/app/***"
    """
    alone = _ALONE.fullmatch(text)  # a password may hold what looks like the beginning of another URL
    return _without_secrets(alone) if alone is not None else _URL.sub(_without_secrets, text)


def _without_secrets(url: re.Match[str]) -> str:
    scheme, rest = url["scheme"], _without_user(url["rest"], in_doubt=True)
    if scheme.lower().startswith("rtmp"):
        rest = _APP.sub(rf"\1{HIDDEN}", rest, count=1)  # the name of an RTMP stream: who knows it can send in its place
    return scheme + _SEGMENT.sub(HIDDEN, _PARAMETER.sub(_without_secret, rest))


def taken_apart(address: str) -> SplitResult:
    """The parts of a URL.

    Raises:
        SourceError: it is none, such as `http://[` or one with a line break, which FFmpeg would put into its request.
    """
    try:
        if not address.isprintable():
            raise ValueError("it holds a sign that cannot be printed; write it as % and two digits")
        parts = urlsplit(address)
        _ = parts.port, parts.hostname
    except ValueError as error:
        shown = strip_credentials("".join(sign for sign in address if sign.isprintable()))[:200]
        raise SourceError(f"{shown} is no address that can be read ({error}); write scheme://host:port/path") from None
    return parts


def unescaped(address: str) -> str:
    """The signs in an address's user and password that end them, if they are not percent-encoded.

    >>> unescaped("rtsp://admin:p#ss/w@10.0.0.7/live"), unescaped("rtsp://admin:p@ss@10.0.0.7/live?user=me@home")
    ('#/', '')
    >>> unescaped("rtsp://camera:8554/live@hd")
    ''
    """
    rest = address.partition("://")[2]
    secret = rest.removesuffix(_without_user(rest))
    return "".join(sign for sign in "#/?" if sign in secret)


def _without_user(rest: str, in_doubt: bool = False) -> str:
    """Take `user:password@` away, also where the password holds an unescaped `@`, `/`, `?` or `#`.

    Args:
        rest: what stands behind the scheme.
        in_doubt: take away what may be a password that begins with a number, such as `admin:12/rest@host`, where FFmpeg
            would see a port. An address of digits, or `localhost`, is no user's name.
    """
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        rest, in_doubt = rest[authority.rindex("@") + 1 :], False
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    # `user:pa/ss@host`: what stands before the first slash would be host and port, and is no port.
    host, colon, port = authority.rpartition(":")
    user = not port.isdecimal() or (in_doubt and not _is_host(host))
    bare = authority.startswith("[") and authority.endswith("]")  # an address of IPv6, without a port
    if colon and not bare and user and "@" in rest:
        rest = rest[rest.rindex("@") + 1 :]
    return rest


def _is_host(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        return name == "localhost"
    return True


def _without_secret(parameter: re.Match[str]) -> str:
    before, item = parameter["before"], parameter["item"]
    name, equals, value = item.partition("=")
    if not equals:
        return before + (HIDDEN if _OPAQUE.fullmatch(name) else name)
    if value and (_SECRET_NAME.search(unquote_plus(name)) or _OPAQUE.fullmatch(value)):
        value = HIDDEN
    return f"{before}{name}={value}"
