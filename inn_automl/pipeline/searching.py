"""Searching: widths are evaluated where they may extend a device's front by predicted latency.

Some of what the search finds is measured, and the cost models are fitted again. What is measured
and evaluated is kept in `DIR/search/`, so that a search that was stopped goes on where it was.
"""

from __future__ import annotations

from inn_automl.core.metric import Metric
from inn_automl.core.precision import split_point
from inn_automl.core.progress import Progress
from inn_automl.core.result import Candidate
from inn_automl.core.stage import Stage
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.records import (
    ProfiledDevice,
    ProfiledDevices,
    SearchedDevice,
    SearchedDevices,
)
from inn_automl.width_search.device import DeviceSearch
from inn_automl.width_search.outcome import DeviceOutcome, SearchProgress
from inn_automl.width_search.run import run_search


def search(context: JobContext, profiled: ProfiledDevices) -> SearchedDevices:
    """Searches widths for all devices.

    Raises:
        BackendError, StorageError: the workers or the folder failed; what was found so far is
            kept.
    """
    with context.stage(Stage.SEARCHING):
        outcomes = _search(context, profiled)
        devices = [
            _searched(device, outcome)
            for device, outcome in zip(profiled.devices, outcomes, strict=True)
        ]
        for device in profiled.devices:
            _conclude(device, context.progress)
    return SearchedDevices(profiled.trained, tuple(devices))


def _search(context: JobContext, profiled: ProfiledDevices) -> tuple[DeviceOutcome, ...]:
    trained, objective = profiled.trained.best, context.task.objective

    def evaluate(batch: list[dict[str, int]]) -> list[float]:
        found = context.backend.evaluate(trained, context.task, batch, split="validation")
        return [score.value for score in found]

    outcome = run_search(
        [
            DeviceSearch(
                name=device.budget.name,
                space=device.latency.space,
                bounds=device.budget,
                predict=device.predict,
                active_learning=device.latency,
            )
            for device in profiled.devices
        ],
        evaluate,
        context.spec.budget.search,
        context.folder / "search" / "state",
        seed=context.spec.seed,
        baseline=objective.baseline(context.task.dataset),
        metric=objective.metric,
        on_batch=lambda progress: _show(progress, context.progress, objective.metric),
    )
    if outcome.stopped == "interrupted":
        raise KeyboardInterrupt
    return outcome.devices


def _show(search: SearchProgress, progress: Progress, metric: Metric) -> None:
    found = [best[1] for best in search.best.values() if best is not None]
    progress.update(
        search.num_evaluations / search.max_evaluations,
        best=f"{metric.brief(max(found))} within the bounds" if found else None,
        detail=f"{search.num_evaluations} widths evaluated, "
        f"{sum(search.num_measured.values())} measured",
    )


def _conclude(device: ProfiledDevice, progress: Progress) -> None:
    """Notes what the measurements of the search say of a device, and keeps them for later jobs."""
    latency = device.latency
    if latency.num_made:
        for note in latency.describe():
            progress.note(note)
        progress.note(
            f"{device.budget.name}: {latency.num_made} widths were measured in the search"
        )
    if granularity := latency.granularity():
        progress.note(f"{device.budget.name}: {granularity.sentence}")
    latency.save_measurements()


def _searched(device: ProfiledDevice, outcome: DeviceOutcome) -> SearchedDevice:
    latency = device.latency
    offered = [found for found in outcome.candidates if found.prediction.offered]
    points = [split_point(found.widths) for found in offered]
    return SearchedDevice(
        budget=device.budget,
        candidates=tuple(
            Candidate(
                widths=widths,
                precision=precision,
                metric_value=found.metric_value,
                params=found.prediction.params,
                macs=found.prediction.macs,
                predicted_latency_ms=found.prediction.latency_ms,
            )
            for found, (widths, precision) in zip(offered, points, strict=True)
        ),
        feasible=tuple(found.feasible for found in offered),
        cost_model_errors=latency.errors,
        reference_ms=latency.reference_ms,
        num_measured=latency.num_measured,
        granularity=latency.granularity(),
        hypervolume=outcome.hypervolume,
        reference_point=outcome.reference_point,
        stopped=outcome.reason,
    )
