"""Entry point of a Ray job: one attempt at one job, from its assignment to its result.

Exit codes: 0 the result or the failure was delivered, 1 neither could be, 3 the run had to
stop.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
import traceback
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from inn_automl.api.jobs import JobKind, JobProgress
from inn_automl.api.runs import RunAssignment, RunResult
from inn_automl.core.allowed_models import check_allowed
from inn_automl.core.errors import BackendError, InnAutomlError, InputError
from inn_automl.core.object_store import ObjectStore
from inn_automl.core.stage import Stage
from inn_automl.latency.store import MeasurementCache
from inn_automl_workers.artifacts import FIGURES, describe_file, describe_job, mlflow_page
from inn_automl_workers.dataset_cache import fetch_dataset
from inn_automl_workers.failures import failure_of
from inn_automl_workers.job_folder import open_folder, wait_for_folder
from inn_automl_workers.processes import log, stop_process
from inn_automl_workers.reporter import Reporter
from inn_automl_workers.run_progress import RunProgress
from inn_automl_workers.settings import WorkerSettings

if TYPE_CHECKING:
    from inn_automl.core.result import JobResult
    from inn_automl.core.spec import JobSpec
    from inn_automl.pipeline.backend import Backend
    from inn_automl_workers.mirror import Mirror


def main() -> None:
    """Runs the assignment of the job that the environment names, and exits."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    settings = WorkerSettings.from_environment()
    reporter = Reporter(settings.coordinator_url, settings.job_id, settings.lease_token)
    reporter.report(JobProgress(stage=Stage.STARTING))
    reporter.beat()  # before anything slow is imported: the start lease may be short
    try:
        try:
            result = Run(reporter.assignment(), reporter, settings).work()
        except BaseException as error:
            with suppress(OSError):  # the log is on the same full disk
                traceback.print_exc()
            reporter.fail(failure_of(error, reporter))
        else:
            reporter.succeed(result)
    except InnAutomlError as error:
        log(error)
        code = 1
    else:
        code = 0
    with suppress(OSError):
        sys.stdout.flush()
    sys.exit(code)


