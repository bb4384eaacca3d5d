"""ASGI application of a server of several processes: what is of one stream goes to its worker as it came, and comes
back as it is; what is of all streams is put together here; pages, events, probes and metrics are the parent's own.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import quote

import httpx
import msgspec
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from pipeline.config import StreamConfig
from pipeline.serve import API
from pipeline.serve.access import App, Receive, Scope, Send, inner_path
from pipeline.serve.answers import Models, Refusal, Streams
from pipeline.serve.bodies import BodyError, body_as, json_object
from pipeline.serve.reply import STREAMS, json_reply, until_one_ends
from pipeline.serve.service import NotReady
from pipeline.serve.workers import ROOT_HEADER, SCHEME_HEADER
from pipeline.serve.workers.service import FleetService
from pipeline.workers.fleet import Placed, Worker

COMING_SECONDS = 60.0
"""How long a stream that is added waits for its worker, which loads its engines where none is in reserve."""

_STREAM = re.compile(re.escape(STREAMS) + r"/(?P<stream>[^/]+)(?P<rest>/.*)?")
_PER_HOP = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"})
"""Headers of one connection and not of what comes over it."""


class Gateway:
    """The application.

    Args:
        app: what answers for the parent.
        service: the workers.
    """

    def __init__(self, app: App, service: FleetService) -> None:
        self._app, self._service = app, service
        self._clients: dict[Worker, httpx.AsyncClient] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = inner_path(scope) if scope["type"] in {"http", "websocket"} else ""
        found = _STREAM.fullmatch(path)
        if scope["type"] == "websocket" and found is not None:
            await self._watch(WebSocket(scope, receive, send), found["stream"], path)
            return
        if found is None and path not in {STREAMS, API + "/models", API + "/stats"}:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            answer = await (self._whole(request, path) if found is None else self._one(request, found["stream"], path))
        except NotReady as error:
            answer = json_reply(Refusal(str(error)), 503, {"retry-after": "1"})
        except HTTPException as error:
            answer = json_reply(Refusal(error.detail), error.status_code)
        await answer(scope, receive, send)

    # Of all streams -------------------------------------------------------------------------------------------------
    async def _whole(self, request: Request, path: str) -> Response:
        service = self._service
        if not service.ready:
            raise NotReady(service.reason)
        if request.method == "POST" and path == STREAMS:
            return await self._added(request)
        if request.method != "GET":
            raise HTTPException(405, "Method Not Allowed")
        if path == STREAMS:
            return json_reply(Streams(await service.streams()))
        if path == API + "/models":
            return json_reply(Models(service.models()))
        return json_reply(await run_in_threadpool(service.totals))

    async def _added(self, request: Request) -> Response:
        """A worker judges a body; it is the one that the stream goes to, where it can be one."""
        service, fleet = self._service, self._service.fleet
        body = await request.body()
        try:
            values = json_object(body)
            config = body_as(values, StreamConfig)
        except BodyError:
            return await self._passed_on(request, self._any(), STREAMS, body)
        if config.id in fleet.streams:
            return await self._passed_on(request, service.worker(str(config.id)), STREAMS, body)
        if len(fleet.streams) >= service.max_streams:
            raise HTTPException(409, f"there are {service.max_streams} streams, as many as there may be; remove one")
        placed = fleet.place(config)
        name = str(placed.config.id)
        try:
            worker = await run_in_threadpool(fleet.come, placed, COMING_SECONDS)
            if worker is None:
                raise NotReady("the worker of the stream does not start")
            answer = await self._passed_on(request, worker, STREAMS, msgspec.json.encode({**values, "id": name}))
        except BaseException:
            fleet.forget(name)
            raise
        if answer.status_code == 201:
            placed.pending = False
        else:
            fleet.forget(name)
        return answer

    def _any(self) -> Worker:
        for worker in self._service.fleet.workers:
            if worker is not None:
                return worker
        raise NotReady("every worker is being replaced")

    # Of one stream --------------------------------------------------------------------------------------------------
    async def _one(self, request: Request, stream: str, path: str) -> Response:
        service = self._service
        if not service.ready:
            raise NotReady(service.reason)
        placed = service.fleet.streams.get(stream)
        if placed is None:
            raise HTTPException(404, f"there is no stream {stream[:64]!r}")
        body = await request.body()
        answer = await self._passed_on(request, service.worker(stream), path, body)
        if answer.status_code < 300:
            self._note(placed, stream, request.method, path, body)
        return answer

    def _note(self, placed: Placed, stream: str, method: str, path: str, body: bytes) -> None:
        """Keep what a worker in place of this one has to know."""
        match method, path.removeprefix(f"{STREAMS}/{stream}"):
            case "DELETE", "":
                self._service.fleet.forget(stream)
            case "PATCH", "":
                placed.config = _changed(placed.config, body)
            case "POST", "/pause" | "/resume" as wanted:
                placed.paused = wanted == "/pause"

    # On the way -----------------------------------------------------------------------------------------------------
    async def _passed_on(self, request: Request, worker: Worker, path: str, body: bytes) -> Response:
        """A worker's answer, as it comes."""
        client = await self._client(worker)
        kept = [(k, v) for k, v in request.headers.raw if k not in _PER_HOP and k != b"content-length"]
        query = f"?{request.url.query}" if request.url.query else ""
        asked = client.build_request(
            request.method, f"http://worker{quote(path)}{query}", content=body,
            headers=[*kept, *_as_asked(request.scope)],
        )  # fmt: skip
        try:
            answer = await client.send(asked, stream=True)
        except httpx.TransportError:
            raise NotReady("the worker of the stream is being replaced") from None
        reply = StreamingResponse(_parts(answer), answer.status_code, background=BackgroundTask(answer.aclose))
        reply.raw_headers = [(k.lower(), v) for k, v in answer.headers.raw if k.lower() not in _PER_HOP]
        return reply

    async def _client(self, worker: Worker) -> httpx.AsyncClient:
        if worker not in self._clients:
            there = self._service.fleet.workers
            for other in [each for each in self._clients if each not in there]:
                await self._clients.pop(other).aclose()
            # No connection is kept: one that a worker has just closed would look like its death.
            transport = httpx.AsyncHTTPTransport(
                uds=str(worker.address), verify=False, limits=httpx.Limits(max_keepalive_connections=0)
            )
            self._clients[worker] = httpx.AsyncClient(transport=transport, timeout=None)  # noqa: S113  # opening takes long
        return self._clients[worker]

    async def _watch(self, socket: WebSocket, stream: str, path: str) -> None:
        service = self._service
        await socket.accept()
        try:
            if not service.ready:
                raise NotReady(service.reason)
            worker = service.worker(stream)
            headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in _as_asked(socket.scope)]
            async with unix_connect(
                str(worker.address), f"ws://worker{quote(path)}", compression=None, max_size=None, ping_interval=None,
                additional_headers=headers,
            ) as inner:  # fmt: skip
                await until_one_ends(_down(inner, socket), _up(socket, inner))
            code, reason = inner.close_code or 1001, inner.close_reason or ""
        except KeyError:
            code, reason = 4404, f"there is no stream {stream[:64]!r}"
        except NotReady as error:
            code, reason = 4404, str(error)
        except (OSError, WebSocketException):
            code, reason = 4404, "the worker of the stream is being replaced"
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(1001 if code == 1006 else code, reason[:100])


def _as_asked(scope: Scope) -> list[tuple[bytes, bytes]]:
    """What a worker has to know of a request to its parent."""
    root: str = scope.get("root_path", "")
    return [(ROOT_HEADER, root.encode("latin-1")), (SCHEME_HEADER, scope["scheme"].encode("ascii"))]


def _changed(before: StreamConfig, body: bytes) -> StreamConfig:
    return body_as({**msgspec.to_builtins(before, enc_hook=str), **json_object(body)}, StreamConfig)


async def _parts(answer: httpx.Response) -> AsyncIterator[bytes]:
    with suppress(httpx.TransportError):  # the worker died: what came is all there is
        async for part in answer.aiter_raw():
            yield part


async def _down(inner: ClientConnection, socket: WebSocket) -> None:
    with suppress(ConnectionClosed):
        async for message in inner:
            await (socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message))


async def _up(socket: WebSocket, inner: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            await inner.send(message.get("text") or message.get("bytes") or "")
