"""Queries of jobs, and of what a spec may name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row, and_, or_, select
from sqlalchemy.orm import Session

from inn_automl_services.coordinator.db.tables import Dataset, Device, Job, JobDevice, JobEvent


def find(session: Session, project_id: str, job_id: str, *, lock: bool = False) -> Job | None:
    query = select(Job).where(Job.id == job_id, Job.project_id == project_id)
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


def find_by_key(session: Session, project_id: str, idempotency_key: str) -> Job | None:
    query = select(Job).where(Job.project_id == project_id, Job.idempotency_key == idempotency_key)
    return session.scalars(query).one_or_none()


def page(
    session: Session,
    project_id: str,
    *,
    state: str | None,
    kind: str | None,
    before: str | None,
    limit: int,
) -> Sequence[Row[Any]]:
    """What a list shows of jobs, newest first; those older than the id `before`."""
    query = select(
        Job.id,
        Job.name,
        Job.kind,
        Job.parent_id,
        Job.state,
        Job.spec,
        Job.progress,
        Job.created_at,
        Job.finished_at,
    ).where(Job.project_id == project_id)
    if state is not None:
        query = query.where(Job.state == state)
    if kind is not None:
        query = query.where(Job.kind == kind)
    if before is not None:
        query = query.where(Job.id < before)
    return session.execute(query.order_by(Job.id.desc()).limit(limit)).all()


def first_child(session: Session, job_id: str) -> str | None:
    """Id of a job that extends or discretizes this one."""
    return session.scalars(select(Job.id).where(Job.parent_id == job_id).limit(1)).one_or_none()


def state_and_events(
    session: Session, job_id: str, *, after: int, limit: int
) -> tuple[str | None, Sequence[JobEvent]]:
    """The job's state and the events that follow the one with id `after`, as they are at one
    instant.

    Events of a job are written while its row is locked, so their ids have the order in which they
    become visible.

    Returns:
        None and nothing where the job is gone.
    """
    query = (
        select(Job.state, JobEvent)
        .outerjoin(JobEvent, and_(JobEvent.job_id == Job.id, JobEvent.id > after))
        .where(Job.id == job_id)
        .order_by(JobEvent.id)
        .limit(limit)
    )
    rows = session.execute(query).all()
    return (rows[0][0] if rows else None), [event for _, event in rows if event is not None]


def find_dataset(session: Session, project_id: str, name_or_id: str) -> Dataset | None:
    """The dataset of that id, or else of that name."""
    query = select(Dataset).where(
        Dataset.project_id == project_id, or_(Dataset.id == name_or_id, Dataset.name == name_or_id)
    )
    found = session.scalars(query).all()
    return next(
        (dataset for dataset in found if dataset.id == name_or_id), found[0] if found else None
    )


def dataset_names(session: Session, project_id: str, limit: int) -> Sequence[str]:
    query = select(Dataset.name).where(Dataset.project_id == project_id).order_by(Dataset.id.desc())
    return session.scalars(query.limit(limit)).all()


def devices_named(session: Session, project_id: str, names: Collection[str]) -> dict[str, Device]:
    query = select(Device).where(Device.project_id == project_id, Device.name.in_(names))
    return {device.name: device for device in session.scalars(query)}


def some_devices(session: Session, project_id: str, limit: int) -> Sequence[Device]:
    query = select(Device).where(Device.project_id == project_id).order_by(Device.name)
    return session.scalars(query.limit(limit)).all()


def groups_of(session: Session, job_id: str) -> list[str] | None:
    """Names of the coupled groups of a job's network, from a front's point; None where no front
    has one.
    """
    for result in session.scalars(select(JobDevice.result).where(JobDevice.job_id == job_id)):
        for point in result["front"]:
            return list(point["widths"])
    return None
