"""The HTTP application: every endpoint, the pages, and the OpenAPI document."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from importlib.metadata import version
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import parse_qs

import msgspec
from fastapi import Depends, FastAPI, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from engines.errors import OutputError, RoadlensError, SourceError, UsageError
from engines.settings import nearest
from pipeline.browser_view import BrowserViewer, VideoDescription
from pipeline.config import StreamConfig
from pipeline.hls import PLAYLIST, hls_file
from pipeline.live_view import Viewer, ViewPicture
from pipeline.overlay import OverlayStage, OverlayStyle
from pipeline.redact import strip_credentials
from pipeline.serve.access import COOKIE, COOKIE_SECONDS, Access
from pipeline.serve.answers import (
    Areas,
    Clip,
    Events,
    Fault,
    ModelAnswer,
    Models,
    Ready,
    Refusal,
    StreamAnswer,
    Streams,
    Totals,
    dropped,
    schemas,
    stream_answer,
)  # fmt: skip
from pipeline.serve.bodies import BodyError, body_as, json_object
from pipeline.serve.service import NotReady, Service
from pipeline.session import RunningStream, Session

API = "/api/v1"
SIGN_OF_LIFE = 15.0
"""Seconds after which a silent event stream says that it is still there."""

PICTURES_ASKED = 2
"""Pictures that a viewer may have asked for ahead; more would be old when they are shown."""

SNAPSHOT_SECONDS = 1.0
LOOK_SECONDS = 0.5
"""How often an answer that goes on looks whether it shall end."""

_ASSETS = {
    "app.css": "text/css; charset=utf-8", "app.js": "text/javascript; charset=utf-8",
    "chart.js": "text/javascript; charset=utf-8", "login.js": "text/javascript; charset=utf-8",
    "docs.js": "text/javascript; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
}  # fmt: skip

DESCRIPTION = """Streams are added, watched, steered and removed while the others run on.

With a token, send `Authorization: Bearer TOKEN`. A wrong body is answered with 422 and the field; everything that is
refused has a sentence in `detail`.
"""


def create_app(service: Service, access: Access) -> FastAPI:
    """The application of a service; `Guard` still has to be put around it."""
    app = FastAPI(
        title="roadlens", version=version("roadlens"), description=DESCRIPTION, docs_url=None, redoc_url=None,
        openapi_url=None,
    )  # fmt: skip
    _add_errors(app)
    _add_probes(app, service)
    _add_streams(app, service)
    _add_pictures(app, service)
    _add_rest(app, service)
    _add_pages(app, access)
    _add_api_document(app, access)
    _add_login(app, access)
    return app


# Bodies and answers ---------------------------------------------------------------------------------------------------
def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    said = {"cache-control": "no-store", **(headers or {})}
    return Response(msgspec.json.encode(value, enc_hook=str), status, said, "application/json")


def _answers(type_: type, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that answers with a type."""
    refused = {"$ref": "#/components/schemas/Refusal"}
    return {
        status: {
            "description": (type_.__doc__ or "").split("\n")[0],
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{type_.__name__}"}}},
        },
        422: {"description": "A field is wrong", "content": {"application/json": {"schema": refused}}},
    }


def _takes(name: str) -> dict[str, Any]:
    """The `openapi_extra` of an endpoint that takes a body."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {"requestBody": {"required": True, "content": content}}


async def _body(request: Request) -> dict[str, Any]:
    """The request's JSON object. A content type that a form may send is refused: a form needs no permission."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().casefold()
    body = await request.body()
    if body and kind != "application/json":
        raise HTTPException(415, f"the body must be application/json, not {kind[:80]}")
    return json_object(body)


Body = Annotated[dict[str, Any], Depends(_body)]
Number = Annotated[int, Query(ge=0, le=2**53)]


