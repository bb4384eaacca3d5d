"""Players: they ask with HEAD, show a password or nothing at all, and open pictures by a link."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import av
import httpx
import pytest

from pipeline.outputs.live.hls import HlsOptions
from pipeline.outputs.live.opening import OutputOptions
from pipeline.serve.access import Access
from tests.pipeline.serve.conftest import DRIVE, Server, running
from tests.pipeline.serve.test_access import request, status

TOKEN = "0123456789abcdef0123"
STREAMS = "/api/v1/streams"
ENDLESS = (f"{STREAMS}/{{stream}}/view.mjpeg", "/api/v1/events/stream")
LONG = 60.0


@pytest.fixture(scope="module")
def locked(segmenter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a token, and a stream of whose pictures HLS is made."""
    outputs = OutputOptions(hls=HlsOptions(tmp_path_factory.mktemp("hls")))
    with running(segmenter, token=TOKEN, settings={"outputs": outputs}) as server:
        body = {"source": DRIVE, "id": "drive", "realtime": True}
        assert server.client.post(STREAMS, json=body).status_code == 201
        deadline = time.monotonic() + LONG
        while server.client.get(f"{STREAMS}/drive/hls/index.m3u8").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield server


@pytest.fixture
def stranger(locked: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=locked.url, timeout=LONG) as client:
        yield client


def width(address: str) -> int:
    """Of the first picture that FFmpeg, a player as any other, decodes from an address."""
    with av.open(address, timeout=LONG) as container:
        return next(container.decode(video=0)).width


@pytest.mark.seconds
def test_every_get_answers_head(server: Server, stream: str) -> None:
    document = server.client.get("/api/v1/openapi.json").json()
    paths = [p for p, calls in document["paths"].items() if "get" in calls and "{name}" not in p]
    assert set(ENDLESS) < set(paths)
    pages = ["/", "/docs", "/login", "/favicon.ico", "/assets/app.js", "/api/v1/openapi.json", "/api/v1/session"]
    for path in (*paths, *pages, f"{STREAMS}/nobody", "/nowhere", "/assets/nothing"):
        asked = path.replace("{stream}", stream)
        head = server.client.head(asked, follow_redirects=False)
        if path in ENDLESS:
            with server.client.stream("GET", asked) as got:
                pass
        else:
            got = server.client.get(asked, follow_redirects=False)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        for name in ("content-type", "cache-control", "content-security-policy", "location"):
            assert head.headers.get(name) == got.headers.get(name), (path, name)
        assert "content-length" in head.headers or path in ENDLESS, path
    assert server.client.head(f"{STREAMS}/{stream}/pause").status_code == server.client.get(
        f"{STREAMS}/{stream}/pause"
    ).status_code == 405  # fmt: skip
    deadline = time.monotonic() + LONG
    while server.service._viewers:
        assert time.monotonic() < deadline, "who asked with HEAD watches for ever"
        time.sleep(0.05)


@pytest.mark.seconds
@pytest.mark.parametrize("tail", ["view.mjpeg", "snapshot", "hls/index.m3u8"])
def test_a_player_shows_the_token_as_a_password(locked: Server, tail: str) -> None:
    place = urlsplit(locked.url).netloc
    assert width(f"http://anybody:{TOKEN}@{place}{STREAMS}/drive/{tail}") == 320
    with pytest.raises(av.error.HTTPUnauthorizedError):
        width(f"http://anybody:wrong-{TOKEN}@{place}{STREAMS}/drive/{tail}")


@pytest.mark.seconds
def test_a_password_reads_and_does_nothing_else(locked: Server, stranger: httpx.Client) -> None:
    assert stranger.get(STREAMS, auth=("", TOKEN)).status_code == 200
    assert stranger.get(STREAMS, auth=(TOKEN, "")).status_code == 401
    assert stranger.post(f"{STREAMS}/drive/pause", auth=("", TOKEN)).status_code == 401
    assert stranger.delete(f"{STREAMS}/drive", auth=("", TOKEN)).status_code == 401
    for broken in ("Basic", "Basic =", "Basic é", f"Basic {base64.b64encode(TOKEN.encode()).decode()}", "Basic ////"):
        headers = [(b"authorization", broken.encode("latin-1"))]
        assert stranger.get(STREAMS, headers=headers).status_code == 401, broken


