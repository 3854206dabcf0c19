"""Queries of runs: a job's order, what its run reports, what it leaves."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from inn_automl.api.runs import Artifact as ArtifactFacts
from inn_automl.core.result import DeviceResult
from inn_automl_services.coordinator.db.tables import (
    Artifact,
    Dataset,
    Job,
    JobDevice,
    JobEvent,
    Project,
)


def project_name(session: Session, job: Job) -> str:
    return session.execute(select(Project.name).where(Project.id == job.project_id)).scalar_one()


def dataset_of(session: Session, job: Job) -> Dataset | None:
    return session.get(Dataset, job.dataset_id) if job.dataset_id else None


def find_locked(session: Session, job_id: str) -> Job | None:
    return session.execute(
        select(Job).where(Job.id == job_id).with_for_update()
    ).scalar_one_or_none()


def last_event(session: Session, job_id: str, kind: str) -> JobEvent | None:
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.kind == kind)
    return session.execute(query.order_by(JobEvent.id.desc()).limit(1)).scalar_one_or_none()


def last_told_at(session: Session, job_id: str) -> datetime | None:
    """When watchers were last told of the job's progress."""
    event = last_event(session, job_id, "progress")
    return event.at if event else None


def add_gpu_seconds(session: Session, project_id: str, gpu_s: float) -> None:
    session.execute(
        update(Project).where(Project.id == project_id).values(gpu_s=Project.gpu_s + gpu_s)
    )


def replace_outcome(
    session: Session,
    job_id: str,
    devices: Iterable[DeviceResult],
    artifacts: Iterable[ArtifactFacts],
) -> None:
    """What the job found and left, instead of what an earlier run of it did."""
    session.execute(delete(JobDevice).where(JobDevice.job_id == job_id))
    session.execute(delete(Artifact).where(Artifact.job_id == job_id))
    session.add_all(
        JobDevice(
            job_id=job_id,
            position=position,
            name=device.name,
            result=device.model_dump(mode="json"),
        )
        for position, device in enumerate(devices)
    )
    session.add_all(
        Artifact(
            job_id=job_id,
            path=artifact.path,
            sha256=artifact.sha256,
            size_bytes=artifact.size_bytes,
        )
        for artifact in artifacts
    )
