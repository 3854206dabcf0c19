"""Queries for readiness and metrics."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from inn_automl.api.jobs import JobState
from inn_automl_services.coordinator.db.tables import JobRow


def ping(session: Session) -> None:
    session.execute(text("SELECT 1"))


def num_jobs_by_state(session: Session) -> dict[str, int]:
    counted = session.execute(select(JobRow.state, func.count()).group_by(JobRow.state))
    return {state: count for state, count in counted}  # noqa: C416 - typed, unlike `dict`


def oldest_queued_at(session: Session) -> datetime | None:
    return session.scalar(
        select(func.min(JobRow.created_at)).where(JobRow.state == JobState.QUEUED.value)
    )


def num_leases(session: Session) -> int:
    return (
        session.scalar(
            select(func.count()).select_from(JobRow).where(JobRow.lease_token_hash.is_not(None))
        )
        or 0
    )
