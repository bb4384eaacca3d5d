"""The HTTP application: the endpoints put together, and what every error is answered with."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Request, Response

from engines.errors import OutputError, RoadlensError, SourceError
from pipeline.serve.access import Access
from pipeline.serve.answers import Fault, Refusal
from pipeline.serve.bodies import BodyError
from pipeline.serve.limits.openings import Openings
from pipeline.serve.reply import json_reply
from pipeline.serve.routes import pages, past, pictures, rest, streams
from pipeline.serve.service import NotReady, Service

DESCRIPTION = """Streams are added, watched, steered and removed while the others run on.

With a token, send `Authorization: Bearer TOKEN`; players read with it as the password of Basic, or by a link. A wrong
body is answered with 422 and the field; everything that is refused has a sentence in `detail`.
"""


def create_app(service: Service, access: Access) -> FastAPI:
    """The application of a service; `Guard` and `Proxies` still have to be put around it."""
    app = FastAPI(
        title="roadlens", version=version("roadlens"), description=DESCRIPTION, docs_url=None, redoc_url=None,
        openapi_url=None,
    )  # fmt: skip
    app.state.service, app.state.access, app.state.openings = service, access, Openings()
    app.add_exception_handler(BodyError, _wrong_body)
    app.add_exception_handler(RoadlensError, _refused)
    app.add_exception_handler(NotReady, _not_ready)
    for each in (rest, streams, past, pictures, pages):
        app.include_router(each.router)
    return app


async def _wrong_body(_request: Request, error: Exception) -> Response:
    assert isinstance(error, BodyError)
    return json_reply(Refusal([Fault(error.loc, error.sentence)]), 422)


async def _refused(_request: Request, error: Exception) -> Response:
    if isinstance(error, SourceError):
        return json_reply(Refusal([Fault(["body", "source"], str(error))]), 422)
    return json_reply(Refusal(str(error)), 507 if isinstance(error, OutputError) else 409)


async def _not_ready(_request: Request, error: Exception) -> Response:
    return json_reply(Refusal(str(error)), 503, {"retry-after": "1"})
