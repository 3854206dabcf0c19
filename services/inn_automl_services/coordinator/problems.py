"""Answers to errors: every error of ours has an entry in the catalog, with a status and a title.

Bodies are `application/problem+json` (RFC 9457). An unforeseen error is a 500 that gives the
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
from inn_automl.core.errors import RangeError, RateLimitError, UnavailableError
from inn_automl.core.spec import parse

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """Answer to one kind of error."""

    status: int
    code: str
    title: str


_ANSWERS: dict[type[errors.InnAutomlError], tuple[int, str]] = {
    errors.InnAutomlError: (500, "Internal error"),
    errors.InputError: (422, "Invalid input"),
    errors.SpecError: (422, "Invalid spec"),
    errors.UnknownNameError: (422, "Unknown name"),
    errors.ImpossibleBudgetError: (422, "Impossible budget"),
    errors.DatasetError: (422, "Dataset cannot be used"),
    errors.DatasetNotFoundError: (422, "Dataset not found"),
    errors.DatasetFormatError: (422, "Dataset cannot be read"),
    errors.DatasetTooSmallError: (422, "Dataset too small"),
    errors.UnsafeArchiveError: (422, "Unsafe archive"),
    errors.WidthsError: (422, "Invalid widths"),
    errors.ModuleError: (422, "Invalid module"),
    errors.JobDirectoryError: (409, "Folder of another job"),
    errors.TrainingError: (500, "Training failed"),
    errors.NotLearnedError: (422, "Nothing was learned"),
    errors.ExportError: (500, "Export failed"),
    errors.VerificationError: (500, "Verification failed"),
    errors.MeasurementError: (422, "Measurement failed"),
    errors.BackendError: (503, "Workers failed"),
    errors.RunLostError: (503, "Run lost"),
    errors.RunNotStartedError: (503, "Run not started"),
    errors.RunSilentError: (503, "Run silent"),
    errors.StorageError: (503, "Storage failed"),
    errors.CorruptFileError: (503, "Corrupt file"),
    errors.ServiceError: (502, "Service failed"),
    errors.RefusedError: (400, "Refused"),
    errors.InvalidRequestError: (422, "Invalid request"),
    errors.NoServerError: (400, "No server"),
    errors.AuthenticationError: (401, "No valid key"),
    errors.ForbiddenError: (403, "Not allowed"),
    errors.NotFoundError: (404, "Not found"),
    errors.ConflictError: (409, "Conflict"),
    errors.IdempotencyError: (409, "Idempotency key used for another request"),
    errors.StaleLeaseError: (409, "Lease lost"),
    errors.GoneError: (410, "Gone"),
    errors.TooLargeError: (413, "Too large"),
    errors.RangeError: (416, "Range not satisfiable"),
    errors.RateLimitError: (429, "Too many requests"),
    errors.UnavailableError: (503, "Unavailable"),
    errors.ConnectionLostError: (504, "Connection lost"),
    errors.JobEndedError: (409, "Job ended"),
}

CATALOG: dict[type[errors.InnAutomlError], Entry] = {
    kind: Entry(status, kind.code, title) for kind, (status, title) in _ANSWERS.items()
}
"""Answer of every class of `inn_automl.core.errors`, under the class's own code."""

HTTP_CODES = {
    404: errors.NotFoundError.code,
    405: "method_not_allowed",
    413: errors.TooLargeError.code,
}


def entry_of(error: BaseException) -> Entry:
    """The catalog's entry of an error's nearest class."""
    return next(CATALOG[kind] for kind in type(error).__mro__ if kind in CATALOG)


def problem_response(
    request: Request,
    entry: Entry,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """The answer to one error."""
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


def responses(*kinds: type[errors.InnAutomlError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that may raise these errors, for the OpenAPI document."""
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
    """Makes every error of the application a problem document."""
    app.exception_handler(errors.InnAutomlError)(_answer_error)
    app.exception_handler(RequestValidationError)(_answer_invalid_request)
    app.exception_handler(HTTPException)(_answer_http_error)
    app.exception_handler(OperationalError)(_answer_database_error)
    app.exception_handler(Exception)(_answer_unforeseen)


async def _answer_error(request: Request, error: errors.InnAutomlError) -> JSONResponse:
    entry = entry_of(error)
    if entry.status >= 500:
        logger.exception("%s %s failed", request.method, request.url.path)
    headers = {"WWW-Authenticate": "Bearer"} if entry.status == 401 else {}
    if isinstance(error, RateLimitError | UnavailableError):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, RangeError):
        headers["Content-Range"] = f"bytes */{error.size_bytes}"
    return problem_response(request, entry, str(error), headers=headers)


async def _answer_invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
    details = [
        {"loc": list(entry["loc"]), "msg": entry["msg"], "type": entry["type"]}
        for entry in error.errors()
    ]
    location = ".".join(str(part) for part in details[0]["loc"])
    detail = _explanation(request, error) or f"{location}: {details[0]['msg']}"
    return problem_response(
        request,
        CATALOG[errors.InvalidRequestError],
        _printable(detail),
        errors=_printable(details),
    )


async def _answer_http_error(request: Request, error: HTTPException) -> JSONResponse:
    # FastAPI's answer to a body that is no text, or has integers of thousands of digits.
    if error.status_code == 400:
        return problem_response(
            request,
            CATALOG[errors.InvalidRequestError],
            "the body cannot be read: send JSON in UTF-8.",
        )
    code = HTTP_CODES.get(error.status_code, "http_error")
    entry = Entry(error.status_code, code, str(error.detail))
    detail = f"{request.method} {request.url.path}: {error.detail}. See /docs for what there is."
    return problem_response(request, entry, detail, headers=dict(error.headers or {}))


async def _answer_database_error(request: Request, error: OperationalError) -> JSONResponse:
    logger.warning("the database failed: %s", error)
    detail = "the database cannot be reached right now: try again in a few seconds."
    return problem_response(
        request, CATALOG[UnavailableError], detail, headers={"Retry-After": "2"}
    )


async def _answer_unforeseen(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return await _answer_database_error(request, error)  # type: ignore[arg-type]
    logger.exception("%s %s failed", request.method, request.url.path)
    detail = (
        f"this should not happen ({type(error).__name__}); the coordinator's log has the "
        f"request's id."
    )
    return problem_response(request, CATALOG[errors.InnAutomlError], detail)


def _explanation(request: Request, error: RequestValidationError) -> str | None:
    """The first thing to correct in a JSON body, in the words of the command line: an unknown key
    with the nearest known one.
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
    """Replaces characters that JSON cannot say: lone surrogates must not be in our answer."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return value
