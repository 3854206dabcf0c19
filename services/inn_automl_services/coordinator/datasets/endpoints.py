"""Datasets of a project."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from inn_automl.api.base import Name, Page, Sha256
from inn_automl.api.datasets import (
    FILENAME_PATTERN,
    KINDS_OF_FILES,
    RegisterDataset,
    StoredDataset,
)
from inn_automl.core import errors
from inn_automl.core.errors import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RateLimitError,
    TooLargeError,
    UnavailableError,
)
from inn_automl_services.coordinator import problems
from inn_automl_services.coordinator.access import User
from inn_automl_services.coordinator.context import InContext, Reading, Writing
from inn_automl_services.coordinator.datasets import repository, service
from inn_automl_services.coordinator.datasets.incoming import Incoming, incoming_folder, receiving

router = APIRouter(tags=["datasets"])

WRITE_BYTES = 1 << 20
_ALWAYS = (AuthenticationError, ForbiddenError, RateLimitError, errors.InputError, UnavailableError)
_CONTENT = (
    ConflictError,
    TooLargeError,
    errors.DatasetError,
    errors.DatasetNotFoundError,
    errors.DatasetFormatError,
    errors.DatasetTooSmallError,
    errors.UnsafeArchiveError,
    errors.StorageError,
)
_THERE: dict[int | str, dict[str, Any]] = {
    200: {
        "model": StoredDataset,
        "description": "The content was there already, perhaps under another name.",
    }
}
_EXAMPLES = [{"name": "gestures", "url": "s3://data/gestures.zip"}]
DatasetName = Annotated[Name, Query(description="What jobs call it.", examples=["gestures"])]
Filename = Annotated[
    str,
    Query(
        pattern=FILENAME_PATTERN,
        description=f"{KINDS_OF_FILES[0].upper()}{KINDS_OF_FILES[1:]}.",
        examples=["gestures.zip"],
    ),
]
Reference = Annotated[Name, Path(description="Id or name of a dataset.", examples=["gestures"])]


@router.put(
    "/datasets/content/{sha256}",
    status_code=201,
    summary="Upload a dataset; the body is the file",
    responses=_THERE | problems.responses(*_ALWAYS, *_CONTENT),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def upload(
    sha256: Annotated[Sha256, Path(description="SHA-256 of the file.")],
    name: DatasetName,
    filename: Filename,
    user: User,
    context: InContext,
    request: Request,
    response: Response,
) -> StoredDataset:
    """Answered at once, without reading the body, where the project has the content: sending it
    again is safe.
    """
    same = await run_in_threadpool(
        service.find_same, context, user.project_id, name=name, sha256=sha256
    )
    if same is not None:
        response.status_code = 200
        return same
    settings = context.settings
    root = incoming_folder(settings, context.store)
    with receiving(root, filename, limit_bytes=settings.max_upload_bytes) as incoming:
        await _receive(request, incoming)
        dataset, is_new = await run_in_threadpool(
            service.keep, context, user.project_id, incoming, name=name, sha256=sha256
        )
    response.status_code = 201 if is_new else 200
    return dataset


async def _receive(request: Request, incoming: Incoming) -> None:
    buffer = bytearray()
    async for chunk in request.stream():
        buffer += chunk
        if len(buffer) >= WRITE_BYTES:
            await run_in_threadpool(incoming.write, bytes(buffer))
            buffer.clear()
    await run_in_threadpool(incoming.write, bytes(buffer))


@router.post(
    "/datasets",
    status_code=201,
    summary="Register a dataset that lies at a URL",
    responses=_THERE | problems.responses(*_ALWAYS, *_CONTENT),
)
def register(
    body: Annotated[RegisterDataset, Body(examples=_EXAMPLES)],
    user: User,
    context: InContext,
    response: Response,
) -> StoredDataset:
    dataset, is_new = service.register(context, user.project_id, body)
    response.status_code = 201 if is_new else 200
    return dataset


@router.get(
    "/datasets", summary="List datasets, newest first", responses=problems.responses(*_ALWAYS)
)
def list_datasets(
    user: User,
    session: Reading,
    cursor: Annotated[str | None, Query(pattern=r"^dst_[0-9a-z]{26}$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Page[StoredDataset]:
    rows = repository.page(session, user.project_id, before=cursor, limit=limit + 1)
    items = [service.to_wire(row) for row in rows[:limit]]
    return Page(items=items, next_cursor=items[-1].id if len(rows) > limit else None)


@router.get(
    "/datasets/{dataset}",
    summary="Shapes, classes and counts of a dataset",
    responses=problems.responses(*_ALWAYS, NotFoundError),
)
def show(dataset: Reference, user: User, session: Reading) -> StoredDataset:
    return service.to_wire(service.find(session, user.project_id, dataset))


@router.get(
    "/datasets/{dataset}/thumbnails/{number}",
    summary="A picture of a sample",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
        **problems.responses(*_ALWAYS, NotFoundError, errors.StorageError),
    },
)
def thumbnail(
    dataset: Reference,
    number: Annotated[int, Path(ge=0, le=7)],
    user: User,
    session: Reading,
    context: InContext,
) -> Response:
    content = service.thumbnail(session, context, user.project_id, dataset, number)
    return Response(
        content, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"}
    )


@router.delete(
    "/datasets/{dataset}",
    status_code=204,
    summary="Delete a dataset that no unfinished job uses",
    responses=problems.responses(*_ALWAYS, NotFoundError, ConflictError, errors.StorageError),
)
def delete(dataset: Reference, user: User, session: Writing, context: InContext) -> None:
    service.delete(session, context, user.project_id, dataset)
