"""Use cases of admins: projects, their limits, and keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from inn_automl.api import access as wire
from inn_automl.api.access import NewKey, NewProject, Role
from inn_automl.core.errors import ConflictError, InputError, NotFoundError
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import Database, now
from inn_automl_services.coordinator.db.tables import ApiKeyRow, ProjectRow
from inn_automl_services.coordinator.keys import create_key, hash_secret
from inn_automl_services.coordinator.projects import repository


def create_project(session: Session, new: NewProject) -> ProjectRow:
    """Raises:
    ConflictError: there is one of that name.
    """
    project = ProjectRow(id=new_id("prj"), gpu_s=0.0, created_at=now(), **new.model_dump())
    session.add(project)
    try:
        session.flush()
    except IntegrityError:
        raise ConflictError(
            f"there is a project {new.name!r} already: choose another name."
        ) from None
    return project


def change_limits(session: Session, name: str, limits: NewProject) -> ProjectRow:
    """Sets the limits that were given.

    Raises:
        NotFoundError: no such project.
        InputError: the body names another project.
    """
    if limits.name != name:
        raise InputError(
            f"the address names the project {name!r} and the body {limits.name!r}: a name cannot "
            f"change."
        )
    project = repository.lock_project(session, name)
    if project is None:
        raise NotFoundError(f"there is no project {name!r}: see GET /v1/projects.")
    for field in limits.model_fields_set - {"name"}:
        setattr(project, field, getattr(limits, field))
    return project


def add_key(session: Session, new: NewKey, *, default_project: str) -> tuple[ApiKeyRow, str, str]:
    """A key, its project's name, and its secret.

    Raises:
        NotFoundError: no such project.
    """
    name = new.project or default_project
    project = repository.find_project(session, name)
    if project is None:
        raise NotFoundError(f"there is no project {name!r}: make it with POST /v1/projects.")
    key, secret = create_key(session, project_id=project.id, name=new.name, role=new.role)
    return key, project.name, secret


def revoke_key(session: Session, key_id: str) -> None:
    """Ends a key; one that was ended before stays as it is.

    Raises:
        NotFoundError: no such key.
        ConflictError: the last admin key, without which nobody could make another.
    """
    admins = repository.lock_admin_keys(session)
    key = repository.find_key(session, key_id)
    if key is None:
        raise NotFoundError(f"there is no key {key_id!r}: see GET /v1/keys.")
    if [admin.id for admin in admins] == [key.id]:
        raise ConflictError("this is the last admin key: make another one first.")
    if key.revoked_at is None:
        key.revoked_at = now()


def ensure_project_and_keys(database: Database, project: str, secrets: Mapping[Role, str]) -> None:
    """Makes a project and keys with known secrets, unless they are there; those that were revoked
    stay so.

    Args:
        secrets: `inn_...` by role, of the caller's own making (`access.SECRET_PREFIX` and 256
            random bits).
    """
    for role, secret in secrets.items():
        if len(secret) < 32:
            raise ValueError(f"the secret of the {role} key is too short to be one")
    with database.write() as session:
        row = repository.find_project(session, project) or create_project(
            session, NewProject(name=project)
        )
        for role, secret in secrets.items():
            if repository.find_key_by_hash(session, hash_secret(secret)) is None:
                key, _ = create_key(session, project_id=row.id, name=f"first-{role}", role=role)
                key.prefix, key.hash = secret[:12], hash_secret(secret)


def bootstrap(database: Database, path: Path, *, project: str = "default") -> bool:
    """Makes the first project and an admin key, whose secret goes to a file that only its owner
    may read.

    Returns:
        Whether it did: not where the file or an admin key is there already.
    """
    with database.write() as session:
        if path.exists() or repository.lock_admin_keys(session):
            return False
        row = repository.find_project(session, project) or create_project(
            session, NewProject(name=project)
        )
        _, secret = create_key(session, project_id=row.id, name="bootstrap", role=Role.ADMIN)
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret + "\n")
    return True


def to_wire(project: ProjectRow) -> wire.Project:
    return wire.Project(
        id=project.id,
        name=project.name,
        max_running_jobs=project.max_running_jobs,
        max_gpu_hours=project.max_gpu_hours,
        gpu_hours=project.gpu_s / 3600,
        created_at=project.created_at,
    )


def key_to_wire(key: ApiKeyRow, project: str) -> wire.Key:
    return wire.Key(
        id=key.id,
        name=key.name,
        role=Role(key.role),
        project=project,
        prefix=key.prefix,
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        revoked_at=key.revoked_at,
    )
