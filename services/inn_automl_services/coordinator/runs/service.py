"""Use cases of runs: their assignment, heartbeats, results and failures.

Everything is guarded by the lease token on the locked job.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.orm import Session

from inn_automl.api.jobs import DiscretizeJob, JobCost, JobError, JobKind, JobState
from inn_automl.api.runs import (
    Artifact,
    RunAnswer,
    RunAssignment,
    RunFailure,
    RunHeartbeat,
    RunResult,
)
from inn_automl.core.errors import InputError, StaleLeaseError
from inn_automl.core.object_store import ObjectStore
from inn_automl.core.spec import JobSpec
from inn_automl.core.stage import Stage
from inn_automl_services.coordinator import lease
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.db.storable import check_storable
from inn_automl_services.coordinator.db.tables import JobRow
from inn_automl_services.coordinator.jobs import transitions
from inn_automl_services.coordinator.jobs.lifecycle import (
    RunFailed,
    RunSucceeded,
    StageReached,
)
from inn_automl_services.coordinator.keys import hash_secret
from inn_automl_services.coordinator.runs import repository
from inn_automl_services.coordinator.settings import Settings


def leased_job(session: Session, job_id: str, token: str, *, lock: bool = False) -> JobRow:
    """The job that the holder of a lease token works on.

    Args:
        lock: keep others from changing the job until the transaction ends.

    Raises:
        StaleLeaseError: there is no such job, another attempt holds it, or it has ended.
    """
    job = repository.find(session, job_id, lock=lock)
    if job is None or not lease.is_holder(job, token):
        raise StaleLeaseError(
            f"this run no longer holds the job {job_id}: another attempt does, or the job has "
            f"ended."
        )
    return job


def job_folder(job_id: str) -> str:
    """Path of a job's files in the storage."""
    return f"jobs/{job_id}"


def order(session: Session, context: Context, job_id: str, token: str) -> RunAssignment:
    """Everything that the run needs to know."""
    job = leased_job(session, job_id, token)
    settings, dataset = context.settings, repository.dataset_of(session, job)
    return RunAssignment(
        job_id=job.id,
        attempt=job.attempt,
        kind=JobKind(job.kind),
        spec=JobSpec.model_validate(job.spec),
        widths=DiscretizeJob.model_validate(job.widths) if job.widths else None,
        storage_url=context.store.child(job_folder(job.id)).url,
        parent_storage_url=context.store.child(job_folder(job.parent_id)).url
        if job.parent_id
        else None,
        dataset_url=context.store.child(dataset.path).url if dataset else None,
        dataset_sha256=dataset.sha256 if dataset else None,
        dataset_filename=dataset.filename if dataset else None,
        project=repository.project_name(session, job),
        mlflow_uri=settings.mlflow_url,
        heartbeat_s=settings.heartbeat_s,
    )


def heartbeat(
    session: Session, settings: Settings, job_id: str, token: str, beat: RunHeartbeat
) -> RunAnswer:
    """Keeps what the run reports, and its lease for as long again.

    The lease of a run that is to stop is not made longer: one that hangs loses it.

    Raises:
        StaleLeaseError: another attempt holds the job, or it has ended.
        InputError: text that cannot be stored.
    """
    check_storable(beat.model_dump(mode="json"), "body")
    job = leased_job(session, job_id, token, lock=True)
    _charge(session, job, beat.cost)
    if job.state == JobState.CANCELLING:
        return RunAnswer(cancel=True)
    lease.renew(job, lease_s=settings.lease_s)
    for message in beat.notes:
        if len(job.notes) < settings.max_notes:
            transitions.add_note(session, job, message)
    if beat.progress:
        previous_stage = (job.progress or {}).get("stage")
        transitions.apply(session, job, StageReached(beat.progress.stage))
        job.progress = beat.progress.model_dump(mode="json")
        reported_at = repository.last_progress_at(session, job.id)
        interval = timedelta(seconds=settings.progress_event_interval_s)
        due = reported_at is None or now() - reported_at >= interval
        if due or beat.progress.stage != previous_stage:
            transitions.add_event(session, job, "progress", job.progress)
    return RunAnswer(cancel=False)


def check_files(
    session: Session, store: ObjectStore, job_id: str, token: str, artifacts: list[Artifact]
) -> None:
    """Makes sure that the artifacts of a result are in the storage.

    Raises:
        StaleLeaseError: the run does not hold the job, nor has it delivered its result.
        InputError: a file is missing or has another size.
        StorageError: the storage is away.
    """
    if not _delivered(session, job_id, token):
        leased_job(session, job_id, token)
    present = store.files(job_folder(job_id))
    for artifact in artifacts:
        size_bytes = present.get(f"{job_folder(job_id)}/{artifact.path}")
        if size_bytes != artifact.size_bytes:
            found = "is missing" if size_bytes is None else f"has {size_bytes} bytes"
            raise InputError(
                f"the artifact {artifact.path!r:.200} {found} in the storage, it should have "
                f"{artifact.size_bytes} bytes: write it again."
            )


def succeed(session: Session, job_id: str, token: str, outcome: RunResult) -> None:
    """Keeps the result and ends the job. The same result may come again if the answer was lost.

    Raises:
        StaleLeaseError: another attempt holds the job, or it has ended otherwise.
        InputError: there is no result, or it cannot be stored.
    """
    check_storable(outcome.model_dump(mode="json"), "body")
    if (locked := repository.find(session, job_id, lock=True)) and _delivered(
        session, locked.id, token
    ):
        return
    job = leased_job(session, job_id, token, lock=True)
    if outcome.result is None and job.kind != JobKind.DISCRETIZE:
        raise InputError(
            f"body.result is null: a job of the kind {job.kind} has a result, send it."
        )
    _charge(session, job, outcome.cost)
    if job.state != JobState.CANCELLING:
        devices = outcome.result.devices if outcome.result else []
        repository.replace_outcome(session, job.id, devices, outcome.artifacts)
        job.mlflow_page = outcome.mlflow_page
        job.progress = {"stage": Stage.PUBLISHING, "fraction": 1.0}
        summary = {"devices": [device.name for device in devices], "run": _run_mark(token)}
        transitions.add_event(session, job, "result", summary)
    transitions.apply(session, job, RunSucceeded())


def fail(session: Session, job_id: str, token: str, failure: RunFailure) -> None:
    """Ends the run, and the job with it unless another attempt may do better.

    Raises:
        StaleLeaseError: another attempt holds the job, or it has ended.
        InputError: text that cannot be stored.
    """
    check_storable(failure.model_dump(mode="json"), "body")
    job = leased_job(session, job_id, token, lock=True)
    _charge(session, job, failure.cost)
    error = JobError(code=failure.code, detail=failure.detail)
    transitions.apply(session, job, RunFailed(failure.retryable), error=error)


def _charge(session: Session, job: JobRow, cost: JobCost) -> None:
    """Keeps the attempt's cost so far, and adds its growth to the project's hours of GPUs."""
    grown_s = cost.gpu_s - job.cost.get("gpu_s", 0.0)
    if grown_s > 0:
        repository.add_gpu_seconds(session, job.project_id, grown_s)
    job.cost = {key: max(value, job.cost.get(key, 0.0)) for key, value in cost.model_dump().items()}


def _run_mark(token: str) -> str:
    """Identifies the run that delivered a result; worth nothing as a token."""
    return hash_secret(token)[:16]


def _delivered(session: Session, job_id: str, token: str) -> bool:
    """Returns whether this very run has delivered the job's result."""
    event = repository.last_event(session, job_id, "result")
    return event is not None and event.data.get("run") == _run_mark(token)
