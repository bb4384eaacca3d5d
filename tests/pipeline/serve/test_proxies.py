"""The server behind a reverse proxy: TLS before it, a sub-path, headers that are believed or not."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import ssl
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Origin

from engines.errors import UsageError
from pipeline.config import Config, ServeOptions, check, read_config
from pipeline.serve.access import COOKIE
from tests.pipeline.serve.conftest import DRIVE, running
from tests.pipeline.serve.reverse_proxy import Habits, certificate, proxying

TOKEN = "0123456789abcdef0123"
API = "/api/v1"
PROTO = {"X-Forwarded-Proto": "https"}

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


def person(address: str, files: tuple[Path, Path]) -> httpx.Client:
    return httpx.Client(base_url=address, timeout=60, verify=ssl.create_default_context(cafile=str(files[0])))


@pytest.mark.seconds
@needs_openssl
@pytest.mark.parametrize(
    ("habits", "root_path"),
    [
        (Habits(strips=True, adds=PROTO), "/cams"),
        (Habits(strips=False, adds=PROTO), "/cams"),
        (Habits(strips=True, adds={**PROTO, "X-Forwarded-Prefix": "/cams"}), ""),
        (Habits(prefix="/a/b.c", strips=False, adds={**PROTO, "X-Forwarded-Prefix": "/a/b.c/"}), ""),
        (Habits(host="127.0.0.1", adds={**PROTO, "X-Forwarded-Host": "evil.example, {host}"}), "/cams"),
        (Habits(prefix="", adds=PROTO), ""),
    ],
    ids=["stripped", "left on", "told by header", "told and left on", "host told by header", "no sub-path"],
)
def test_a_person_works_through_a_proxy_with_tls(
    segmenter: Path, files: tuple[Path, Path], habits: Habits, root_path: str
) -> None:
    prefix = habits.prefix
    options = {"root_path": root_path, "trusted_proxies": ("127.0.0.0/8",)}
    with (
        running(segmenter, token=TOKEN, **options) as server,
        proxying(server.url, habits, files) as address,
        person(address, files) as browser,
    ):
        origin = address.removesuffix(prefix)
        own = {"origin": origin}
        asked = browser.get("/", headers={"accept": "text/html"})
        assert (asked.status_code, asked.headers["location"]) == (303, f"{prefix}/login")
        wrong = browser.post("/login", data={"token": "guess"}, headers=own)
        assert wrong.headers["location"] == f"{prefix}/login?wrong"
        right = browser.post("/login", data={"token": TOKEN}, headers=own)
        assert right.headers["location"] == f"{prefix}/"
        said = {part.strip() for part in right.headers["set-cookie"].split(";")}
        assert {"Secure", "HttpOnly", f"Path={prefix or '/'}"} <= said

        # Everything that the pages name is found where a browser looks for it.
        for name in ("/", "/docs", "/login"):
            page = browser.get(name)
            assert page.status_code == 200
            for link in re.findall(r'(?:href|src|action)="([^"#][^"]*)"', page.text):
                assert link.startswith(f"{prefix}/"), link
                if not link.endswith("/logout"):
                    assert browser.get(f"{origin}{link}").status_code == 200, link
        for script in ("app.js", "docs.js", "login.js", "theme.js"):
            assert not re.search(r"""["'`]/(api|assets|login|docs)\b""", browser.get(f"/assets/{script}").text), script

        made = browser.post(f"{API}/streams", json={"source": DRIVE, "id": "a"}, headers=own)
        assert (made.status_code, made.headers["location"]) == (201, f"{prefix}{API}/streams/a")
        assert browser.get(f"{origin}{made.headers['location']}").json()["id"] == "a"
        document = browser.get(f"{API}/openapi.json").json()
        assert document.get("servers", [{"url": ""}])[0]["url"] == prefix
        link = browser.post(f"{API}/streams/a/link", headers=own).json()["snapshot"]
        assert link.startswith(f"{origin}{prefix}{API}/links/")
        cookie = {"cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
        trust = ssl.create_default_context(cafile=str(files[0]))
        view = f"{address.replace('https', 'wss', 1)}{API}/streams/a/view"

        async def looks() -> tuple[str | bytes, str | bytes]:
            async with connect(view, origin=Origin(origin), additional_headers=cookie, ssl=trust) as socket:
                await socket.send("next")
                return await socket.recv(), await socket.recv()

        facts, picture = asyncio.run(asyncio.wait_for(looks(), 60))
        assert json.loads(facts)["width"] == 320
        assert picture[:2] == b"\xff\xd8"

        browser.post("/logout", headers=own)
        assert COOKIE not in browser.cookies
        assert browser.get(f"{API}/streams").status_code == 401


@needs_openssl
def test_nobody_is_believed_who_was_not_named(
    segmenter: Path, files: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    adds = {**PROTO, "X-Forwarded-Host": "localhost", "X-Forwarded-Prefix": "/cams"}
    with (
        caplog.at_level(logging.WARNING),
        running(segmenter, token=TOKEN, opened=False, trusted_proxies=("10.0.0.0/8", "::1")) as server,
        proxying(server.url, Habits(adds=adds, host="127.0.0.1:1"), files) as address,
        person(address, files) as browser,
    ):
        right = browser.post("/login", data={"token": TOKEN})
        assert right.headers["location"] == "/"
        assert "Secure" not in right.headers["set-cookie"]
        assert "Path=/;" in right.headers["set-cookie"] + ";"
        # A Host that the proxy has rewritten: the page that is broken by it finds the advice in its answer.
        origin = address.removesuffix("/cams")
        refused = browser.post(f"{API}/streams", json={}, headers={"origin": origin})
        assert refused.status_code == 403
        assert all(
            part in refused.json()["detail"] for part in (origin, "127.0.0.1:1", "proxy_set_header Host $http_host")
        )
        browser.post(f"{API}/streams", json={}, headers={"origin": origin})
    said = [r.getMessage() for r in caplog.records if r.name.startswith("pipeline.serve")]
    assert len([s for s in said if "--trusted-proxy 127.0.0.1" in s]) == 1
    assert len([s for s in said if "$http_host" in s]) == 1, "said once, not at every request"


def test_a_name_that_is_not_served_is_told_how_to_be(segmenter: Path) -> None:
    with running(segmenter, opened=False) as server:
        refused = server.client.get("/livez", headers={"host": "cams.example:8443"})
        assert refused.status_code == 421
        assert "--allow-host cams.example" in refused.json()["detail"]
        origin = {"host": "127.0.0.1:443", "origin": "https://127.0.0.1"}
        assert server.client.post("/logout", headers=origin).status_code == 303, "the usual port need not be said"


@pytest.mark.parametrize(
    ("name", "value"), [("x-forwarded-proto", "gopher"), ("x-forwarded-prefix", "cams"), ("x-forwarded-prefix", '/"x')]
)
def test_what_a_trusted_proxy_says_wrongly_is_refused(segmenter: Path, name: str, value: str) -> None:
    with running(segmenter, opened=False, trusted_proxies=("127.0.0.1",)) as server:
        refused = server.client.get("/livez", headers={name: value})
        assert refused.status_code == 400
        assert value in refused.json()["detail"]
        assert server.client.get("/livez", headers={name: ""}).status_code == 200


@pytest.mark.parametrize("path", ["cams", "/cams/", "/a b", "/api", "/api/v1", "/docs", "/../x", "//", '/"', "/x\n"])
def test_a_sub_path_that_cannot_be_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "c.yaml").write_text(f"serve:\n  root_path: {json.dumps(path)}\n")
    with pytest.raises(UsageError, match="root_path"):
        read_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("path", ["", "/cams", "/apis", "/a/b.c", "/x/api"])
def test_a_sub_path_is_taken(tmp_path: Path, path: str) -> None:
    (tmp_path / "c.yaml").write_text(f"serve:\n  root_path: {json.dumps(path)}\n")
    assert read_config(tmp_path / "c.yaml").serve.root_path == path


def test_a_proxy_is_an_address_or_a_network() -> None:
    with pytest.raises(UsageError, match=r"command line: serve.trusted_proxies: 'nginx' is neither .* 10.0.0.0/24"):
        check(Config(serve=ServeOptions(trusted_proxies=("10.0.0.7", "nginx"))), "the command line")
