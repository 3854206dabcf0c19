"""Health, readiness, metrics, version, and the caller's key."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from inn_automl.api.access import Role
from inn_automl.api.base import WireModel
from inn_automl.core.errors import (
    AuthenticationError,
    RateLimitError,
    UnavailableError,
)
from inn_automl.core.version import __version__
from inn_automl_services.coordinator import problems
from inn_automl_services.coordinator.access import AnyRole
from inn_automl_services.coordinator.context import InContext, Reading
from inn_automl_services.coordinator.system import service

router = APIRouter(tags=["system"])


class Status(WireModel):
    status: Literal["ok"] = "ok"


class Version(WireModel):
    version: str


class Me(WireModel):
    """Project and role of the caller's key."""

    key_id: str
    project: str
    role: Role
    mlflow_url: str | None
    """MLflow as people reach it."""


@router.get("/health", summary="The process answers")
def health() -> Status:
    return Status()


@router.get(
    "/ready",
    summary="The database and the storage can be reached",
    responses=problems.responses(UnavailableError),
)
def ready(context: InContext) -> Status:
    service.check_ready(context)
    return Status()


@router.get(
    "/metrics",
    summary="Metrics in Prometheus' text format",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems.responses(UnavailableError),
    },
)
def metrics(session: Reading) -> Response:
    return Response(service.metrics(session), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/version", summary="The coordinator's version")
def version() -> Version:
    return Version(version=__version__)


@router.get(
    "/me",
    summary="Project and role of the key",
    responses=problems.responses(AuthenticationError, RateLimitError),
)
def me(caller: AnyRole, context: InContext) -> Me:
    settings = context.settings
    return Me(
        key_id=caller.key_id,
        project=caller.project,
        role=caller.role,
        mlflow_url=settings.mlflow_public_url or settings.mlflow_url,
    )
