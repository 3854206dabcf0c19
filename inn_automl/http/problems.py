"""Answers of status 400 or above as exceptions: the inverse of the coordinator's catalog."""

from __future__ import annotations

import httpx

from inn_automl.api.problems import Problem
from inn_automl.core.errors import (
    BY_CODE,
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InnAutomlError,
    NotFoundError,
    RangeError,
    RateLimitError,
    RefusedError,
    ServiceError,
    TooLargeError,
)

_FOREIGN = "http_"
"""Begins the code of an answer that is not a coordinator's."""
_BY_STATUS: dict[int, type[InnAutomlError]] = {
    401: AuthenticationError,
    403: ForbiddenError,
    404: NotFoundError,
    408: ServiceError,
    409: ConflictError,
    410: GoneError,
    413: TooLargeError,
    416: RangeError,
    425: ServiceError,
    429: RateLimitError,
}
"""Exception classes by status, for answers whose code is not one of ours."""


def problem_of(response: httpx.Response) -> Problem | None:
    """The problem document in an answer's body, which has been read; None if there is none."""
    try:
        return Problem.model_validate_json(response.content)
    except ValueError:
        return None


def is_coordinators(error: InnAutomlError) -> bool:
    """Return whether `error_of` found a coordinator's error in the answer, not a proxy's."""
    return not error.code.startswith(_FOREIGN)


def error_of(response: httpx.Response) -> InnAutomlError:
    """The exception for an answer of status 400 or above, whose body has been read.

    Its class is that of the answer's code; for a code that this version does not know, the class
    of the HTTP status, with the code that was answered.
    """
    status, problem = response.status_code, problem_of(response)
    if problem is None:
        error = _class_of(None, status).from_message(
            f"{response.request.url} answered {status} {response.reason_phrase}: check that the "
            f"URL is a coordinator's."
        )
        error.code = f"{_FOREIGN}{status}"
    else:
        detail = problem.detail
        if status >= 500 and problem.request_id:
            detail = f"{detail} (request {problem.request_id})"
        error = _class_of(problem.code, status).from_message(detail)
        error.request_id = problem.request_id
        if error.code != problem.code:
            error.code = problem.code
    error.status = status
    return error


def _class_of(code: str | None, status: int) -> type[InnAutomlError]:
    kind = BY_CODE.get(code or "")
    if kind is InnAutomlError:  # an internal error of the service, not of this process
        return ServiceError
    if kind is not None:
        return kind
    return _BY_STATUS.get(status, RefusedError if 400 <= status < 500 else ServiceError)
