"""URLs lose their secrets and keep what a person knows them by; an address of this machine alone is known as one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engines.errors import SourceError
from pipeline.addresses import is_loopback, strip_credentials, taken_apart


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        # nothing to hide
        ("drive.mp4", "drive.mp4"),
        ("C:\\clips\\a@b.mp4", "C:\\clips\\a@b.mp4"),
        ("synthetic:?seed=3", "synthetic:?seed=3"),
        ("rtsp://10.0.0.7:554/live", "rtsp://10.0.0.7:554/live"),
        ("http://host/a?channel=1&subtype=0", "http://host/a?channel=1&subtype=0"),
        ("http://10.0.0.7:8080/@name/clip", "http://10.0.0.7:8080/@name/clip"),
        ("rtsp://host:554/2026-01-01_12-30-05Front.mp4", "rtsp://host:554/2026-01-01_12-30-05Front.mp4"),
        ("rtmp://host/app", "rtmp://host/app"),
        ("rtsp://[fe80::1]:554/a@b", "rtsp://[fe80::1]:554/a@b"),
        ("rtsp://[fe80::1]/a@b", "rtsp://[fe80::1]/a@b"),
        ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555"),
        # user and password
        ("rtsp://user:pass@host/a", "rtsp://host/a"),
        ("rtsp://user@host/a", "rtsp://host/a"),
        ("rtsp://:pass@host", "rtsp://host"),
        ("rtsp://user:p%40ss@host:554/a", "rtsp://host:554/a"),
        ("rtsp://user:p@ss@host:554/a", "rtsp://host:554/a"),
        ("rtsp://user:p:a:s@[::1]:554/a", "rtsp://[::1]:554/a"),
        ("rtsp://user:pa/ss@host/a", "rtsp://host/a"),
        ("rtsp://user:pa?ss@host/a", "rtsp://host/a"),
        ("rtsp://user:pa#ss@host/a", "rtsp://host/a"),
        ("RTSPS://User:Pass@Host/A", "RTSPS://Host/A"),
        ("rtsp://admin:12/rest@host", "rtsp://host"),  # FFmpeg sees a port in it
        ("http://host:8080/@name/clip", "http://name/clip"),  # as this may be one
        ("rtsp://u:p'a\"s<s> w@host/live", "rtsp://host/live"),
        ("rtsp://u:a://b@host/live", "rtsp://host/live"),
        # what needs no password
        ("rtmp://host/app/key", "rtmp://host/app/***"),
        ("rtmps://u:p@host/app/instance/key?x=1", "rtmps://host/app/***"),
        ("rtsps://192.168.1.1:7441/AbCdEfGh1jKlMnOp?enableSrtp", "rtsps://192.168.1.1:7441/***?enableSrtp"),
        # parameters
        ("http://host/a?token=f00&channel=1", "http://host/a?token=***&channel=1"),
        ("http://host/a?Access_Token=f00", "http://host/a?Access_Token=***"),
        ("http://host/a?api%5Fkey=f00", "http://host/a?api%5Fkey=***"),
        ("http://host/a?user=me&password=b=c", "http://host/a?user=***&password=***"),
        ("http://host/a?channel=1;pwd=x", "http://host/a?channel=1;pwd=***"),
        ("http://host/a#access_token=f00", "http://host/a#access_token=***"),
        ("srt://host:9000?passphrase=0123456789&mode=caller", "srt://host:9000?passphrase=***&mode=caller"),
        ("https://h/c.m3u8?X-Amz-Signature=ab&Expires=9", "https://h/c.m3u8?X-Amz-Signature=***&Expires=9"),
        ("https://h/c?x=eyJhbGciOiJIUzI1NiJ9.e30.abcdef", "https://h/c?x=***"),
        ("https://h/c?eyJhbGciOiJIUzI1NiJ9.e30.abcdef", "https://h/c?***"),
        ("https://h/c?token=", "https://h/c?token="),
        # within a sentence
        (
            "cannot open 'rtsp://u:p@a/1' or <http://h/2?key=3>, see https://u@h/x",
            "cannot open 'rtsp://a/1' or <http://h/2?key=***>, see https://h/x",
        ),
        ("front: rtsp://u:it's mine@10.0.0.7/a is gone", "front: rtsp://10.0.0.7/a is gone"),
        ("publishing to rtmp://h/live/s3cret failed", "publishing to rtmp://h/live/*** failed"),
    ],
)
def test_strip_credentials(given_: str, expected: str) -> None:
    assert strip_credentials(given_) == expected
    assert strip_credentials(expected) == expected


SECRET = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=12).filter(
    lambda secret: " " not in secret or "://" not in secret
)


@given(user=st.from_regex(r"[a-z]{1,8}", fullmatch=True), password=SECRET.map(lambda s: f"S3CRET{s}"))
@example(user="a", password="S3CRET]?")
@example(user="a", password="S3CRET]/")
def test_no_password_of_printable_characters_is_shown(user: str, password: str) -> None:
    shown = strip_credentials(f"rtsp://{user}:{password}@host.example/live")
    assert "S3CRET" not in shown
    assert shown.endswith("host.example/live")
    assert "S3CRET" not in strip_credentials(f"front: rtsp://{user}:{password.replace('://', ':')}@h/live is gone")


@pytest.mark.parametrize("address", ["rtsp://[::1", "http://[", "http://h:port/", "rtsp://h/a\r\nX: y", "rtsp://h/\0"])
def test_what_is_no_address_is_said_without_its_secrets(address: str) -> None:
    with pytest.raises(SourceError, match="is no address that can be read"):
        taken_apart(address)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("localhost", True), ("::1", True), ("[::1]", True), ("::1%lo", True),
        ("0.0.0.0", False), ("::", False), ("192.168.1.7", False), ("fe80::1%eth0", False), ("localhost.evil", False),
        ("eth0", False), ("*", False), ("", False),
    ],
)  # fmt: skip
def test_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
