"""Health, metrics, and what every request passes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.json_logs import JsonFormatter


def test_health_ready_and_version(client: TestClient) -> None:
    assert client.get("/v1/health").json() == {"status": "ok"}
    assert client.get("/v1/ready").json() == {"status": "ok"}
    assert set(client.get("/v1/version").json()) == {"version"}


def test_not_ready_without_storage(
    client: TestClient,
    context: Context,
    check_problem: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(path: str) -> bool:
        raise OSError("no route to host")

    monkeypatch.setattr(context.store._fs, "exists", fail)
    answer = client.get("/v1/ready")
    assert "storage" in check_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"]


def test_metrics_count_by_route_and_by_state(access: Any, client: TestClient) -> None:
    access.user.get("/v1/datasets/none")
    client.get("/v1/nothing/here")
    text = client.get("/v1/metrics").text
    assert (
        'inn_automl_requests_total{method="GET",route="/v1/datasets/{dataset}",status="404"}'
        in text
    )
    assert 'route="unmatched",status="404"' in text
    assert 'inn_automl_jobs{state="queued"} 0.0' in text
    assert "inn_automl_running_leases 0.0" in text
    assert "inn_automl_oldest_queued_seconds 0.0" in text
    assert "/v1/datasets/none" not in text


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2_3", True), ("a b", False), ("x" * 65, False), ("", False)]
)
def test_request_ids(client: TestClient, given: str, kept: bool) -> None:
    answered = client.get("/v1/health", headers={"X-Request-ID": given}).headers["x-request-id"]
    assert (answered == given) is kept
    assert kept or answered.startswith("req_")


def test_one_log_line_a_request_without_the_key(
    access: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="inn_automl_services.coordinator.requests"):
        answer = access.user.get("/v1/datasets?limit=1", headers={"X-Request-ID": "one"})
    assert answer.status_code == 200
    records = [
        record
        for record in caplog.records
        if record.name == "inn_automl_services.coordinator.requests"
    ]
    lines = [JsonFormatter().format(record) for record in records]
    assert len(lines) == 1
    line = json.loads(lines[0])
    assert (line["method"], line["path"], line["status"], line["request_id"], line["project"]) == (
        "GET",
        "/v1/datasets",
        200,
        "one",
        "alpha",
    )
    assert line["ms"] > 0
    assert access.user_key not in lines[0]


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_are_limited(access: Any, check_problem: Callable[..., str], chunked: bool) -> None:
    body = b'{"name": "' + b"x" * 2**20 + b'"}'
    content: Any = iter([body[: 2**19], body[2**19 :]]) if chunked else body
    answer = access.user.post(
        "/v1/datasets", content=content, headers={"Content-Type": "application/json"}
    )
    check_problem(answer, 413, "too_large")


def test_what_nobody_foresaw_tells_its_id_and_no_more(
    app: FastAPI,
    client: TestClient,
    check_problem: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @app.get("/v1/broken")
    def broken() -> None:
        raise ZeroDivisionError("secret detail")

    assert "secret" not in check_problem(client.get("/v1/broken"), 500, "internal")


def test_unknown_paths_and_methods_are_problems(
    client: TestClient, check_problem: Callable[..., str]
) -> None:
    check_problem(client.get("/v1/none"), 404, "not_found")
    check_problem(client.delete("/v1/health"), 405, "method_not_allowed")