class Run:
    """One attempt at a job."""

    def __init__(
        self, assignment: RunAssignment, reporter: Reporter, settings: WorkerSettings
    ) -> None:
        self._assignment, self._reporter, self._settings = assignment, reporter, settings

    def work(self) -> RunResult:
        """Does what is assigned, from wherever an earlier attempt left it.

        Raises:
            InnAutomlError: it cannot be done, or not now.
        """
        assignment, training = self._assignment, self._assignment.spec.budget.training
        searches = assignment.kind is not JobKind.DISCRETIZE
        self._reporter.hold(
            cpus=training.cpus if searches else 1, gpus=training.gpus if searches else 0
        )
        self._reporter.keep_beating(assignment.heartbeat_s)
        if assignment.mlflow_uri:
            os.environ["MLFLOW_TRACKING_URI"] = assignment.mlflow_uri
        opened = open_folder(
            assignment.storage_url,
            assignment.job_id,
            pushed=True,
            scratch=self._settings.scratch,
        )
        with opened as (folder, mirror):
            wait_for_folder(folder, self._settings.folder_timeout_s)
            progress = RunProgress(self._reporter, mirror.push if mirror else None)
            if searches:
                result = self._search(folder, progress)
                artifacts = describe_job(folder, result)
            else:
                result = None
                artifacts = [describe_file(folder, self._discretize(folder, progress))]
            page = mlflow_page(folder)
        return RunResult(
            result=result, artifacts=artifacts, cost=self._reporter.cost(), mlflow_page=page
        )

    def _search(self, folder: Path, progress: RunProgress) -> JobResult:
        from inn_automl.pipeline.context import Tracking
        from inn_automl.pipeline.run import extend_job, run_job
        from inn_automl.reporting.figures import write_figures
        from inn_automl_workers.remote_measure import RemoteMeasure

        assignment, store = self._assignment, ObjectStore(self._assignment.storage_url)
        check_allowed(assignment.spec, self._settings.allowed_models)
        spec = assignment.spec.model_copy(update={"dataset": self._dataset()})
        with closing(_join_ray(spec)) as backend:
            arguments: dict[str, Any] = {
                "backend": backend,
                "measure": RemoteMeasure(
                    self._reporter.connection, assignment.job_id, store, note=self._reporter.note
                ),
                "progress": progress,
                "tracking": Tracking(
                    project=assignment.project,
                    job_id=assignment.job_id,
                    retry_deadline_s=self._settings.mlflow_retry_deadline_s,
                ),
                "measurement_cache": self._measurement_cache(),
            }
            if assignment.kind is JobKind.SEARCH:
                result = run_job(spec, folder, **arguments)
            else:
                with self._parent() as (parent, _):
                    result = extend_job(spec, parent, folder, **arguments)
        # Publishing draws them, but not where MLflow was away.
        if not (folder / FIGURES / "fronts.html").exists():
            write_figures(result, folder / FIGURES)
        return result

    def _discretize(self, folder: Path, progress: RunProgress) -> Path:
        from inn_automl.pipeline.run import discretize_job

        request = self._assignment.widths
        if request is None:
            raise InputError("the assignment names no widths: submit the discretization again.")
        progress.stage(Stage.PUBLISHING)
        with self._parent() as (parent, _):
            return discretize_job(
                parent,
                request.widths if request.widths is not None else float(request.ratio or 0.0),
                folder / "bundles",
                dataset=self._dataset(),
                precision=request.precision,
                fine_tune_seconds=request.fine_tune_seconds,
            )

    def _parent(self) -> AbstractContextManager[tuple[Path, Mirror | None]]:
        """The folder of the job that this one extends or discretizes."""
        assignment = self._assignment
        if assignment.parent_storage_url is None:
            raise InputError(
                f"the assignment of a job of the kind {assignment.kind} names no parent: submit "
                f"it again."
            )
        return open_folder(
            assignment.parent_storage_url,
            f"{assignment.job_id}-parent",
            pushed=False,
            scratch=self._settings.scratch,
        )

    def _dataset(self) -> str:
        """Name of the dataset in the spec: a built-in one, or a path relative to the cache.
        The cache becomes this process's working folder.
        """
        from inn_automl.data.origin import register_origin

        assignment = self._assignment
        url, sha256 = assignment.dataset_url, assignment.dataset_sha256
        if not (url and sha256 and assignment.dataset_filename):
            return assignment.spec.dataset
        cache = self._settings.cache
        path = fetch_dataset(url, sha256, assignment.dataset_filename, cache)
        os.chdir(cache)
        # Other machines of the cluster, which have none of it, fetch it from there.
        register_origin(str(path), f"{url}#sha256={sha256}")
        return str(path)

    def _measurement_cache(self) -> MeasurementCache | None:
        """The measurements of the project's earlier jobs; None if the storage is not known."""
        if self._settings.storage_url is None:
            return None
        # A name may hold what a path may not.
        project = hashlib.sha256(self._assignment.project.encode()).hexdigest()[:16]
        store = ObjectStore(self._settings.storage_url)
        return MeasurementCache(store.child(f"measurement-cache/{project}"))


def _join_ray(spec: JobSpec) -> Backend:
    """The backend on the cluster that this process is a job of.

    Raises:
        BackendError: the cluster cannot be joined.
    """
    import ray

    # Before Ray's own modules: it sets what Ray reads when it is imported.
    from inn_automl_workers.ray_backend import RayBackend

    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises many kinds
        raise BackendError(
            f"the Ray cluster that runs this job cannot be joined ({error})."
        ) from error
    signal.signal(signal.SIGTERM, _on_sigterm)  # Ray has put its own in place
    return RayBackend(
        cpus=spec.budget.training.cpus, gpus=spec.budget.training.gpus, address="auto"
    )


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    stop_process("SIGTERM")


if __name__ == "__main__":
    main()
