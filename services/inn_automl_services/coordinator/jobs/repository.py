"""Queries of jobs, and of what a spec may name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row, and_, or_, select
from sqlalchemy.orm import Session

from inn_automl_services.coordinator.db.tables import (
    DatasetRow,
    DeviceRow,
    JobDeviceRow,
    JobEventRow,
    JobRow,
)


def find(session: Session, project_id: str, job_id: str, *, lock: bool = False) -> JobRow | None:
    query = select(JobRow).where(JobRow.id == job_id, JobRow.project_id == project_id)
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


def find_by_idempotency_key(
    session: Session, project_id: str, idempotency_key: str
) -> JobRow | None:
    query = select(JobRow).where(
        JobRow.project_id == project_id, JobRow.idempotency_key == idempotency_key
    )
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
    """Columns of a list of jobs, newest first: the jobs that are older than the id `before`."""
    query = select(
        JobRow.id,
        JobRow.name,
        JobRow.kind,
        JobRow.parent_id,
        JobRow.state,
        JobRow.spec,
        JobRow.progress,
        JobRow.created_at,
        JobRow.finished_at,
    ).where(JobRow.project_id == project_id)
    if state is not None:
        query = query.where(JobRow.state == state)
    if kind is not None:
        query = query.where(JobRow.kind == kind)
    if before is not None:
        query = query.where(JobRow.id < before)
    return session.execute(query.order_by(JobRow.id.desc()).limit(limit)).all()


def first_child(session: Session, job_id: str) -> str | None:
    """Id of a job that extends or discretizes this one."""
    return session.scalars(
        select(JobRow.id).where(JobRow.parent_id == job_id).limit(1)
    ).one_or_none()


def state_and_events(
    session: Session, job_id: str, *, after: int, limit: int
) -> tuple[str | None, Sequence[JobEventRow]]:
    """The job's state and the events that follow the one with id `after`, as they are at one
    instant.

    Events of a job are written while its row is locked, so their ids have the order in which they
    become visible.

    Returns:
        None and nothing where the job is gone.
    """
    query = (
        select(JobRow.state, JobEventRow)
        .outerjoin(JobEventRow, and_(JobEventRow.job_id == JobRow.id, JobEventRow.id > after))
        .where(JobRow.id == job_id)
        .order_by(JobEventRow.id)
        .limit(limit)
    )
    rows = session.execute(query).all()
    return (rows[0][0] if rows else None), [event for _, event in rows if event is not None]


def find_dataset(session: Session, project_id: str, name_or_id: str) -> DatasetRow | None:
    """The dataset of that id, or else of that name."""
    query = select(DatasetRow).where(
        DatasetRow.project_id == project_id,
        or_(DatasetRow.id == name_or_id, DatasetRow.name == name_or_id),
    )
    found = session.scalars(query).all()
    return next(
        (dataset for dataset in found if dataset.id == name_or_id), found[0] if found else None
    )


def dataset_names(session: Session, project_id: str, limit: int) -> Sequence[str]:
    query = (
        select(DatasetRow.name)
        .where(DatasetRow.project_id == project_id)
        .order_by(DatasetRow.id.desc())
    )
    return session.scalars(query.limit(limit)).all()


def devices_named(
    session: Session, project_id: str, names: Collection[str]
) -> dict[str, DeviceRow]:
    query = select(DeviceRow).where(DeviceRow.project_id == project_id, DeviceRow.name.in_(names))
    return {device.name: device for device in session.scalars(query)}


def some_devices(session: Session, project_id: str, limit: int) -> Sequence[DeviceRow]:
    query = select(DeviceRow).where(DeviceRow.project_id == project_id).order_by(DeviceRow.name)
    return session.scalars(query.limit(limit)).all()


def groups_of(session: Session, job_id: str) -> list[str] | None:
    """Names of the coupled groups of a job's network, from a front's point; None where no front
    has one.
    """
    for result in session.scalars(select(JobDeviceRow.result).where(JobDeviceRow.job_id == job_id)):
        for point in result["front"]:
            return list(point["widths"])
    return None