def _add_errors(app: FastAPI) -> None:
    async def wrong_body(_request: Request, error: Exception) -> Response:
        assert isinstance(error, BodyError)
        return _json(Refusal([Fault(error.loc, error.sentence)]), 422)

    async def refused(_request: Request, error: Exception) -> Response:
        if isinstance(error, SourceError):
            return _json(Refusal([Fault(["body", "source"], str(error))]), 422)
        return _json(Refusal(str(error)), 507 if isinstance(error, OutputError) else 409)

    async def not_ready(_request: Request, error: Exception) -> Response:
        return _json(Refusal(str(error)), 503, {"retry-after": "1"})

    app.add_exception_handler(BodyError, wrong_body)
    app.add_exception_handler(RoadlensError, refused)
    app.add_exception_handler(NotReady, not_ready)


# Probes ---------------------------------------------------------------------------------------------------------------
def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/livez", tags=["probes"], summary="Whether the process works", responses=_answers(Ready))
    async def livez() -> Response:
        return _json(Ready(service.alive, "" if service.alive else service.reason), 200 if service.alive else 503)

    @app.get("/readyz", tags=["probes"], summary="Whether streams can be analysed", responses=_answers(Ready))
    async def readyz() -> Response:
        """False while an engine builds or loads, and once the server is being stopped."""
        return _json(Ready(service.ready, service.reason), 200 if service.ready else 503)

    @app.get("/metrics", tags=["probes"], summary="Metrics for Prometheus")
    def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


# Streams --------------------------------------------------------------------------------------------------------------
def _found(service: Service, name: str) -> tuple[Session, RunningStream]:
    session = service.session
    stream = session.streams.get(name)
    if stream is None:
        raise HTTPException(404, f"there is no stream {name[:64]!r}")
    return session, stream


def _answer(service: Service, stream: RunningStream) -> StreamAnswer:
    session = service.session
    viewers = 0 if session.view is None else session.view.viewers(stream.id)
    viewers += 0 if stream.browsers is None else stream.browsers.viewers
    result = session.runtime.progress().get(stream.id)
    return stream_answer(stream, result, service.statistics.pace(stream.id), viewers)


def _source(stream: RunningStream) -> str:
    """A stream's address as it may be shown."""
    return strip_credentials(stream.config.source)


def _added(service: Service, body: dict[str, Any]) -> RunningStream:
    session, config = service.session, body_as(body, StreamConfig)
    if len(session.streams) >= service.max_streams:
        raise HTTPException(409, f"there are {service.max_streams} streams, as many as there may be; remove one")
    if config.id is not None and config.id in session.streams:
        raise BodyError(["id"], f"the stream id {config.id!r} is in use; choose another")
    try:
        stream = session.add_stream(config)
    except UsageError as error:  # what a synthetic: address says
        raise BodyError(["source"], str(error)) from None
    service.events.add(stream.id, "added", _source(stream))
    return stream


def _changed(service: Service, name: str, body: dict[str, Any]) -> RunningStream:
    session, running = _found(service, name)
    before = msgspec.to_builtins(running.config, enc_hook=str)
    config = body_as({**before, **body, "id": body.get("id", name)}, StreamConfig)
    if config.id != name:
        raise BodyError(["id"], "the id of a stream does not change; remove it and add another")
    try:
        changed = session.replace_stream(name, config)
    except UsageError as error:  # what a synthetic: address says
        raise BodyError(["source"], str(error)) from None
    service.events.add(name, "changed", _source(changed))
    return changed


def _drawn(stream: RunningStream) -> OverlayStage:
    if stream.overlay is None:
        raise HTTPException(409, f"the stream {stream.id!r} has not begun; nothing is drawn yet")
    return stream.overlay


