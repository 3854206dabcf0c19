"""Contents of MLflow's runs of one job: one run for the job and one for each device, tied by tags.

A device's run logs its front as metrics whose step is the position of a point on the front, which
MLflow's own line charts then draw; device runs are not nested in the job's, because the UI leaves
the runs of a collapsed parent out of its charts. Candidates that are not on a front are rows of a
table.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inn_automl.core.metric import METRICS, get_metric
from inn_automl.core.result import Candidate, DeviceResult, JobResult, metric_of
from inn_automl.reporting import registry, tables, views

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ALL_VIEW, JOB_VIEW = "inn_automl-all", "inn_automl-job-"
METRICS_SEEN = "inn_automl.metrics"
"""Tag of an experiment: names of the metrics of all its fronts, for the view of all jobs."""
MAX_VIEWS = 20
"""Saved views of jobs that an experiment keeps: its page loads them all."""
JOB_ID, JOB_RUN, KIND, DEVICE = (
    "inn_automl.job_id",
    "inn_automl.job_run_id",
    "inn_automl.kind",
    "inn_automl.device",
)
JOB_NAME = "inn_automl.job_name"
MODEL_VERSION = "inn_automl.model_version"
PUBLISHED = "inn_automl.published"
"""Set last, to the digest of what was published: a job run without it was left by a process that
died.
"""
MAX_METRICS, MAX_PARAMS, MAX_DIGEST = 1000, 100, 36
"""Limits of MLflow: metrics and parameters of one request, characters of a dataset's digest."""


