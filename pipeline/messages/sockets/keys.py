"""CurveZMQ keys: certificate files as pyzmq and czmq write them, and the clients that a publisher serves.

A key pair is two files: `<name>.key` with the public key, to be handed out, and `<name>.key_secret` with both, which
only its owner may read. Keys are 40 characters of Z85 (ZeroMQ RFC 32).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import zmq
import zmq.auth
import zmq.utils.z85
from zmq.auth.thread import ThreadAuthenticator

from engines.errors import OutputError, UsageError

log = logging.getLogger(__name__)

ANYBODY = "any"
"""In place of an allow-list: whoever knows the publisher's public key."""

_MOST_NAMED = 100
"""Refused clients that are named in the log, once each: a stranger shall not fill it."""


class CurveOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """CurveZMQ on a publisher: encrypted, and only for the clients named.

    Attributes:
        server_key_file: the publisher's own `.key_secret`, made by `roadlens keys new`.
        clients: who may read: a folder of `.key` files (looked into at every connection, so that clients come and go
            while it runs), a list of `.key` files or keys, or `any` for whoever knows the publisher's public key.
    """

    server_key_file: Path
    clients: str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A key pair, or the public half of one.

    Attributes:
        public: Z85, 40 characters.
        secret: likewise; empty where only the public half is known. Never shown.
    """

    public: str
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """What a publisher needs to speak CurveZMQ.

    Attributes:
        certificate: its own key pair.
        allowed: whether the client with this public key (Z85) may read; None for everybody who knows the publisher's.
    """

    certificate: Certificate
    allowed: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a subscriber needs to speak CurveZMQ.

    Attributes:
        server: the publisher's public key (Z85).
        certificate: its own key pair; None for one made for the occasion, which no allow-list can know.
    """

    server: str
    certificate: Certificate | None = None


def new_certificate(name: str, folder: Path) -> tuple[Path, Path]:
    """Make a key pair: `<folder>/<name>.key`, and `.key_secret` that only its owner can read (mode 0600).

    Returns:
        The public and the secret file.

    Raises:
        UsageError: the name is no file name, or there is such a key already: keys are never written over.
        OutputError: the folder cannot be written to.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise UsageError(f"{name!r} cannot name a key: take letters, digits, dots, dashes and underscores")
    public, secret = folder / f"{name}.key", folder / f"{name}.key_secret"
    for path in (public, secret):
        if path.exists():
            raise UsageError(f"{path} exists already and is not written over: choose another name or folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # pyzmq opens the file that is there already, so that it is never readable by others, not even at first.
        os.close(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        zmq.auth.create_certificates(folder, name)
    except OSError as error:
        raise OutputError(f"{secret} cannot be written: {error.strerror}") from error
    return public, secret


def read_certificate(path: Path) -> Certificate:
    """The key or keys in a certificate file.

    Raises:
        UsageError: it cannot be read or is no certificate.
    """
    try:
        public, secret = zmq.auth.load_certificate(path)
    except OSError as error:
        why = error.strerror or "there is no such file"
        raise UsageError(f"the certificate {path} cannot be read: {why.lower()}") from error
    except (ValueError, IndexError) as error:
        raise UsageError(f"{path} is no certificate; `roadlens keys new` makes one") from error
    certificate = Certificate(public.decode("ascii", "replace"), (secret or b"").decode("ascii", "replace"))
    if not _is_key(certificate.public) or (certificate.secret and not _is_key(certificate.secret)):
        raise UsageError(f"{path} holds a key that is none: a key is 40 characters of Z85")
    return certificate


def secret_certificate(path: Path) -> Certificate:
    """The key pair in a `.key_secret` file; one that others can read is pointed out in the log.

    Raises:
        UsageError: it cannot be read, or holds no secret key, or not the one of its public key.
    """
    certificate = read_certificate(path)
    if not certificate.secret:
        raise UsageError(f"{path} holds no secret key: give the file that ends in .key_secret")
    if zmq.curve_public(certificate.secret.encode("ascii")).decode("ascii") != certificate.public:
        raise UsageError(f"the two keys in {path} are no pair: make new ones with `roadlens keys new`")
    if path.stat().st_mode & 0o077:
        log.warning("%s holds a secret key and can be read by others: chmod 600 %s", path, path)
    return certificate


def public_key(given: str) -> str:
    """A public key from itself or from the certificate file that holds it.

    Raises:
        UsageError: it is neither.
    """
    if _is_key(given):
        return given
    if not Path(given).exists():
        # What is given may be a secret by mistake, so it is not repeated.
        raise UsageError("the public key is neither 40 characters of Z85 nor a certificate file that exists")
    return read_certificate(Path(given)).public


def client_keys(server: str | None, own: Path | None) -> ClientKeys | None:
    """The keys of a subscriber, as commands take them; None for a plain one.

    Args:
        server: the publisher's public key, or the certificate file that holds it.
        own: one's own `.key_secret` file; None for a key made for the occasion.

    Raises:
        UsageError: a file cannot be read or holds no key, or there is a key of one's own only.
    """
    if server is None:
        if own is not None:
            raise UsageError("a key of one's own is of use with the publisher's public key only: give both")
        return None
    return ClientKeys(public_key(server), None if own is None else secret_certificate(own))


def server_keys(options: CurveOptions) -> ServerKeys:
    """The keys of a publisher, its allow-list checked.

    Raises:
        UsageError: a file cannot be read or holds no key, or the allow-list is empty.
    """
    certificate = secret_certificate(options.server_key_file)
    if options.clients == ANYBODY:
        return ServerKeys(certificate)
    if isinstance(options.clients, tuple):
        if not options.clients:
            raise UsageError("curve: clients is empty, so nobody could read: list keys or .key files, or write `any`")
        listed = frozenset(public_key(client) for client in options.clients)
        return ServerKeys(certificate, listed.__contains__)
    folder = Path(options.clients)
    if not folder.is_dir():
        raise UsageError(
            f"curve: clients is {folder}, which is no folder: give a folder of .key files, a list, or `any`"
        )
    return ServerKeys(certificate, lambda key: key in keys_in(folder))


def keys_in(folder: Path) -> set[str]:
    """The public keys in a folder's `.key` files; a file that is none is left out and named in the log."""
    keys = set()
    for path in sorted(folder.glob("*.key")):
        try:
            keys.add(read_certificate(path).public)
        except UsageError as error:
            log.warning("%s", error)
    return keys


