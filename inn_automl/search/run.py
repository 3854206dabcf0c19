"""The width search of a job: devices take turns, every accuracy counts for all of them, and
nothing found is lost.

What is called accuracy here is the metric value of whatever task the job has, in its metric; more
is better.

Where a device can be measured meanwhile, what was found is measured every few batches and
predictions follow; the search ends when hypervolume and front are stable: nothing grows, and what
may be on the front has been measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from inn_automl.core.errors import BackendError, SpecError
from inn_automl.core.metric import ACCURACY, Metric
from inn_automl.search.active_learning import MIN_ITERATION_SIZE, choose_to_measure, iteration_size
from inn_automl.search.pareto import hypervolume_history, pareto_front
from inn_automl.search.state import Evaluation, EvaluationTable, exclusive, open_journal
from inn_automl.search.study import DeviceSearch, Prediction, WidthStudy

STALL_GROWTH = 1e-3
"""Hypervolume that grows by less than this share counts as stalled."""

Stopped = Literal["budget", "stalled", "exhausted", "interrupted"]


class Budget(Protocol):
    """What a search may cost. A `SearchBudget` is one."""

    @property
    def max_evaluations(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def patience(self) -> int: ...


@dataclass(frozen=True)
class SearchProgress:
    """What is known after a batch or a round of measurements.

    Args:
        batch: number of the latest batch, counted from 0.
        device: the device that asked for it.
        num_evaluations: without those that were inherited from another search.
        num_measured: by device, widths that were measured in the search.
        hypervolume: by device, in accuracy times milliseconds.
        best: by device, predicted latency in milliseconds and accuracy of its most accurate
            feasible candidate.
    """

    batch: int
    device: str
    num_evaluations: int
    max_evaluations: int
    hypervolume: dict[str, float]
    best: dict[str, tuple[float, float] | None]
    num_measured: dict[str, int]


@dataclass(frozen=True)
class SearchedWidths:
    """An evaluated point as one device sees it."""

    widths: dict[str, int]
    metric_value: float
    prediction: Prediction
    feasible: bool


@dataclass(frozen=True)
class DeviceOutcome:
    """What the search found for one device.

    Args:
        candidates: everything evaluated in the job, in that order.
        front: indices of the feasible candidates that no other feasible one beats, sorted by
            predicted latency.
        hypervolume: of the feasible candidates, after each batch of the job, all by the latest
            predictions.
        reference: latency in milliseconds and accuracy of the point that hypervolume is measured
            from.
        stopped: why no more was evaluated for this device.
        reason: the same as a sentence.
    """

    name: str
    candidates: tuple[SearchedWidths, ...]
    front: tuple[int, ...]
    hypervolume: tuple[float, ...]
    reference_point: tuple[float, float]
    stopped: Stopped
    reason: str


@dataclass(frozen=True)
class SearchOutcome:
    """What the search found, and why it stopped."""

    evaluations: tuple[Evaluation, ...]
    devices: tuple[DeviceOutcome, ...]
    stopped: Stopped
    reason: str


def run_search(
    devices: Sequence[DeviceSearch],
    evaluate: Callable[[list[dict[str, int]]], Iterable[float]],
    budget: Budget,
    state_dir: Path,
    *,
    seed: int = 0,
    baseline: float = 0.0,
    metric: Metric = ACCURACY,
    on_batch: Callable[[SearchProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SearchOutcome:
    """Searches widths for all devices until the budget is spent, nothing grows, or nothing is
    left.

    The state in `state_dir` is complete at any moment: the same call goes on where a killed one
    stopped, evaluates only what is missing, and ends as if nothing had happened. With other
    devices it starts from all accuracies known.

    Args:
        devices: at least one; all of the same network.
        evaluate: accuracy (a share in 0..1, or what `metric` says) of each of the given widths, in
            their order. It may be a generator: what it has yielded is kept even if it is
            interrupted.
        budget: evaluations in all, evaluations a batch, and batches without growth of any device's
            hypervolume.
        state_dir: folder of this search alone.
        seed: of all random choices.
        baseline: accuracy that is worth nothing, e.g. that of guessing.
        metric: what accuracies are in.
        on_batch: called after each batch and each round of measurements.
        should_stop: asked before each batch, and after each accuracy that a generator yields.

    Returns:
        The outcome; on KeyboardInterrupt too, with what was found so far and `stopped`
        "interrupted".

    Raises:
        SpecError: there is no device, or two share a name.
        JobDirectoryError: the folder belongs to another network, or another process is using it.
        BackendError: `evaluate` did not return one finite number for each of the widths.
        MeasurementError: a device could not be measured.
        StorageError: the state cannot be read or written.
    """
    names = [device.name for device in devices]
    if not names or len(set(names)) < len(names):
        raise SpecError(
            f"the devices to search are {names}: give at least one, each with its own name."
        )
    groups = {
        name: allowed[-1]
        for name, allowed in zip(devices[0].space.names, devices[0].space.allowed, strict=True)
    }
    with exclusive(state_dir), EvaluationTable(state_dir / "evaluations.jsonl", groups) as table:
        storage = open_journal(state_dir / "studies.journal")
        studies = [WidthStudy(device, storage, seed, baseline, metric=metric) for device in devices]
        search = _Search(studies, evaluate, budget, table, should_stop or (lambda: False))
        try:
            stopped = search.run(on_batch)
        except KeyboardInterrupt:
            stopped = "interrupted"
        return search.outcome(stopped)


class _Search:
    def __init__(
        self,
        studies: Sequence[WidthStudy],
        evaluate: Callable[[list[dict[str, int]]], Iterable[float]],
        budget: Budget,
        table: EvaluationTable,
        should_stop: Callable[[], bool],
    ) -> None:
        self.studies, self.evaluate, self.budget = studies, evaluate, budget
        self.table, self.should_stop = table, should_stop
        self.seen: list[list[SearchedWidths]] = [[] for _ in studies]
        self.tell()
        self.history = [self.hypervolumes(i) for i in range(len(studies))]

    def run(self, on_batch: Callable[[SearchProgress], None] | None) -> Stopped:
        while True:
            study, stopped = self.next_study(), None
            if self.table.begun is None:
                stopped = self.ended(study)
                if self.should_stop():
                    return "interrupted"
                if self.refine(is_last=stopped is not None):
                    if on_batch is not None:
                        on_batch(self.progress(study))
                    continue
            if stopped is not None or study is None:
                return stopped or "exhausted"
            batch = self.table.batch
            if self.should_stop() or not self.evaluate_batch(study):
                return "interrupted"
            if on_batch is not None and self.table.batch > batch:
                on_batch(self.progress(study))

    def ended(self, study: WidthStudy | None) -> Stopped | None:
        """Why nothing more is to be evaluated, if so."""
        if self.num_left() == 0:
            return "budget"
        if self.stalled():
            return "stalled"
        return "exhausted" if study is None else None

    def refine(self, *, is_last: bool) -> bool:
        """Measures on each device what is due; whether any was."""
        done = self.table.num_own / self.budget.max_evaluations
        any_measured = False
        for i, study in enumerate(self.studies):
            active_learning = study.device.active_learning
            if active_learning is None:
                continue
            num = iteration_size(active_learning, self.table.batch, done, is_last=is_last)
            widths = self.to_measure(i, num)
            if not widths or (len(widths) < MIN_ITERATION_SIZE and not is_last):
                continue
            active_learning.measure(self.table.batch, widths)
            study.refined()
            self.seen[i] = self.see(study, self.table.evaluations)
            self.history[i] = self.hypervolumes(i)
            any_measured = True
        return any_measured

    def to_measure(self, device: int, num: int) -> list[dict[str, int]]:
        """At most `num` evaluated widths whose measurement would tell most."""
        study = self.studies[device]
        active_learning = study.device.active_learning
        feasible = [one for one in self.seen[device] if one.feasible]
        if active_learning is None or num < 1:
            return []
        chosen = choose_to_measure(
            np.array([one.prediction.latency_ms for one in feasible]),
            np.array([one.metric_value for one in feasible]),
            [active_learning.is_measured(one.widths) for one in feasible],
            num,
            margin=active_learning.margin,
            max_latency_ms=study.device.bounds.max_latency_ms,
        )
        return [feasible[i].widths for i in chosen]

    def num_left(self) -> int:
        return max(self.budget.max_evaluations - self.table.num_own, 0)

    def evaluate_batch(self, study: WidthStudy) -> bool:
        """Evaluates a batch for one device and tells all; False if it was stopped before the end."""
        device = study.device.name
        if self.table.begun is None:
            widths = study.ask(min(self.budget.batch_size, self.num_left()))
            if not widths:
                return True
            self.table.begin_batch(device, len(widths))
        else:
            widths = study.ask(min(self.table.num_missing, self.num_left()))
        if widths and not self.evaluate_each(widths, device):
            return False
        self.tell()
        self.table.finish_batch(device)
        self.history = [self.hypervolumes(i) for i in range(len(self.studies))]
        return True

    def hypervolumes(self, device: int) -> list[float]:
        """After each batch, all by the latest predictions."""
        found = zip(self.table.evaluations, self.seen[device], strict=True)
        feasible = [(evaluation.batch, one) for evaluation, one in found if one.feasible]
        return hypervolume_history(
            [one.prediction.latency_ms for _, one in feasible],
            [one.metric_value for _, one in feasible],
            [batch for batch, _ in feasible],
            self.table.batch,
            self.studies[device].reference_point,
        )

    def evaluate_each(self, widths: list[dict[str, int]], device: str) -> bool:
        num_done = 0
        results = self.evaluate(widths)
        still_evaluating = not isinstance(results, Sequence)
        for metric_value in results:
            if num_done == len(widths) or not math.isfinite(metric_value):
                raise BackendError(
                    f"the evaluation of {len(widths)} widths returned {metric_value!r} as result "
                    f"{num_done + 1}: "
                    "it must return one finite accuracy for each."
                )
            self.table.add(widths[num_done], float(metric_value), device)
            num_done += 1
            if still_evaluating and num_done < len(widths) and self.should_stop():
                return False
        if num_done < len(widths):
            raise BackendError(
                f"the evaluation of {len(widths)} widths returned {num_done}: return one for each."
            )
        return True

    def tell(self) -> None:
        """Tells every study what the table has gained."""
        new = self.table.evaluations[len(self.seen[0]) :]
        for study, seen in zip(self.studies, self.seen, strict=True):
            for evaluation in new:
                study.tell(evaluation.widths, evaluation.metric_value)
            seen += self.see(study, new)

    def see(self, study: WidthStudy, evaluations: Sequence[Evaluation]) -> list[SearchedWidths]:
        device = study.device
        predictions = (
            device.predict([evaluation.widths for evaluation in evaluations]) if evaluations else []
        )
        return [
            SearchedWidths(
                evaluation.widths, evaluation.metric_value, prediction, device.feasible(prediction)
            )
            for evaluation, prediction in zip(evaluations, predictions, strict=True)
        ]

    def next_study(self) -> WidthStudy | None:
        """The study whose batch was cut short, or else the next one in turn that has anything
        left.
        """
        by_name = {study.device.name: i for i, study in enumerate(self.studies)}
        if self.table.begun is not None and self.table.begun[0] in by_name:
            return self.studies[by_name[self.table.begun[0]]]
        last = by_name.get(self.table.finished[-1], -1) if self.table.finished else -1
        turns = [self.studies[(last + 1 + i) % len(self.studies)] for i in range(len(self.studies))]
        return next((study for study in turns if not study.exhausted), None)

    def stalled(self) -> bool:
        # Each device gets at least one batch in the window, whatever the patience.
        window = max(self.budget.patience, len(self.studies))
        if self.table.batch <= window:
            return False
        return all(
            history[-1] <= history[-1 - window] * (1.0 + STALL_GROWTH) for history in self.history
        )

    def progress(self, study: WidthStudy | None) -> SearchProgress:
        best: dict[str, tuple[float, float] | None] = {}
        for other, seen in zip(self.studies, self.seen, strict=True):
            feasible = [
                (one.metric_value, -one.prediction.latency_ms) for one in seen if one.feasible
            ]
            best[other.device.name] = (-max(feasible)[1], max(feasible)[0]) if feasible else None
        return SearchProgress(
            batch=self.table.batch - 1,
            device="" if study is None else study.device.name,
            num_evaluations=self.table.num_own,
            max_evaluations=self.budget.max_evaluations,
            hypervolume={
                s.device.name: history[-1]
                for s, history in zip(self.studies, self.history, strict=True)
            },
            best=best,
            num_measured={
                s.device.name: s.device.active_learning.num_made
                for s in self.studies
                if s.device.active_learning is not None
            },
        )

    def outcome(self, stopped: Stopped) -> SearchOutcome:
        self.tell()
        devices = []
        for study, seen, history in zip(self.studies, self.seen, self.history, strict=True):
            feasible = [i for i, one in enumerate(seen) if one.feasible]
            front = pareto_front(
                [seen[i].prediction.latency_ms for i in feasible],
                [seen[i].metric_value for i in feasible],
            )
            own: Stopped = "exhausted" if study.exhausted else stopped
            devices.append(
                DeviceOutcome(
                    name=study.device.name,
                    candidates=tuple(seen),
                    front=tuple(feasible[i] for i in front),
                    hypervolume=tuple(history),
                    reference_point=study.reference_point,
                    stopped=own,
                    reason=self.reason(own, any_feasible=bool(feasible))
                    + self.measured(study, [seen[feasible[i]] for i in front]),
                )
            )
        any_feasible = any(device.front for device in devices)
        return SearchOutcome(
            tuple(self.table.evaluations),
            tuple(devices),
            stopped,
            self.reason(stopped, any_feasible=any_feasible),
        )

    def measured(self, study: WidthStudy, front: Sequence[SearchedWidths]) -> str:
        """How far the front consists of measurements, as a sentence."""
        active_learning = study.device.active_learning
        if active_learning is None or not front:
            return ""
        num = sum(active_learning.is_measured(one.widths) for one in front)
        if num == len(front):
            return f" All {num} widths of its front are measured."
        limit = "" if active_learning.num_left else ": no more measurements are allowed"
        return f" {num} of the {len(front)} widths of its front are measured{limit}."

    def reason(self, stopped: Stopped, *, any_feasible: bool) -> str:
        num = self.table.num_own
        if stopped == "budget":
            return f"The budget of {self.budget.max_evaluations} accuracy evaluations is spent."
        if stopped == "stalled":
            window = max(self.budget.patience, len(self.studies))
            return f"Hypervolume grew by less than {STALL_GROWTH:.1%} in {window} batches ({num} evaluations in all)."
        if stopped == "interrupted":
            return f"Interrupted after {num} evaluations; the same command goes on."
        if not any_feasible:
            return "No widths are predicted to keep the bounds."
        return "Nothing new that is predicted to keep the bounds was found: all feasible widths are evaluated."
