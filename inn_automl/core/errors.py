"""Every error that inn_automl raises on purpose, with its code::

    InnAutomlError                                      internal
    ├── InputError (ValueError)                         invalid
    │   ├── SpecError                                   invalid_spec
    │   │   ├── UnknownNameError                        unknown_name
    │   │   └── ImpossibleBudgetError                   impossible_budget
    │   ├── DatasetError                                invalid_dataset
    │   │   ├── DatasetNotFoundError (FileNotFoundError)    dataset_not_found
    │   │   ├── DatasetFormatError                      dataset_format
    │   │   ├── DatasetTooSmallError                    dataset_too_small
    │   │   └── UnsafeArchiveError                      unsafe_archive
    │   ├── WidthsError                                 invalid_widths
    │   ├── ModuleError                                 invalid_module
    │   └── JobDirectoryError                           job_directory
    ├── TrainingError (RuntimeError)                    training_failed
    │   └── NotLearnedError                             not_learned
    ├── ExportError (RuntimeError)                      export_failed
    │   └── VerificationError                           verification_failed
    ├── MeasurementError (RuntimeError)                 measurement_failed
    ├── BackendError (RuntimeError)                     backend_failed
    │   └── RunLostError                                run_lost
    │       ├── RunNotStartedError                      not_started
    │       └── RunSilentError                          run_silent
    ├── StorageError (OSError)                          storage_failed
    │   └── CorruptFileError                            corrupt_file
    └── ServiceError (RuntimeError)                     service_failed
        ├── RefusedError                                refused (an InputError, too)
        │   ├── InvalidRequestError                     invalid_request
        │   ├── NoServerError                           no_server
        │   ├── AuthenticationError (PermissionError)   unauthenticated
        │   ├── ForbiddenError (PermissionError)        forbidden
        │   ├── NotFoundError (LookupError)             not_found
        │   ├── ConflictError                           conflict
        │   │   ├── IdempotencyError                    idempotency_mismatch
        │   │   └── StaleLeaseError                     stale_lease
        │   ├── GoneError                               gone
        │   ├── TooLargeError                           too_large
        │   └── RangeError                              range_not_satisfiable
        ├── RateLimitError                              rate_limited
        ├── UnavailableError                            unavailable
        ├── ConnectionLostError (ConnectionError)       connection_lost
        └── JobEndedError                               job_ended

A code is stable and for programs. The coordinator answers with it, a failed job carries it, the
command line prints it with `--json`, and the client raises the class of that code again. A message
is for people: it names the error, the value and the hint, in one sentence where it can.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Self

_MAX_LISTED = 60
"""Known names that a message lists; of more it gives the nearest ones."""
_NUM_NEAREST = 4


class InnAutomlError(Exception):
    """Root of the tree.

    Attributes:
        code: stable, for programs. Each class has one of its own; only an error that passes on the
            code of somebody else (`JobEndedError`, an answer of a newer server) sets another.
        status: HTTP status of the answer that carried the error; None if it was raised here.
        request_id: id of that request in the service's logs.
    """

    code: str = "internal"
    status: int | None = None
    request_id: str | None = None

    @classmethod
    def from_message(cls, message: str) -> Self:
        """Makes an error of this class that says `message`, whatever its constructor takes."""
        # An OSError has a layout of its own; Python would look up __new__ at another base.
        new = OSError.__new__ if issubclass(cls, OSError) else Exception.__new__
        error = new(cls, message)
        error.args = (message,)
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross processes whatever their constructors take."""
        return _restore, (type(self), str(self)), self.__dict__


def _restore(kind: type[InnAutomlError], message: str) -> InnAutomlError:
    return kind.from_message(message)


class InputError(InnAutomlError, ValueError):
    """The caller's input is wrong; nothing was spent. The command line exits with 2."""

    code = "invalid"


class SpecError(InputError):
    """A key or a value of a job spec or budget is wrong."""

    code = "invalid_spec"


class UnknownNameError(SpecError):
    """A name that is not registered.

    Args:
        kind: what the name should have been, e.g. `"model"`.
        name: the name that was given.
        known: the registered names; the nearest one is put into the message.
        where: the source that the name was read from, e.g. a file and a key.
    """

    code = "unknown_name"

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        self.kind, self.name, self.known, self.where = kind, name, sorted(known), where
        nearest = difflib.get_close_matches(name, self.known, n=_NUM_NEAREST, cutoff=0.5)
        source = f" in {where}" if where else ""
        hint = f"did you mean {nearest[0]!r}? Known" if nearest else "known"
        listed = f"are {', '.join(self.known)}" if self.known else "is none"
        if len(self.known) > _MAX_LISTED:
            listed = f"are {len(self.known)}"
            if nearest[1:]:
                listed += f", also {', '.join(nearest[1:])}"
        super().__init__(f"unknown {kind} {name!r}{source}: {hint} {listed}.")


class ImpossibleBudgetError(SpecError):
    """No network of the model family can meet a bound; the message says the reachable range."""

    code = "impossible_budget"