def _redrawn(service: Service, name: str, body: dict[str, Any]) -> OverlayStyle:
    session, running = _found(service, name)
    overlay = _drawn(running)
    style = body_as({**msgspec.to_builtins(overlay.style), **body}, OverlayStyle)
    known = [c.name for m in session.models for c in m.engine.spec.classes]
    for place, hidden in enumerate(style.hide):
        if hidden not in known:
            close = nearest(hidden, known)
            advice = f"the nearest is {close!r}" if close else f"the classes are {', '.join(known)}"
            raise BodyError(["hide", place], f"there is no class {hidden[:64]!r}; {advice}")
    overlay.style = style
    return style


def _add_streams(app: FastAPI, service: Service) -> None:
    path, one = API + "/streams", API + "/streams/{stream}"

    @app.get(path, tags=["streams"], summary="List the streams", responses=_answers(Streams))
    def list_streams() -> Response:
        return _json(Streams([_answer(service, s) for s in list(service.session.streams.values())]))

    @app.post(
        path, tags=["streams"], summary="Add a stream", status_code=201, responses=_answers(StreamAnswer, 201),
        openapi_extra=_takes("StreamConfig"),
    )  # fmt: skip
    def add_stream(body: Body) -> Response:
        """A file is opened before this answers; a live source in the background, and its state says how it gets on."""
        stream = _added(service, body)
        return _json(_answer(service, stream), 201, {"location": f"{path}/{stream.id}"})

    @app.get(one, tags=["streams"], summary="One stream", responses=_answers(StreamAnswer))
    def get_stream(stream: str) -> Response:
        return _json(_answer(service, _found(service, stream)[1]))

    @app.patch(
        one, tags=["streams"], summary="Reconfigure a stream", responses=_answers(StreamAnswer),
        openapi_extra=_takes("StreamConfigChange"),
    )  # fmt: skip
    def change_stream(stream: str, body: Body) -> Response:
        """The stream goes on as another one of the same id; what the body leaves out stays as it was. The old one runs
        on where the new source cannot be opened.
        """
        return _json(_answer(service, _changed(service, stream, body)))

    @app.delete(one, tags=["streams"], summary="Remove a stream", status_code=204)
    def remove_stream(stream: str) -> Response:
        """What has been read is finished first, and so are the stream's files."""
        session, running = _found(service, stream)
        session.remove_stream(running.id)
        service.events.add(stream, "removed")
        return Response(status_code=204)

    @app.post(one + "/pause", tags=["streams"], summary="Let it rest", responses=_answers(StreamAnswer))
    def pause_stream(stream: str) -> Response:
        session, running = _found(service, stream)
        session.pause_stream(stream)
        return _json(_answer(service, running))

    @app.post(one + "/resume", tags=["streams"], summary="Let it go on", responses=_answers(StreamAnswer))
    def resume_stream(stream: str) -> Response:
        session, running = _found(service, stream)
        session.pause_stream(stream, paused=False)
        return _json(_answer(service, running))

    @app.post(one + "/restart", tags=["streams"], summary="Begin anew", responses=_answers(StreamAnswer))
    def restart_stream(stream: str) -> Response:
        session, running = _found(service, stream)
        running = session.replace_stream(stream, running.config)
        service.events.add(stream, "restarted", _source(running))
        return _json(_answer(service, running))

    @app.post(one + "/clip", tags=["streams"], summary="Save what led up to now", responses=_answers(Clip, 202))
    def save_clip(stream: str) -> Response:
        """The last seconds of a live stream as its camera sent them, and the next ones; set `events` in the
        configuration. Answers at once: the file is there when its seconds have passed.
        """
        session, _ = _found(service, stream)
        try:
            clip = session.save_event(stream, "requested")
        except OutputError as error:  # nothing has come yet
            raise HTTPException(409, str(error)) from None
        service.events.add(stream, "saving", clip.path.name)
        return _json(Clip(clip.path.name), 202)

    @app.get(one + "/overlay", tags=["streams"], summary="What is drawn", responses=_answers(OverlayStyle))
    def get_overlay(stream: str) -> Response:
        return _json(_drawn(_found(service, stream)[1]).style)

    @app.patch(
        one + "/overlay", tags=["streams"], summary="Draw otherwise", responses=_answers(OverlayStyle),
        openapi_extra=_takes("OverlayStyleChange"),
    )  # fmt: skip
    def change_overlay(stream: str, body: Body) -> Response:
        """Holds from the next frame on."""
        return _json(_redrawn(service, stream, body))

    @app.get(one + "/area", tags=["streams"], summary="Class areas over time", responses=_answers(Areas))
    def get_area(stream: str, after: Number = 0) -> Response:
        """A point a second, five minutes of them at most; with `after`, only those behind that number."""
        _found(service, stream)
        return _json(Areas(service.statistics.area(stream, after)))


