"""URLs without their secrets, for logs, labels and messages."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

HIDDEN = "***"

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>[^\s'\"<>]*)")
_PARAMETER = re.compile(r"(?P<before>[?&;#])(?P<item>[^?&;#]+)")
_SECRET_NAME = re.compile(
    r"token|key|pass|pwd|secret|sig|auth|cred|session|jwt|login|user|account|code|hash|streamid|ticket|nonce|policy",
    re.IGNORECASE,
)
_OPAQUE = re.compile(r"[A-Za-z0-9_+/=.~%-]{20,}")
"""A value this long without a blank is a token, whatever its name."""


def strip_credentials(text: str) -> str:
    """The URL, or the text around URLs, with user, password and secret parameters taken out.

    User and password disappear; the values of parameters that look like secrets, by their name or by being long and
    opaque, become `***`. In doubt it hides: what comes out is for people to recognise a source by, not to open it.

    >>> strip_credentials("rtsp://admin:p@ss@10.0.0.7:554/live?channel=1&token=f00")
    'rtsp://10.0.0.7:554/live?channel=1&token=***'
    """
    return _URL.sub(lambda url: url["scheme"] + _PARAMETER.sub(_without_secret, _without_user(url["rest"])), text)


def _without_user(rest: str) -> str:
    """Take `user:password@` away, also where the password holds an unescaped `@`, `/`, `?` or `#`."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        rest = rest[authority.rindex("@") + 1 :]
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    # `user:pa/ss@host`: what stands before the first slash would be host and port, and is no port.
    _, colon, port = authority.rpartition(":")
    if colon and not authority.endswith("]") and not port.isdigit() and "@" in rest:
        rest = rest[rest.rindex("@") + 1 :]
    return rest


def _without_secret(parameter: re.Match[str]) -> str:
    before, item = parameter["before"], parameter["item"]
    name, equals, value = item.partition("=")
    if not equals:
        return before + (HIDDEN if _OPAQUE.fullmatch(name) else name)
    if value and (_SECRET_NAME.search(unquote_plus(name)) or _OPAQUE.fullmatch(value)):
        value = HIDDEN
    return f"{before}{name}={value}"
