"""Faults that only a server has.

InnAutomlError
├── AuthenticationError (PermissionError)   no key, an unknown or a revoked one
├── ForbiddenError (PermissionError)        the key's role or project does not allow it
├── NotFoundError (LookupError)             nothing of that name in the key's project
├── ConflictError                           not in the state that it is in
│   ├── IdempotencyError                    the Idempotency-Key was used for another request
│   └── StaleLeaseError                     the lease was given to somebody else or has ended
├── GoneError                               was there, and was deleted
├── TooLargeError                           more bytes than the limit
├── RangeError                              a byte range that the file does not have
├── RateLimitError                          more requests than the limit
└── UnavailableError                        something that the coordinator stands on is away
"""

from __future__ import annotations

from inn_automl.core.errors import InnAutomlError


class AuthenticationError(InnAutomlError, PermissionError):
    """No key, an unknown or a revoked one."""


class ForbiddenError(InnAutomlError, PermissionError):
    """The key's role or project does not allow it."""


class NotFoundError(InnAutomlError, LookupError):
    """Nothing of that name in the key's project."""


class ConflictError(InnAutomlError):
    """Not possible in the state that it is in."""


class IdempotencyError(ConflictError):
    """The Idempotency-Key was used for another request."""


class StaleLeaseError(ConflictError):
    """The lease was given to somebody else or has ended."""


class GoneError(InnAutomlError):
    """Was there, and was deleted."""


class TooLargeError(InnAutomlError):
    """More bytes than the limit."""


class RangeError(InnAutomlError):
    """A byte range that the file does not have."""

    def __init__(self, message: str, *, size_bytes: int) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes


class RateLimitError(InnAutomlError):
    """More requests than the limit."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(InnAutomlError):
    """Something that the coordinator stands on is away."""

    retry_after_s = 5