# Pictures -------------------------------------------------------------------------------------------------------------
async def _snapshot(service: Service, stream: str) -> ViewPicture | None:
    """The newest picture with its overlay. That is drawn for those who watch, so the next frame is waited for; where
    none comes within `SNAPSHOT_SECONDS`, the last one does.
    """
    picture, began = None, time.monotonic()
    with service.view.watch(stream) as viewer:
        while (left := began + SNAPSHOT_SECONDS - time.monotonic()) > 0 and not viewer.over:
            picture = await viewer.next_async(left) or picture
            if picture is not None and picture.arrived_at >= began:
                return picture
    return picture or await asyncio.to_thread(service.view.snapshot, stream)


async def _mjpeg(service: Service, stream: str) -> AsyncIterator[bytes]:
    with service.counted_viewer(), service.view.watch(stream) as viewer:
        while not (viewer.over or service.stopping):
            picture = await viewer.next_async(LOOK_SECONDS)
            if picture is not None:
                yield b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture.jpeg)
                yield picture.jpeg + b"\r\n"
        yield b"--frame--\r\n"


async def _send_asked(service: Service, socket: WebSocket, viewer: Viewer, asked: asyncio.Semaphore) -> None:
    """A picture for every one asked for, each the newest by then."""
    wanted = False
    while not (viewer.over or service.stopping):
        if not wanted:
            with suppress(TimeoutError):
                wanted = await asyncio.wait_for(asked.acquire(), LOOK_SECONDS)
        elif (picture := await viewer.next_async(LOOK_SECONDS)) is not None:
            about = {
                "index": picture.index, "captured_at": picture.captured_at, "width": picture.width,
                "height": picture.height, "age_ms": round((time.monotonic() - picture.arrived_at) * 1000, 1),
            }  # fmt: skip
            await socket.send_text(msgspec.json.encode(about).decode())
            await socket.send_bytes(picture.jpeg)
            wanted = False


async def _send_video(service: Service, socket: WebSocket, viewer: BrowserViewer) -> None:
    """The description as JSON, the head, and the fragments as they come."""
    while not (viewer.over or service.stopping):
        item = await viewer.next_async(LOOK_SECONDS)
        if isinstance(item, VideoDescription):
            await socket.send_text(msgspec.json.encode(item).decode())
        elif item is not None:
            await socket.send_bytes(item)


