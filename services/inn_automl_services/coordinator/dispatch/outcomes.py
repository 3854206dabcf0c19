"""Ends of runs that the dispatcher finds out, applied to their jobs under the lease that it saw."""

from __future__ import annotations

import logging
from datetime import timedelta

from inn_automl.api.jobs import JobError
from inn_automl.core.errors import RunLostError
from inn_automl_services.coordinator import lease
from inn_automl_services.coordinator.db.session import Database, now
from inn_automl_services.coordinator.dispatch import repository
from inn_automl_services.coordinator.dispatch.repository import LeasedJob
from inn_automl_services.coordinator.jobs import transitions
from inn_automl_services.coordinator.jobs.lifecycle import RunLost, RunStopped
from inn_automl_services.coordinator.json_logs import fields

logger = logging.getLogger(__name__)


def mark_lost(
    database: Database, leased: LeasedJob, error: RunLostError, *, only_expired: bool = False
) -> bool:
    """Gives a run up, and returns whether it still held its job.

    The job is queued again, or fails if it has no attempts left.

    Args:
        error: why; stored on the job if it fails, else noted.
        only_expired: leave a run whose lease was renewed since it was looked at.
    """
    with database.write() as session:
        job = repository.lock(session, leased)
        if job is None or (only_expired and not lease.expires_by(job, now())):
            return False
        detail = str(error)
        logger.info("run lost", extra=fields(**leased.log_fields, code=error.code, error=detail))
        if job.attempt >= job.max_attempts:
            detail += f" After {job.attempt} attempts: look at the logs, then retry it."
        reason = JobError(code=error.code, detail=detail)
        transitions.apply(session, job, RunLost(), error=reason)
        return True


def requeue(database: Database, leased: LeasedJob) -> None:
    """Queues a job whose run never began, as if it had not been claimed."""
    with database.write() as session:
        if job := repository.lock(session, leased):
            logger.info("job requeued", extra=fields(**leased.log_fields))
            job.attempt -= 1
            transitions.apply(session, job, RunLost())


def finish_cancelled(database: Database, leased: LeasedJob) -> None:
    """Ends a job that was to be cancelled and whose run is gone."""
    with database.write() as session:
        if job := repository.lock(session, leased):
            transitions.apply(session, job, RunStopped())


def extend_start_lease(database: Database, leased: LeasedJob, start_lease_s: float) -> None:
    """Lets the first lease of a run that waits for resources last as long as the wait: such a run
    cannot report.
    """
    with database.write() as session:
        job = repository.lock(session, leased)
        if job and lease.expires_by(job, now() + timedelta(seconds=start_lease_s / 2)):
            lease.renew(job, lease_s=start_lease_s)
