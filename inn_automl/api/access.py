"""Projects, keys and roles."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from inn_automl.api.base import Name, UtcTime, WireModel


class Role(StrEnum):
    """Permissions of a key. An admin manages projects and keys, a user one project's jobs, an agent
    its measurements.
    """

    ADMIN = "admin"
    USER = "user"
    AGENT = "agent"


class NewProject(WireModel):
    """A project to make, or the limits to give to one."""

    name: Name
    max_running_jobs: Annotated[int, Field(ge=0, le=100_000)] = 4
    max_gpu_hours: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Hours of GPUs that all jobs of the project may use together; null for any."""


class Project(NewProject):
    id: str
    gpu_hours: float
    """GPU hours used so far."""
    created_at: UtcTime


class NewKey(WireModel):
    """A key to make."""

    name: Name
    role: Role = Role.USER
    project: Name | None = None
    """Project of the new key; null for that of the requesting key."""


class Key(WireModel):
    """A key, without its secret."""

    id: str
    name: Name
    role: Role
    project: Name
    prefix: str
    """First characters of the secret, to tell keys apart."""
    created_at: UtcTime
    last_used_at: UtcTime | None
    revoked_at: UtcTime | None


class CreatedKey(Key):
    secret: str
    """Secret of the key, shown this once; only its hash is stored."""
