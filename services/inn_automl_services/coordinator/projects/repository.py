"""Queries for projects and keys."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from inn_automl.api.access import Role
from inn_automl_services.coordinator.db.tables import ApiKeyRow, ProjectRow


def find_project(session: Session, name: str) -> ProjectRow | None:
    return session.scalars(select(ProjectRow).where(ProjectRow.name == name)).one_or_none()


def lock_project(session: Session, name: str) -> ProjectRow | None:
    return session.scalars(
        select(ProjectRow).where(ProjectRow.name == name).with_for_update()
    ).one_or_none()


def list_projects(session: Session, *, before: str | None, limit: int) -> Sequence[ProjectRow]:
    query = select(ProjectRow).order_by(ProjectRow.id.desc()).limit(limit)
    return session.scalars(query.where(ProjectRow.id < before) if before else query).all()


def list_keys(
    session: Session, *, project: str | None, before: str | None, limit: int
) -> Sequence[Row[ApiKeyRow, str]]:
    """Keys with the names of their projects."""
    query = select(ApiKeyRow, ProjectRow.name).join(
        ProjectRow, ProjectRow.id == ApiKeyRow.project_id
    )
    if project is not None:
        query = query.where(ProjectRow.name == project)
    if before is not None:
        query = query.where(ApiKeyRow.id < before)
    return session.execute(query.order_by(ApiKeyRow.id.desc()).limit(limit)).all()


def find_key(session: Session, key_id: str) -> ApiKeyRow | None:
    return session.get(ApiKeyRow, key_id)


def lock_admin_keys(session: Session) -> Sequence[ApiKeyRow]:
    """Admin keys that are not revoked; locked, so that the last two are not revoked at once."""
    query = (
        select(ApiKeyRow)
        .where(ApiKeyRow.role == Role.ADMIN.value, ApiKeyRow.revoked_at.is_(None))
        .order_by(ApiKeyRow.id)
    )
    return session.scalars(query.with_for_update()).all()


def find_key_by_hash(session: Session, hashed: str) -> ApiKeyRow | None:
    return session.scalars(select(ApiKeyRow).where(ApiKeyRow.hash == hashed)).one_or_none()
