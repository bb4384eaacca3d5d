"""The pages for people: dashboard, reference and login; and the OpenAPI document."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from pipeline.serve import API
from pipeline.serve.access import COOKIE, COOKIE_SECONDS, OPEN_PATHS, Access, is_secure
from pipeline.serve.answers import schemas
from pipeline.serve.reply import Root, Rules, json_reply, refused_with

_ASSETS = {
    "app.css": "text/css; charset=utf-8", "app.js": "text/javascript; charset=utf-8",
    "parts.js": "text/javascript; charset=utf-8", "screens.js": "text/javascript; charset=utf-8",
    "past.js": "text/javascript; charset=utf-8", "timeline.js": "text/javascript; charset=utf-8",
    "chart.js": "text/javascript; charset=utf-8", "login.js": "text/javascript; charset=utf-8",
    "docs.js": "text/javascript; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
}  # fmt: skip

router = APIRouter()


def _file(name: str, kind: str) -> Response:
    content = (files("pipeline.serve") / "page" / name).read_bytes()
    return Response(content, headers={"cache-control": "no-cache"}, media_type=kind)


def _page(name: str, root: str) -> Response:
    """A page whose links lead below the sub-path. Relative ones would not do: `/cams` may come without its slash."""
    text = (files("pipeline.serve") / "page" / name).read_text(encoding="utf-8").replace('="/', f'="{root}/')
    return Response(text, headers={"cache-control": "no-cache"}, media_type="text/html; charset=utf-8")


def _document(app: FastAPI, access: Access) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        made.setdefault("components", {}).setdefault("schemas", {}).update(schemas())
        _add_refusals(made["paths"], access.needs_token)
        if access.needs_token:
            made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            made["security"] = [{"token": []}]
        app.openapi_schema = made
    return app.openapi_schema


_REFUSED = {
    401: "The token is not shown", 403: "A page of another origin asks", 404: "There is no such stream, or file of it",
    409: "It does not fit how things stand", 413: "The body is too large", 415: "The body is no JSON",
    421: "The server is not called so", 422: "A field is wrong", 503: "Not ready yet, no longer, or too much at once",
    507: "An output cannot be written",
}  # fmt: skip


def _add_refusals(paths: dict[str, Any], needs_token: bool) -> None:
    """Say of every operation how it may be refused."""
    for path, operations in paths.items():
        for method, operation in operations.items():
            changes = method not in {"get", "head"}
            asks = needs_token and path not in OPEN_PATHS
            if needs_token and not asks:
                operation["security"] = []
            ways = [401] * asks + [403] * changes + [404] * ("{" in path) + [409] * changes + [421]
            ways += [413, 415, 422] if "requestBody" in operation else [422] * ("parameters" in operation)
            ways += [503] + [507] * changes
            for status in ways:
                operation["responses"].setdefault(str(status), refused_with(_REFUSED[status]))


@router.get("/", include_in_schema=False)
def dashboard(root: Root) -> Response:
    """The dashboard."""
    return _page("index.html", root)


@router.get("/docs", include_in_schema=False)
def docs(root: Root) -> Response:
    """The reference of the API, for people."""
    return _page("docs.html", root)


@router.get("/assets/{name}", include_in_schema=False)
def asset(name: str) -> Response:
    """A file of the pages; none of them holds any data."""
    if name not in _ASSETS:
        raise HTTPException(404, "there is no such file")
    return _file(name, _ASSETS[name])


@router.get("/favicon.ico", include_in_schema=False)
def favicon() -> Response:
    """The icon, where browsers look for it unasked."""
    return _file("icon.svg", _ASSETS["icon.svg"])


@router.get("/login", include_in_schema=False)
def login_page(access: Rules, root: Root) -> Response:
    """Where people show the token; to the dashboard where none is needed."""
    return _page("login.html", root) if access.needs_token else RedirectResponse(f"{root}/", 303)


@router.get(API + "/openapi.json", include_in_schema=False)
def openapi(access: Rules, root: Root, request: Request) -> Response:
    """The OpenAPI document."""
    document = _document(request.app, access)
    return json_reply({**document, "servers": [{"url": root}]} if root else document)


@router.get(API + "/session", include_in_schema=False)
def session(access: Rules) -> Response:
    """Whether there is a token, and so something to log out of."""
    return json_reply({"token": access.needs_token})


@router.post("/login", include_in_schema=False)
async def login(access: Rules, root: Root, request: Request) -> Response:
    """Take the token from the login page's form, and give out the cookie for it."""
    try:
        fields = parse_qs((await request.body()).decode(), max_num_fields=10)
    except (UnicodeDecodeError, ValueError):
        fields = {}
    if not access.knows(fields.get("token", [""])[0]):
        await asyncio.sleep(0.5)  # a guess shall cost something
        return RedirectResponse(f"{root}/login?wrong", 303)
    answer = RedirectResponse(f"{root}/", 303)
    answer.set_cookie(
        COOKIE, access.cookie(), max_age=COOKIE_SECONDS, path=root or "/", httponly=True, samesite="strict",
        secure=is_secure(request.scope),
    )  # fmt: skip
    return answer


@router.post("/logout", include_in_schema=False)
def logout(access: Rules, root: Root, request: Request) -> Response:
    """Take the cookie back, and any copy of it."""
    access.revoke(request.scope)
    answer = RedirectResponse(f"{root}/login", 303)
    answer.delete_cookie(COOKIE, path=root or "/")
    return answer
