"""A worker of a server: a session with the API of its streams, at a Unix socket that nobody but its parent reaches."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn

from pipeline.config import StreamConfig
from pipeline.process import VisibleFormatter, leave
from pipeline.serve.access import Access, App, Receive, Scope, Send, header
from pipeline.serve.answers import ModelAnswer, StreamAnswer, model_answers, totals
from pipeline.serve.app import create_app
from pipeline.serve.reply import answer_of
from pipeline.serve.service import Service
from pipeline.serve.token import read_token
from pipeline.serve.workers import ROOT_HEADER, SCHEME_HEADER
from pipeline.workers.fleet import Job, Snapshot
from pipeline.workers.line import STOP, Line, line_to_parent

STOP_SECONDS = 3.6
"""How long the end may take: the parent ends what takes longer."""


class ServingWorker:
    """What a worker does when it is asked.

    Args:
        line: to the parent.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._service: Service | None = None
        self._server: uvicorn.Server | None = None

    def open(self, job: Job) -> list[ModelAnswer]:
        """Load the engines and answer HTTP.

        Raises:
            RoadlensError: a model or output that cannot be used.
        """
        for name, level in job.levels.items():
            logging.getLogger(name).setLevel(level)
        service = Service(job.config, job.inputs, job.part, lambda event: self._line.say("event", event))
        self._service = service
        service.open()
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(job.address))
        listening.listen(128)
        settings = uvicorn.Config(
            _AsAsked(create_app(service, Access(read_token(job.config.serve)))), log_config=None, access_log=False,
            lifespan="off", server_header=False, date_header=False, proxy_headers=False, timeout_graceful_shutdown=1,
            ws_max_size=4096, ws_per_message_deflate=False,
        )  # fmt: skip
        self._server = uvicorn.Server(settings)
        threading.Thread(target=self._server.run, args=([listening],), name="http", daemon=True).start()
        return model_answers(service.session.models)

    def add(self, streams: Sequence[tuple[str, StreamConfig, bool]]) -> None:
        """Take on streams of the owner's, and let those rest that are paused."""
        session = self._ready.session
        for name, config, paused in streams:
            session.take_on(name, config)
            if paused and not session.streams[name].change.state.final:
                session.pause_stream(name)

    def snapshot(self) -> Snapshot:
        """How it stands."""
        service = self._ready
        session = service.session
        streams = list(session.streams.values())
        rates = {stream.id: float(stream.info.rate) for stream in streams if stream.info is not None}
        figures = totals(session.runtime.result(), len(streams), time.monotonic() - service.began)
        return Snapshot(list(service.registry.collect()), rates, figures)

    def streams(self) -> list[StreamAnswer]:
        """How its streams stand."""
        service = self._ready
        return [answer_of(service, stream) for stream in service.session.streams.values()]

    def stop(self) -> int:
        """Finish the streams; the exit code."""
        if self._service is None:
            return 0
        self._service.close()
        if self._server is not None:
            self._server.should_exit = True
        return self._service.finish(time.monotonic() + STOP_SECONDS)[0]

    @property
    def _ready(self) -> Service:
        assert self._service is not None, "the parent asks for this after `open`"
        return self._service


class _AsAsked:
    """ASGI middleware that makes a request look as it did to the parent."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = next(iter(header(scope, ROOT_HEADER)), "")
        scheme = next(iter(header(scope, SCHEME_HEADER)), scope["scheme"])
        await self._app({**scope, "root_path": root, "path": root + scope["path"], "scheme": scheme}, receive, send)


def main() -> None:
    """Do what the parent asks, until it says stop or is gone."""
    line = line_to_parent()
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter())
    logging.basicConfig(handlers=[handler])
    worker = ServingWorker(line)
    verbs: dict[str, Callable[..., Any]] = {
        "open": worker.open, "add": worker.add, "snapshot": worker.snapshot, "streams": worker.streams,
        STOP: worker.stop,
    }  # fmt: skip
    line.attend(verbs)
    leave(0)  # whatever still hangs


if __name__ == "__main__":
    main()
