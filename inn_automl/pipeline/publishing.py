"""Publishing: the front points are tested once, bundled and tracked; `result.json` is the last
thing to be written.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from inn_automl.core.errors import CorruptFileError, InnAutomlError, StorageError
from inn_automl.core.result import Candidate, DeviceResult, FrontPoint, JobResult
from inn_automl.core.spec import DeviceBudget
from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json, write_json
from inn_automl.evaluation.onnx_precision import evaluate_file
from inn_automl.export import write_bundle, write_elastic
from inn_automl.export.records import LatencyEvidence
from inn_automl.pipeline.bundling import bundle_config, bundle_network
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.exporting import onnx_path, point_id, weights_path
from inn_automl.pipeline.measuring import Finalist, MeasuredDevice, added_bytes
from inn_automl.pipeline.searching import SearchedDevice
from inn_automl.tasks import Score, objective_of
from inn_automl.training.trial import Trained

INN, ELASTIC = "inn.zip", "elastic.zip"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Between two tries to publish to MLflow: each pause is twice as long as the one before."""

PACKAGES = ("inn-automl", "torch", "ray", "optuna", "onnxruntime", "onnx", "numpy")


def publish_job(
    job: JobContext,
    trials: Sequence[Trained],
    searched: Sequence[SearchedDevice],
    measured: Sequence[MeasuredDevice],
) -> JobResult:
    """Writes bundles and `result.json`, and publishes the job to MLflow.

    A tracking server that cannot be reached is noted and leaves the result whole.

    Raises:
        BackendError: the metric value on the test split could not be evaluated.
        StorageError: a file could not be written.
    """
    with job.stage(Stage.PUBLISHING):
        trained = trials[0]
        points = {f.id: f for device in measured for f in device.front}
        tested = _test(job, trained, list(points.values()))
        for position, finalist in enumerate(points.values()):
            job.progress.update(0.6 * position / len(points), detail=f"bundle {finalist.id}")
            _bundle(job, trained, finalist, tested[finalist.id], measured)
        by_name = {search.budget.name: search for search in searched}
        metric = objective_of(job.dataset).metric.name
        devices = [
            _device(device, by_name[device.budget.name], tested, metric) for device in measured
        ]
        budgets = job.spec.budget.devices
        devices += [
            _lost(device, job.unavailable_devices.reason(device.name), metric)
            for device in budgets
            if device.name in job.unavailable_devices
        ]
        order = [device.name for device in budgets]
        result = JobResult(
            job={**_describe(job, trials), "seconds": job.seconds()},
            devices=sorted(devices, key=lambda device: order.index(device.name)),
        )
        bundle_network(job.folder / INN, job.dataset, trained)
        if not (job.folder / ELASTIC).exists():
            write_elastic(
                job.folder / ELASTIC,
                [job.folder / bundle_path(f) for f in points.values()],
                trained.folder,
            )
        job.progress.update(0.7, detail="MLflow")
        _track(job, trained, result, searched, measured)
        write_json(job.folder / "result.json", result.model_dump(mode="json"))
        return result


def _device(
    device: MeasuredDevice, search: SearchedDevice, tested: Mapping[str, Score], metric: str
) -> DeviceResult:
    return DeviceResult(
        name=device.budget.name,
        metric=metric,
        recommended=device.recommended,
        recommendation=device.recommendation,
        cost_model_errors=search.cost_model_errors,
        num_measured=search.num_measured,
        granularity=search.granularity,
        hypervolume=search.hypervolume,
        reference_point=search.reference_point,
        search_stopped=search.stopped,
        environment=device.environment,
        budget=device.budget.model_dump(mode="json"),
        front=[_front_point(f, tested[f.id], device.budget.name) for f in device.front],
        layers=device.layers,
    )


def _lost(device: DeviceBudget, fault: str, metric: str) -> DeviceResult:
    """What there is to say of a device that could not be measured."""
    return DeviceResult(
        name=device.name,
        metric=metric,
        recommended=None,
        recommendation=f"Nothing can be recommended, for the device could not be measured: {fault}",
        cost_model_errors=None,
        hypervolume=[],
        reference_point=(0.0, 0.0),
        search_stopped="The device could not be measured.",
        environment={},
        budget=device.model_dump(mode="json"),
        front=[],
    )


def _test(job: JobContext, trained: Trained, finalists: Sequence[Finalist]) -> dict[str, Score]:
    """Metric value of front points on the test split. Kept, so that a resumed job does not touch that
    split again.
    """
    path = job.folder / "measuring" / "test.json"
    known: dict[str, dict[str, Any]] = (
        read_json(path) if job.reuse_from_parent("measuring/test.json") else {}
    )
    missing = [f for f in finalists if f.id not in known]
    floats = [f for f in missing if f.is_as_searched]
    found = dict(
        zip(
            (f.id for f in floats),
            job.backend.evaluate(trained, job.dataset, [f.widths for f in floats], split="test"),
            strict=True,
        )
    )
    for finalist in missing:
        if not finalist.is_as_searched:  # the file itself: rounding and tuning are part of it
            found[finalist.id] = evaluate_file(onnx_path(job, finalist.id), job.dataset, "test")
    known.update({name: asdict(evaluation.score) for name, evaluation in found.items()})
    write_json(path, known)
    return {
        name: Score(one["value"], tuple(one["interval"]), one["num_samples"], tuple(one["rmse"]))
        for name, one in known.items()
    }


