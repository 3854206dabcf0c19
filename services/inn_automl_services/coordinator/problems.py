"""How faults are answered: every error of ours has its entry in the catalog, a stable code and a
status.

Bodies are `application/problem+json` (RFC 9457). What nobody foresaw is a 500 that tells the
request's id and no more; its traceback is logged.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, OperationalError
from starlette.exceptions import HTTPException

from inn_automl.api.problems import MEDIA_TYPE, Problem
from inn_automl.core import errors
from inn_automl.core.spec import parse
from inn_automl_services.coordinator.errors import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    GoneError,
    IdempotencyError,
    NotFoundError,
    RangeError,
    RateLimitError,
    StaleLeaseError,
    TooLargeError,
    UnavailableError,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """How one kind of error is answered."""

    status: int
    code: str
    title: str


CATALOG: dict[type[Exception], Entry] = {
    errors.InnAutomlError: Entry(500, "internal", "Internal error"),
    errors.InputError: Entry(422, "invalid", "Invalid input"),
    errors.SpecError: Entry(422, "invalid_spec", "Invalid spec"),
    errors.UnknownNameError: Entry(422, "unknown_name", "Unknown name"),
    errors.ImpossibleBudgetError: Entry(422, "impossible_budget", "Impossible budget"),
    errors.DatasetError: Entry(422, "invalid_dataset", "Dataset cannot be used"),
    errors.DatasetNotFoundError: Entry(422, "dataset_not_found", "Dataset not found"),
    errors.DatasetFormatError: Entry(422, "dataset_format", "Dataset cannot be read"),
    errors.DatasetTooSmallError: Entry(422, "dataset_too_small", "Dataset too small"),
    errors.UnsafeArchiveError: Entry(422, "unsafe_archive", "Unsafe archive"),
    errors.WidthsError: Entry(422, "invalid_widths", "Invalid widths"),
    errors.ModuleError: Entry(422, "invalid_module", "Invalid module"),
    errors.JobDirectoryError: Entry(409, "job_directory", "Folder of another job"),
    errors.TrainingError: Entry(500, "training_failed", "Training failed"),
    errors.ExportError: Entry(500, "export_failed", "Export failed"),
    errors.VerificationError: Entry(500, "verification_failed", "Verification failed"),
    errors.MeasurementError: Entry(422, "measurement_failed", "Measurement failed"),
    errors.BackendError: Entry(503, "backend_failed", "Workers failed"),
    errors.StorageError: Entry(503, "storage_failed", "Storage failed"),
    errors.CorruptFileError: Entry(503, "corrupt_file", "Corrupt file"),
    AuthenticationError: Entry(401, "unauthenticated", "No valid key"),
    ForbiddenError: Entry(403, "forbidden", "Not allowed"),
    NotFoundError: Entry(404, "not_found", "Not found"),
    ConflictError: Entry(409, "conflict", "Conflict"),
    IdempotencyError: Entry(
        409, "idempotency_mismatch", "Idempotency key used for another request"
    ),
    StaleLeaseError: Entry(409, "stale_lease", "Lease lost"),
    GoneError: Entry(410, "gone", "Gone"),
    TooLargeError: Entry(413, "too_large", "Too large"),
    RangeError: Entry(416, "range_not_satisfiable", "Range not satisfiable"),
    RateLimitError: Entry(429, "rate_limited", "Too many requests"),
    UnavailableError: Entry(503, "unavailable", "Unavailable"),
}
"""Every class of `inn_automl.core.errors` and of `coordinator.errors`: a test says that none is missing."""

INVALID_REQUEST = Entry(422, "invalid_request", "Invalid request")
HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def entry_of(error: BaseException) -> Entry:
    """The catalog's entry of an error's nearest class."""
    return next(CATALOG[kind] for kind in type(error).__mro__ if kind in CATALOG)


def error_code(error: BaseException) -> str:
    return entry_of(error).code


def problem_response(
    request: Request,
    entry: Entry,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """The answer for one fault."""
    problem = Problem(
        type=f"urn:inn-automl:problem:{entry.code}",
        title=entry.title,
        status=entry.status,
        detail=detail,
        code=entry.code,
        request_id=getattr(request.state, "request_id", None),
        **more,
    )
    return JSONResponse(
        problem.model_dump(mode="json", exclude_none=True),
        entry.status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def responses(*kinds: type[Exception]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that may answer with these errors, for the OpenAPI document."""
    by_status: dict[int, list[Entry]] = {}
    for kind in kinds:
        by_status.setdefault(CATALOG[kind].status, []).append(CATALOG[kind])
    return {
        status: {
            "description": "; ".join(f"{entry.title} (`{entry.code}`)" for entry in entries),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, entries in by_status.items()
    }


def install(app: FastAPI) -> None:
    """Makes every fault of the application a problem document."""

    @app.exception_handler(errors.InnAutomlError)
    async def _ours(request: Request, error: errors.InnAutomlError) -> JSONResponse:
        entry = entry_of(error)
        if entry.status >= 500:
            logger.exception("%s %s failed", request.method, request.url.path)
        headers = {"WWW-Authenticate": "Bearer"} if entry.status == 401 else {}
        if isinstance(error, RateLimitError | UnavailableError):
            headers["Retry-After"] = str(error.retry_after_s)
        if isinstance(error, RangeError):
            headers["Content-Range"] = f"bytes */{error.size_bytes}"
        return problem_response(request, entry, str(error), headers=headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        details = [
            {"loc": list(entry["loc"]), "msg": entry["msg"], "type": entry["type"]}
            for entry in error.errors()
        ]
        location = ".".join(str(part) for part in details[0]["loc"])
        detail = _explanation(request, error) or f"{location}: {details[0]['msg']}"
        return problem_response(
            request, INVALID_REQUEST, _printable(detail), errors=_printable(details)
        )

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        if (
            error.status_code == 400
        ):  # FastAPI's answer to what is no text, or has integers of thousands of digits
            return problem_response(
                request, INVALID_REQUEST, "the body cannot be read: send JSON in UTF-8."
            )
        code = HTTP_CODES.get(error.status_code, "http_error")
        entry = Entry(error.status_code, code, str(error.detail))
        detail = (
            f"{request.method} {request.url.path}: {error.detail}. See /docs for what there is."
        )
        return problem_response(request, entry, detail, headers=dict(error.headers or {}))

    @app.exception_handler(OperationalError)
    async def _database(request: Request, error: OperationalError) -> JSONResponse:
        logger.warning("the database failed: %s", error)
        detail = "the database cannot be reached right now: try again in a few seconds."
        return problem_response(
            request, CATALOG[UnavailableError], detail, headers={"Retry-After": "2"}
        )

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return await _database(request, error)  # type: ignore[arg-type]
        logger.exception("%s %s failed", request.method, request.url.path)
        detail = f"this should not happen ({type(error).__name__}); the coordinator's log has the request's id."
        return problem_response(request, CATALOG[errors.InnAutomlError], detail)


def _explanation(request: Request, error: RequestValidationError) -> str | None:
    """What to correct first in a JSON body, in the words of the command line: an unknown key with
    the nearest one.
    """
    field = getattr(request.scope.get("route"), "body_field", None)
    model = field.field_info.annotation if field else None
    if not (
        isinstance(model, type) and issubclass(model, BaseModel) and isinstance(error.body, dict)
    ):
        return None
    try:
        parse(model, error.body, where="the request")
    except errors.SpecError as spec_error:
        return str(spec_error)
    return None


def _printable(value: Any) -> Any:
    """What JSON itself cannot say (a lone surrogate) must not come back in our own answer."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return value
