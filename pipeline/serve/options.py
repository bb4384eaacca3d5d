"""Where the API listens and whom it lets in."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated

import msgspec

from engines.errors import UsageError

TOKEN_VARIABLE = "ROADLENS_TOKEN"  # noqa: S105  # the variable's name
SHORTEST_TOKEN = 16
LONGEST_TOKEN = 4096


class ServeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The control API and the dashboard.

    Attributes:
        host: address to listen on; one that other machines reach needs a token.
        port: TCP port; 0 for a free one.
        token_file: file with the token that clients must show; the variable ROADLENS_TOKEN does as well.
        allow_hosts: names by which browsers may call this server, beside addresses, `localhost` and its own name.
        max_streams: streams at once.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8089
    token_file: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    max_streams: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 64


def read_token(options: ServeOptions) -> str | None:
    """The token that clients must show; None where everybody on this machine may come in.

    Raises:
        UsageError: the file cannot be read, the token is too short, or the address is open to other machines and
            there is no token.
    """
    if options.token_file is not None:
        try:
            with options.token_file.open(encoding="ascii") as file:
                token = file.read(LONGEST_TOKEN + 1).strip()
        except OSError as error:
            raise UsageError(f"the token file {options.token_file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UsageError(f"the token in {options.token_file} must be of ASCII letters, digits and signs") from None
        origin = str(options.token_file)
    else:
        token, origin = os.environ.get(TOKEN_VARIABLE, "").strip(), TOKEN_VARIABLE
        if not token:
            if not is_loopback(options.host):
                raise UsageError(
                    f"{options.host} is open to other machines: give --token-file FILE (or {TOKEN_VARIABLE}), "
                    "or listen on 127.0.0.1"
                )
            return None
    if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN or not (token.isascii() and token.isprintable()):
        raise UsageError(
            f"the token in {origin} must have {SHORTEST_TOKEN} to {LONGEST_TOKEN} printable ASCII characters; "
            "make one with: openssl rand -hex 24"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False  # a name: of which machine is not known here
