"""Searching stage: widths are evaluated where they may extend the front of a device.

Candidates on the predicted front are measured in a few rounds, and the latency model is fitted
again. What is measured and evaluated is written to `DIR/search/`, so that a search that was stopped
continues where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inn_automl.core.metric import Metric
from inn_automl.core.precision import split_point
from inn_automl.core.result import Candidate, CostModelErrors, Granularity
from inn_automl.core.spec import DeviceBudget
from inn_automl.core.stage import Stage
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.device_latency import DeviceLatency
from inn_automl.pipeline.profiling import ProfiledDevice
from inn_automl.search.device import DeviceSearch
from inn_automl.search.outcome import DeviceOutcome, SearchProgress
from inn_automl.search.run import run_search
from inn_automl.tasks import objective_of
from inn_automl.training.trial import Trained


@dataclass(frozen=True)
class SearchedDevice:
    """What the search found for one device; latencies are predicted."""

    budget: DeviceBudget
    candidates: list[Candidate]
    """All widths that were evaluated for any device, with this device's predicted latency."""
    feasible: list[bool]
    """Whether each candidate is predicted to keep this device's bounds."""
    cost_model_errors: CostModelErrors
    reference_ms: float
    """What the reference model took while predictions were learned; 0 where it is not known."""
    num_measured: int
    granularity: Granularity | None
    hypervolume: list[float]
    reference_point: tuple[float, float]
    stopped: str


def search_widths(
    job: JobContext, trained: Trained, profiled: Sequence[ProfiledDevice]
) -> list[SearchedDevice]:
    """Searches widths for all devices that were profiled.

    Raises:
        BackendError, StorageError: the workers or the folder failed; what was found so far is
            kept.
    """
    with job.stage(Stage.SEARCHING):
        found = _search(job, trained, profiled)
        for one in profiled:
            _conclude(job, one.latency)
        return found


def _conclude(job: JobContext, latency: DeviceLatency) -> None:
    """Says what the search's own measurements have told of a device, and keeps them for later
    jobs.
    """
    if latency.num_made:
        for note in latency.describe():
            job.progress.note(note)
        job.progress.note(
            f"{latency.budget.name}: {latency.num_made} widths were measured in the search"
        )
    if granularity := latency.granularity():
        job.progress.note(f"{latency.budget.name}: {granularity.sentence}")
    latency.save_measurements()


def _search(
    job: JobContext, trained: Trained, profiled: Sequence[ProfiledDevice]
) -> list[SearchedDevice]:
    budget, objective = job.spec.budget.search, objective_of(job.dataset)
    metric = objective.metric

    def evaluate(batch: list[dict[str, int]]) -> list[float]:
        return [
            e.metric_value
            for e in job.backend.evaluate(trained, job.dataset, batch, split="validation")
        ]

    def show(progress: SearchProgress) -> None:
        found = [best[1] for best in progress.best.values() if best is not None]
        job.progress.update(
            progress.num_evaluations / progress.max_evaluations,
            best=f"{metric.brief(max(found))} within the bounds" if found else None,
            detail=f"{progress.num_evaluations} widths evaluated, "
            f"{sum(progress.num_measured.values())} measured",
        )

    outcome = run_search(
        [
            DeviceSearch(
                name=one.latency.budget.name,
                space=one.latency.space,
                bounds=one.latency.budget,
                predict=one.predict,
                active_learning=one.latency,
            )
            for one in profiled
        ],
        evaluate,
        budget,
        job.folder / "search" / "state",
        seed=job.spec.seed,
        baseline=objective.baseline(job.dataset),
        metric=metric,
        on_batch=show,
    )
    if outcome.stopped == "interrupted":
        raise KeyboardInterrupt
    return [
        _searched(one.latency, device, metric)
        for one, device in zip(profiled, outcome.devices, strict=True)
    ]


def _searched(latency: DeviceLatency, outcome: DeviceOutcome, metric: Metric) -> SearchedDevice:
    offered = [candidate for candidate in outcome.candidates if candidate.prediction.offered]
    points = [split_point(candidate.widths) for candidate in offered]
    return SearchedDevice(
        budget=latency.budget,
        candidates=[
            Candidate(
                widths=widths,
                precision=precision,
                metric_value=candidate.metric_value,
                params=candidate.prediction.params,
                macs=candidate.prediction.macs,
                predicted_latency_ms=candidate.prediction.latency_ms,
            )
            for candidate, (widths, precision) in zip(offered, points, strict=True)
        ],
        feasible=[candidate.feasible for candidate in offered],
        cost_model_errors=latency.errors,
        reference_ms=latency.reference_ms,
        num_measured=latency.num_measured,
        granularity=latency.granularity(),
        hypervolume=list(outcome.hypervolume),
        reference_point=outcome.reference_point,
        stopped=outcome.reason,
    )
