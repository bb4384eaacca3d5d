"""Endpoints of streams: they are listed, added, changed, removed, steered, and drawn otherwise."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException

from engines.errors import OutputError, UsageError
from engines.settings import nearest
from pipeline.addresses import strip_credentials
from pipeline.config import StreamConfig
from pipeline.drawing.overlay import OverlayStage, OverlayStyle
from pipeline.serve.answers import Areas, Clip, StreamAnswer, Streams
from pipeline.serve.bodies import BodyError, body_as
from pipeline.serve.client_sources import check_client_stream
from pipeline.serve.reply import (
    STREAM,
    STREAMS,
    Body,
    Number,
    Opening,
    Root,
    Serving,
    answer_of,
    answers_with,
    found,
    json_reply,
    takes,
)
from pipeline.serve.service import Service
from pipeline.session import RunningStream

router = APIRouter()


def _shown(stream: RunningStream) -> str:
    """A stream's address as it may be shown."""
    return strip_credentials(stream.config.source)


def _added(service: Service, body: dict[str, Any]) -> RunningStream:
    session, config = service.session, body_as(body, StreamConfig)
    check_client_stream(config, service.config.serve.source_folders)
    if len(session.streams) >= service.max_streams:
        raise HTTPException(409, f"there are {service.max_streams} streams, as many as there may be; remove one")
    if config.id is not None and config.id in session.streams:
        raise BodyError(["id"], f"the stream id {config.id!r} is in use; choose another")
    try:
        stream = session.add_stream(config)
    except UsageError as error:  # what a synthetic: address says
        raise BodyError(["source"], str(error)) from None
    service.events.add(stream.id, "added", _shown(stream))
    return stream


def _changed(service: Service, name: str, body: dict[str, Any]) -> RunningStream:
    session, running = found(service, name)
    before = msgspec.to_builtins(running.config, enc_hook=str)
    config = body_as({**before, **body, "id": body.get("id", name)}, StreamConfig)
    if config.id != name:
        raise BodyError(["id"], "the id of a stream does not change; remove it and add another")
    check_client_stream(config, service.config.serve.source_folders, running.config)
    try:
        changed = session.replace_stream(name, config)
    except UsageError as error:  # what a synthetic: address says
        raise BodyError(["source"], str(error)) from None
    service.events.add(name, "changed", _shown(changed))
    return changed


def _drawn(stream: RunningStream) -> OverlayStage:
    if stream.overlay is None:
        raise HTTPException(409, f"the stream {stream.id!r} has not begun; nothing is drawn yet")
    return stream.overlay


def _redrawn(service: Service, name: str, body: dict[str, Any]) -> OverlayStyle:
    session, running = found(service, name)
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


@router.get(STREAMS, tags=["streams"], summary="List the streams", responses=answers_with(Streams))
def list_streams(service: Serving) -> Response:
    """In the order in which they were added."""
    return json_reply(Streams([answer_of(service, s) for s in list(service.session.streams.values())]))


@router.post(
    STREAMS, tags=["streams"], summary="Add a stream", status_code=201, responses=answers_with(StreamAnswer, 201),
    openapi_extra=takes("StreamConfig"),
)  # fmt: skip
async def add_stream(service: Serving, opening: Opening, root: Root, body: Body) -> Response:
    """A file is opened before this answers; a live source in the background, and its state says how it gets on."""
    stream = await opening.run(lambda: _added(service, body))
    return json_reply(answer_of(service, stream), 201, {"location": f"{root}{STREAMS}/{stream.id}"})


@router.get(STREAM, tags=["streams"], summary="One stream", responses=answers_with(StreamAnswer))
def get_stream(service: Serving, stream: str) -> Response:
    """What it was asked to be, and how it stands."""
    return json_reply(answer_of(service, found(service, stream)[1]))


@router.patch(
    STREAM, tags=["streams"], summary="Reconfigure a stream", responses=answers_with(StreamAnswer),
    openapi_extra=takes("StreamConfigChange"),
)  # fmt: skip
async def change_stream(service: Serving, opening: Opening, stream: str, body: Body) -> Response:
    """The stream goes on as another one of the same id; what the body leaves out stays as it was. The old one runs
    on where the new source cannot be opened.
    """
    return json_reply(answer_of(service, await opening.run(lambda: _changed(service, stream, body))))


@router.delete(STREAM, tags=["streams"], summary="Remove a stream", status_code=204)
async def remove_stream(service: Serving, opening: Opening, stream: str) -> Response:
    """What has been read is finished first, and so are the stream's files."""
    session, running = found(service, stream)
    await opening.run(lambda: session.remove_stream(running.id))
    service.events.add(stream, "removed")
    return Response(status_code=204)


@router.post(STREAM + "/pause", tags=["streams"], summary="Let it rest", responses=answers_with(StreamAnswer))
def pause_stream(service: Serving, stream: str) -> Response:
    """Nothing is analysed until it goes on; a live source stays connected."""
    session, running = found(service, stream)
    session.pause_stream(stream)
    return json_reply(answer_of(service, running))


@router.post(STREAM + "/resume", tags=["streams"], summary="Let it go on", responses=answers_with(StreamAnswer))
def resume_stream(service: Serving, stream: str) -> Response:
    """After a pause."""
    session, running = found(service, stream)
    session.pause_stream(stream, paused=False)
    return json_reply(answer_of(service, running))


@router.post(STREAM + "/restart", tags=["streams"], summary="Begin anew", responses=answers_with(StreamAnswer))
async def restart_stream(service: Serving, opening: Opening, stream: str) -> Response:
    """Its source is opened anew; a file begins at its first frame."""
    session, before = found(service, stream)
    running = await opening.run(lambda: session.replace_stream(stream, before.config))
    service.events.add(stream, "restarted", _shown(running))
    return json_reply(answer_of(service, running))


@router.post(
    STREAM + "/clip", tags=["streams"], summary="Save what led up to now", status_code=202,
    responses=answers_with(Clip, 202),
)  # fmt: skip
def save_clip(service: Serving, stream: str) -> Response:
    """The last seconds of a live stream as its camera sent them, and the next ones; set `event_clips` in the
    configuration. Answers at once: the file is there when its seconds have passed.
    """
    session, _ = found(service, stream)
    try:
        clip = session.save_event(stream, "requested")
    except OutputError as error:  # nothing has come yet
        raise HTTPException(409, str(error)) from None
    service.events.add(stream, "saving", clip.path.name)
    return json_reply(Clip(clip.path.name), 202)


@router.get(STREAM + "/overlay", tags=["streams"], summary="What is drawn", responses=answers_with(OverlayStyle))
def get_overlay(service: Serving, stream: str) -> Response:
    """The style that the frames are drawn in now."""
    return json_reply(_drawn(found(service, stream)[1]).style)


@router.patch(
    STREAM + "/overlay", tags=["streams"], summary="Draw otherwise", responses=answers_with(OverlayStyle),
    openapi_extra=takes("OverlayStyleChange"),
)  # fmt: skip
def change_overlay(service: Serving, stream: str, body: Body) -> Response:
    """Holds from the next frame on."""
    return json_reply(_redrawn(service, stream, body))


@router.get(STREAM + "/area", tags=["streams"], summary="Class areas over time", responses=answers_with(Areas))
def get_area(service: Serving, stream: str, after: Number = 0) -> Response:
    """A point a second, five minutes of them at most; with `after`, only those behind that number."""
    found(service, stream)
    return json_reply(Areas(service.statistics.area(stream, after)))
