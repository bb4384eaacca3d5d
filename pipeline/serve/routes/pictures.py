"""Endpoints of pictures: the newest one, MJPEG, HLS, and the two WebSockets that browsers watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
from fastapi import APIRouter, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, StreamingResponse
from starlette.exceptions import HTTPException

from pipeline.outputs.live.browser import BrowserViewer, VideoDescription
from pipeline.outputs.live.hls import PLAYLIST, hls_file
from pipeline.outputs.snapshots import Viewer, ViewPicture
from pipeline.serve.answers import Link, LinkOptions
from pipeline.serve.bodies import body_as
from pipeline.serve.reply import (
    STREAM,
    STREAMS,
    Body,
    Rules,
    Serving,
    answers_with,
    found,
    json_reply,
    sends,
    takes,
    until_one_ends,
)
from pipeline.serve.service import NotReady, Service

PICTURES_ASKED = 2
"""Pictures that a viewer may have asked for ahead; more would be old when they are shown."""

SNAPSHOT_SECONDS = 1.0
LOOK_SECONDS = 0.5
"""How often an answer that goes on looks whether it shall end."""

router = APIRouter()


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


async def _send_asked(service: Service, socket: WebSocket, viewer: Viewer, asked: asyncio.Queue[None]) -> None:
    """A picture for every one asked for, each the newest by then."""
    wanted = False
    while not (viewer.over or service.stopping):
        if not wanted:
            with suppress(TimeoutError):
                await asyncio.wait_for(asked.get(), LOOK_SECONDS)
                wanted = True
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


async def _listen(socket: WebSocket, asked: asyncio.Queue[None]) -> None:
    """Note what a viewer asks for, until it is gone; what is more than `asked` holds is left out."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        with suppress(asyncio.QueueFull):
            asked.put_nowait(None)


@router.get(
    STREAM + "/snapshot", tags=["pictures"], summary="The newest picture", response_class=Response,
    responses=sends("The newest picture, with its overlay", "image/jpeg"),
)  # fmt: skip
async def snapshot(service: Serving, stream: str) -> Response:
    """As JPEG; `x-captured-at` is when it was captured, Unix seconds."""
    found(service, stream)
    picture = await _snapshot(service, stream)
    if picture is None:
        raise HTTPException(404, f"the stream {stream!r} has no picture now")
    headers = {"cache-control": "no-store", "x-captured-at": f"{picture.captured_at:.3f}"}
    return Response(picture.jpeg, headers=headers, media_type="image/jpeg")


@router.get(
    STREAM + "/view.mjpeg", tags=["pictures"], summary="Live view as MJPEG", response_class=Response,
    responses=sends("JPEG after JPEG", "multipart/x-mixed-replace"),
)  # fmt: skip
async def mjpeg(service: Serving, stream: str) -> Response:
    """For players, and `<img>`. Ends when the stream does."""
    found(service, stream)
    service.check_viewers()
    kind = "multipart/x-mixed-replace; boundary=frame"
    return StreamingResponse(_mjpeg(service, stream), media_type=kind, headers={"cache-control": "no-store"})


@router.get(
    STREAM + "/hls/{name}", tags=["pictures"], summary="HLS, from index.m3u8 on", response_class=Response,
    responses=sends("The file", "application/vnd.apple.mpegurl", "video/mp4", ranges=True),
)  # fmt: skip
def hls(service: Serving, stream: str, name: str) -> Response:
    """The playlist and what it names, where `outputs.hls` is configured. Browsers and players open it."""
    found(service, stream)
    options = service.config.outputs.hls
    file = None if options is None else hls_file(options, stream, name)
    if file is None:
        raise HTTPException(404, f"the stream {stream!r} has no HLS file {name!r}")
    path, kind = file
    if name == PLAYLIST:  # replaced every second: what is sent is one of them, not the length of one and the next
        return Response(path.read_bytes(), headers={"cache-control": "no-cache"}, media_type=kind)
    return FileResponse(path, media_type=kind, headers={"cache-control": "max-age=60"})


@router.post(
    STREAM + "/link", tags=["pictures"], summary="Links for players without a token", responses=answers_with(Link),
    openapi_extra=takes("LinkOptions"),
)  # fmt: skip
def link(service: Serving, access: Rules, request: Request, stream: str, body: Body) -> Response:
    """Whoever has a link sees this stream's pictures and nothing else, until its time is over or the token is another
    one. A day where the body is empty.
    """
    found(service, stream)
    made = access.link(stream, body_as(body, LinkOptions).seconds)
    path, until = (f"{STREAMS}/{stream}", None) if made is None else made
    below = f"{str(request.base_url).rstrip('/')}{path}"
    playlist = None if service.config.outputs.hls is None else f"{below}/hls/{PLAYLIST}"
    return json_reply(Link(f"{below}/snapshot", f"{below}/view.mjpeg", playlist, until))


@router.websocket(STREAM + "/view")
async def view(service: Serving, socket: WebSocket, stream: str) -> None:
    """A picture for every message that the client sends, each the newest: its description as JSON, then the JPEG.
    Whoever asks only after showing one never sees an old one.
    """
    await socket.accept()
    try:
        found(service, stream)
        service.check_viewers()
    except (HTTPException, NotReady) as error:
        await socket.close(4404, str(getattr(error, "detail", error))[:100])
        return
    asked: asyncio.Queue[None] = asyncio.Queue(PICTURES_ASKED)
    with service.counted_viewer(), service.view.watch(stream) as viewer:
        await until_one_ends(_listen(socket, asked), _send_asked(service, socket, viewer, asked))
    with suppress(RuntimeError, WebSocketDisconnect):
        await socket.close(1000, "the stream is over")


@router.websocket(STREAM + "/view.mp4")
async def video(service: Serving, socket: WebSocket, stream: str) -> None:
    """Fragmented MP4 for Media Source Extensions, of a stream that is encoded for an output anyway: its type as
    JSON, then the head, then a fragment a picture. A viewer that is too slow goes on with the next key frame.
    """
    await socket.accept()
    try:
        _, running = found(service, stream)
        if running.browsers is None:
            raise HTTPException(404, f"the stream {stream[:64]!r} is not encoded for any output; take its pictures")
        service.check_viewers()
    except (HTTPException, NotReady) as error:
        await socket.close(4404, str(getattr(error, "detail", error))[:100])
        return
    with service.counted_viewer(), running.browsers.watch() as viewer:
        await until_one_ends(_listen(socket, asyncio.Queue(1)), _send_video(service, socket, viewer))
    with suppress(RuntimeError, WebSocketDisconnect):
        await socket.close(1000, "the stream is over")
