"""Jobs: submit, list, show, cancel, retry, delete, extend, discretize; their events and logs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from inn_automl.api.base import Name, Page
from inn_automl.api.jobs import (
    DiscretizeJob,
    ExtendJob,
    Job,
    JobKind,
    JobState,
    JobSummary,
    SubmitJob,
)
from inn_automl.core import errors
from inn_automl.core.errors import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    IdempotencyError,
    NotFoundError,
    RateLimitError,
    TooLargeError,
    UnavailableError,
)
from inn_automl_services.coordinator import problems
from inn_automl_services.coordinator.access import User
from inn_automl_services.coordinator.context import InContext, Reading, Writing
from inn_automl_services.coordinator.jobs import events as job_events
from inn_automl_services.coordinator.jobs import service

router = APIRouter(tags=["jobs"])

LARGEST_INT = 2**63 - 1
JobId = Annotated[
    Name, Path(description="Id of a job.", examples=["job_01kb0q3v6t9a2c4e6g8j0k2m4n"])
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern="^[!-~]{1,255}$",
        description="The same key with the same request names the same job, however often it is "
        "sent.",
    ),
]
READ_ERRORS = (
    AuthenticationError,
    ForbiddenError,
    RateLimitError,
    errors.InputError,
    UnavailableError,
)
WRITE_ERRORS = (*READ_ERRORS, TooLargeError)

_DEVICES: list[dict[str, Any]] = [{"name": "laptop", "threads": 1, "max_latency_ms": 2.0}]
SUBMIT_EXAMPLE: dict[str, Any] = {
    "spec": {
        "dataset": "digits",
        "budget": {"devices": _DEVICES, "training": {"max_minutes": 10}},
        "seed": 0,
    },
    "name": "first-try",
}
EXTEND_EXAMPLE: dict[str, Any] = {
    "devices": [{"name": "pi4", "agent": "pi4", "threads": 4, "max_latency_ms": 5.0}]
}


def _created(*kinds: type[errors.InnAutomlError]) -> dict[int | str, dict[str, Any]]:
    known = {"description": "The job that this Idempotency-Key made before.", "model": Job}
    return {200: known, **problems.responses(*WRITE_ERRORS, IdempotencyError, *kinds)}


@router.post(
    "/jobs",
    status_code=201,
    response_model=Job,
    summary="Submit a job",
    responses=_created(ConflictError, errors.SpecError, errors.UnknownNameError),
)
def submit(
    body: Annotated[SubmitJob, Body(examples=[SUBMIT_EXAMPLE])],
    caller: User,
    session: Writing,
    context: InContext,
    response: Response,
    key: IdempotencyKey = None,
) -> Job:
    """Everything that the spec names is looked up first: a job that is queued can run."""
    job, is_new = service.submit(session, context.settings, caller, body, key)
    response.status_code = 201 if is_new else 200
    return service.to_wire(job, context.settings)


@router.get(
    "/jobs",
    response_model=Page[JobSummary],
    summary="List jobs",
    responses=problems.responses(*READ_ERRORS),
)
def page(
    caller: User,
    session: Reading,
    state: JobState | None = None,
    kind: JobKind | None = None,
    cursor: Annotated[Name | None, Query(description="`next_cursor` of a page.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    found = service.page(session, caller, state=state, kind=kind, cursor=cursor, limit=limit)
    return _json(found.model_dump_json())


@router.get(
    "/jobs/{job_id}",
    response_model=Job,
    summary="Show a job",
    responses=problems.responses(*READ_ERRORS, NotFoundError),
)
def show(job_id: JobId, caller: User, session: Reading, context: InContext) -> Response:
    return _json(
        service.to_wire(service.find(session, caller, job_id), context.settings).model_dump_json()
    )


@router.post(
    "/jobs/{job_id}/cancel",
    response_model=Job,
    summary="Cancel a job",
    responses=problems.responses(*READ_ERRORS, NotFoundError, ConflictError),
)
def cancel(job_id: JobId, caller: User, session: Writing, context: InContext) -> Job:
    """Cancels a queued job at once. A running one is `cancelling` until its processes have
    ended.
    """
    return service.to_wire(service.cancel(session, caller, job_id), context.settings)


@router.post(
    "/jobs/{job_id}/retry",
    response_model=Job,
    summary="Queue a failed or cancelled job again",
    responses=problems.responses(*READ_ERRORS, NotFoundError, ConflictError),
)
def retry(job_id: JobId, caller: User, session: Writing, context: InContext) -> Job:
    """Queues the job again. It continues from its last finished stage or checkpoint."""
    return service.to_wire(service.retry(session, caller, job_id), context.settings)


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    summary="Delete an ended job",
    responses=problems.responses(*READ_ERRORS, NotFoundError, ConflictError, errors.StorageError),
)
def delete(job_id: JobId, caller: User, session: Writing, context: InContext) -> None:
    """Deletes the files, fronts and models of a job for good. Jobs that extend or discretize it
    must be deleted first.
    """
    service.delete(session, context.store, caller, job_id)


@router.post(
    "/jobs/{job_id}/extend",
    status_code=201,
    response_model=Job,
    summary="Search a finished job's network for other devices or bounds",
    responses=_created(NotFoundError, ConflictError, errors.SpecError, errors.UnknownNameError),
)
def extend(
    job_id: JobId,
    body: Annotated[ExtendJob, Body(examples=[EXTEND_EXAMPLE])],
    caller: User,
    session: Writing,
    context: InContext,
    response: Response,
    key: IdempotencyKey = None,
) -> Job:
    """Searches again without training; known metric values are not evaluated again."""
    job, is_new = service.extend(session, context.settings, caller, job_id, body, key)
    response.status_code = 201 if is_new else 200
    return service.to_wire(job, context.settings)


@router.post(
    "/jobs/{job_id}/discretize",
    status_code=201,
    response_model=Job,
    summary="Make one more model of a finished job's network",
    responses=_created(NotFoundError, ConflictError, errors.WidthsError),
)
def discretize(
    job_id: JobId,
    body: Annotated[DiscretizeJob, Body(examples=[{"ratio": 0.5}])],
    caller: User,
    session: Writing,
    context: InContext,
    response: Response,
    key: IdempotencyKey = None,
) -> Job:
    """Any widths; the bundle of the job that this makes is at `/jobs/{job_id}/bundle` once it has
    succeeded.
    """
    job, is_new = service.discretize(session, context.settings, caller, job_id, body, key)
    response.status_code = 201 if is_new else 200
    return service.to_wire(job, context.settings)


def _watched(job_id: JobId, caller: User, session: Reading) -> str:
    """Answers 404 before the stream begins; holds no connection while it lasts."""
    return service.find(session, caller, job_id).id


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    summary="Watch a job",
    responses={
        200: {
            "description": "`id`, `event` (the kind) and `data` (a `JobEvent` as JSON) of each; "
            "comments while idle.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems.responses(*READ_ERRORS, NotFoundError),
    },
)
async def watch(
    watched: Annotated[str, Depends(_watched)],
    context: InContext,
    follow: Annotated[bool, Query(description="false: ends after what there is now.")] = True,
    last_event_id: Annotated[
        int, Header(ge=0, le=LARGEST_INT, description="Goes on right after this event.")
    ] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events, in order and each once. The stream ends when the job has ended and all
    was sent.
    """
    async for event in job_events.watch(
        context.database, context.settings, watched, after=last_event_id, follow=follow
    ):
        yield ServerSentEvent(id=str(event.id), event=event.kind, raw_data=event.model_dump_json())


@router.get(
    "/jobs/{job_id}/logs",
    response_class=StreamingResponse,
    summary="Read what a job printed",
    responses={
        200: {
            "description": "The log from the offset on.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **problems.responses(*READ_ERRORS, NotFoundError, errors.StorageError),
    },
)
def logs(
    job_id: Annotated[str, Depends(_watched)],
    context: InContext,
    offset: Annotated[int, Query(ge=0, le=LARGEST_INT, description="Bytes to leave out.")] = 0,
) -> Response:
    """Plain text, empty before the first line. Ask again with the offset raised by what came to
    follow it.
    """
    path = f"jobs/{job_id}/log.txt"
    size_bytes = context.store.size_bytes(path) if context.store.exists(path) else 0
    if offset >= size_bytes:
        return Response(media_type="text/plain")
    return StreamingResponse(
        context.store.chunks(path, start=offset, end=size_bytes), media_type="text/plain"
    )


def _json(text: str) -> Response:
    """A body that is valid already: it is not validated a second time."""
    return Response(text, media_type="application/json")
