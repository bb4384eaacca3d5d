"""CurveZMQ keys: files, allow-lists, and who gets in over real sockets."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zmq
import zmq.auth

from engines.errors import SourceError, UsageError
from pipeline.messages import topics
from pipeline.messages.publish import Publisher
from pipeline.messages.sockets.keys import (
    Certificate,
    ClientKeys,
    CurveOptions,
    client_keys,
    new_certificate,
    public_key,
    read_certificate,
    secret_certificate,
    server_keys,
)
from pipeline.messages.subscriber import SilenceError, Subscriber
from tests.pipeline.fake_analysis import analysis
from tests.pipeline.messages.test_publish import ANYWHERE, ROOT, until_subscribed


@pytest.fixture
def server(tmp_path: Path) -> Path:
    return new_certificate("server", tmp_path / "server")[1]


def client(folder: Path, name: str) -> Certificate:
    return secret_certificate(new_certificate(name, folder)[1])


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_key_pair_is_two_files_that_pyzmq_reads_and_the_secret_one_is_its_owners(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        public, secret = new_certificate("viewer-1", tmp_path / "keys")
    finally:
        os.umask(before)
    assert secret.stat().st_mode & 0o777 == 0o600
    keys = zmq.auth.load_certificate(secret)
    assert keys[1] is not None
    assert zmq.auth.load_certificate(public) == (keys[0], None)
    assert zmq.curve_public(keys[1]) == keys[0]
    certificate = secret_certificate(secret)
    assert (certificate.public, certificate.secret) == tuple(key.decode() for key in keys if key)
    assert certificate.secret not in repr(certificate)


def test_keys_are_never_written_over(tmp_path: Path) -> None:
    _, secret = new_certificate("server", tmp_path)
    before = secret.read_bytes()
    with pytest.raises(UsageError, match="not written over"):
        new_certificate("server", tmp_path)
    assert secret.read_bytes() == before


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "a b"])
def test_a_name_is_a_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a key"):
        new_certificate(name, tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"", "no certificate"),
        (b"public-key", "no certificate"),
        (b'public-key = "too short"', "40 characters"),
        (b'public-key = "\xff\xfe"', "40 characters"),
    ],
)
def test_what_is_no_certificate_is_refused_in_a_sentence(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "some.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=said) as refused:
        read_certificate(path)
    assert "\n" not in str(refused.value)


def test_the_secret_file_is_told_from_the_public_one_and_pairs_belong_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    public, secret = new_certificate("a", tmp_path)
    with pytest.raises(UsageError, match="holds no secret key"):
        secret_certificate(public)
    mixed = tmp_path / "mixed.key_secret"
    other = read_certificate(new_certificate("b", tmp_path)[0]).public
    mixed.write_text(secret.read_text().replace(read_certificate(public).public, other))
    with pytest.raises(UsageError, match="no pair"):
        secret_certificate(mixed)
    secret.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        secret_certificate(secret)
    assert "chmod 600" in caplog.text


def test_a_public_key_is_given_as_itself_or_by_its_file(tmp_path: Path) -> None:
    public, _ = new_certificate("a", tmp_path)
    key = read_certificate(public).public
    assert public_key(key) == public_key(str(public)) == key
    with pytest.raises(UsageError, match="40 characters") as refused:
        public_key("hunter2")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(UsageError, match="give both"):
        client_keys(None, public)


@pytest.mark.parametrize(
    ("clients", "said"), [((), "nobody could read"), ("nowhere", "no folder"), (("x",), "neither")]
)
def test_an_allow_list_that_is_none_is_refused(server: Path, clients: str | tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        server_keys(CurveOptions(server, clients))


def test_the_command_makes_and_shows_keys(tmp_path: Path) -> None:
    def roadlens(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from pipeline.commands.keys import app; app()", *arguments],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip

    made = roadlens("new", "server", "--folder", str(tmp_path))
    certificate = secret_certificate(tmp_path / "server.key_secret")
    shown = roadlens("show", str(tmp_path / "server.key_secret"))
    assert made.stdout == shown.stdout == certificate.public + "\n"
    assert certificate.secret not in made.stderr + shown.stderr


# Who gets in ----------------------------------------------------------------------------------------------------------


def gets(publisher: Publisher, keys: ClientKeys | None) -> bool:
    """Whether a subscriber with these keys gets what is published."""
    with Subscriber(publisher.endpoint, curve=keys, timeout=60) as subscriber:
        over = threading.Event()

        def publish() -> None:
            index = 0
            while not over.is_set():
                publisher.consume(analysis(index))
                index += 1
                over.wait(0.01)

        publishing = threading.Thread(target=publish)
        publishing.start()
        try:
            subscriber.receive()
        except SilenceError:
            raise  # it is to be told why
        except SourceError:
            return False
        else:
            return True
        finally:
            over.set()
            publishing.join()


@pytest.mark.seconds
def test_only_listed_clients_get_in_and_the_others_are_told(tmp_path: Path, server: Path) -> None:
    listed, stranger = client(tmp_path / "clients", "listed"), client(tmp_path / "others", "stranger")
    key = secret_certificate(server).public
    with Publisher(ANYWHERE, curve=server_keys(CurveOptions(server, str(tmp_path / "clients")))) as publisher:
        assert gets(publisher, ClientKeys(key, listed))
        assert not gets(publisher, ClientKeys(key, stranger))
        assert not gets(publisher, ClientKeys(key)), "a key made for the occasion is on no list"
        assert not gets(publisher, None), "without a key"
        new_certificate("later", tmp_path / "clients")
        assert gets(publisher, ClientKeys(key, secret_certificate(tmp_path / "clients" / "later.key_secret")))
        (tmp_path / "clients" / "broken.key").write_text("nonsense")
        (tmp_path / "clients" / "listed.key").unlink()
        assert not gets(publisher, ClientKeys(key, listed)), "taken off the list"


def test_a_list_of_keys_or_files_or_anybody_who_knows_the_server(tmp_path: Path, server: Path) -> None:
    first, second = client(tmp_path, "first"), client(tmp_path, "second")
    key = secret_certificate(server).public
    both = (first.public, str(tmp_path / "second.key"))
    with Publisher(ANYWHERE, curve=server_keys(CurveOptions(server, both))) as publisher:
        assert gets(publisher, ClientKeys(key, first))
        assert gets(publisher, ClientKeys(key, second))
        assert not gets(publisher, ClientKeys(key))
    with Publisher(ANYWHERE, curve=server_keys(CurveOptions(server, "any"))) as publisher:
        assert gets(publisher, ClientKeys(key))


def test_several_publishers_in_one_process_each_keep_their_own_list(tmp_path: Path, server: Path) -> None:
    first, second = client(tmp_path, "first"), client(tmp_path, "second")
    key = secret_certificate(server).public
    with (
        Publisher(ANYWHERE, curve=server_keys(CurveOptions(server, (first.public,)))) as one,
        Publisher(ANYWHERE, curve=server_keys(CurveOptions(server, (second.public,)))) as two,
        Publisher(ANYWHERE) as plain,
    ):
        admitted = [[gets(p, ClientKeys(key, c)) for c in (first, second)] for p in (one, two)]
        assert admitted == [[True, False], [False, True]]
        assert gets(plain, None)
        assert not gets(plain, ClientKeys(key, first)), "a plain publisher is not mistaken for a secured one"


@pytest.mark.seconds
def test_who_takes_another_for_the_server_gets_nothing(tmp_path: Path, server: Path) -> None:
    """The wrong server key: the handshake cannot be completed, and nobody is let in."""
    wrong = client(tmp_path, "wrong")
    with (
        Publisher(ANYWHERE, curve=server_keys(CurveOptions(server, "any"))) as publisher,
        Subscriber(publisher.endpoint, curve=ClientKeys(wrong.public, wrong), timeout=1) as subscriber,
    ):
        publisher.consume(analysis())
        with pytest.raises(SilenceError):
            subscriber.receive()
        while subscriber._broken_off < 2:
            subscriber._look_at_handshake()
        with pytest.raises(SilenceError, match="that the key given is its key"):
            subscriber._arrived(0.0)
        with publisher._lock:
            publisher._outlet.hear()
            assert not publisher._outlet.anybody()


def test_push_is_secured_likewise(tmp_path: Path, server: Path) -> None:
    listed = client(tmp_path, "listed")
    key = secret_certificate(server).public
    with Publisher(ANYWHERE, "push", curve=server_keys(CurveOptions(server, (listed.public,)))) as publisher:
        with (
            Subscriber(publisher.endpoint, "pull", curve=ClientKeys(key), timeout=60) as stranger,
            pytest.raises(SourceError, match="does not let this reader in"),
        ):
            stranger.receive()
        curve = ClientKeys(key, listed)
        with Subscriber(publisher.endpoint, "pull", until_end=True, timeout=60, curve=curve) as subscriber:
            publisher.consume(analysis())
            publisher.end("drive")
            assert len(list(subscriber)) == 2


@pytest.mark.seconds
def test_another_process_needs_its_key_too(tmp_path: Path, server: Path) -> None:
    """`roadlens subscribe`, with and without."""
    client(tmp_path, "viewer")

    def start(endpoint: str, *arguments: str) -> subprocess.Popen[str]:
        code = "import typer; from pipeline.commands.subscribe import subscribe; typer.run(subscribe)"
        return subprocess.Popen(
            [sys.executable, "-c", code, endpoint, "--count", "1", *arguments],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    curve = server_keys(CurveOptions(server, (str(tmp_path / "viewer.key"),)))
    with Publisher(ANYWHERE, curve=curve) as publisher:
        server_key = str(server.with_suffix(".key"))
        plain = start(publisher.endpoint)
        process = start(publisher.endpoint, "--server-key", server_key, "--key", str(tmp_path / "viewer.key_secret"))
        try:
            until_subscribed(publisher, subject=topics.PREFIX)
            publisher.consume(analysis())
            output, _ = process.communicate(timeout=120)
            refused, why = plain.communicate(timeout=120)
        finally:
            process.kill()
            plain.kill()
    assert output.startswith("drive #0")
    assert refused == ""
    assert "do not agree on CurveZMQ" in why
