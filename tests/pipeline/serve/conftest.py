"""A real server on a real port."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

import httpx

from pipeline.config import Config, ModelConfig, ServeOptions
from pipeline.serve.access import Access
from pipeline.serve.server import _server, url
from pipeline.serve.service import Service

DRIVE = "synthetic:?seconds=600&width=320&height=180"


@dataclass
class Server:
    url: str
    service: Service
    client: httpx.Client

    @property
    def socket_url(self) -> str:
        return self.url.replace("http", "ws", 1).rstrip("/")


Serving = Callable[..., AbstractContextManager[Server]]


@contextmanager
def running(
    model: Path, token: str | None = None, opened: bool = True, settings: dict[str, Any] | None = None, **options: Any
) -> Iterator[Server]:
    """A server in this process, with its engine loaded unless told otherwise; `settings` are the configuration's."""
    config = Config(models=(ModelConfig(str(model)),), serve=ServeOptions(port=0, **options), **(settings or {}))
    server, listening, service = _server(config, Access(token))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    with ExitStack() as stack:
        thread.start()
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        client = stack.enter_context(httpx.Client(base_url=url(listening), timeout=60, headers=headers))
        try:
            if opened:
                service.open()
                stack.callback(lambda: service.finish(time.monotonic() + 10))
            yield Server(url(listening), service, client)
        finally:
            service.close()
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def server(segmenter: Path) -> Iterator[Server]:
    with running(segmenter, max_streams=5) as made:
        yield made


@pytest.fixture
def stream(server: Server) -> Iterator[str]:
    """A stream that runs, by its id."""
    assert server.client.post("/api/v1/streams", json={"source": DRIVE, "id": "drive"}).status_code == 201
    yield "drive"
    server.client.delete("/api/v1/streams/drive")