class DatasetError(InputError):
    """A dataset cannot be used."""

    code = "invalid_dataset"


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """There is no dataset at the path, nor a built-in one of that name."""

    code = "dataset_not_found"


class DatasetFormatError(DatasetError):
    """A dataset is unreadable, inconsistent, or holds something other than finite numbers."""

    code = "dataset_format"


class DatasetTooSmallError(DatasetError):
    """A class has fewer samples than the splits need, or there is one class only."""

    code = "dataset_too_small"


class UnsafeArchiveError(DatasetError):
    """An archive leaves its folder or expands beyond the limit."""

    code = "unsafe_archive"


class WidthsError(InputError):
    """Widths outside of what a coupled group allows."""

    code = "invalid_widths"


class ModuleError(InputError):
    """A torch module cannot become an integral network."""

    code = "invalid_module"


class JobDirectoryError(InputError):
    """An output folder belongs to another job."""

    code = "job_directory"


class TrainingError(InnAutomlError, RuntimeError):
    """Training diverged or could not go on."""

    code = "training_failed"


class NotLearnedError(TrainingError):
    """A trained network is no better than a prediction without training: nothing is searched."""

    code = "not_learned"


class ExportError(InnAutomlError, RuntimeError):
    """A model could not be written as ONNX."""

    code = "export_failed"


class VerificationError(ExportError):
    """The exported model does not compute what the torch model computes."""

    code = "verification_failed"


class MeasurementError(InnAutomlError, RuntimeError):
    """A latency could not be measured."""

    code = "measurement_failed"


class BackendError(InnAutomlError, RuntimeError):
    """The workers could not do what was requested."""

    code = "backend_failed"


class RunLostError(BackendError):
    """A job's run ended without a result."""

    code = "run_lost"


class RunNotStartedError(RunLostError):
    """A job's run could not be started."""

    code = "not_started"


class RunSilentError(RunLostError):
    """A job's run sent no heartbeat until its lease expired."""

    code = "run_silent"


class StorageError(InnAutomlError, OSError):
    """A file could not be written or read back whole."""

    code = "storage_failed"


class CorruptFileError(StorageError):
    """A file's content does not match its hash or format."""

    code = "corrupt_file"


class ServiceError(InnAutomlError, RuntimeError):
    """The service failed, or its answer is not one of a coordinator."""

    code = "service_failed"


class RefusedError(ServiceError, InputError):
    """The service refuses a request (HTTP 4xx): the input, the key, or the state of a job."""

    code = "refused"


class InvalidRequestError(RefusedError):
    """A request's body or parameters do not fit the API."""

    code = "invalid_request"


class NoServerError(RefusedError):
    """No service is configured, or its address is no URL."""

    code = "no_server"


class AuthenticationError(RefusedError, PermissionError):
    """No key, an unknown or a revoked one."""

    code = "unauthenticated"


class ForbiddenError(RefusedError, PermissionError):
    """The key's role or project does not allow the request."""

    code = "forbidden"


class NotFoundError(RefusedError, LookupError):
    """No resource of that name is in the key's project."""

    code = "not_found"


class ConflictError(RefusedError):
    """The request is not possible in the present state of a resource."""

    code = "conflict"


class IdempotencyError(ConflictError):
    """The Idempotency-Key was used for another request."""

    code = "idempotency_mismatch"


class StaleLeaseError(ConflictError):
    """The lease was given to another holder, or has ended."""

    code = "stale_lease"


class GoneError(RefusedError):
    """The resource was deleted."""

    code = "gone"


class TooLargeError(RefusedError):
    """The body has more bytes than the limit."""

    code = "too_large"


class RangeError(RefusedError):
    """A byte range that the file does not have.

    Args:
        size_bytes: of the file.
    """

    code = "range_not_satisfiable"
    size_bytes: int

    def __init__(self, message: str, *, size_bytes: int) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes


class RateLimitError(ServiceError):
    """The key sent more requests than the limit.

    Args:
        retry_after_s: seconds until the next request is accepted.
    """

    code = "rate_limited"
    retry_after_s: int

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(ServiceError):
    """Something that the coordinator stands on cannot be reached."""

    code = "unavailable"
    retry_after_s = 5


class ConnectionLostError(ServiceError, ConnectionError):
    """The service cannot be reached, or the connection broke too often."""

    code = "connection_lost"


class JobEndedError(ServiceError):
    """A job that was waited for ended without success.

    Args:
        code: of the job's own failure, e.g. `training_failed`.
    """

    code = "job_ended"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


def _with_subclasses(kind: type[InnAutomlError]) -> Iterable[type[InnAutomlError]]:
    if kind.__module__ == __name__:
        yield kind
        for subclass in kind.__subclasses__():
            yield from _with_subclasses(subclass)


BY_CODE: dict[str, type[InnAutomlError]] = {
    kind.code: kind for kind in _with_subclasses(InnAutomlError)
}
"""The class of each code."""
