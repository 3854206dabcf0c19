"""Failures of a run, as reported to the coordinator."""

from __future__ import annotations

import errno

from inn_automl.api.runs import RunFailure
from inn_automl.core.errors import (
    BackendError,
    ConnectionLostError,
    InnAutomlError,
    StorageError,
)
from inn_automl_workers.reporter import Reporter, printable

PASSING = (BackendError, ConnectionLostError, StorageError)
"""Errors of machines, networks and disks: another attempt may succeed."""
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def failure_of(error: BaseException, reporter: Reporter) -> RunFailure:
    """The failure of a run that raised: its code, and whether another attempt may succeed.

    Bad input and diverged training stay what they are; machines and disks may recover.
    """
    if isinstance(error, InnAutomlError):
        code, detail, retryable = error.code, str(error), isinstance(error, PASSING)
    elif isinstance(error, OSError) and error.errno in _DISK_FULL:
        code, retryable = StorageError.code, True
        detail = f"no room is left ({error}): free some and retry."
    else:
        code, retryable = InnAutomlError.code, True
        detail = (
            f"this should not happen ({type(error).__name__}: {error}); the job's log has the "
            f"traceback."
        )
    return RunFailure(
        code=code, detail=printable(detail), retryable=retryable, cost=reporter.cost()
    )
