"""Endpoints of everything else there is to know: probes, metrics, events, models, and the whole run's figures."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pipeline.serve import API
from pipeline.serve.answers import Events, Models, Ready, Totals, model_answers, totals
from pipeline.serve.reply import Number, Serving, answers_with, json_reply, sends
from pipeline.serve.service import Service

SIGN_OF_LIFE = 15.0
"""Seconds after which a silent event stream says that it is still there."""

router = APIRouter()


async def _lines(service: Service, start: int) -> AsyncIterator[bytes]:
    """The events behind number `start` as they happen, as server-sent events."""
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


_PROBE = answers_with(Ready) | {503: answers_with(Ready)[200]}


@router.get("/livez", tags=["probes"], summary="Whether the process works", responses=_PROBE)
async def livez(service: Serving) -> Response:
    """503 once nothing can be analysed any more: start the process anew."""
    return json_reply(Ready(service.alive, "" if service.alive else service.reason), 200 if service.alive else 503)


@router.get("/readyz", tags=["probes"], summary="Whether streams can be analysed", responses=_PROBE)
async def readyz(service: Serving) -> Response:
    """False while an engine builds or loads, and once the server is being stopped."""
    return json_reply(Ready(service.ready, service.reason), 200 if service.ready else 503)


@router.get(
    "/metrics", tags=["probes"], summary="Metrics for Prometheus", response_class=Response,
    responses=sends("The metrics", "text/plain"),
)  # fmt: skip
def metrics(service: Serving) -> Response:
    """In the text format of Prometheus."""
    return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)


@router.get(API + "/events", tags=["events"], summary="What happened lately", responses=answers_with(Events))
def events(service: Serving, after: Number = 0, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> Response:
    """Oldest first, behind the number `after`; of more than `limit` the newest."""
    return json_reply(Events(service.events.after(after, limit)))


@router.get(
    API + "/events/stream", tags=["events"], summary="What happens, as server-sent events", response_class=Response,
    responses=sends("Events, as they happen", "text/event-stream"),
)  # fmt: skip
async def event_stream(service: Serving, request: Request, after: Number = 0) -> Response:
    """Begins behind `after`, or behind the `Last-Event-ID` of a client that comes again."""
    last = request.headers.get("last-event-id", "")
    start = max(after, int(last)) if last.isascii() and last.isdigit() and len(last) < 16 else after
    service.check_viewers()
    return StreamingResponse(
        _lines(service, start), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


@router.get(API + "/models", tags=["models"], summary="What looks at the streams", responses=answers_with(Models))
def models(service: Serving) -> Response:
    """Each with the engine it runs on, and its classes."""
    return json_reply(Models(model_answers(service.session.models)))


@router.get(API + "/stats", tags=["streams"], summary="The whole run", responses=answers_with(Totals))
def stats(service: Serving) -> Response:
    """Frames and drops of all streams, removed ones included, and milliseconds a frame by stage."""
    session = service.session
    return json_reply(totals(session.runtime.result(), len(session.streams), time.monotonic() - service.began))
