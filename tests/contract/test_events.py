"""Events resume exactly after the last one seen; logs after the last byte read."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import Database, now
from inn_automl_services.coordinator.db.tables import JobEventRow, JobRow
from inn_automl_services.coordinator.jobs import events
from inn_automl_services.coordinator.settings import Settings

from inn_automl.api.jobs import JobState

CheckProblem = Callable[[httpx.Response, int, str], str]
SPEC = {"dataset": "digits", "budget": {"devices": [{"name": "board"}]}}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"event_poll_s": 0.01, "event_batch_size": 4})


@pytest.fixture
def job_id(access: Any, database: Database) -> str:
    """A running job with three events."""
    job = new_id("job")
    with database.write() as session:
        session.add(
            JobRow(
                id=job,
                project_id=access.project_id,
                kind="search",
                spec=SPEC,
                state="training",
                priority=0,
                queue_position=job,
                available_at=now(),
                max_attempts=5,
                cost_before={},
                cost={},
                notes=[],
                created_at=now(),
            )
        )
    tell(database, job, 3)
    return job


def tell(database: Database, job_id: str, number: int, state: JobState | None = None) -> None:
    with database.write() as session:
        job = session.get_one(JobRow, job_id)
        for _ in range(number):
            session.add(
                JobEventRow(job_id=job_id, kind="note", data={"message": "grüße\nzwei"}, at=now())
            )
        job.state = state.value if state else job.state


def read(
    client: Any, job_id: str, after: int | None = None, query: str = ""
) -> list[dict[str, Any]]:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    answer = client.get(f"/v1/jobs/{job_id}/events{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":")
        )
        if fields:
            event = json.loads(fields["data"])
            assert (fields["id"], fields["event"]) == (str(event["id"]), event["kind"])
            found.append(event)
    return found


def test_what_is_there_comes_in_order(access: Any, job_id: str) -> None:
    found = read(access.user, job_id, query="?follow=false")
    assert len(found) == 3
    assert found == sorted(found, key=lambda event: event["id"])
    assert found[0]["data"] == {"message": "grüße\nzwei"}
    for position, event in enumerate(found):
        assert read(access.user, job_id, event["id"], "?follow=false") == found[position + 1 :]


def test_a_stream_ends_when_the_job_has_ended_and_all_was_sent(
    access: Any, job_id: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_first = threading.Event()
    read_some = events._read

    def reading_some(*arguments: Any) -> Any:
        found = read_some(*arguments)
        seen_first.set()
        return found

    monkeypatch.setattr(events, "_read", reading_some)
    found: list[list[dict[str, Any]]] = []
    watcher = threading.Thread(target=lambda: found.append(read(access.user, job_id)))
    watcher.start()
    assert seen_first.wait(30)
    tell(database, job_id, 10, JobState.SUCCEEDED)
    watcher.join(30)
    assert not watcher.is_alive()
    assert len(found[0]) == len({event["id"] for event in found[0]}) == 13


def test_a_stream_of_a_deleted_job_ends(
    access: Any, job_id: str, database: Database, settings: Settings
) -> None:
    rounds: list[int] = []

    async def watch() -> None:
        async for event in events.watch(database, settings, job_id, after=0, follow=True):
            rounds.append(event.id)
            if len(rounds) == 3:
                with database.write() as session:
                    session.delete(session.get_one(JobRow, job_id))

    anyio.run(watch)
    assert len(rounds) == 3


def test_many_watchers_ask_few_at_a_time(
    job_id: str, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_some, lock, reading, most = events._read, threading.Lock(), [0], [0]

    def reading_some(*arguments: Any) -> Any:
        with lock:
            reading[0] += 1
            most[0] = max(most[0], reading[0])
        try:
            return read_some(*arguments)
        finally:
            with lock:
                reading[0] -= 1

    monkeypatch.setattr(events, "_read", reading_some)
    counts: list[int] = []

    async def watch() -> None:
        counts.append(
            len(
                [
                    event
                    async for event in events.watch(
                        database, settings, job_id, after=0, follow=True
                    )
                ]
            )
        )

    async def all_of_them() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(watch)
            await anyio.sleep(0.1)
            await anyio.to_thread.run_sync(tell, database, job_id, 1, JobState.FAILED)

    anyio.run(all_of_them)
    assert counts == [4] * 100
    assert 1 <= most[0] <= settings.max_event_readers


@pytest.mark.parametrize("last", ["x", "-1", "1.5", str(2**63), "9" * 400, ""])
def test_a_bad_last_event_id_is_refused(
    access: Any, job_id: str, check_problem: CheckProblem, last: str
) -> None:
    answer = access.user.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": last})
    check_problem(answer, 422, "invalid_request")


def test_only_ones_own_job_is_watched(
    other_access: Any, job_id: str, check_problem: CheckProblem
) -> None:
    check_problem(other_access.user.get(f"/v1/jobs/{job_id}/events"), 404, "not_found")


def test_a_log_is_read_from_where_one_was(access: Any, job_id: str, context: Context) -> None:
    address = f"/v1/jobs/{job_id}/logs"
    assert access.user.get(address).text == ""
    text = "erste Zeile: grün\nzweite\n".encode()
    context.store.write(f"jobs/{job_id}/log.txt", text)
    whole = access.user.get(address)
    assert whole.content == text
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert access.user.get(f"{address}?offset=10").content == text[10:]
    assert access.user.get(f"{address}?offset={len(text)}").content == b""
    assert access.user.get(f"{address}?offset={2**63 - 1}").content == b""
    assert access.user.get(f"{address}?offset={2**63}").status_code == 422
    assert access.user.get(f"{address}?offset=-1").status_code == 422
