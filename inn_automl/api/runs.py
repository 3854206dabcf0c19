"""A run: one attempt of a worker at a job, authenticated by a lease token that a later attempt
replaces.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from inn_automl.api.base import Sha256, Text, WireModel
from inn_automl.api.jobs import DiscretizeJob, JobCost, JobKind, JobProgress
from inn_automl.core.result import JobResult
from inn_automl.core.spec import JobSpec


class RunAssignment(WireModel):
    """All that a worker needs to know."""

    job_id: str
    attempt: int
    kind: JobKind
    spec: JobSpec
    """Spec of the job. Its dataset is a built-in name, or `dataset_url` is given."""
    widths: DiscretizeJob | None = None
    storage_url: str
    """Folder of the job: what an earlier attempt left there is continued."""
    parent_storage_url: str | None = None
    dataset_url: str | None = None
    dataset_sha256: Sha256 | None = None
    dataset_filename: str | None = None
    project: str
    mlflow_uri: str | None
    heartbeat_s: float
    """Report at least this often."""


class RunHeartbeat(WireModel):
    progress: JobProgress | None = None
    notes: Annotated[list[Text], Field(max_length=100)] = Field(default_factory=list)
    """New ones since the last heartbeat."""
    cost: JobCost = JobCost()
    """Cost of this attempt so far."""


class RunAnswer(WireModel):
    cancel: bool
    """The job is to stop now; its worker ends without a report."""


class Artifact(WireModel):
    """A file of the job's storage that users may download."""

    path: Annotated[str, Field(min_length=1, max_length=1024)]
    """Relative to the job's storage."""
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]


class RunResult(WireModel):
    result: JobResult | None
    """Result of the job; null for a discretization, whose only outcome is its bundle."""
    artifacts: list[Artifact]
    cost: JobCost = JobCost()
    mlflow_page: Annotated[str, Field(max_length=1024)] | None = None
    """Page of the job in MLflow's UI, as a path below the server's address."""


class RunFailure(WireModel):
    code: Annotated[str, Field(min_length=1, max_length=64)]
    detail: Text
    retryable: bool
    """True if another attempt may succeed: after a lost machine or a full disk, but not after a
    diverged training or bad input.
    """
    cost: JobCost = JobCost()
