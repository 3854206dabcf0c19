"""Endpoints of workers, who send the lease token of their run in place of a key."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from inn_automl.api.runs import RunAnswer, RunAssignment, RunFailure, RunHeartbeat, RunResult
from inn_automl.core.errors import (
    AuthenticationError,
    InputError,
    StaleLeaseError,
    StorageError,
    TooLargeError,
    UnavailableError,
)
from inn_automl_services.coordinator.access import LeaseToken
from inn_automl_services.coordinator.context import InContext, Reading, Writing
from inn_automl_services.coordinator.problems import responses
from inn_automl_services.coordinator.runs import service

router = APIRouter(tags=["runs"])

JobId = Annotated[
    str, Path(pattern=r"^[a-z]+_[0-9a-z]{26}$", examples=["job_01k9zq3v8n5c7r2w4x6y8z0abc"])
]
_READS = (AuthenticationError, StaleLeaseError, InputError, UnavailableError)
_WRITES = (*_READS, TooLargeError)


@router.get(
    "/runs/{job_id}",
    summary="What the run is to do",
    response_model=RunAssignment,
    responses=responses(*_READS),
)
def get_order(
    job_id: JobId, token: LeaseToken, session: Reading, context: InContext
) -> RunAssignment:
    return service.order(session, context, job_id, token)


@router.post(
    "/runs/{job_id}/heartbeat",
    summary="The run is alive, and this far; keeps its lease",
    response_model=RunAnswer,
    responses=responses(*_WRITES),
)
def post_heartbeat(
    job_id: JobId, token: LeaseToken, beat: RunHeartbeat, session: Writing, context: InContext
) -> RunAnswer:
    return service.heartbeat(session, context.settings, job_id, token, beat)


@router.post(
    "/runs/{job_id}/result",
    summary="The run is done; its files are in the storage. May be sent again",
    status_code=204,
    response_class=Response,
    responses=responses(*_WRITES, StorageError),
)
def post_result(
    job_id: JobId, token: LeaseToken, outcome: RunResult, session: Writing, context: InContext
) -> None:
    # Before the job is locked, since looking at the storage may take long.
    with context.database.read() as reading:
        service.check_files(reading, context.store, job_id, token, outcome.artifacts)
    service.succeed(session, job_id, token, outcome)


@router.post(
    "/runs/{job_id}/failure",
    summary="The run ended without a result",
    status_code=204,
    response_class=Response,
    responses=responses(*_WRITES),
)
def post_failure(job_id: JobId, token: LeaseToken, failure: RunFailure, session: Writing) -> None:
    service.fail(session, job_id, token, failure)