class Publication:
    """One job on its way into MLflow."""

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        job_id: str,
        result: JobResult,
        job_name: str | None = None,
    ) -> None:
        self._client, self._experiment_id, self._job_id, self._result = (
            client,
            experiment_id,
            job_id,
            result,
        )
        self._dataset = _dataset_name(result)
        title = " ".join(filter(None, (self._dataset, str(result.job.get("model") or ""))))
        self._title = job_name or title
        self._tags = {JOB_ID: job_id, JOB_NAME: self._title}
        self.device_runs: list[Run] = []

    def log(
        self,
        figures: Path,
        bundles: Mapping[str, Path],
        candidates: Mapping[str, Sequence[Candidate]],
        history: Sequence[Mapping[str, Any]],
        digest: str,
    ) -> Run:
        """Logs everything and returns the job's run.

        Args:
            figures: what `write_figures` wrote.
            bundles: the bundle of each device's recommended point, by the device's name.
            candidates: by the device's name.
            history: a mapping an epoch.
            digest: what the job's run is marked with once all is there.
        """
        job_run = self._start(self._title, {KIND: "job"})
        for device in reversed(self._result.devices):  # The UI lists the newest run first.
            run = self._start(
                f"{device.name} ({self._dataset})",
                {KIND: "device", JOB_RUN: job_run.info.run_id, DEVICE: device.name},
            )
            self._log_device(run, device, candidates.get(device.name, ()), figures / device.name)
            note = tables.front_markdown(device)
            if device.name in bundles:
                note += self._log_recommended(run, device, bundles[device.name])
            self._finish(run, note)
            self.device_runs.insert(0, self._client.get_run(run.info.run_id))
        self._log_job(job_run, history, figures)
        self._set_views()
        self._client.set_tag(job_run.info.run_id, PUBLISHED, digest)
        return self._client.get_run(job_run.info.run_id)

    def _log_device(
        self, run: Run, device: DeviceResult, candidates: Sequence[Candidate], figures: Path
    ) -> None:
        params = {
            **tables.flat(device.budget, "budget."),
            **tables.flat(device.environment, "environment."),
        }
        params |= {
            "recommended": device.recommended or "none",
            "search_stopped": device.search_stopped,
        }
        self._log_numbers(run, tables.front_metrics(device), params)
        self._client.log_artifacts(run.info.run_id, str(figures))
        self._log_table(run, tables.front_table(device), "front_table.json")
        self._log_table(run, tables.candidates_table(candidates, device), "candidates_table.json")
        self._log_table(run, tables.classes_table(device), "classes_table.json")

    def _log_recommended(self, run: Run, device: DeviceResult, bundle: Path) -> str:
        """Adds the recommended model to artifacts and registry; returns what the run's description
        says of it.
        """
        self._client.log_artifact(run.info.run_id, str(bundle), "bundle")
        name = registry.model_name(self._dataset, device.name)
        tags = {
            JOB_ID: self._job_id,
            DEVICE: device.name,
            "inn_automl.point": device.recommended or "",
        }
        number = registry.register(
            self._client, run, bundle, name, tags=tags, description=device.recommendation
        )
        self._client.set_tag(run.info.run_id, MODEL_VERSION, f"{name}/{number}")
        return (
            f"\n\nThe recommended model is `models:/{name}/{number}`; "
            f"its bundle is among the artifacts."
        )

    def _log_job(self, run: Run, history: Sequence[Mapping[str, Any]], figures: Path) -> None:
        run_id, job = run.info.run_id, self._result.job
        self._log_numbers(
            run,
            tables.training_metrics(history, metric_of(self._result.devices).name),
            tables.flat(job),
        )
        self._log_dataset(run_id)
        for path in sorted(figures.iterdir()):
            if path.is_file():
                self._client.log_artifact(run_id, str(path))
        self._client.log_text(run_id, self._result.model_dump_json(indent=1), "result.json")
        self._client.log_text(run_id, json.dumps(job, indent=1, default=str), "job.json")
        lines = []
        for device, device_run in zip(self._result.devices, self.device_runs, strict=True):
            link = views.run_fragment(self._experiment_id, device_run.info.run_id).removeprefix("/")
            lines.append(f"- [{device.name}]({link}): {device.recommendation}")
        self._finish(run, "\n".join(lines))

    def _log_dataset(self, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        metadata = self._result.job.get("dataset")
        metadata = metadata if isinstance(metadata, Mapping) else {}
        digest = str(
            metadata.get("fingerprint") or hashlib.sha256(self._dataset.encode()).hexdigest()
        )[:MAX_DIGEST]
        source, profile = json.dumps({"dataset": self._dataset}), json.dumps(metadata, default=str)
        dataset = Dataset(self._dataset, digest, "inn_automl", source, profile=profile)
        self._client.log_inputs(
            run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
        )

    def _start(self, name: str, tags: dict[str, str]) -> Run:
        tags = {
            **tags,
            **self._tags,
            "mlflow.source.name": "inn-automl",
            "mlflow.source.type": "LOCAL",
        }
        return self._client.create_run(self._experiment_id, tags=tags, run_name=name)

    def _finish(self, run: Run, note: str) -> None:
        self._client.set_tag(run.info.run_id, "mlflow.note.content", note)
        self._client.set_terminated(run.info.run_id, "FINISHED")

    def _log_numbers(
        self, run: Run, metrics: Iterable[tuple[str, float, int]], params: Mapping[str, str]
    ) -> None:
        from mlflow.entities import Metric, Param

        now_ms = int(time.time() * 1000)
        all_metrics = [Metric(name, value, now_ms, step) for name, value, step in metrics]
        all_params = [Param(_name(key), value) for key, value in params.items()]
        for start in range(0, len(all_metrics), MAX_METRICS):
            self._client.log_batch(
                run.info.run_id, metrics=all_metrics[start : start + MAX_METRICS]
            )
        for start in range(0, len(all_params), MAX_PARAMS):
            self._client.log_batch(run.info.run_id, params=all_params[start : start + MAX_PARAMS])

    def _log_table(self, run: Run, columns: tables.Columns, file: str) -> None:
        import pandas

        if columns:
            # As objects, since MLflow asks pandas for text columns in a way that pandas 3 warns
            # of.
            self._client.log_table(run.info.run_id, pandas.DataFrame(columns, dtype=object), file)

    def _set_views(self) -> None:
        """A view of this job's fronts and one of all jobs'; views of the oldest jobs make room."""
        now_ms = int(time.time() * 1000)
        title, all_devices = f"Fronts: {self._title}", f"tags.`{KIND}` = 'device'"
        metric = metric_of(self._result.devices)
        seen = set(
            self._client.get_experiment(self._experiment_id)
            .tags.get(METRICS_SEEN, metric.name)
            .split(",")
        )
        seen.add(metric.name.replace(",", ";"))
        self._client.set_experiment_tag(self._experiment_id, METRICS_SEEN, ",".join(sorted(seen)))
        every = [get_metric(name) for name in sorted(seen, key=_by_task)]
        own_devices = f"tags.`{JOB_ID}` = '{self._job_id}' AND tags.`{KIND}` = 'device'"
        for key, value in (
            (
                ALL_VIEW,
                views.front_view(
                    "Fronts: all jobs", all_devices, created_at_ms=now_ms, metrics=every
                ),
            ),
            (
                JOB_VIEW + self._job_id,
                views.front_view(title, own_devices, created_at_ms=now_ms + 1, metrics=[metric]),
            ),
        ):
            self._client.set_experiment_tag(self._experiment_id, views.TAG_PREFIX + key, value)
        tags = self._client.get_experiment(self._experiment_id).tags
        keys = [key for key in tags if key.startswith(views.TAG_PREFIX + JOB_VIEW)]
        for key in sorted(keys, key=lambda key: views.created_at_ms(tags[key]), reverse=True)[
            MAX_VIEWS:
        ]:
            self._client.delete_experiment_tag(self._experiment_id, key)


def _by_task(metric: str) -> tuple[int, str]:
    """Key that sorts names of metrics as `METRICS` lists them, others last."""
    return [*METRICS, metric].index(metric), metric


def _dataset_name(result: JobResult) -> str:
    dataset = result.job.get("dataset")
    name = dataset.get("name") if isinstance(dataset, Mapping) else dataset
    return Path(str(name or result.job.get("spec", {}).get("dataset") or "dataset")).stem


def _name(key: str) -> str:
    """Name of a parameter that MLflow accepts."""
    return re.sub(r"[^\w\-./ ]", "_", key)[:250]
