"""The API by its own OpenAPI document: schemathesis makes requests that fit it and that do not, with the token and
without. No answer is a fault of the server's, and each is one that the document says, with the type and the fields that
it says.

`ROADLENS_REQUESTS=2000 pytest -n0 tests/resilience/test_http.py` is the long form: so many an operation.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="the extra `dev` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

import requests
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from tests.pipeline.serve.conftest import Server, running
from tests.pipeline.serve.test_api import until

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

REQUESTS = int(os.environ.get("ROADLENS_REQUESTS", "10"))
TOKEN = "0123456789abcdef"
DRIVE = "synthetic:?seconds=3600&width=64&height=48"
OPEN = {"/livez", "/readyz"}
ENDLESS = ("/events/stream", "/view.mjpeg")
REFUSALS = (503, 507)
"""Statuses beyond 499 that are no fault of the server's: not now, and a disk that is full."""

load_all_checks()
FOR_ALL = [
    CHECKS.get_one(name)
    for name in (
        "status_code_conformance", "content_type_conformance", "response_headers_conformance",
        "response_schema_conformance",
    )
]  # fmt: skip
FOR_WRONG = [*FOR_ALL, CHECKS.get_one("negative_data_rejection")]


@pytest.fixture(scope="module")
def server(segmenter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(segmenter, token=TOKEN, max_streams=3) as made:
        body = {"source": DRIVE, "id": "drive", "realtime": True}
        assert made.client.post("/api/v1/streams", json=body).status_code == 201
        until(lambda: made.client.get("/api/v1/streams/drive/snapshot").status_code == 200)
        yield made


def test_a_server_that_is_not_ready_says_so_as_the_document_has_it(segmenter: Path) -> None:
    with running(segmenter, token=TOKEN, opened=False) as made:
        schema = schemathesis.openapi.from_dict(made.client.get("/api/v1/openapi.json").json())
        asked_for = {"/readyz", "/api/v1/streams"}
        for each in schema.get_all_operations():
            operation = each.ok()
            if operation.path in asked_for and operation.method.upper() == "GET":
                asked_for.remove(operation.path)
                answer = operation.Case().call(base_url=made.url, headers={"authorization": f"Bearer {TOKEN}"})
                assert answer.status_code == 503
                operation.Case().validate_response(answer, checks=FOR_ALL)
        assert not asked_for


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_every_answer_is_one_that_the_document_says(server: Server, mode: GenerationMode) -> None:
    document = server.client.get("/api/v1/openapi.json").json()
    free = {path for path, said in document["paths"].items() for each in said.values() if each.get("security") == []}
    assert free == OPEN
    # Whether the token is shown is chosen below: it is none of the fields that may be wrong.
    schema = schemathesis.openapi.from_dict({**document, "security": []})
    answers: dict[str, Counter[int]] = {}
    for made in schema.get_all_operations():
        operation = made.ok()
        takes_something = list(operation.query) or list(operation.body)
        if operation.path.endswith(ENDLESS) or (mode is GenerationMode.NEGATIVE and not takes_something):
            continue
        said = answers.setdefault(operation.label, Counter())
        with requests.Session() as session:
            asked(operation, mode, server, session, said)
    print({label: dict(each) for label, each in answers.items()})
    together = sum(answers.values(), Counter())
    assert together[200]
    assert together[201] or mode is GenerationMode.NEGATIVE
    assert together[401]
    assert together[422]


def asked(operation: Any, mode: GenerationMode, server: Server, session: requests.Session, said: Counter[int]) -> None:
    cases = operation.as_strategy(generation_mode=mode)
    checks = FOR_ALL if mode is GenerationMode.POSITIVE else FOR_WRONG

    @seed(18)
    @settings(max_examples=REQUESTS, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        case=cases, name=st.sampled_from(["drive", "drive", "other", None]), shown=st.sampled_from([True, True, False])
    )
    def ask(case: Any, name: str | None, shown: bool) -> None:
        steered = operation.method.upper() == "DELETE" or operation.path.endswith(("/pause", "/restart"))
        if name is not None and "stream" in (case.path_parameters or {}) and not (steered and name == "drive"):
            case.path_parameters["stream"] = name
        elif (case.path_parameters or {}).get("stream") == "drive":
            return
        if operation.label == "POST /api/v1/streams" and mode is GenerationMode.POSITIVE and name == "other":
            case.body = {"source": DRIVE, "id": name}
        headers = {"authorization": f"Bearer {TOKEN if shown else 'another'}"}
        answer = case.call(base_url=server.url, session=session, headers=headers, timeout=60)
        said[answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code in REFUSALS, answer.text
        assert shown or answer.status_code == 401 or operation.path in OPEN, answer.status_code
        case.validate_response(answer, checks=checks if shown else FOR_ALL)
        if operation.method.upper() != "GET":
            assert server.client.get("/api/v1/streams/drive").status_code == 200, "it is gone, and nobody removed it"
        if answer.status_code == 201:
            assert server.client.delete(answer.headers["location"][0]).status_code == 204

    ask()
