"""Watching a job over connections that break."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from inn_automl.client import (
    ConnectionLostError,
    JobEndedError,
    RefusedError,
)
from tests.unit.client.client_answers import (
    JOB,
    NOW,
    client_of,
    in_turn,
    problem,
)


def event(number: int, kind: str = "progress", **data: Any) -> dict[str, Any]:
    return {
        "id": number,
        "kind": kind,
        "data": data or {"stage": "training", "fraction": 0.1},
        "at": NOW,
    }


def stream(*events: dict[str, Any], breaks: bool = False) -> httpx.Response:
    def content() -> Iterator[bytes]:
        yield b": a comment\n\n"
        for one in events:
            yield f"id: {one['id']}\nevent: {one['kind']}\ndata: {json.dumps(one)}\n\n".encode()
            yield b": a comment between events\n\n"
        if breaks:
            yield b'id: 99\ndata: {"cut'
            raise httpx.ReadError("reset by peer")

    return httpx.Response(200, content=content(), headers={"Content-Type": "text/event-stream"})


def test_watching_misses_and_repeats_nothing() -> None:
    running, ended = (
        httpx.Response(200, json=JOB),
        httpx.Response(200, json={**JOB, "state": "succeeded"}),
    )
    answer, seen = in_turn(
        stream(event(1), event(2), breaks=True),
        httpx.ConnectError("refused"),
        problem(503),
        stream(event(5)),  # the server stops and says nothing of the job
        running,
        stream(event(6)),
        ended,
        stream(event(7, "state", state="succeeded")),
    )
    reasons: list[str] = []
    events = list(client_of(answer).watch("job_1", on_reconnect=reasons.append))
    assert [one.id for one in events] == [1, 2, 5, 6, 7]
    asked = [
        request.headers.get("Last-Event-ID")
        for request in seen
        if request.url.path.endswith("/events")
    ]
    assert asked == ["0", "2", "2", "2", "5", "6"]
    assert seen[-1].url.params["follow"] == "false"
    assert len(reasons) == 3


def test_watching_what_is_not_there_ends() -> None:
    with pytest.raises(RefusedError):
        list(client_of(lambda request: problem(404)).watch("job_1"))


def test_watching_gives_up_when_patience_ends() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(ConnectionLostError):
        list(client_of(gone).watch("job_1", retry_deadline_s=2.0))


def test_waiting_raises_what_the_job_failed_of() -> None:
    failed = {
        **JOB,
        "state": "failed",
        "error": {"code": "training_failed", "detail": "it diverged."},
    }

    def answer(request: httpx.Request) -> httpx.Response:
        return (
            stream(event(1))
            if request.url.path.endswith("/events")
            else httpx.Response(200, json=failed)
        )

    with pytest.raises(JobEndedError, match="job job_1 failed: it diverged") as caught:
        client_of(answer).wait("job_1")
    assert caught.value.code == "training_failed"
