"""What can go wrong between a client and the service.

InnAutomlError
└── ServiceError (RuntimeError)               the service answered with a fault
    ├── RefusedError (InputError)             it refuses the request: the input, the key, or the
    state of a job ├── ConnectionLostError                   it cannot be reached, or the
    connection broke too often └── JobEndedError                         a job that was waited for
    ended without success
"""

from __future__ import annotations

import httpx

from inn_automl.api.problems import Problem
from inn_automl.core.errors import InnAutomlError, InputError

_REFUSALS = range(400, 500)
_NOT_THE_CALLERS_FAULT = {408, 425, 429}


class ServiceError(InnAutomlError, RuntimeError):
    """The service answered with a fault.

    Args:
        code: stable, for programs; `inn_automl.api.problems.Problem.code`.
        status: HTTP status; None where there was no answer.
        request_id: what the service's logs know the request by.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "service",
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.status, self.request_id = code, status, request_id


class RefusedError(ServiceError, InputError):
    """The service refuses the request: the input, the key, or the state of a job; nothing was
    spent.
    """


class ConnectionLostError(ServiceError):
    """The service cannot be reached, or the connection broke too often."""


class JobEndedError(ServiceError):
    """A job that was waited for ended without success."""


def error_of(response: httpx.Response) -> ServiceError:
    """The exception for an answer of status 400 or above, whose body has been read."""
    status, code, request_id = response.status_code, f"http_{response.status_code}", None
    detail = f"{response.request.url} answered {status} {response.reason_phrase}: check that the URL is a coordinator's."
    try:
        problem = Problem.model_validate_json(response.content)
    except ValueError:
        pass
    else:
        detail, code, request_id = problem.detail, problem.code, problem.request_id
    if status in _REFUSALS and status not in _NOT_THE_CALLERS_FAULT:
        return RefusedError(detail, code=code, status=status, request_id=request_id)
    if status >= 500 and request_id:
        detail = f"{detail} (request {request_id})"
    return ServiceError(detail, code=code, status=status, request_id=request_id)
