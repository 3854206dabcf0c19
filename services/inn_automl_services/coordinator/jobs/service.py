"""Use cases of jobs: submit, extend, discretize, cancel, retry, delete, list."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from inn_automl.api import jobs as wire
from inn_automl.api.base import Page
from inn_automl.api.jobs import ENDED, JobKind, JobState
from inn_automl.core.allowed_models import check_allowed
from inn_automl.core.errors import ConflictError, IdempotencyError, InputError, NotFoundError
from inn_automl.core.object_store import ObjectStore
from inn_automl.core.spec import JobSpec, parse
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.db.tables import JobRow
from inn_automl_services.coordinator.jobs import repository, resolution, transitions
from inn_automl_services.coordinator.jobs.lifecycle import CancelRequested, RetryRequested
from inn_automl_services.coordinator.keys import Caller
from inn_automl_services.coordinator.settings import Settings


def find(session: Session, caller: Caller, job_id: str, *, lock: bool = False) -> JobRow:
    """A job of the caller's project.

    Raises:
        NotFoundError: there is none of that id.
    """
    job = repository.find(session, caller.project_id, job_id, lock=lock)
    if job is None:
        raise NotFoundError(
            f"the project {caller.project!r} has no job {job_id!r}: GET /v1/jobs lists them."
        )
    return job


def submit(
    session: Session, settings: Settings, caller: Caller, request: wire.SubmitJob, key: str | None
) -> tuple[JobRow, bool]:
    """Queues a job. Returns it, and False if the same idempotency key made it before.

    Raises:
        SpecError: the spec names something unknown, or cannot be met.
        IdempotencyError: the key was used for another request.
    """

    def make() -> JobRow:
        check_allowed(request.spec, settings.allowed_models)
        spec, dataset_id = resolution.resolve(session, caller.project_id, request.spec)
        return _new_job(
            settings,
            caller,
            JobKind.SEARCH,
            spec,
            dataset_id,
            name=request.name,
            priority=request.priority,
        )

    return _make_once(session, caller, key, _request_hash(JobKind.SEARCH, None, request), make)


def extend(
    session: Session,
    settings: Settings,
    caller: Caller,
    parent_id: str,
    request: wire.ExtendJob,
    key: str | None,
) -> tuple[JobRow, bool]:
    """Queues a search for other devices or bounds with a finished job's network.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: it has not succeeded, has no network, or its dataset was deleted.
        SpecError: the devices cannot be served.
        IdempotencyError: the key was used for another request.
    """

    def make() -> JobRow:
        parent = _trained_job(session, caller, parent_id)
        spec = parse(JobSpec, _with_budget(parent.spec, request), where="the extension")
        devices = resolution.resolve_devices(session, caller.project_id, spec.budget.devices)
        spec = spec.model_copy(
            update={"budget": spec.budget.model_copy(update={"devices": devices})}
        )
        dataset_id = _dataset_of(session, caller, parent)
        return _new_job(
            settings,
            caller,
            JobKind.EXTEND,
            spec,
            dataset_id,
            name=request.name,
            priority=request.priority,
            parent=parent,
        )

    return _make_once(session, caller, key, _request_hash(JobKind.EXTEND, parent_id, request), make)


def discretize(
    session: Session,
    settings: Settings,
    caller: Caller,
    parent_id: str,
    request: wire.DiscretizeJob,
    key: str | None,
) -> tuple[JobRow, bool]:
    """Queues one more model of a finished job's network.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: it has not succeeded, has no network, or its dataset was deleted.
        WidthsError: a coupled group is missing or unknown.
        IdempotencyError: the key was used for another request.
    """

    def make() -> JobRow:
        parent = _trained_job(session, caller, parent_id)
        if request.widths is not None:
            resolution.check_widths(session, parent, request.widths)
        spec, dataset_id = JobSpec.model_validate(parent.spec), _dataset_of(session, caller, parent)
        job = _new_job(
            settings,
            caller,
            JobKind.DISCRETIZE,
            spec,
            dataset_id,
            name=None,
            priority=0,
            parent=parent,
        )
        job.widths = request.model_dump(mode="json")
        return job

    return _make_once(
        session, caller, key, _request_hash(JobKind.DISCRETIZE, parent_id, request), make
    )


def cancel(session: Session, caller: Caller, job_id: str) -> JobRow:
    """Cancels a job that has not ended; a second cancellation changes nothing.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: it has succeeded or failed.
    """
    job = find(session, caller, job_id, lock=True)
    transitions.apply(session, job, CancelRequested())
    return job


def retry(session: Session, caller: Caller, job_id: str) -> JobRow:
    """Queues a failed or cancelled job again; it continues from its last stage or checkpoint.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: it did not fail and was not cancelled, or its dataset was deleted.
    """
    job = find(session, caller, job_id, lock=True)
    transitions.apply(session, job, RetryRequested())
    job.dataset_id = _dataset_of(session, caller, job)
    return job


def delete(session: Session, store: ObjectStore, caller: Caller, job_id: str) -> None:
    """Deletes an ended job with all its files.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: it has not ended, or other jobs were made from it.
        StorageError: its files could not be deleted; the job stays and can be deleted again.
    """
    job = find(session, caller, job_id, lock=True)
    if job.state not in ENDED:
        raise ConflictError(
            f"the job is {job.state}: cancel it first, only ended jobs can be deleted."
        )
    child = repository.first_child(session, job.id)
    if child is not None:
        raise ConflictError(f"the job {child} was made from this one: delete that one first.")
    session.delete(job)
    session.flush()
    # Before the commit: if it fails, the row is still there to try again with.
    store.delete(f"jobs/{job.id}")


def page(
    session: Session,
    caller: Caller,
    *,
    state: JobState | None,
    kind: JobKind | None,
    cursor: str | None,
    limit: int,
) -> Page[wire.JobSummary]:
    """Jobs of the caller's project, newest first."""
    found = repository.page(
        session,
        caller.project_id,
        state=state and state.value,
        kind=kind and kind.value,
        before=cursor,
        limit=limit + 1,
    )
    items = [_summary(row) for row in found[:limit]]
    return Page(items=items, next_cursor=items[-1].id if len(found) > limit else None)


