"""What a run may ask and report: only with the token of its lease, and a result that came twice
counts once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from inn_automl_services.coordinator import problems
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import Database, now
from inn_automl_services.coordinator.db.tables import (
    ArtifactRow,
    JobDeviceRow,
    JobEventRow,
    JobRow,
    ProjectRow,
)
from inn_automl_services.coordinator.jobs import transitions
from inn_automl_services.coordinator.jobs.lifecycle import CancelRequested, RunLost
from inn_automl_services.coordinator.keys import KeyRing
from inn_automl_services.coordinator.runs.endpoints import router
from inn_automl_services.coordinator.settings import Settings
from sqlalchemy import select

from inn_automl.core.object_store import ObjectStore

SPEC = {"dataset": "digits", "budget": {"devices": [{"name": "here"}]}}
COST = {"wall_s": 0.0, "cpu_s": 0.0, "gpu_s": 0.0}
DEVICE = {
    "name": "here",
    "recommended": None,
    "recommendation": "none",
    "hypervolume": [],
    "environment": {},
    "budget": {},
    "reference_point": [1.0, 0.0],
    "search_stopped": "done",
    "front": [],
    "cost_model_errors": {
        "median_relative": 0.1,
        "p90_relative": 0.2,
        "spearman": 1.0,
        "num_fitted": 3,
        "num_held_out": 2,
    },
}


@pytest.fixture
def context(database_url: str, database: Database, tmp_path: Path) -> Context:
    settings = Settings(database_url=database_url, storage_url=f"file://{tmp_path}/storage")
    return Context(settings, database, ObjectStore(settings.storage_url), KeyRing(1000))


@pytest.fixture
def client(context: Context) -> Iterator[TestClient]:
    app = FastAPI()
    app.state.context = context
    problems.install(app)
    app.include_router(router, prefix="/v1")
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


class Attempt:
    """A job and the token of its latest attempt."""

    def __init__(self, client: TestClient, database: Database, **values: Any) -> None:
        self.client, self.database, self.id = client, database, new_id("job")
        fresh = {
            "kind": "search",
            "spec": SPEC,
            "state": "queued",
            "priority": 0,
            "queue_position": self.id,
            "notes": [],
            "available_at": now(),
            "max_attempts": 3,
            "cost_before": COST,
            "cost": COST,
            "created_at": now(),
            **values,
        }
        with database.write() as session:
            project = ProjectRow(
                id=new_id("prj"),
                name="alpha",
                max_running_jobs=4,
                max_gpu_hours=None,
                gpu_s=0.0,
                created_at=now(),
            )
            session.add(project)
            session.flush()
            self.project_id = project.id
            session.add(JobRow(id=self.id, project_id=project.id, **fresh))
        self.token = self.claim()

    def claim(self) -> str:
        with self.database.write() as session:
            return transitions.claim(session, session.get_one(JobRow, self.id), lease_s=60.0)

    def apply(self, event: Any) -> None:
        with self.database.write() as session:
            transitions.apply(session, session.get_one(JobRow, self.id), event)

    def ask(self, method: str, what: str = "", token: str | None = None, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return self.client.request(
            method, f"/v1/runs/{self.id}{what}", headers=headers, json=body or None
        )

    def beat(self, **body: Any) -> Any:
        return self.ask("POST", "/heartbeat", **body)

    @property
    def job(self) -> JobRow:
        with self.database.read() as session:
            return session.get_one(JobRow, self.id)

    def rows(self, table: Any) -> list[Any]:
        with self.database.read() as session:
            query = select(table).where(table.job_id == self.id).order_by(table.id)
            return list(session.execute(query).scalars())

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.rows(JobEventRow) if event.kind == kind]


@pytest.fixture
def attempt(client: TestClient, database: Database) -> Attempt:
    return Attempt(client, database)


def result(store: ObjectStore, attempt: Attempt) -> dict[str, Any]:
    data = b"a whole result"
    store.write(f"jobs/{attempt.id}/result.json", data)
    artifact = {
        "path": "result.json",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
    }
    return {
        "result": {"job": {}, "devices": [DEVICE]},
        "artifacts": [artifact],
        "cost": {"gpu_s": 7.0},
    }


def test_the_order_says_all(attempt, context):
    order = attempt.ask("GET").json()
    assert (
        order["spec"]["dataset"] == "digits"
        and order["attempt"] == 1
        and order["project"] == "alpha"
    )
    assert order["storage_url"] == f"{context.settings.storage_url}/jobs/{attempt.id}"


def test_heartbeats_keep_the_lease_and_tell_of_progress(attempt):
    before = attempt.job.lease_expires_at
    with attempt.database.write() as session:
        session.get_one(JobRow, attempt.id).lease_expires_at = before - timedelta(seconds=30)
    for fraction in (0.1, 0.2, 0.3):
        answer = attempt.beat(
            progress={"stage": "training", "fraction": fraction}, notes=["few samples"]
        )
        assert answer.json() == {"cancel": False}
    job = attempt.job
    assert job.lease_expires_at > before - timedelta(seconds=1)
    assert job.progress["fraction"] == 0.3 and job.notes == ["few samples"]
    assert [data["fraction"] for data in attempt.told("progress")] == [0.1], (
        "told every two seconds"
    )
    attempt.beat(progress={"stage": "searching", "fraction": 0.0})
    assert attempt.told("progress")[-1]["stage"] == "searching" and attempt.job.state == "searching"


def test_hours_of_gpus_grow_with_the_cost(attempt):
    for gpu_s in (10.0, 25.0, 25.0, 5.0):
        attempt.beat(cost={"gpu_s": gpu_s})
    with attempt.database.read() as session:
        assert session.get_one(ProjectRow, attempt.project_id).gpu_s == 25.0
    assert attempt.job.cost["gpu_s"] == 25.0


@pytest.mark.parametrize(
    "body",
    [
        {"progress": {"stage": "sleeping"}},
        {"notes": ["a\0b"]},
        {"notes": ["\ud800"]},
        {"cost": {"gpu_s": 1e999}},
        {"progress": {"stage": "training", "fraction": 2}},
    ],
)
def test_nonsense_is_refused(attempt, body):
    try:
        status = attempt.beat(**body).status_code
    except ValueError:  # not even a client can write it
        return
    assert status == 422 and attempt.job.notes == []


def test_a_cancel_reaches_the_run(attempt):
    attempt.apply(CancelRequested())
    assert attempt.beat(progress={"stage": "training"}).json() == {"cancel": True}


def test_only_the_holder_is_heard(attempt, context):
    old = attempt.token
    attempt.apply(RunLost())
    calls = {
        "/heartbeat": {"notes": ["x"]},
        "/failure": {"code": "x", "detail": "x", "retryable": False},
    }
    calls["/result"] = result(context.store, attempt)
    for token in (old, "made up"):
        for what, body in calls.items():
            answer = attempt.ask("POST", what, token, **body)
            assert (answer.status_code, answer.json()["code"]) == (409, "stale_lease")
        assert attempt.ask("GET", token=token).status_code == 409
    attempt.token = attempt.claim()
    assert attempt.ask("POST", "/result", old, **calls["/result"]).status_code == 409
    assert attempt.job.state == "training"
    assert attempt.client.get(f"/v1/runs/{attempt.id}").status_code == 401


def test_a_result_counts_once_however_often_it_comes(attempt, context):
    body = result(context.store, attempt)
    assert [attempt.ask("POST", "/result", **body).status_code for _ in range(2)] == [204, 204]
    job = attempt.job
    assert (job.state, job.lease_token_hash, job.cost_before["gpu_s"]) == ("succeeded", None, 7.0)
    assert [row.name for row in attempt.rows(JobDeviceRow)] == ["here"]
    assert [row.path for row in attempt.rows(ArtifactRow)] == ["result.json"]
    assert [data["devices"] for data in attempt.told("result")] == [["here"]]
    assert attempt.ask("POST", "/result", "another token", **body).status_code == 409
    assert attempt.beat(notes=[]).status_code == 409


@pytest.mark.parametrize(
    "change", [{"size_bytes": 3}, {"path": "bundles/none.zip"}, {"path": "../other/result.json"}]
)
def test_a_result_without_its_files_is_refused(attempt, context, change):
    body = result(context.store, attempt)
    body["artifacts"][0].update(change)
    assert attempt.ask("POST", "/result", **body).status_code == 422
    assert attempt.job.state == "training"


def test_a_search_without_a_result_is_refused(attempt, context):
    body = {**result(context.store, attempt), "result": None}
    assert attempt.ask("POST", "/result", **body).status_code == 422


def test_the_result_of_a_cancelled_job_is_left_aside(attempt, context):
    attempt.apply(CancelRequested())
    assert attempt.ask("POST", "/result", **result(context.store, attempt)).status_code == 204
    assert attempt.job.state == "cancelled" and not attempt.rows(JobDeviceRow)


@pytest.mark.parametrize(("retryable", "state"), [(True, "queued"), (False, "failed")])
def test_failures(attempt, retryable, state):
    body = {"code": "storage", "detail": "the disk is full.", "retryable": retryable}
    assert attempt.ask("POST", "/failure", **body).status_code == 204
    job = attempt.job
    assert job.state == state and "the disk is full." in (
        job.error["detail"] if job.error else job.notes[0]
    )
