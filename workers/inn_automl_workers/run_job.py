"""Entry point of a Ray job: one attempt at one job, from its order to its result.

Exit codes: 0 the result or the failure was delivered, 1 neither could be, 3 the run was told to
stop.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from inn_automl.api.jobs import JobKind, JobProgress
from inn_automl.api.runs import Artifact, RunAssignment, RunFailure, RunResult
from inn_automl.core.errors import BackendError, InnAutomlError, InputError, StorageError
from inn_automl.core.object_store import CHUNK_BYTES, ObjectStore
from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json
from inn_automl.latency.store import MeasurementCache
from inn_automl_workers.dataset_cache import cache_folder, fetch_dataset
from inn_automl_workers.mirror import Mirror
from inn_automl_workers.reporter import Reporter, RunProgress, printable, say, stop_process

if TYPE_CHECKING:
    from inn_automl.core.result import JobResult
    from inn_automl.core.spec import JobSpec
    from inn_automl.pipeline.backend import Backend

LOCK_S, LOCK_POLL_S = 60.0, 0.5
"""For how long a run waits for the one before it to let go of the job's folder."""
TRACKING_PATIENCE_S = 600.0
"""For how long a tracking server that is away is tried again."""
FIGURES = "figures"


def main() -> None:
    signal.signal(signal.SIGTERM, _on_sigterm)
    environment = os.environ
    reporter = Reporter(
        environment["INN_AUTOML_COORDINATOR_URL"],
        environment["INN_AUTOML_JOB_ID"],
        environment.pop("INN_AUTOML_LEASE_TOKEN"),  # children have no use for it
    )
    reporter.report(JobProgress(stage=Stage.STARTING))
    reporter.beat()  # before anything slow is imported: the start lease may be short
    try:
        try:
            result = run(reporter, reporter.order())
        except BaseException as error:
            with suppress(OSError):  # the log is on the same full disk
                traceback.print_exc()
            reporter.fail(failure_of(error, reporter))
        else:
            reporter.succeed(result)
    except InnAutomlError as error:
        say(error)
        stop = 1
    else:
        stop = 0
    with suppress(OSError):
        sys.stdout.flush()
    sys.exit(stop)


def run(reporter: Reporter, order: RunAssignment) -> RunResult:
    """Does what was ordered, from wherever an earlier attempt left it.

    Raises:
        InnAutomlError: it cannot be done, or not now.
    """
    training = order.spec.budget.training
    works = order.kind is not JobKind.DISCRETIZE
    reporter.hold(cpus=training.cpus if works else 1, gpus=training.gpus if works else 0)
    reporter.keep_beating(order.heartbeat_s)
    if order.mlflow_uri:
        os.environ["MLFLOW_TRACKING_URI"] = order.mlflow_uri
    store = ObjectStore(order.storage_url)
    with _folder_of(order.storage_url, order.job_id, pushed=True) as (folder, mirror):
        wait_for_folder(folder)
        progress = RunProgress(reporter, mirror.push if mirror else None)
        if works:
            result = _search(order, folder, reporter, store, progress)
            artifacts = _describe(folder, result)
        else:
            result = None
            artifacts = [describe(folder, _discretize(order, folder, progress))]
        page = _mlflow_page(folder)
    return RunResult(result=result, artifacts=artifacts, cost=reporter.cost(), mlflow_page=page)


def _mlflow_page(folder: Path) -> str | None:
    """Where MLflow's UI shows the job, if it was published there."""
    try:
        page = read_json(folder / "published.json")["fragment"]
    except (FileNotFoundError, KeyError):
        return None
    return str(page)


def _search(
    order: RunAssignment,
    folder: Path,
    reporter: Reporter,
    store: ObjectStore,
    progress: RunProgress,
) -> JobResult:
    from inn_automl.pipeline.context import Tracking
    from inn_automl.pipeline.run import extend_job, run_job
    from inn_automl.reporting.figures import write_figures
    from inn_automl_workers.remote_measure import RemoteMeasure

    spec = order.spec.model_copy(update={"dataset": _dataset(order)})
    tracking = Tracking(project=order.project, job_id=order.job_id, patience_s=TRACKING_PATIENCE_S)
    measure = RemoteMeasure(reporter.http, order.job_id, store, note=reporter.note)
    measurement_cache = _measurement_cache(order)
    backend = _join_ray(spec)
    try:
        if order.kind is JobKind.SEARCH:
            result = run_job(
                spec,
                folder,
                backend=backend,
                measure=measure,
                progress=progress,
                tracking=tracking,
                measurement_cache=measurement_cache,
            )
        else:
            with _folder_of(_parent_url(order), f"{order.job_id}-parent", pushed=False) as (
                parent,
                _,
            ):
                result = extend_job(
                    spec,
                    parent,
                    folder,
                    backend=backend,
                    measure=measure,
                    progress=progress,
                    tracking=tracking,
                    measurement_cache=measurement_cache,
                )
    finally:
        backend.close()
    # publishing draws them, but not where MLflow was away
    if not (folder / FIGURES / "fronts.html").exists():
        write_figures(result, folder / FIGURES)
    return result


