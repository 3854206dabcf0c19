"""Projects and keys, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query

from inn_automl.api.access import CreatedKey, Key, NewKey, NewProject, Project
from inn_automl.api.base import Name, Page
from inn_automl.core.errors import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    RateLimitError,
)
from inn_automl_services.coordinator import problems
from inn_automl_services.coordinator.access import Admin
from inn_automl_services.coordinator.context import InContext, Reading, Writing
from inn_automl_services.coordinator.projects import repository, service

router = APIRouter(tags=["projects and keys"])

_ALWAYS = (AuthenticationError, ForbiddenError, RateLimitError, InputError)
Limit = Annotated[int, Query(ge=1, le=200)]
ProjectCursor = Annotated[str | None, Query(pattern=r"^prj_[0-9a-z]{26}$")]
KeyCursor = Annotated[str | None, Query(pattern=r"^key_[0-9a-z]{26}$")]
KeyId = Annotated[str, Path(pattern=r"^key_[0-9a-z]{26}$")]
_LIMITS = [{"name": "vision", "max_running_jobs": 8, "max_gpu_hours": 100}]
_KEYS = [{"name": "laptop", "role": "user"}, {"name": "pi-5", "role": "agent", "project": "vision"}]


@router.post(
    "/projects",
    status_code=201,
    summary="Make a project",
    responses=problems.responses(*_ALWAYS, ConflictError),
)
def create_project(
    new: Annotated[NewProject, Body(examples=_LIMITS)], admin: Admin, session: Writing
) -> Project:
    return service.to_wire(service.create_project(session, new))


@router.get(
    "/projects", summary="List projects, newest first", responses=problems.responses(*_ALWAYS)
)
def list_projects(
    admin: Admin, session: Reading, cursor: ProjectCursor = None, limit: Limit = 50
) -> Page[Project]:
    rows = repository.list_projects(session, before=cursor, limit=limit + 1)
    items = [service.to_wire(row) for row in rows[:limit]]
    return Page(items=items, next_cursor=items[-1].id if len(rows) > limit else None)


@router.patch(
    "/projects/{name}",
    summary="Change a project's limits; those that are left out stay",
    responses=problems.responses(*_ALWAYS, NotFoundError),
)
def change_project(
    name: Name,
    limits: Annotated[NewProject, Body(examples=_LIMITS)],
    admin: Admin,
    session: Writing,
) -> Project:
    return service.to_wire(service.change_limits(session, name, limits))


@router.post(
    "/keys",
    status_code=201,
    summary="Make a key; its secret is shown this once",
    responses=problems.responses(*_ALWAYS, NotFoundError),
)
def create_key(
    new: Annotated[NewKey, Body(examples=_KEYS)], admin: Admin, session: Writing
) -> CreatedKey:
    key, project, secret = service.add_key(session, new, default_project=admin.project)
    return CreatedKey(**service.key_to_wire(key, project).model_dump(), secret=secret)


@router.get("/keys", summary="List keys, newest first", responses=problems.responses(*_ALWAYS))
def list_keys(
    admin: Admin,
    session: Reading,
    project: Name | None = None,
    cursor: KeyCursor = None,
    limit: Limit = 50,
) -> Page[Key]:
    rows = repository.list_keys(session, project=project, before=cursor, limit=limit + 1)
    items = [service.key_to_wire(key, name) for key, name in rows[:limit]]
    return Page(items=items, next_cursor=items[-1].id if len(rows) > limit else None)


@router.delete(
    "/keys/{key_id}",
    status_code=204,
    summary="Revoke a key",
    responses=problems.responses(*_ALWAYS, NotFoundError, ConflictError),
)
def revoke_key(key_id: KeyId, admin: Admin, session: Writing, context: InContext) -> None:
    service.revoke_key(session, key_id)
    context.keys.forget()
