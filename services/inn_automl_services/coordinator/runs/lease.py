"""The lease of a run: the token that a worker was started with, and that the next attempt
replaces.
"""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select
from sqlalchemy.orm import Session

from inn_automl.core.errors import AuthenticationError, StaleLeaseError
from inn_automl_services.coordinator.db.tables import JobRow
from inn_automl_services.coordinator.keys import hash_secret

_bearer = HTTPBearer(
    auto_error=False, scheme_name="LeaseToken", description="The lease token of a job's run."
)


def _lease_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    if credentials is None:
        raise AuthenticationError(
            "no lease token was given: send it as `Authorization: Bearer TOKEN`."
        )
    return credentials.credentials


LeaseToken = Annotated[str, Depends(_lease_token)]


def holding(session: Session, job_id: str, token: str, *, lock: bool = False) -> JobRow:
    """The job that a worker holds.

    Args:
        lock: keep others from changing the job until the transaction ends.

    Raises:
        StaleLeaseError: there is no such job, another attempt holds it, or it has ended.
    """
    query = select(JobRow).where(JobRow.id == job_id)
    job = session.execute(query.with_for_update() if lock else query).scalar_one_or_none()
    if job is None or not secrets.compare_digest(job.lease_token_hash or "", hash_secret(token)):
        raise StaleLeaseError(
            f"this run no longer holds the job {job_id}: another attempt does, or the job has "
            f"ended."
        )
    return job
