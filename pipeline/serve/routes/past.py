"""Endpoints of a stream's past: its timeline, and the recordings and clips of it that play in a browser."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

from pipeline.serve.answers import StoredFiles
from pipeline.serve.past.history import MOST_POINTS, SPAN, Timeline
from pipeline.serve.past.stored import stored_file, stored_files
from pipeline.serve.reply import STREAM, Serving, answers_with, found, json_reply, sends

router = APIRouter()

Seconds = Annotated[float, Query(ge=0, le=1e12, allow_inf_nan=False)]


@router.get(STREAM + "/timeline", tags=["past"], summary="What was seen, over hours", responses=answers_with(Timeline))
def get_timeline(
    service: Serving,
    stream: str,
    since: Seconds | None = None,
    until: Seconds | None = None,
    points: Annotated[int, Query(ge=1, le=MOST_POINTS)] = MOST_POINTS,
) -> Response:
    """States, mean areas and boxes between two times in Unix seconds: the last hour where they are left out. A day is
    kept, in memory: it begins anew with the process.
    """
    found(service, stream)
    last = time.time() if until is None else until
    return json_reply(service.history.timeline(stream, max(0.0, last - 3600) if since is None else since, last, points))


@router.get(
    STREAM + "/files", tags=["past"], summary="Recordings and clips of events", responses=answers_with(StoredFiles)
)
def list_files(service: Serving, stream: str, since: Seconds | None = None) -> Response:
    """Those that end after `since`, oldest first, the newest 2,000 at most; of the last day where it is left out.
    They stand in the folders of `outputs.record` and `event_clips`.
    """
    found(service, stream)
    after = time.time() - SPAN if since is None else since
    return json_reply(StoredFiles(stored_files(service.config, stream, after)))


@router.get(
    STREAM + "/files/{name}", tags=["past"], summary="Play one of them", response_class=Response,
    responses=sends("The file", "video/mp4", ranges=True),
)  # fmt: skip
def play_file(service: Serving, stream: str, name: str) -> Response:
    """MP4, whole or in part (`Range`). A recording that is being written has what is there by now."""
    found(service, stream)
    path = stored_file(service.config, stream, name)
    if path is None:
        raise HTTPException(404, f"the stream {stream!r} has no file {name[:100]!r}")
    return FileResponse(path, media_type="video/mp4", headers={"cache-control": "no-cache"})
