"""Dispatch over both databases, with a runner that only pretends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import Database, now
from inn_automl_services.coordinator.db.tables import JobRow, ProjectRow
from inn_automl_services.coordinator.dispatch import repository
from inn_automl_services.coordinator.dispatch.dispatcher import Dispatcher
from inn_automl_services.coordinator.dispatch.runner import (
    Runner,
    RunnerUnavailableError,
    RunState,
    RunStatus,
    Submission,
)
from inn_automl_services.coordinator.jobs import transitions
from inn_automl_services.coordinator.jobs.lifecycle import CancelRequested
from inn_automl_services.coordinator.keys import KeyRing
from inn_automl_services.coordinator.settings import Settings
from sqlalchemy import select

from inn_automl.core.errors import BackendError
from inn_automl.core.object_store import ObjectStore

SPEC = {"dataset": "digits", "budget": {"devices": [{"name": "here"}]}}
COST = {"wall_s": 0.0, "cpu_s": 0.0, "gpu_s": 0.0}


class FakeRunner(Runner):
    """Remembers what it was asked; runs are what a test makes of them."""

    def __init__(self) -> None:
        self.known: dict[str, RunStatus] = {}
        self.submissions: list[Submission] = []
        self.stopped: list[str] = []
        self.printed: dict[str, str] = {}
        self.error: BackendError | None = None
        self._lock = threading.Lock()

    def check(self) -> None:
        if isinstance(self.error, RunnerUnavailableError) and not self.submissions:
            raise self.error

    def submit(self, submission: Submission) -> None:
        if self.error:
            raise self.error
        with self._lock:
            self.submissions.append(submission)
            self.known[submission.submission_id] = RunStatus(
                submission.submission_id, submission.job_id, RunState.RUNNING
            )

    def runs(self) -> dict[str, RunStatus]:
        if isinstance(self.error, RunnerUnavailableError):
            raise self.error
        return dict(self.known)

    def stop(self, submission_id: str) -> None:
        self.stopped.append(submission_id)

    def log(self, submission_id: str) -> str:
        return self.printed.get(submission_id, "")

    def forget(self, submission_id: str) -> None:
        self.known.pop(submission_id, None)

    def end(self, submission: Submission, message: str = "", *, began: bool = True) -> None:
        """The run's process is gone."""
        self.known[submission.submission_id] = RunStatus(
            submission.submission_id,
            submission.job_id,
            RunState.ENDED,
            message,
            began,
            ended_at=now(),
        )


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        database_url=database_url, storage_url=f"file://{tmp_path}/storage", max_attempts=2
    )


@pytest.fixture
def context(settings: Settings, database: Database) -> Context:
    return Context(settings, database, ObjectStore(settings.storage_url), KeyRing(1000))


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def make_dispatcher(context: Context, runner: FakeRunner) -> Callable[..., Dispatcher]:
    """Makes dispatchers that compare at every call and give nobody time."""

    def make(clock: Callable[[], float] = time.monotonic, **changed: object) -> Dispatcher:
        update = {"reconcile_interval_s": 0.0, "missing_run_s": 0.0, **changed}
        settings = context.settings.model_copy(update=update)
        return Dispatcher(replace(context, settings=settings), runner, grace_s=0.0, clock=clock)

    return make


@pytest.fixture
def dispatcher(make_dispatcher: Callable[..., Dispatcher]) -> Dispatcher:
    return make_dispatcher()


@pytest.fixture
def project(database: Database) -> Callable[..., str]:
    def make(name: str, **limits: object) -> str:
        values = {"max_running_jobs": 1000, "max_gpu_hours": None, "gpu_s": 0.0, **limits}
        with database.write() as session:
            made = ProjectRow(id=new_id("prj"), name=name, created_at=now(), **values)
            session.add(made)
        return made.id

    return make


@pytest.fixture
def queue(database: Database) -> Callable[..., list[str]]:
    """Queues jobs of a project; returns their ids, oldest first."""

    def add(project_id: str, count: int = 1, **changed: object) -> list[str]:
        jobs = []
        with database.write() as session:
            for _ in range(count):
                job_id = new_id("job")
                values = {
                    "kind": "search",
                    "spec": SPEC,
                    "state": "queued",
                    "priority": 0,
                    "queue_position": job_id,
                    "available_at": now(),
                    "max_attempts": 2,
                    "cost_before": COST,
                    "cost": COST,
                    "notes": [],
                    "created_at": now(),
                    **changed,
                }
                jobs.append(JobRow(id=job_id, project_id=project_id, **values))
            session.add_all(jobs)
        return [job.id for job in jobs]

    return add


def find(database: Database, job_id: str) -> JobRow:
    with database.read() as session:
        return session.execute(select(JobRow).where(JobRow.id == job_id)).scalar_one()


def update(database: Database, job_id: str, **values: object) -> None:
    with database.write() as session:
        job = session.get_one(JobRow, job_id)
        for key, value in values.items():
            setattr(job, key, value)


def cancel(database: Database, job_id: str) -> None:
    with database.write() as session:
        transitions.apply(session, session.get_one(JobRow, job_id), CancelRequested())


def claim(database: Database, max_running: int = 1000) -> str | None:
    with database.write() as session:
        submissions = repository.claim_next(session, max_running=max_running, lease_s=60.0)
    return submissions[0].job_id if submissions else None
