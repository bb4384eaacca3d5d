"""What the endpoints share: how they take a body, find a stream, and answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Query, Request, Response
from fastapi.requests import HTTPConnection
from starlette.exceptions import HTTPException

from pipeline.serve import API
from pipeline.serve.access import Access
from pipeline.serve.answers import StreamAnswer, stream_answer
from pipeline.serve.bodies import json_object
from pipeline.serve.limits.openings import Openings
from pipeline.serve.service import Service
from pipeline.session import RunningStream, ServingSession

STREAMS = API + "/streams"
STREAM = STREAMS + "/{stream}"


async def the_service(connection: HTTPConnection) -> Service:
    """The service of the application that is asked."""
    service: Service = connection.app.state.service
    return service


async def the_access(connection: HTTPConnection) -> Access:
    """The rules of the application that is asked."""
    access: Access = connection.app.state.access
    return access


async def the_openings(connection: HTTPConnection) -> Openings:
    """The threads in which the application opens and closes sources."""
    openings: Openings = connection.app.state.openings
    return openings


async def the_root(connection: HTTPConnection) -> str:
    """The sub-path below which a proxy serves the application; empty for none."""
    root: str = connection.scope.get("root_path", "")
    return root


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as JSON, which no cache keeps."""
    said = {"cache-control": "no-store", **(headers or {})}
    return Response(msgspec.json.encode(value, enc_hook=str), status, said, "application/json")


def answers_with(type_: type, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that answers with a type."""
    return {
        status: {
            "description": (type_.__doc__ or "").split("\n")[0],
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{type_.__name__}"}}},
        },
        422: refused_with("A field is wrong"),
    }


def sends(what: str, *kinds: str, ranges: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that sends no JSON but one of these media types, and parts of it where they are
    asked for.
    """
    content = {"description": what, "content": {kind: {} for kind in kinds}}
    if not ranges:
        return {200: content}
    text: dict[str, Any] = {"content": {"text/plain": {}}}
    return {
        200: content,
        206: {**content, "description": f"{what}, a part of it"},
        400: {**text, "description": "`Range` is no range"},
        416: {**text, "description": "There is no such part"},
    }


def refused_with(what: str) -> dict[str, Any]:
    """A response of the OpenAPI document that is a refusal."""
    schema = {"$ref": "#/components/schemas/Refusal"}
    return {"description": what, "content": {"application/json": {"schema": schema}}}


def takes(name: str) -> dict[str, Any]:
    """The `openapi_extra` of an endpoint that takes a body."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {"requestBody": {"required": True, "content": content}}


async def json_body(request: Request) -> dict[str, Any]:
    """The request's JSON object. A content type that a form may send is refused: a form needs no permission."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().casefold()
    body = await request.body()
    if body and kind != "application/json":
        raise HTTPException(415, f"the body must be application/json, not {kind[:80]}")
    return json_object(body)


def found(service: Service, name: str) -> tuple[ServingSession, RunningStream]:
    """The session and its stream of that name.

    Raises:
        HTTPException: 404, there is none.
        NotReady: the session is not there yet, or no longer.
    """
    session = service.session
    stream = session.streams.get(name)
    if stream is None:
        raise HTTPException(404, f"there is no stream {name[:64]!r}")
    return session, stream


def answer_of(service: Service, stream: RunningStream) -> StreamAnswer:
    """How a stream stands now."""
    session = service.session
    viewers = session.view.viewers(stream.id)
    viewers += 0 if stream.browsers is None else stream.browsers.viewers
    result = session.runtime.progress().get(stream.id)
    return stream_answer(stream, result, service.statistics.pace(stream.id), viewers)


async def until_one_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Do several things at once, until the first of them is done."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


Serving = Annotated[Service, Depends(the_service)]
Opening = Annotated[Openings, Depends(the_openings)]
Root = Annotated[str, Depends(the_root)]
Rules = Annotated[Access, Depends(the_access)]
Body = Annotated[dict[str, Any], Depends(json_body)]
Number = Annotated[int, Query(ge=0, le=2**53)]
