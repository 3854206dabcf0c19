"""Applies events to jobs: `lifecycle` decides, the row and its events follow.

Nothing else changes the state of a job.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from inn_automl.api.jobs import JobError, JobKind, JobState
from inn_automl.api.measurements import MeasurementState
from inn_automl.core.errors import RunLostError
from inn_automl.core.stage import Stage
from inn_automl_services.coordinator import lease
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.db.tables import JobEventRow, JobRow, MeasurementRow
from inn_automl_services.coordinator.jobs.lifecycle import Action, Claimed, Event, transition

FIRST_DELAY_S, MAX_DELAY_S = 2.0, 120.0
"""Seconds before the attempt that follows a lost one; doubled each time."""


def apply(session: Session, job: JobRow, event: Event, *, error: JobError | None = None) -> None:
    """Applies an event to a job that this session has locked, and writes the event that watchers
    see.

    Args:
        error: why the run failed or was lost; stored on the job if that ends it, else noted.

    Raises:
        ConflictError: the event is impossible in the job's state; nothing is changed.
    """
    before = JobState(job.state)
    done = transition(before, event, attempts_left=job.attempt < job.max_attempts)
    match done.action:
        case Action.NOTHING:
            pass
        case Action.LEASE:
            raise ValueError("a claim goes through `claim`, which makes the lease")
        case Action.RELEASE:
            _release(session, job)
            delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** max(0, job.attempt - 1))
            job.available_at = now() + timedelta(seconds=delay_s)
            if error is not None:
                add_note(
                    session,
                    job,
                    f"attempt {job.attempt} of {job.max_attempts}: {error.detail} It is started "
                    f"again.",
                )
        case Action.FINISH:
            _release(session, job)
            _cancel_measurements(session, job)
            job.finished_at = now()
            if done.state is JobState.FAILED:
                job.error = (error or _lost_error(job)).model_dump()
                add_event(session, job, "error", job.error)
        case Action.RESET:
            job.attempt, job.error, job.finished_at, job.available_at = 0, None, None, now()
            job.progress = None
    if done.state is not before:
        job.state = done.state.value
        add_event(session, job, "state", {"state": done.state.value, "attempt": job.attempt})


def claim(session: Session, job: JobRow, *, lease_s: float) -> str:
    """Begins an attempt at a queued job that this session has locked; returns the lease token,
    which is not stored.

    Raises:
        ConflictError: the job is not queued.
    """
    done = transition(JobState(job.state), Claimed(JobKind(job.kind)), attempts_left=True)
    token = lease.issue(job, lease_s=lease_s)
    job.state = done.state.value
    job.submission_id = f"{job.id}-{job.attempt}-{secrets.token_hex(4)}"
    job.started_at = job.started_at or now()
    job.progress = {"stage": Stage.STARTING, "fraction": 0.0}
    add_event(session, job, "state", {"state": done.state.value, "attempt": job.attempt})
    return token


def add_event(session: Session, job: JobRow, kind: str, data: dict[str, Any]) -> None:
    """Writes an event for the watchers of the job."""
    session.add(JobEventRow(job_id=job.id, kind=kind, data=data, at=now()))


def add_note(session: Session, job: JobRow, message: str) -> None:
    """Keeps a message on the job, once, and writes an event."""
    if message not in job.notes:
        job.notes = [*job.notes, message]
        add_event(session, job, "note", {"message": message})


def _release(session: Session, job: JobRow) -> None:
    """Ends the attempt: adds up its cost and releases its lease. Its measurements continue."""
    lease.release(job)
    job.cost_before = {
        key: job.cost_before.get(key, 0.0) + value for key, value in job.cost.items()
    }
    job.cost = dict.fromkeys(job.cost, 0.0)


def _cancel_measurements(session: Session, job: JobRow) -> None:
    session.execute(
        update(MeasurementRow)
        .where(MeasurementRow.job_id == job.id)
        .where(
            MeasurementRow.state.in_([MeasurementState.QUEUED.value, MeasurementState.LEASED.value])
        )
        .values(state=MeasurementState.CANCELLED.value, **lease.RELEASED)
    )


def _lost_error(job: JobRow) -> JobError:
    return JobError(
        code=RunLostError.code,
        detail=(
            f"its worker stopped {job.attempt} times without a word, the last time in stage "
            f"{(job.progress or {}).get('stage', 'starting')}: look at the logs, free memory on "
            f"the workers, and retry."
        ),
    )