def to_wire(job: JobRow, settings: Settings) -> wire.Job:
    """The answer that shows a job."""
    mlflow = settings.mlflow_public_url or settings.mlflow_url
    return wire.Job(
        id=job.id,
        name=job.name,
        kind=JobKind(job.kind),
        parent_id=job.parent_id,
        state=JobState(job.state),
        spec=JobSpec.model_validate(job.spec),
        priority=job.priority,
        widths=wire.DiscretizeJob.model_validate(job.widths) if job.widths else None,
        progress=wire.JobProgress.model_validate(job.progress) if job.progress else None,
        cost=wire.JobCost(
            **{
                name: job.cost_before.get(name, 0.0) + job.cost.get(name, 0.0)
                for name in wire.JobCost.model_fields
            }
        ),
        error=wire.JobError.model_validate(job.error) if job.error else None,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        notes=job.notes,
        mlflow_url=f"{mlflow.rstrip('/')}{job.mlflow_page}" if mlflow and job.mlflow_page else None,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _summary(row: Any) -> wire.JobSummary:
    progress = row.progress or {}
    return wire.JobSummary(
        id=row.id,
        name=row.name,
        kind=JobKind(row.kind),
        parent_id=row.parent_id,
        state=JobState(row.state),
        dataset=row.spec["dataset"],
        devices=[device["name"] for device in row.spec["budget"]["devices"]],
        stage=progress.get("stage"),
        fraction=progress.get("fraction", 0.0),
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def _make_once(
    session: Session, caller: Caller, key: str | None, request_hash: str, make: Callable[[], JobRow]
) -> tuple[JobRow, bool]:
    """The job of a request, made at most once for each idempotency key."""
    if key is not None and (
        known := repository.find_by_idempotency_key(session, caller.project_id, key)
    ):
        return _same_request(known, request_hash), False
    job = make()
    job.idempotency_key, job.request_hash = key, request_hash
    try:
        with session.begin_nested():
            session.add(job)
    except IntegrityError:
        # Another transaction committed meanwhile: the same request, or a deletion of the job or
        # dataset that this one refers to.
        if key is not None and (
            known := repository.find_by_idempotency_key(session, caller.project_id, key)
        ):
            return _same_request(known, request_hash), False
        raise ConflictError(
            "the job or the dataset that it needs was deleted just now: name another one."
        ) from None
    transitions.add_event(session, job, "state", {"state": job.state, "attempt": 0})
    return job, True


def _same_request(job: JobRow, request_hash: str) -> JobRow:
    if job.request_hash != request_hash:
        raise IdempotencyError(
            f"the Idempotency-Key {job.idempotency_key!r} was used for another request, which made "
            f"the job {job.id}: "
            "send each request with a key of its own."
        )
    return job


def _request_hash(kind: JobKind, parent_id: str | None, request: BaseModel) -> str:
    text = json.dumps([kind.value, parent_id, request.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _new_job(
    settings: Settings,
    caller: Caller,
    kind: JobKind,
    spec: JobSpec,
    dataset_id: str | None,
    *,
    name: str | None,
    priority: int,
    parent: JobRow | None = None,
) -> JobRow:
    job_id, instant = new_id("job"), now()
    return JobRow(
        id=job_id,
        project_id=caller.project_id,
        name=name,
        kind=kind.value,
        parent_id=parent.id if parent else None,
        dataset_id=dataset_id,
        spec=spec.model_dump(mode="json"),
        widths=None,
        state=JobState.QUEUED.value,
        priority=priority,
        queue_position=job_id,
        available_at=instant,
        attempt=0,
        max_attempts=settings.max_attempts,
        progress=None,
        cost_before={},
        cost={},
        notes=[],
        error=None,
        created_at=instant,
    )


def _trained_job(session: Session, caller: Caller, job_id: str) -> JobRow:
    """A succeeded job, which has a trained network."""
    job = find(session, caller, job_id)
    if job.kind == JobKind.DISCRETIZE:
        raise ConflictError(
            f"the job {job_id} only made a model of the network of {job.parent_id}: name that job."
        )
    if job.state != JobState.SUCCEEDED:
        raise ConflictError(
            f"the job {job_id} is {job.state}: only one that has succeeded has a network."
        )
    return job


def _with_budget(spec: dict[str, Any], request: wire.ExtendJob) -> dict[str, Any]:
    changed = request.model_dump(mode="json", include={"devices", "search"})
    return {**spec, "budget": {**spec["budget"], **changed}}


def _dataset_of(session: Session, caller: Caller, job: JobRow) -> str | None:
    """Id of the dataset that a job was made with, or else of the dataset that has its name now. The
    worker compares the content.
    """
    if job.dataset_id is not None:
        return job.dataset_id
    try:
        return resolution.dataset_id_of(session, caller.project_id, job.spec["dataset"])
    except InputError:
        raise ConflictError(
            f"the dataset {job.spec['dataset']!r} of the job was deleted: upload the same data "
            f"under that name first."
        ) from None