async def _listen(socket: WebSocket, asked: asyncio.Semaphore) -> None:
    """Count what a viewer asks for, until it is gone."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        if asked._value < PICTURES_ASKED:  # noqa: SLF001  # asyncio's semaphore cannot be asked otherwise
            asked.release()


async def _until_one_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Do several things at once, until the first of them is done."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _add_pictures(app: FastAPI, service: Service) -> None:
    one = API + "/streams/{stream}"
    jpeg: dict[int | str, dict[str, Any]] = {
        200: {"content": {"image/jpeg": {}}, "description": "The newest picture, with its overlay"}
    }

    @app.get(one + "/snapshot", tags=["pictures"], summary="The newest picture", responses=jpeg)
    async def snapshot(stream: str) -> Response:
        _found(service, stream)
        picture = await _snapshot(service, stream)
        if picture is None:
            raise HTTPException(404, f"the stream {stream!r} has no picture now")
        headers = {"cache-control": "no-store", "x-captured-at": f"{picture.captured_at:.3f}"}
        return Response(picture.jpeg, headers=headers, media_type="image/jpeg")

    @app.get(one + "/view.mjpeg", tags=["pictures"], summary="Live view as MJPEG")
    async def mjpeg(stream: str) -> Response:
        """For players, and `<img>`. Ends when the stream does."""
        _found(service, stream)
        service.check_viewers()
        kind = "multipart/x-mixed-replace; boundary=frame"
        return StreamingResponse(_mjpeg(service, stream), media_type=kind, headers={"cache-control": "no-store"})

    @app.get(one + "/hls/{name}", tags=["pictures"], summary="HLS, from index.m3u8 on")
    def hls(stream: str, name: str) -> Response:
        """The playlist and what it names, where `outputs.hls` is configured. Browsers and players open it."""
        _found(service, stream)
        options = service.config.outputs.hls
        found = None if options is None else hls_file(options, stream, name)
        if found is None:
            raise HTTPException(404, f"the stream {stream!r} has no HLS file {name!r}")
        path, kind = found
        if name == PLAYLIST:  # replaced every second: what is sent is one of them, not the length of one and the next
            return Response(path.read_bytes(), headers={"cache-control": "no-cache"}, media_type=kind)
        return FileResponse(path, media_type=kind, headers={"cache-control": "max-age=60"})

    @app.websocket(one + "/view")
    async def view(socket: WebSocket, stream: str) -> None:
        """A picture for every message that the client sends, each the newest: its description as JSON, then the JPEG.
        Whoever asks only after showing one never sees an old one.
        """
        await socket.accept()
        try:
            _found(service, stream)
            service.check_viewers()
        except (HTTPException, NotReady) as error:
            await socket.close(4404, str(getattr(error, "detail", error))[:100])
            return
        asked = asyncio.Semaphore(0)
        with service.counted_viewer(), service.view.watch(stream) as viewer:
            await _until_one_ends(_listen(socket, asked), _send_asked(service, socket, viewer, asked))
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(1000, "the stream is over")

    @app.websocket(one + "/view.mp4")
    async def video(socket: WebSocket, stream: str) -> None:
        """Fragmented MP4 for Media Source Extensions, of a stream that is encoded for an output anyway: its type as
        JSON, then the head, then a fragment a picture. A viewer that is too slow goes on with the next key frame.
        """
        await socket.accept()
        try:
            _, running = _found(service, stream)
            if running.browsers is None:
                raise HTTPException(404, f"the stream {stream[:64]!r} is not encoded for any output; take its pictures")
            service.check_viewers()
        except (HTTPException, NotReady) as error:
            await socket.close(4404, str(getattr(error, "detail", error))[:100])
            return
        with service.counted_viewer(), running.browsers.watch() as viewer:
            await _until_one_ends(_listen(socket, asyncio.Semaphore(0)), _send_video(service, socket, viewer))
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(1000, "the stream is over")


# Events, models, totals -----------------------------------------------------------------------------------------------
def _add_rest(app: FastAPI, service: Service) -> None:
    @app.get(API + "/events", tags=["events"], summary="What happened lately", responses=_answers(Events))
    def events(after: Number = 0, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> Response:
        return _json(Events(service.events.after(after, limit)))

    @app.get(API + "/events/stream", tags=["events"], summary="What happens, as server-sent events")
    async def event_stream(request: Request, after: Number = 0) -> Response:
        """Begins behind `after`, or behind the `Last-Event-ID` of a client that comes again."""
        last = request.headers.get("last-event-id", "")
        start = max(after, int(last)) if last.isdigit() and len(last) < 16 else after

        async def lines() -> AsyncIterator[bytes]:
            at, spoken = start, time.monotonic()
            with service.counted_viewer():
                yield b"retry: 2000\n\n"
                while not service.stopping:
                    for event in await service.events.wait_after(at, 0.5):
                        at, spoken = event.number, time.monotonic()
                        yield b"id: %d\ndata: %s\n\n" % (event.number, msgspec.json.encode(event))
                    if time.monotonic() - spoken > SIGN_OF_LIFE:
                        spoken = time.monotonic()
                        yield b": still there\n\n"

        service.check_viewers()
        return StreamingResponse(lines(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    @app.get(API + "/models", tags=["models"], summary="What looks at the streams", responses=_answers(Models))
    def models() -> Response:
        answers = []
        for model in service.session.models:
            engine, spec = model.engine, model.engine.spec
            answers.append(
                ModelAnswer(
                    spec.name, spec.version, spec.task, spec.width, spec.height, engine.backend, engine.precision,
                    engine.device, model.every, spec.classes,
                )
            )  # fmt: skip
        return _json(Models(answers))

    @app.get(API + "/stats", tags=["streams"], summary="The whole run", responses=_answers(Totals))
    def stats() -> Response:
        result = service.session.runtime.result()
        counts = [result.removed, *(s.counts for s in result.streams)]
        drops: dict[tuple[str, str], int] = {}
        for each in counts:
            for reason, count in dict(each.dropped).items():
                drops[reason] = drops.get(reason, 0) + count
        frames = sum(each.emitted for each in counts)
        return _json(
            Totals(
                version("roadlens"), round(time.monotonic() - service.began, 3), len(service.session.streams),
                sum(each.decoded for each in counts), frames, dropped(drops),
                {name: round(t.wall * 1000 / max(frames, 1), 3) for name, t in sorted(result.stages.items())},
            )
        )  # fmt: skip


# Pages ----------------------------------------------------------------------------------------------------------------
def _add_pages(app: FastAPI, access: Access) -> None:
    folder = files("pipeline.serve") / "page"

    def page(name: str, kind: str = "text/html; charset=utf-8") -> Response:
        return Response((folder / name).read_bytes(), headers={"cache-control": "no-cache"}, media_type=kind)

    @app.get("/", include_in_schema=False)
    def dashboard() -> Response:
        return page("index.html")

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return page("docs.html")

    @app.get("/assets/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        if name not in _ASSETS:
            raise HTTPException(404, "there is no such file")
        return page(name, _ASSETS[name])

    @app.get("/favicon.ico", include_in_schema=False)
    def favicon() -> Response:
        return page("icon.svg", _ASSETS["icon.svg"])

    @app.get("/login", include_in_schema=False)
    def login_page() -> Response:
        return page("login.html") if access.needs_token else RedirectResponse("/", 303)


def _add_api_document(app: FastAPI, access: Access) -> None:
    document: dict[str, Any] = {}

    @app.get(API + "/openapi.json", include_in_schema=False)
    def openapi() -> Response:
        if not document:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            made.setdefault("components", {}).setdefault("schemas", {}).update(schemas())
            if access.needs_token:
                made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                made["security"] = [{"token": []}]
            document.update(made)
        return _json(document)


def _add_login(app: FastAPI, access: Access) -> None:
    @app.get(API + "/session", include_in_schema=False)
    def session() -> Response:
        return _json({"token": access.needs_token})

    @app.post("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        try:
            fields = parse_qs((await request.body()).decode(), max_num_fields=10)
        except (UnicodeDecodeError, ValueError):
            fields = {}
        if not access.knows(fields.get("token", [""])[0]):
            await asyncio.sleep(0.5)  # a guess shall cost something
            return RedirectResponse("/login?wrong", 303)
        answer = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(
            COOKIE, access.cookie(), max_age=COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure
        )  # fmt: skip
        return answer

    @app.post("/logout", include_in_schema=False)
    def logout() -> Response:
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE)
        return answer
