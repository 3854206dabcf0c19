"""Answers of a coordinator, and a client of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx

from inn_automl.client import (
    Client,
)
from inn_automl.core.spec import Budget, DeviceBudget, JobSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
SPEC = JobSpec(dataset="digits", budget=Budget(devices=(DeviceBudget(name="laptop"),)))
JOB = {
    "id": "job_1",
    "name": None,
    "kind": "search",
    "parent_id": None,
    "state": "queued",
    "priority": 0,
    "spec": SPEC.model_dump(mode="json"),
    "progress": None,
    "cost": {},
    "error": None,
    "attempt": 0,
    "max_attempts": 5,
    "notes": [],
    "created_at": NOW,
    "started_at": None,
    "finished_at": None,
}
DATASET = {
    "id": "ds_1",
    "name": "cats",
    "filename": "cats.zip",
    "sha256": "0" * 64,
    "size_bytes": 1,
    "source_url": None,
    "metadata": {
        "kind": "image",
        "input_shape": [1, 8, 8],
        "classes": ["a", "b"],
        "num_samples": 2,
        "class_counts": [1, 1],
        "split_sizes": {},
    },
    "created_at": NOW,
}

Answer = Callable[[httpx.Request], httpx.Response]


def no_sleep(seconds: float) -> None:
    pass


def client_of(answer: Answer, sleep: Callable[[float], Any] = no_sleep) -> Client:
    return Client(
        "http://server",
        "inn_key",
        retry_deadline_s=20.0,
        transport=httpx.MockTransport(answer),
        sleep=sleep,
    )


def problem(status: int, code: str = "some_code", **headers: str) -> httpx.Response:
    body = {
        "type": "t",
        "title": "T",
        "status": status,
        "detail": "the fault.",
        "code": code,
        "request_id": "req_1",
    }
    return httpx.Response(status, json=body, headers=headers)


def in_turn(*answers: httpx.Response | Exception) -> tuple[Answer, list[httpx.Request]]:
    """Gives the answers one after the other; the requests that came are in the list."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        given = answers[len(seen) - 1]
        if isinstance(given, Exception):
            raise given
        return given

    return answer, seen
