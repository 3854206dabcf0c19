"""The result of a job, as `result.json` holds it."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from inn_automl.core.result import DeviceResult, FrontPoint, JobResult
from inn_automl.core.spec import DeviceBudget
from inn_automl.data import Dataset
from inn_automl.pipeline.bundling import bundle_name, class_table
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.folder import stage_seconds
from inn_automl.pipeline.records import (
    MeasuredDevice,
    MeasuredDevices,
    MeasuredModel,
    TrainedTrials,
)
from inn_automl.tasks import Score

INN, ELASTIC = "inn.zip", "elastic.zip"
PACKAGES = ("inn-automl", "torch", "ray", "optuna", "onnxruntime", "onnx", "numpy")
"""Packages whose versions the result has."""


def job_result(
    context: JobContext, measured: MeasuredDevices, tested: Mapping[str, Score]
) -> JobResult:
    """Gathers what a job found, with the devices in the order of the budget.

    Args:
        tested: score of each front point on the test split, by its id.
    """
    metric, dataset = context.task.metric.name, context.task.dataset
    found = {device.budget.name: device for device in measured.devices}
    unavailable = context.unavailable_devices
    devices = []
    for budget in context.spec.budget.devices:
        if budget.name in found:
            devices.append(_device(found[budget.name], tested, metric, dataset))
        elif budget.name in unavailable:
            devices.append(_unavailable(budget, unavailable.reason(budget.name), metric))
    job = {**_describe(context, measured.trained), "optimism": measured.optimism}
    return JobResult(job=job, devices=devices)


def _device(
    device: MeasuredDevice, tested: Mapping[str, Score], metric: str, dataset: Dataset
) -> DeviceResult:
    searched = device.searched
    return DeviceResult(
        name=device.budget.name,
        metric=metric,
        recommended=device.recommended,
        recommendation=device.recommendation,
        cost_model_errors=searched.cost_model_errors,
        num_measured=searched.num_measured,
        granularity=searched.granularity,
        hypervolume=list(searched.hypervolume),
        reference_point=searched.reference_point,
        search_stopped=searched.stopped,
        environment=device.environment,
        budget=device.budget.model_dump(mode="json"),
        front=[_front_point(model, tested[model.id], dataset) for model in device.front],
        layers=list(device.layers),
    )


def _unavailable(device: DeviceBudget, reason: str, metric: str) -> DeviceResult:
    return DeviceResult(
        name=device.name,
        metric=metric,
        recommended=None,
        recommendation=f"Nothing can be recommended, for the device could not be measured: "
        f"{reason}",
        cost_model_errors=None,
        hypervolume=[],
        reference_point=(0.0, 0.0),
        search_stopped="The device could not be measured.",
        environment={},
        budget=device.model_dump(mode="json"),
        front=[],
    )


def _front_point(model: MeasuredModel, tested: Score, dataset: Dataset) -> FrontPoint:
    return FrontPoint(
        id=model.id,
        widths=model.widths,
        precision=model.precision,
        metric_value=model.metric_value,
        loss=model.loss,
        ties=model.ties,
        test_metric_value=tested.value,
        test_metric_value_ci=tested.interval,
        test_classes=class_table(dataset, tested),
        latency_ms=model.latency_ms,
        params=model.params,
        macs=model.macs,
        size_bytes=model.size_bytes,
        peak_memory_bytes=model.peak_memory_bytes,
        process_memory_bytes=model.process_memory_bytes,
        fine_tuning=model.fine_tuning,
        bundle=bundle_name(model.id),
    )


def _describe(context: JobContext, trained: TrainedTrials) -> dict[str, Any]:
    best = trained.best
    return {
        "spec": context.spec.model_dump(mode="json"),
        "model": context.family,
        "choices": list(context.choices),
        "weights": best.weights and best.weights.model_dump(mode="json"),
        "dataset": context.task.dataset.metadata(),
        "task": context.task.dataset.task,
        "metric": context.task.metric.name,
        "architecture": best.architecture.to_dict(),
        "recipe": best.recipe.to_dict(),
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
            for trial in trained.trials
        ],
        "inn": INN,
        "elastic": ELASTIC,
        "network": str(best.folder.relative_to(context.folder)),
        "versions": {"python": platform.python_version(), **_versions()},
        "seconds": stage_seconds(context.folder),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
