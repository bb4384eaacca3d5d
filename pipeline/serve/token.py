"""The token that clients of the API must show."""

from __future__ import annotations

import logging
import os

from engines.errors import UsageError
from pipeline.addresses import is_loopback
from pipeline.config import ServeOptions

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "ROADLENS_TOKEN"  # noqa: S105  # the variable's name
SHORTEST_TOKEN = 16
LONGEST_TOKEN = 4096


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
                open_to_all = os.fstat(file.fileno()).st_mode & 0o006
            if open_to_all:
                log.warning(
                    "everybody on this machine may read or write the token file %s; chmod 600 it, or make another one",
                    options.token_file,
                )
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