def bundle_path(finalist: Finalist) -> str:
    return f"bundles/{finalist.id}.zip"


def _front_point(finalist: Finalist, tested: Score, device: str) -> FrontPoint:
    memory = finalist.memory[device]
    return FrontPoint(
        id=finalist.id,
        widths=finalist.widths,
        precision=finalist.precision,
        metric_value=finalist.metric_value,
        test_metric_value=tested.value,
        test_metric_value_ci=tested.interval,
        latency_ms=finalist.latency[device],
        params=finalist.params,
        macs=finalist.macs,
        size_bytes=finalist.size_bytes,
        peak_memory_bytes=added_bytes(memory),
        process_memory_bytes=memory.peak_bytes if memory else None,
        tuning=finalist.tuning,
        bundle=bundle_path(finalist),
    )


def _bundle(
    job: JobContext,
    trained: Trained,
    finalist: Finalist,
    tested: Score,
    measured: Sequence[MeasuredDevice],
) -> Path:
    dataset, architecture = job.dataset, trained.architecture
    environments: Mapping[str, tuple[DeviceBudget, dict[str, Any]]] = {
        device.budget.name: (device.budget, device.environment) for device in measured
    }
    config = bundle_config(
        dataset,
        architecture,
        id=finalist.id,
        widths=finalist.widths,
        precision=finalist.precision,
        params=finalist.params,
        macs=finalist.macs,
        validation=finalist.metric_value,
        tested=tested,
        latency={
            name: LatencyEvidence(
                runtime=environments[name][0].runtime,
                threads=environments[name][0].threads,
                batch_size=environments[name][0].batch_size,
                latency_ms=summary,
                peak_memory_bytes=added_bytes(memory := finalist.memory[name]),
                process_memory_bytes=memory.peak_bytes if memory else None,
                environment=environments[name][1],
            )
            for name, summary in finalist.latency.items()
        },
        difference=finalist.difference,
        num_verified=finalist.num_verified,
        agreement=finalist.agreement,
        tuning=finalist.tuning,
    )
    path = job.folder / bundle_path(finalist)
    write_bundle(
        path,
        config,
        onnx=onnx_path(job, finalist.id),
        weights=load_file(weights_path(job, finalist.id)),
    )
    return path


def _describe(job: JobContext, trials: Sequence[Trained]) -> dict[str, Any]:
    trained = trials[0]
    return {
        "spec": job.spec.model_dump(mode="json"),
        "model": job.family,
        "dataset": job.dataset.metadata(),
        "task": job.dataset.task,
        "metric": objective_of(job.dataset).metric.name,
        "architecture": trained.architecture.to_dict(),
        "recipe": trained.recipe.to_dict(),
        "training": [
            {
                "width": trial.architecture.width,
                "depth": trial.architecture.depth,
                "learning_rate": trial.recipe.learning_rate,
                "weight_decay": trial.recipe.weight_decay,
                "epochs_planned": trial.recipe.epochs,
                "epochs_done": len(trial.history),
                "stopped": trial.stopped,
                "score": trial.score if math.isfinite(trial.score) else None,
            }
            for trial in trials
        ],
        "inn": INN,
        "elastic": ELASTIC,
        "network": str(trained.folder.relative_to(job.folder)),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _track(
    job: JobContext,
    trained: Trained,
    result: JobResult,
    searched: Sequence[SearchedDevice],
    measured: Sequence[MeasuredDevice],
) -> None:
    from inn_automl.reporting.runs import publish  # MLflow takes a second to import

    candidates: dict[str, list[Candidate]] = {}
    searches = {search.budget.name: search for search in searched}
    for device in measured:
        search = searches[device.budget.name]
        known = {
            point_id(f.widths, f.precision): f.latency[device.budget.name] for f in device.finalists
        }
        candidates[device.budget.name] = [
            c.model_copy(update={"measured": known.get(point_id(c.widths, c.precision))})
            for c in search.candidates
        ]
    tracking, started_at, pause_s = job.tracking, time.monotonic(), FIRST_PAUSE_S
    while True:
        try:
            published = publish(
                result,
                job.folder,
                candidates=candidates,
                history=trained.history,
                experiment=tracking.project,
                job_id=tracking.job_id,
                job_name=tracking.job_name,
            )
        except InnAutomlError as error:
            left_s = tracking.patience_s - (time.monotonic() - started_at)
            if (
                left_s <= 0
                or not isinstance(error, StorageError)
                or isinstance(error, CorruptFileError)
            ):
                job.progress.note(f"MLflow has no record of this job: {error}")
                return
            job.progress.update(0.7, detail=f"MLflow is tried again for {left_s:.0f} s")
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            write_json(job.folder / "published.json", asdict(published))
            return
