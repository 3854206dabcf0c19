"""Endpoints of measurements, for agents that lease them and workers that request them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from inn_automl.api.base import Name, Sha256
from inn_automl.api.measurements import (
    Measurement,
    MeasurementFailure,
    MeasurementHeartbeat,
    MeasurementLease,
    MeasurementResults,
    MeasurementState,
    NewMeasurement,
)
from inn_automl.core import errors
from inn_automl.core.errors import (
    AuthenticationError,
    ForbiddenError,
    NotFoundError,
    RateLimitError,
    StaleLeaseError,
    TooLargeError,
    UnavailableError,
)
from inn_automl_services.coordinator import problems
from inn_automl_services.coordinator.access import AnyRole, LeaseToken
from inn_automl_services.coordinator.context import InContext, Writing
from inn_automl_services.coordinator.devices import measurements

router = APIRouter()

MAX_WAIT_S = 20.0
POLL_S = 0.5
"""Seconds between two reads for a request that waits. It holds neither thread nor connection."""

MeasurementId = Annotated[
    str, Path(pattern=r"^msr_[0-9a-z]{26}$", examples=["msr_01kq8s2c6d3v9m5x7r1t4w0y2z"])
]
JobId = Annotated[
    str, Path(pattern=r"^[a-z]+_[0-9a-z]{26}$", examples=["job_01kq8s2c6d3v9m5x7r1t4w0y2z"])
]
Wait = Annotated[
    float,
    Query(
        ge=0,
        le=MAX_WAIT_S,
        allow_inf_nan=False,
        description="Answer only then if nothing is there sooner.",
    ),
]
Token = Annotated[str, Header(alias="Lease-Token", min_length=1, max_length=200)]

READ_ERRORS = (AuthenticationError, RateLimitError, errors.InputError, UnavailableError)
LEASE_ERRORS = (*READ_ERRORS, NotFoundError, StaleLeaseError)

Found = TypeVar("Found")


async def _poll(
    read: Callable[[], Found], is_done: Callable[[Found], bool], wait_s: float, request: Request
) -> Found:
    end = time.monotonic() + wait_s
    while True:
        found = await run_in_threadpool(read)
        left = end - time.monotonic()
        if is_done(found) or left <= 0:
            return found
        await asyncio.sleep(min(POLL_S, left))
        if await request.is_disconnected():
            return found


@router.post(
    "/devices/{name}/lease",
    response_model=MeasurementLease,
    summary="Lease the next measurement of a device",
    responses={
        204: {"description": "There is nothing to measure."},
        **problems.responses(*READ_ERRORS, ForbiddenError, NotFoundError),
    },
)
async def lease(
    name: Annotated[Name, Path()],
    caller: AnyRole,
    context: InContext,
    request: Request,
    wait_s: Wait = 0.0,
) -> MeasurementLease | Response:
    """A device holds one lease at a time. A measurement whose lease expires is leased again; after
    the third expiry it fails.
    """
    found = await _poll(
        lambda: measurements.lease_next(context, caller, name),
        lambda leased: leased is not None,
        wait_s,
        request,
    )
    return found or Response(status_code=204)


@router.get(
    "/measurements/{measurement_id}/models/{sha256}",
    response_class=StreamingResponse,
    summary="Download a model to be measured",
    responses={
        200: {"description": "An ONNX file.", "content": {"application/octet-stream": {}}},
        **problems.responses(*LEASE_ERRORS, errors.StorageError),
    },
)
def model(
    measurement_id: MeasurementId,
    sha256: Annotated[Sha256, Path()],
    token: Token,
    caller: AnyRole,
    context: InContext,
) -> StreamingResponse:
    with context.database.read() as session:
        path, size_bytes = measurements.model(session, caller, measurement_id, token, sha256)
    if not context.store.exists(path):
        raise NotFoundError(f"the storage has no {path}: have the job's worker put it there again.")
    headers = {"Content-Length": str(size_bytes), "ETag": f'"{sha256}"'}
    return StreamingResponse(
        context.store.chunks(path), media_type="application/octet-stream", headers=headers
    )


@router.post(
    "/measurements/{measurement_id}/heartbeat",
    status_code=204,
    summary="Renew the lease of a measurement",
    responses=problems.responses(*LEASE_ERRORS),
)
def heartbeat(
    measurement_id: MeasurementId,
    beat: MeasurementHeartbeat,
    token: Token,
    caller: AnyRole,
    session: Writing,
    context: InContext,
) -> None:
    measurements.heartbeat(session, context.settings, caller, measurement_id, token, beat.fraction)


@router.post(
    "/measurements/{measurement_id}/results",
    status_code=204,
    summary="Post what was measured",
    responses=problems.responses(*LEASE_ERRORS, errors.MeasurementError, TooLargeError),
)
def results(
    measurement_id: MeasurementId,
    found: MeasurementResults,
    token: Token,
    caller: AnyRole,
    context: InContext,
) -> None:
    """Delivers results of every leased model, and of no other. Summaries are computed from the
    samples. Refused results leave the measurement leased."""
    measurements.finish(context, caller, measurement_id, token, found.results)


@router.post(
    "/measurements/{measurement_id}/failure",
    status_code=204,
    summary="Say that a measurement cannot be done",
    responses=problems.responses(*LEASE_ERRORS),
)
def failure(
    measurement_id: MeasurementId,
    failed: MeasurementFailure,
    token: Token,
    caller: AnyRole,
    session: Writing,
) -> None:
    measurements.report_failure(session, caller, measurement_id, token, failed.detail)


@router.post(
    "/measurements/{measurement_id}/release",
    status_code=204,
    summary="Give the lease of a measurement back",
    responses=problems.responses(*LEASE_ERRORS),
)
def release(measurement_id: MeasurementId, token: Token, caller: AnyRole, session: Writing) -> None:
    """Returns the lease of an agent that stops. The measurement is queued again at once."""
    measurements.release(session, caller, measurement_id, token)


@router.post(
    "/runs/{job_id}/measurements",
    response_model=Measurement,
    summary="Request a measurement",
    responses=problems.responses(
        AuthenticationError,
        errors.SpecError,
        errors.MeasurementError,
        StaleLeaseError,
        TooLargeError,
        UnavailableError,
    ),
)
def request_measurement(
    job_id: JobId, body: NewMeasurement, token: LeaseToken, session: Writing, context: InContext
) -> Measurement:
    """Requests a measurement for the worker that holds the job. The same request finds the same
    measurement, results included; one that failed is queued again.
    """
    return measurements.request_measurement(session, context.settings, job_id, token, body)


@router.get(
    "/runs/{job_id}/measurements/{measurement_id}",
    response_model=Measurement,
    summary="Wait for a measurement",
    responses=problems.responses(
        AuthenticationError, errors.InputError, NotFoundError, StaleLeaseError, UnavailableError
    ),
)
async def progress(
    job_id: JobId,
    measurement_id: MeasurementId,
    token: LeaseToken,
    context: InContext,
    request: Request,
    wait_s: Wait = 0.0,
) -> Measurement:
    """Answers when it has ended, or after `wait_s` with how far it is."""

    def read() -> Measurement:
        with context.database.read() as session:
            return measurements.progress(session, context.settings, job_id, token, measurement_id)

    waiting = (MeasurementState.QUEUED, MeasurementState.LEASED)
    return await _poll(read, lambda found: found.state not in waiting, wait_s, request)