def serve_curve(socket: zmq.Socket[bytes], context: zmq.Context[zmq.Socket[bytes]], keys: ServerKeys) -> _Doorkeeper:
    """Make a socket that is not bound yet a CurveZMQ server.

    ZeroMQ asks one doorkeeper for each context, at an address fixed within it: every publisher has a context of its
    own, so that several in one process each keep their own list.

    Returns:
        The doorkeeper; to be stopped before the context is terminated.
    """
    socket.curve_secretkey = keys.certificate.secret.encode("ascii")
    socket.curve_publickey = keys.certificate.public.encode("ascii")
    socket.curve_server = True
    doorkeeper = _Doorkeeper(context, keys.allowed)
    doorkeeper.start()
    return doorkeeper


def trust(socket: zmq.Socket[bytes], keys: ClientKeys) -> None:
    """Make a socket that is not connected yet a CurveZMQ client.

    Raises:
        UsageError: the server's key is not one.
    """
    if not _is_key(keys.server):
        raise UsageError("the CurveZMQ server key is not one: a key is 40 characters of Z85")
    if keys.certificate is None:
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    else:
        socket.curve_publickey = keys.certificate.public.encode("ascii")
        socket.curve_secretkey = keys.certificate.secret.encode("ascii")
    socket.curve_serverkey = keys.server.encode("ascii")


class _Doorkeeper(ThreadAuthenticator):
    """Answers ZeroMQ's question whether a client may come in (ZAP, ZeroMQ RFC 27)."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], allowed: Callable[[str], bool] | None) -> None:
        super().__init__(context, log=log)
        self._is_allowed = allowed
        self._named: set[str] = set()
        if allowed is None:
            self.configure_curve(location=zmq.auth.CURVE_ALLOW_ANY)
        else:
            self.configure_curve_callback(credentials_provider=self)

    def callback(self, _domain: str, key: bytes) -> bool:
        """pyzmq's way of asking; an error here would end its thread and lock everybody out."""
        name = key.decode("ascii")
        try:
            admitted = self._is_allowed is not None and self._is_allowed(name)
        except Exception:
            log.exception("the allow-list cannot be read, so the client %s is refused", name)
            return False
        if not admitted and name not in self._named and len(self._named) < _MOST_NAMED:
            self._named.add(name)
            log.warning("a client that is not on the allow-list was refused: its public key is %s", name)
        return admitted


def _is_key(text: str) -> bool:
    try:
        return len(text) == 40 and len(zmq.utils.z85.decode(text.encode("ascii"))) == 32
    except (ValueError, KeyError, UnicodeEncodeError):
        return False
