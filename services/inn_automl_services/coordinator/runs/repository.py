"""Queries of runs: a job's assignment, its events, its outcome."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from inn_automl.api.runs import Artifact
from inn_automl.core.result import DeviceResult
from inn_automl_services.coordinator.db.tables import (
    ArtifactRow,
    DatasetRow,
    JobDeviceRow,
    JobEventRow,
    JobRow,
    ProjectRow,
)


def project_name(session: Session, job: JobRow) -> str:
    return session.execute(
        select(ProjectRow.name).where(ProjectRow.id == job.project_id)
    ).scalar_one()


def dataset_of(session: Session, job: JobRow) -> DatasetRow | None:
    return session.get(DatasetRow, job.dataset_id) if job.dataset_id else None


def find(session: Session, job_id: str, *, lock: bool = False) -> JobRow | None:
    query = select(JobRow).where(JobRow.id == job_id)
    return session.execute(query.with_for_update() if lock else query).scalar_one_or_none()


def last_event(session: Session, job_id: str, kind: str) -> JobEventRow | None:
    query = select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.kind == kind)
    return session.execute(query.order_by(JobEventRow.id.desc()).limit(1)).scalar_one_or_none()


def last_progress_at(session: Session, job_id: str) -> datetime | None:
    """Instant of the job's latest progress event."""
    event = last_event(session, job_id, "progress")
    return event.at if event else None


def add_gpu_seconds(session: Session, project_id: str, gpu_s: float) -> None:
    session.execute(
        update(ProjectRow).where(ProjectRow.id == project_id).values(gpu_s=ProjectRow.gpu_s + gpu_s)
    )


def replace_outcome(
    session: Session,
    job_id: str,
    devices: Iterable[DeviceResult],
    artifacts: Iterable[Artifact],
) -> None:
    """Replaces the devices and artifacts of an earlier run by those of this one."""
    session.execute(delete(JobDeviceRow).where(JobDeviceRow.job_id == job_id))
    session.execute(delete(ArtifactRow).where(ArtifactRow.job_id == job_id))
    session.add_all(
        JobDeviceRow(
            job_id=job_id,
            position=position,
            name=device.name,
            result=device.model_dump(mode="json"),
        )
        for position, device in enumerate(devices)
    )
    session.add_all(
        ArtifactRow(
            job_id=job_id,
            path=artifact.path,
            sha256=artifact.sha256,
            size_bytes=artifact.size_bytes,
        )
        for artifact in artifacts
    )