def _measurement_cache(order: RunAssignment) -> MeasurementCache | None:
    """What earlier jobs of the project measured, where the storage is known."""
    url = os.environ.get("INN_AUTOML_STORAGE_URL")
    if not url:
        return None
    # a name may hold what a path may not
    project = hashlib.sha256(order.project.encode()).hexdigest()[:16]
    return MeasurementCache(ObjectStore(url).child(f"measurement-cache/{project}"))


def _discretize(order: RunAssignment, folder: Path, progress: RunProgress) -> Path:
    from inn_automl.pipeline.run import discretize_job

    if order.widths is None:
        raise InputError("the order names no widths: submit the discretization again.")
    progress.stage(Stage.PUBLISHING)
    widths = (
        order.widths.widths if order.widths.widths is not None else float(order.widths.ratio or 0.0)
    )
    with _folder_of(_parent_url(order), f"{order.job_id}-parent", pushed=False) as (parent, _):
        return discretize_job(
            parent,
            widths,
            folder / "bundles",
            dataset=_dataset(order),
            precision=order.widths.precision,
            fine_tune_seconds=order.widths.fine_tune_seconds,
        )


def _join_ray(spec: JobSpec) -> Backend:
    """The backend on the cluster that this process is a job of.

    Raises:
        BackendError: the cluster cannot be joined.
    """
    import ray

    # before Ray: it sets what Ray reads when it is imported
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


def _dataset(order: RunAssignment) -> str:
    """What the spec calls the dataset: a built-in name, or a path relative to the cache, where
    this process works.
    """
    if not (order.dataset_url and order.dataset_sha256 and order.dataset_filename):
        return order.spec.dataset
    cache = cache_folder()
    path = fetch_dataset(order.dataset_url, order.dataset_sha256, order.dataset_filename, cache)
    os.chdir(cache)
    return str(path)


def _parent_url(order: RunAssignment) -> str:
    if order.parent_storage_url is None:
        raise InputError(
            f"the order of a job of the kind {order.kind} names no parent: submit it again."
        )
    return order.parent_storage_url


@contextmanager
def _folder_of(url: str, name: str, *, pushed: bool) -> Iterator[tuple[Path, Mirror | None]]:
    """The folder at the URL: itself where it is on this machine, else a copy under
    INN_AUTOML_SCRATCH.
    """
    store = ObjectStore(url)
    local = store.local_path("job.json")
    if local is not None:
        if pushed:
            local.parent.mkdir(parents=True, exist_ok=True)
        yield local.parent, None
        return
    with tempfile.TemporaryDirectory(
        prefix=f"{name}-", dir=os.environ.get("INN_AUTOML_SCRATCH")
    ) as scratch:
        mirror = Mirror(store, Path(scratch))
        mirror.pull()
        with mirror.pushing() if pushed else nullcontext():
            yield Path(scratch), mirror


def wait_for_folder(folder: Path, patience_s: float = LOCK_S) -> None:
    """Waits until no other process works in the folder: a run that lost its lease needs a moment
    to end.

    Raises:
        BackendError: it does not end.
        StorageError: the folder cannot be written.
    """
    try:
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(
            f"the folder {str(folder)!r} cannot be written ({error.strerror})."
        ) from error
    end_s = time.monotonic() + patience_s
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end_s:
                    raise BackendError(
                        f"an earlier run still works in {str(folder)!r} after {patience_s:g} s: "
                        f"stop it."
                    ) from None
                time.sleep(LOCK_POLL_S)
    finally:
        os.close(handle)


def failure_of(error: BaseException, reporter: Reporter) -> RunFailure:
    """What the coordinator is told: bad input and diverged training stay so, machines and disks
    may recover.
    """
    if isinstance(error, InnAutomlError):
        code, detail = error.code, str(error)
        retryable = isinstance(error, BackendError | StorageError)
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        code, retryable = StorageError.code, True
        detail = f"no room is left ({error}): free some and retry."
    else:
        code, retryable = InnAutomlError.code, True
        detail = f"this should not happen ({type(error).__name__}: {error}); the job's log has the traceback."
    return RunFailure(
        code=code, detail=printable(detail), retryable=retryable, cost=reporter.cost()
    )


def _describe(folder: Path, result: JobResult) -> list[Artifact]:
    """What users may download of a finished job."""
    names = {
        "result.json",
        "inn.zip",
        *(point.bundle for device in result.devices for point in device.front),
    }
    if "elastic" in result.job:  # a job that an earlier release finished has none
        names.add(result.job["elastic"])
    names |= {
        path.relative_to(folder).as_posix()
        for path in (folder / FIGURES).rglob("*")
        if path.is_file()
    }
    return [describe(folder, folder / name) for name in sorted(names)]


def describe(folder: Path, path: Path) -> Artifact:
    """A file of the job's folder, as the coordinator lists it.

    Raises:
        StorageError: it cannot be read.
    """
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                size_bytes += len(chunk)
    except OSError as error:
        raise StorageError(
            f"{str(path)!r} cannot be read ({error.strerror}): run the job again."
        ) from error
    return Artifact(
        path=path.relative_to(folder).as_posix(), sha256=digest.hexdigest(), size_bytes=size_bytes
    )


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    stop_process("SIGTERM")


if __name__ == "__main__":
    main()
