"""Queries for projects and keys."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from inn_automl.api.access import Role
from inn_automl_services.coordinator.db.tables import ApiKey, Project


def find_project(session: Session, name: str) -> Project | None:
    return session.scalars(select(Project).where(Project.name == name)).one_or_none()


def lock_project(session: Session, name: str) -> Project | None:
    return session.scalars(
        select(Project).where(Project.name == name).with_for_update()
    ).one_or_none()


def list_projects(session: Session, *, before: str | None, limit: int) -> Sequence[Project]:
    query = select(Project).order_by(Project.id.desc()).limit(limit)
    return session.scalars(query.where(Project.id < before) if before else query).all()


def list_keys(
    session: Session, *, project: str | None, before: str | None, limit: int
) -> Sequence[Row[ApiKey, str]]:
    """Keys with the names of their projects."""
    query = select(ApiKey, Project.name).join(Project, Project.id == ApiKey.project_id)
    if project is not None:
        query = query.where(Project.name == project)
    if before is not None:
        query = query.where(ApiKey.id < before)
    return session.execute(query.order_by(ApiKey.id.desc()).limit(limit)).all()


def find_key(session: Session, key_id: str) -> ApiKey | None:
    return session.get(ApiKey, key_id)


def lock_admin_keys(session: Session) -> Sequence[ApiKey]:
    """Those that are not revoked, locked so that no two requests revoke the last two at once."""
    query = (
        select(ApiKey)
        .where(ApiKey.role == Role.ADMIN.value, ApiKey.revoked_at.is_(None))
        .order_by(ApiKey.id)
    )
    return session.scalars(query.with_for_update()).all()


def find_key_by_hash(session: Session, hashed: str) -> ApiKey | None:
    return session.scalars(select(ApiKey).where(ApiKey.hash == hashed)).one_or_none()
