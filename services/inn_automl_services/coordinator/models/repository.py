"""Queries of the results of succeeded jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Text, and_, cast, select
from sqlalchemy.orm import Session

from inn_automl_services.coordinator.db.tables import ArtifactRow, JobDeviceRow, JobRow


def fronts_as_text(
    session: Session, project_id: str, job_id: str, device: str | None = None
) -> tuple[str | None, list[str]]:
    """The job's kind and state, and the stored JSON of its devices' results in order (of one
    device, if it is named).

    Returns:
        None and nothing where there is no such job.
    """
    wanted = JobDeviceRow.job_id == JobRow.id
    query = (
        select(JobRow.state, cast(JobDeviceRow.result, Text))
        .outerjoin(
            JobDeviceRow, wanted if device is None else and_(wanted, JobDeviceRow.name == device)
        )
        .where(JobRow.id == job_id, JobRow.project_id == project_id)
        .order_by(JobDeviceRow.position)
    )
    rows = session.execute(query).all()
    return (rows[0][0] if rows else None), [text for _, text in rows if text is not None]


def device_names(session: Session, job_id: str) -> Sequence[str]:
    return session.scalars(
        select(JobDeviceRow.name)
        .where(JobDeviceRow.job_id == job_id)
        .order_by(JobDeviceRow.position)
    ).all()


def device_results(session: Session, job_id: str) -> dict[str, dict[str, Any]]:
    query = (
        select(JobDeviceRow.name, JobDeviceRow.result)
        .where(JobDeviceRow.job_id == job_id)
        .order_by(JobDeviceRow.position)
    )
    return {row.name: row.result for row in session.execute(query)}


def device_result(session: Session, job_id: str, device: str) -> dict[str, Any] | None:
    query = select(JobDeviceRow.result).where(
        JobDeviceRow.job_id == job_id, JobDeviceRow.name == device
    )
    return session.scalars(query).one_or_none()


def find_artifact(session: Session, job_id: str, path: str) -> ArtifactRow | None:
    return session.scalars(
        select(ArtifactRow).where(ArtifactRow.job_id == job_id, ArtifactRow.path == path)
    ).one_or_none()


def bundles(session: Session, job_id: str) -> Sequence[ArtifactRow]:
    query = select(ArtifactRow).where(
        ArtifactRow.job_id == job_id, ArtifactRow.path.like("bundles/%.zip")
    )
    return session.scalars(query.order_by(ArtifactRow.path)).all()
