"""Queries for datasets."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from inn_automl.api.jobs import ENDED
from inn_automl_services.coordinator.db.tables import DatasetRow, JobRow


def find(session: Session, project_id: str, reference: str) -> DatasetRow | None:
    """Finds a dataset by id, or else by name."""
    query = select(DatasetRow).where(
        DatasetRow.project_id == project_id,
        or_(DatasetRow.id == reference, DatasetRow.name == reference),
    )
    return min(session.scalars(query), key=lambda row: row.id != reference, default=None)


def find_content(session: Session, project_id: str, sha256: str) -> DatasetRow | None:
    query = select(DatasetRow).where(
        DatasetRow.project_id == project_id, DatasetRow.sha256 == sha256
    )
    return session.scalars(query).one_or_none()


def page(
    session: Session, project_id: str, *, before: str | None, limit: int
) -> Sequence[DatasetRow]:
    query = (
        select(DatasetRow)
        .where(DatasetRow.project_id == project_id)
        .order_by(DatasetRow.id.desc())
        .limit(limit)
    )
    return session.scalars(query.where(DatasetRow.id < before) if before else query).all()


def lock(session: Session, dataset_id: str) -> DatasetRow | None:
    return session.scalars(
        select(DatasetRow).where(DatasetRow.id == dataset_id).with_for_update()
    ).one_or_none()


def job_that_uses(session: Session, dataset_id: str) -> str | None:
    """Id of a job on the dataset that has not ended."""
    ended = [state.value for state in ENDED]
    query = (
        select(JobRow.id)
        .where(JobRow.dataset_id == dataset_id, JobRow.state.not_in(ended))
        .limit(1)
    )
    return session.scalar(query)


def forget(session: Session, dataset: DatasetRow) -> None:
    """Deletes the row; jobs that ended keep their spec, which names it."""
    session.execute(update(JobRow).where(JobRow.dataset_id == dataset.id).values(dataset_id=None))
    session.delete(dataset)
    session.flush()
