"""An error keeps its code from where it is raised to where it is read."""

from __future__ import annotations

import json

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from inn_automl_services.coordinator import problems
from inn_automl_workers.failures import failure_of
from inn_automl_workers.reporter import Reporter

from inn_automl.api.jobs import JobError
from inn_automl.api.runs import RunFailure
from inn_automl.core.errors import (
    BY_CODE,
    InnAutomlError,
    NotFoundError,
    RefusedError,
    ServiceError,
)
from inn_automl.http.problems import error_of

PROBLEM = {"type": "t", "title": "T", "detail": "d"}
MESSAGE = "the fault, the value, the remedy."


def answered(error: InnAutomlError) -> httpx.Response:
    """The coordinator's answer where an endpoint raises."""
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    def endpoint() -> None:
        raise error

    with TestClient(app, raise_server_exceptions=False) as client:
        return client.get("/")


def answer_of(status: int, body: dict[str, object]) -> httpx.Response:
    request = httpx.Request("GET", "http://server/v1/jobs")
    return httpx.Response(status, content=json.dumps(body), request=request)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_the_client_raises_the_class_that_the_coordinator_raised(code: str) -> None:
    error = BY_CODE[code].from_message(MESSAGE)
    if code in ("range_not_satisfiable", "rate_limited"):
        error.size_bytes, error.retry_after_s = 10, 7  # type: ignore[attr-defined]
    answer = answered(error)
    assert (answer.json()["code"], answer.status_code) == (
        code,
        problems.CATALOG[BY_CODE[code]].status,
    )
    raised = error_of(answer)
    assert type(raised) is (ServiceError if code == "internal" else BY_CODE[code])
    assert (raised.code, raised.status) == (code, answer.status_code)
    assert MESSAGE in str(raised)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_a_job_that_fails_carries_the_same_code(code: str) -> None:
    reporter = Reporter(
        "http://here", "job", "token", transport=httpx.MockTransport(lambda _: httpx.Response(200))
    )
    failure = failure_of(BY_CODE[code].from_message(MESSAGE), reporter)
    sent = RunFailure.model_validate_json(failure.model_dump_json())
    assert (sent.code, sent.detail) == (code, MESSAGE)
    assert JobError(code=sent.code, detail=sent.detail).code == code


@pytest.mark.parametrize(("status", "kind"), [(404, NotFoundError), (418, RefusedError)])
def test_a_code_of_a_newer_server_is_kept(status: int, kind: type[InnAutomlError]) -> None:
    error = error_of(
        answer_of(status, {**PROBLEM, "status": status, "code": "new", "request_id": "req_1"})
    )
    assert type(error) is kind
    assert (error.code, error.status, error.request_id) == ("new", status, "req_1")
    assert kind.code != "new"


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFoundError), (418, RefusedError), (500, ServiceError)]
)
def test_an_answer_of_something_else_is_judged_by_its_status(
    status: int, kind: type[InnAutomlError]
) -> None:
    error = error_of(answer_of(status, {"message": "not a problem document"}))
    assert type(error) is kind
    assert "http://server/v1/jobs" in str(error) and str(status) in str(error)
