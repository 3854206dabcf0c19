"""Publishing a finished job to MLflow, once: what `publication` logs is found again, completed or
replaced.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from inn_automl.core.errors import InnAutomlError, StorageError
from inn_automl.core.result import Candidate, JobResult
from inn_automl.core.storage import read_json, write_json
from inn_automl.reporting import registry, views
from inn_automl.reporting.figures import write_figures
from inn_automl.reporting.publication import (
    DEVICE,
    JOB_ID,
    JOB_RUN,
    JOB_VIEW,
    KIND,
    MODEL_VERSION,
    PUBLISHED,
    Publication,
)
from inn_automl.reporting.store import Store, connect, exclusive, locate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "inn_automl"
FORMAT = "2"
"""Part of the digest: a change of what a run holds publishes again."""


@dataclass(frozen=True)
class Published:
    """Location of a job in MLflow."""

    tracking_uri: str
    experiment_id: str
    job_run_id: str
    device_run_ids: dict[str, str]
    """Run id by the device's name."""
    fragment: str
    """The part of a link after the server's address that opens the fronts as charts."""
    ui_link: str | None
    """The whole link; None for the embedded store, which `inn-automl browse` serves."""
    model_versions: dict[str, str]
    """`NAME/VERSION` in the model registry of each device's recommended model, by the device's
    name.
    """


def publish(
    result: JobResult,
    out: Path,
    *,
    candidates: Mapping[str, Sequence[Candidate]] | None = None,
    history: Sequence[Any] = (),
    store: Store | None = None,
    experiment: str = EXPERIMENT,
    job_id: str | None = None,
    job_name: str | None = None,
) -> Published:
    """Publishes a finished job; a job that is published already, whole and unchanged, is left as
    it is.

    What an earlier try left of the same job is replaced: its runs are deleted once the new ones
    are complete.

    Args:
        result: what `result.json` holds.
        out: the folder of `result.json`; bundles are read from it, figures are written to
            `figures/` in it.
        candidates: all that was evaluated for each device, by its name.
        history: the training epochs, as mappings or dataclasses with `epoch`, `train_loss` and
            `metric_values`.
        store: where to; `store.locate()` by default.
        experiment: one for each project.
        job_name: what people call the job; dataset and family by default.
        job_id: what the job is recognized by; the `id` in `result.job`, or else one that `out`
            keeps.

    Raises:
        StorageError: the store cannot be used, or a recommended bundle is missing; figures are
            there all the same.
    """
    store, candidates = store or locate(), candidates or {}
    epochs = [
        asdict(epoch) if is_dataclass(epoch) and not isinstance(epoch, type) else epoch
        for epoch in history
    ]
    job_id = re.sub(r"[^A-Za-z0-9._-]", "-", str(job_id or result.job.get("id") or _job_id(out)))
    figures = write_figures(result, out / "figures", candidates, epochs)
    bundles = _recommended_bundles(result, out)
    client = connect(store)
    from mlflow.exceptions import MlflowException

    try:
        with exclusive(store):
            experiment_id = _experiment_id(client, store, experiment)
            digest = _digest(result, candidates, epochs)
            earlier = client.search_runs([experiment_id], f"tags.`{JOB_ID}` = '{job_id}'")
            job_run = next((run for run in earlier if run.data.tags.get(PUBLISHED) == digest), None)
            if job_run is None:
                publication = Publication(client, experiment_id, job_id, result, job_name)
                job_run = publication.log(figures, bundles, candidates, epochs, digest)
                device_runs = publication.device_runs
            else:
                device_runs = [
                    run for run in earlier if run.data.tags.get(JOB_RUN) == job_run.info.run_id
                ]
            current = {run.info.run_id for run in (job_run, *device_runs)}
            for run in earlier:
                if run.info.run_id not in current:
                    registry.unregister(client, run.info.run_id)
                    client.delete_run(run.info.run_id)
            return _published(store, experiment_id, job_run, device_runs)
    except (MlflowException, OSError) as error:
        if isinstance(error, InnAutomlError):
            raise
        reason = str(error).splitlines()[0][:300]
        raise StorageError(
            f"publishing to {store.uri!r} failed ({reason}): the result is whole in {str(out)!r}; "
            f"the same command "
            "publishes it again."
        ) from error


def latest_fragment(store: Store, experiment: str = EXPERIMENT) -> str | None:
    """The part of a link after the server's address that opens the newest job's fronts; None if
    there is no job yet.

    Raises:
        StorageError: the store cannot be used.
    """
    client = connect(store)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    runs = client.search_runs([found.experiment_id], f"tags.`{KIND}` = 'job'", max_results=1)
    return (
        views.charts_fragment(found.experiment_id, JOB_VIEW + runs[0].data.tags[JOB_ID])
        if runs
        else None
    )


def _published(store: Store, experiment_id: str, job_run: Run, runs: Iterable[Run]) -> Published:
    job_run_id = job_run.info.run_id
    devices = [run for run in runs if run.data.tags.get(JOB_RUN) == job_run_id]
    fragment = views.charts_fragment(experiment_id, JOB_VIEW + job_run.data.tags[JOB_ID])
    return Published(
        tracking_uri=store.uri,
        experiment_id=experiment_id,
        job_run_id=job_run_id,
        device_run_ids={run.data.tags[DEVICE]: run.info.run_id for run in devices},
        fragment=fragment,
        ui_link=store.uri + fragment if store.is_server else None,
        model_versions={
            run.data.tags[DEVICE]: run.data.tags[MODEL_VERSION]
            for run in devices
            if MODEL_VERSION in run.data.tags
        },
    )


def _recommended_bundles(result: JobResult, out: Path) -> dict[str, Path]:
    """The bundle of each device's recommended point, by the device's name."""
    bundles = {
        device.name: out / point.bundle
        for device in result.devices
        for point in device.front
        if point.id == device.recommended
    }
    for bundle in bundles.values():
        if not bundle.is_file():
            raise StorageError(
                f"the bundle {str(bundle)!r} that result.json names is missing: run the job again."
            )
    return bundles


def _experiment_id(client: MlflowClient, store: Store, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = (store.artifacts / name).as_uri() if store.artifacts else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            # Another job may have created it just now.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _job_id(out: Path) -> str:
    """Identifier of a job folder. It is generated once and stored in the folder, so it survives a
    move.
    """
    path = out / "tracking.json"
    if not path.exists():
        write_json(path, {"job_id": uuid4().hex[:16]})
    return str(read_json(path)["job_id"])


def _digest(
    result: JobResult,
    candidates: Mapping[str, Sequence[Candidate]],
    history: Sequence[Mapping[str, Any]],
) -> str:
    parts = [FORMAT, result.model_dump_json(), json.dumps(history, sort_keys=True, default=str)]
    parts += [
        f"{name}{c.model_dump_json()}" for name in sorted(candidates) for c in candidates[name]
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
