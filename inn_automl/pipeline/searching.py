"""Searching: widths are evaluated where they may extend a device's front by predicted latency.

Some of what the search finds is measured, and the cost models are fitted again. What is measured
and evaluated is kept in `DIR/search/`, so that a search that was stopped goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from inn_automl.core.metric import Metric
from inn_automl.core.precision import split_point
from inn_automl.core.progress import Progress, duration
from inn_automl.core.result import Candidate
from inn_automl.core.stage import Stage
from inn_automl.evaluation.building import keep_rules
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.job_clock import AFTER_SEARCHING
from inn_automl.pipeline.records import (
    ProfiledDevice,
    ProfiledDevices,
    SearchedDevice,
    SearchedDevices,
)
from inn_automl.width_search.clock import SearchClock
from inn_automl.width_search.comparison import optimism_of
from inn_automl.width_search.device import DeviceSearch
from inn_automl.width_search.evaluated import Evaluated
from inn_automl.width_search.outcome import DeviceOutcome, SearchProgress
from inn_automl.width_search.run import run_search

LONG_S = 30.0
"""A search that takes longer by its estimate is told how long."""


def search(context: JobContext, profiled: ProfiledDevices) -> SearchedDevices:
    """Searches widths for all devices.

    Raises:
        BackendError, StorageError: the workers or the folder failed; what was found so far is
            kept.
    """
    with context.stage(Stage.SEARCHING):
        clock = _start_clock(context, profiled)
        outcomes = _search(context, profiled, clock)
        optimism = _optimism(outcomes)
        if optimism > 0:
            metric = context.task.metric
            context.progress.note(
                f"validation flatters what is chosen by it by {metric.text(optimism)}, as choosing "
                "by a part of its samples and looking at the rest shows: that is taken off"
            )
        devices = [
            _searched(device, outcome, optimism)
            for device, outcome in zip(profiled.devices, outcomes, strict=True)
        ]
        for device in profiled.devices:
            _conclude(device, context.progress)
    return SearchedDevices(profiled.trained, tuple(devices), optimism, clock.evaluation_s)


def _start_clock(context: JobContext, profiled: ProfiledDevices) -> SearchClock:
    """Finds out how candidates are built and how long that takes, and tells what is ahead."""
    builder, network = profiled.trained.exporter.builder, profiled.trained.exporter.builder.network
    keep_rules(builder, profiled.trained.best.folder)
    started_s = time.monotonic()
    builder.build(network.uniform_widths((1 + network.min_ratio) / 2))
    evaluation_s = time.monotonic() - started_s
    clock = SearchClock(lambda: context.clock.seconds_left(AFTER_SEARCHING), evaluation_s)
    planned = context.spec.budget.search.max_evaluations
    num = min(planned, clock.num_evaluations)
    text = f"the search evaluates at most {num} widths of about {duration(evaluation_s)} each"
    if num < planned:
        text += f": max_minutes leaves no time for {planned}"
    elif evaluation_s * num >= LONG_S:
        text += f": {duration(evaluation_s * num)}; max_minutes bounds the job"
    context.progress.note(text)
    return clock


def _optimism(outcomes: Sequence[DeviceOutcome]) -> float:
    """The optimism of the points of all fronts, on average."""
    found = []
    for outcome in outcomes:
        latency = [one.prediction.latency_ms for one in outcome.candidates]
        feasible = [one.evaluated.samples if one.feasible else None for one in outcome.candidates]
        limits = [latency[i] for i in outcome.front]
        found.append(optimism_of(feasible, latency, limits))
    return sum(found) / len(found)


def _search(
    context: JobContext, profiled: ProfiledDevices, clock: SearchClock
) -> tuple[DeviceOutcome, ...]:
    trained, objective = profiled.trained.best, context.task.objective

    def evaluate(batch: list[dict[str, int]], rivals: list[Evaluated | None]) -> list[Evaluated]:
        others = [None if rival is None else rival.samples for rival in rivals]
        found = context.backend.evaluate(
            trained, context.task, batch, split="validation", rivals=others
        )
        return [
            Evaluated(
                score.value,
                score.loss,
                None if score.samples is None else score.samples.kept,
                score.is_partial,
            )
            for score in found
        ]

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
        races=True,
        clock=clock,
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


def _searched(device: ProfiledDevice, outcome: DeviceOutcome, optimism: float) -> SearchedDevice:
    latency = device.latency
    offered = [found for found in outcome.candidates if found.prediction.offered]
    points = [split_point(found.widths) for found in offered]
    return SearchedDevice(
        budget=device.budget,
        candidates=tuple(
            Candidate(
                widths=widths,
                precision=precision,
                metric_value=found.metric_value - optimism,
                loss=found.loss,
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
        samples=tuple(found.evaluated.samples for found in offered),
    )
