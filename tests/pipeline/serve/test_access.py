from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from engines.errors import UsageError
from pipeline.config import ServeOptions
from pipeline.serve.access import COOKIE, COOKIE_SECONDS, Access, Scope
from pipeline.serve.token import read_token
from tests.pipeline.serve.conftest import running

TOKEN = "0123456789abcdef0123"


def request(path: str = "/api/v1/streams", method: str = "GET", kind: str = "http", **headers: str) -> Scope:
    given = {"host": "127.0.0.1:8089", **headers}
    return {
        "type": kind, "path": path, "method": method, "headers": [(k.encode(), v.encode()) for k, v in given.items()],
    }  # fmt: skip


def status(access: Access, scope: Scope) -> int:
    refusal = access.refusal(scope)
    return 200 if refusal is None else refusal[0]


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("127.0.0.1:8089", True), ("[::1]:8089", True), ("192.168.1.7", True), ("localhost", True),
        ("LOCALHOST:1", True), ("cams.example:80", True), ("evil.example", False), ("127.0.0.1.evil.example", False),
        ("", False), ("localhost.evil.example:8089", False), ("[::1", False),
    ],
)  # fmt: skip
def test_a_strange_name_is_not_served(host: str, served: bool) -> None:
    assert status(Access(None, ["cams.example"]), request(host=host)) == (200 if served else 421)


@pytest.mark.parametrize(
    ("method", "kind", "origin", "passes"),
    [
        ("POST", "http", "http://127.0.0.1:8089", True),
        ("POST", "http", "http://evil.example", False),
        ("DELETE", "http", "null", False),
        ("GET", "http", "http://evil.example", True),  # without CORS its answer cannot be read
        ("GET", "websocket", "http://evil.example", False),
        ("GET", "websocket", "http://127.0.0.1:8089", True),
    ],
)
def test_a_page_of_another_origin_does_nothing(method: str, kind: str, origin: str, passes: bool) -> None:
    assert status(Access(None), request(method=method, kind=kind, origin=origin)) == (200 if passes else 403)


def test_a_token_is_shown_as_bearer_or_cookie() -> None:
    now = 1000.0
    access = Access(TOKEN, clock=lambda: now)
    cookie = access.cookie()
    assert status(access, request()) == 401
    assert status(access, request(authorization=f"Bearer {TOKEN}")) == 200
    assert status(access, request(authorization=f"Bearer {TOKEN}x")) == 401
    assert status(access, request(authorization=f"Basic {TOKEN}")) == 401, "a password stands in base64, behind a name"
    assert status(access, request(authorization=f"Bearer {TOKEN}", kind="websocket")) == 200
    assert status(access, request(cookie=f"a=b; {COOKIE}={cookie}")) == 200
    both = f"{COOKIE}={cookie}; {COOKIE}=1.of-a-server-at-the-root"
    assert status(access, request(cookie=both)) == 200, "whichever comes first"
    assert status(access, request(cookie=f"{COOKIE}=9{cookie}")) == 401
    assert status(access, request(cookie=f"{COOKIE}=é.é")) == 401
    assert status(Access(TOKEN), request(cookie=f"{COOKIE}={cookie}")) == 401, "another process signs otherwise"
    for path in ("/livez", "/readyz", "/login", "/assets/app.css"):
        assert status(access, request(path)) == 200
    for path in ("/", "/docs", "/metrics", "/api/v1/openapi.json", "/livez/x"):
        assert status(access, request(path)) == 401
    now += COOKIE_SECONDS + 1
    assert status(access, request(cookie=f"{COOKIE}={cookie}")) == 401


def test_it_opens_to_other_machines_with_a_token_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROADLENS_TOKEN", raising=False)
    assert read_token(ServeOptions()) is None
    for host in ("0.0.0.0", "::", "192.168.1.7", "cams.example"):
        with pytest.raises(UsageError, match="give --token-file"):
            read_token(ServeOptions(host=host))
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(ServeOptions(host="0.0.0.0", token_file=file)) == TOKEN
    monkeypatch.setenv("ROADLENS_TOKEN", TOKEN)
    assert read_token(ServeOptions(host="0.0.0.0")) == TOKEN
    file.write_text("short")
    with pytest.raises(UsageError, match="16 to 4096"):
        read_token(ServeOptions(token_file=file))
    with pytest.raises(UsageError, match="cannot be read"):
        read_token(ServeOptions(token_file=tmp_path / "nowhere"))


def test_a_token_that_everybody_can_read_is_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    for mode, said in ((0o600, False), (0o640, False), (0o644, True), (0o602, True)):
        file.chmod(mode)
        caplog.clear()
        assert read_token(ServeOptions(token_file=file)) == TOKEN
        assert ("everybody on this machine" in caplog.text) == said


@pytest.mark.seconds
def test_a_person_logs_in_and_out(segmenter: Path) -> None:
    with (
        running(segmenter, token=TOKEN, opened=False) as server,
        httpx.Client(base_url=server.url, timeout=30) as person,
    ):
        assert person.get("/api/v1/events").status_code == 401
        asked = person.get("/", headers={"accept": "text/html"})
        assert (asked.status_code, asked.headers["location"]) == (303, "/login")
        wrong = person.post("/login", data={"token": "guess"})
        assert (wrong.headers["location"], COOKIE in person.cookies) == ("/login?wrong", False)
        right = person.post("/login", data={"token": TOKEN})
        assert right.headers["location"] == "/"
        assert {"HttpOnly", "SameSite=strict"} <= {p.strip() for p in right.headers["set-cookie"].split(";")}
        assert person.get("/api/v1/events").status_code == 200
        copied = person.cookies[COOKIE]
        person.post("/logout")
        assert person.get("/api/v1/events").status_code == 401
        assert httpx.get(f"{server.url}api/v1/events", cookies={COOKIE: copied}, timeout=30).status_code == 401
        origin = server.url.rstrip("/").replace("http:", "https:")
        behind = person.post("/login", data={"token": TOKEN}, headers={"origin": origin})
        assert "Secure" not in right.headers["set-cookie"]
        assert "Secure" in behind.headers["set-cookie"]
        with pytest.raises(InvalidStatus):
            connect(f"{server.socket_url}/api/v1/streams/a/view")