def test_only_players_are_asked_for_a_password(stranger: httpx.Client) -> None:
    """A browser would put up a box of its own, before the dashboard could lead to its login."""

    def challenge(path: str, **headers: str) -> str:
        refused = stranger.get(path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        assert refused.status_code == 401
        return refused.headers["www-authenticate"].partition(" ")[0]

    assert challenge(f"{STREAMS}/drive/snapshot") == "Basic"
    assert challenge(f"{STREAMS}/drive/hls/index.m3u8") == "Basic"
    assert challenge(f"{STREAMS}/drive/snapshot", sec_fetch_mode="cors") == "Bearer"
    assert challenge(f"{STREAMS}/drive") == "Bearer"


@pytest.mark.seconds
def test_a_link_shows_its_stream_s_pictures_and_nothing_else(locked: Server, stranger: httpx.Client) -> None:
    made = locked.client.post(f"{STREAMS}/drive/link", json={"seconds": 600}).json()
    assert 500 < made["until"] - time.time() <= 600
    assert TOKEN not in str(made)
    for kind in ("snapshot", "mjpeg", "hls"):
        assert made[kind].startswith(locked.url)
        assert width(made[kind]) == 320, kind
    shown = stranger.get(made["snapshot"])
    assert (shown.status_code, shown.content[:2]) == (200, b"\xff\xd8")
    assert shown.headers["cross-origin-resource-policy"] == "cross-origin", "pages of others may show it"
    assert "access-control-allow-origin" not in shown.headers
    assert stranger.head(made["mjpeg"]).status_code == 200

    below = made["snapshot"].removesuffix("/snapshot")
    for other in ("", "/overlay", "/area", "/pause", "/link", "/hls/../overlay", "/hls/a/b"):
        assert stranger.get(below + other).status_code == 401, other
    for method in ("POST", "DELETE", "PATCH"):
        assert stranger.request(method, made["snapshot"]).status_code == 401
    signature = re.search(r"\.([0-9a-f]{64})/", below)
    assert signature is not None
    for forged in (
        below.replace("/streams/drive", "/streams/other"),
        below.replace(f"/{made['until']}.", f"/{made['until'] + 1}."),
        below.replace(signature[1], "0" * 64),
    ):
        refused = stranger.get(f"{forged}/snapshot")
        assert refused.status_code == 401
        assert "this link is over or was not made with this token" in refused.json()["detail"]
    assert stranger.post(f"{STREAMS}/drive/link").status_code == 401
    assert locked.client.post(f"{STREAMS}/nobody/link").status_code == 404
    for wrong in ({"seconds": 0}, {"seconds": 10**9}, {"minutes": 3}):
        assert locked.client.post(f"{STREAMS}/drive/link", json=wrong).status_code == 422


def test_a_link_ends_with_its_time_or_its_token_and_outlives_the_process() -> None:
    now = 1000.0
    made = Access(TOKEN, clock=lambda: now).link("cam", 60)
    assert made is not None
    path, until = made
    assert until == 1060
    after = Access(TOKEN, clock=lambda: now)
    assert status(after, request(f"{path}/snapshot")) == 200
    assert status(Access(f"{TOKEN}x", clock=lambda: now), request(f"{path}/snapshot")) == 401
    now += 59
    assert status(after, request(f"{path}/hls/index.m3u8")) == 200
    now += 1
    assert status(after, request(f"{path}/hls/index.m3u8")) == 401


def test_without_a_token_the_links_are_the_plain_addresses(server: Server, stream: str) -> None:
    made = server.client.post(f"{STREAMS}/{stream}/link").json()
    below = f"{server.url.rstrip('/')}{STREAMS}/{stream}"
    assert made == {"snapshot": f"{below}/snapshot", "mjpeg": f"{below}/view.mjpeg", "hls": None, "until": None}


@pytest.mark.seconds
@pytest.mark.parametrize("package", ["fastapi", "starlette", "uvicorn", "websockets"])
def test_without_the_extra_one_sentence_says_what_to_install(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = ['roadlens', 'serve', '--port', '0']; "
        "from pipeline.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr
    (sentence,) = done.stderr.splitlines()
    assert package in sentence
    assert "pip install '.[serve]'" in sentence
