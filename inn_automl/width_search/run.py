"""The width search of a job, for all of its devices.

Devices propose batches in turn, and every evaluation counts for all of them. Metric values are
those of the job's task; higher is better. Devices that can be measured meanwhile are measured
every few batches, and their cost models are refitted (`active_learning`). The search ends when
hypervolume stalls and all that may be on the front was measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from inn_automl.core.errors import BackendError, JobDirectoryError, SpecError
from inn_automl.core.locking import file_lock
from inn_automl.core.metric import ACCURACY, Metric
from inn_automl.core.spec import SearchBudget
from inn_automl.width_search.clock import SearchClock
from inn_automl.width_search.device import DeviceSearch
from inn_automl.width_search.device_view import DeviceView
from inn_automl.width_search.evaluated import Evaluated
from inn_automl.width_search.evaluations import EvaluationTable
from inn_automl.width_search.outcome import DeviceOutcome, SearchOutcome, SearchProgress, Stopped
from inn_automl.width_search.stopping import HypervolumeStopping
from inn_automl.width_search.study import WidthStudy

EVALUATIONS = "evaluations.jsonl"

MIN_EVALUATED = 3
"""Widths that are evaluated for each device even where no time is left: the fastest, the slowest
and one between."""

Evaluate = Callable[..., Iterable[float | Evaluated]]
"""Widths -> what was found of each, in their order. Where the search races, the second argument is
what is known of their rivals: for each the best candidate that is no slower, or None.
"""


def run_search(
    devices: Sequence[DeviceSearch],
    evaluate: Evaluate,
    budget: SearchBudget,
    state_dir: Path,
    *,
    seed: int = 0,
    baseline: float = 0.0,
    metric: Metric = ACCURACY,
    races: bool = False,
    clock: SearchClock | None = None,
    on_batch: Callable[[SearchProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SearchOutcome:
    """Searches widths for all devices until the budget is spent, hypervolume stalls, or nothing is
    left.

    The state in `state_dir` is complete at any moment: the same call resumes where a killed one
    stopped, evaluates only what is missing, and ends as if it had not been killed. With other
    devices it starts from all metric values known.

    Args:
        devices: at least one; all of the same network.
        evaluate: returns the metric value of each of the given widths, in their order. If it is a
            generator, what it has yielded remains even if it is interrupted.
        budget: evaluations in total, evaluations per batch, and the window of the stopping rule.
        state_dir: folder of this search alone.
        seed: of all random choices.
        baseline: metric value that is worth nothing, e.g. that of guessing.
        metric: of the job's task.
        races: whether `evaluate` takes the rivals of the widths.
        clock: what is left of the time; None where there is no limit.
        on_batch: called after each batch and each iteration of measurements.
        should_stop: called before each batch, and after each value that a generator yields.

    Returns:
        The outcome; on KeyboardInterrupt too, with what was found so far and `stopped`
        "interrupted".

    Raises:
        SpecError: there is no device, or two share a name.
        JobDirectoryError: the folder belongs to another network, or another process uses it.
        BackendError: `evaluate` did not return one finite number for each of the widths.
        MeasurementError: a device could not be measured.
        StorageError: the state cannot be read or written.
    """
    names = [device.name for device in devices]
    if not names or len(set(names)) < len(names):
        raise SpecError(
            f"the devices to search are {names}: give at least one, each with its own name."
        )
    space = devices[0].space
    groups = {name: allowed[-1] for name, allowed in zip(space.names, space.allowed, strict=True)}
    with _exclusive(state_dir), EvaluationTable(state_dir / EVALUATIONS, groups) as table:
        studies = [_study(device, table, seed, baseline, metric) for device in devices]
        clock = clock or SearchClock()
        search = _Search(studies, evaluate, budget, table, clock, should_stop or (lambda: False))
        search.races = races
        try:
            stopped = search.run(on_batch)
        except KeyboardInterrupt:
            stopped = "interrupted"
        return search.outcome(stopped)


def _study(
    device: DeviceSearch, table: EvaluationTable, seed: int, baseline: float, metric: Metric
) -> WidthStudy:
    """Makes the study of a device with the initial design on record, and records a new one."""
    design = table.initial_designs.get(device.name)
    study = WidthStudy(device, seed=seed, baseline=baseline, metric=metric, design=design)
    if design is None:
        table.set_initial_design(device.name, study.design)
    return study


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Keeps every other process out of a folder.

    Raises:
        JobDirectoryError: another process is in there.
        StorageError: the folder cannot be made or locked.
    """
    try:
        with file_lock(folder / "lock"):
            yield
    except TimeoutError as error:
        raise JobDirectoryError(
            f"another process is searching in {str(folder)!r}: wait for it or choose another "
            f"output folder."
        ) from error


class _Search:
    def __init__(
        self,
        studies: Sequence[WidthStudy],
        evaluate: Evaluate,
        budget: SearchBudget,
        table: EvaluationTable,
        clock: SearchClock,
        should_stop: Callable[[], bool],
    ) -> None:
        self.clock, self.races = clock, False
        self.views = [DeviceView(study) for study in studies]
        self.evaluate, self.budget = evaluate, budget
        self.table, self.should_stop = table, should_stop
        self.stopping = HypervolumeStopping(budget.patience, len(studies))
        self.synchronize()
        for view in self.views:
            view.update_history(table.batch)
            if table.begun is not None and table.begun.device == view.name:
                view.study.resume(table.missing)

    def run(self, on_batch: Callable[[SearchProgress], None] | None) -> Stopped:
        while True:
            view, stopped = self.next_view(), None
            if self.table.begun is None:
                stopped = self.ended(view)
                if self.should_stop():
                    return "interrupted"
                if self.measure(is_last=stopped is not None):
                    if on_batch is not None:
                        on_batch(self.progress(view))
                    continue
            if stopped is not None or view is None:
                return stopped or "exhausted"
            batch = self.table.batch
            if self.should_stop() or not self.evaluate_batch(view):
                return "interrupted"
            if on_batch is not None and self.table.batch > batch:
                on_batch(self.progress(view))

    def ended(self, view: DeviceView | None) -> Stopped | None:
        """Reason why nothing more is to be evaluated; None if the search goes on."""
        if self.num_left == 0:
            return "budget"
        if self.num_fitting == 0:
            return "time"
        if self.stopping.should_stop([one.history for one in self.views]):
            return "stalled"
        return "exhausted" if view is None else None

    def measure(self, *, is_last: bool) -> bool:
        """Measures on each device what is due; whether any was."""
        done = self.table.num_own / self.budget.max_evaluations
        measured = False
        for view in self.views:
            num = view.num_to_measure(self.table.batch, done, is_last=is_last)
            with self.clock.measuring():
                num = view.measure(
                    self.table.batch, min(num, self.clock.num_measurements), is_last=is_last
                )
                self.clock.count_measured(num)
            measured |= num > 0
        return measured

    @property
    def num_left(self) -> int:
        return max(self.budget.max_evaluations - self.table.num_own, 0)

    @property
    def num_fitting(self) -> int:
        """Evaluations that the time leaves, and in any case those that a front needs."""
        missing = MIN_EVALUATED * len(self.views) - len(self.table.evaluations)
        return max(self.clock.num_evaluations, missing, 0)

    def evaluate_batch(self, view: DeviceView) -> bool:
        """Evaluates a batch that one device proposes; False if it was stopped before the end."""
        if self.table.begun is None:
            most = min(self.budget.batch_size, self.num_left, self.num_fitting)
            widths = view.study.ask(most)
            if not widths:
                return True
            self.table.begin_batch(view.name, widths)
        else:
            widths = view.study.ask(min(self.table.num_missing, self.num_left))
        if widths and not self.evaluate_each(widths, view.name):
            return False
        self.synchronize()
        self.table.finish_batch(view.name)
        for one in self.views:
            one.update_history(self.table.batch)
        return True

    def evaluate_each(self, widths: list[dict[str, int]], device: str) -> bool:
        num_done = 0
        arguments = [[self.rival(one) for one in widths]] if self.races else []
        started_s = time.monotonic()
        results = self.evaluate(widths, *arguments)
        still_evaluating = not isinstance(results, Sequence)
        for value in results:
            found = Evaluated.of(value)
            if num_done == len(widths) or not math.isfinite(found.metric_value):
                raise BackendError(
                    f"the evaluation of {len(widths)} widths returned {found.metric_value!r} as "
                    f"result {num_done + 1}: it must return one finite number for each."
                )
            self.table.add(widths[num_done], found, device)
            num_done += 1
            self.clock.count_evaluated(num_done, time.monotonic() - started_s)
            if still_evaluating and num_done < len(widths) and self.should_stop():
                return False
        if num_done < len(widths):
            raise BackendError(
                f"the evaluation of {len(widths)} widths returned {num_done}: return one for each."
            )
        return True

    def rival(self, widths: dict[str, int]) -> Evaluated | None:
        """The known candidate to beat: no slower on any device, the weakest of the devices'."""
        rivals = []
        for view in self.views:
            prediction = view.study.device.predict([widths])[0]
            if view.study.device.feasible(prediction):
                rivals.append(view.rival(prediction.latency_ms))
        known = [one for one in rivals if one is not None]
        if len(known) < len(rivals) or not known:
            return None
        return min(known, key=lambda one: one.metric_value)

    def synchronize(self) -> None:
        """Tells every device what the table has gained."""
        new = self.table.evaluations[len(self.views[0].candidates) :]
        for view in self.views:
            view.add(new)

    def next_view(self) -> DeviceView | None:
        """The device whose batch was cut short, else the next one in turn that is not exhausted."""
        by_name = {view.name: i for i, view in enumerate(self.views)}
        if self.table.begun is not None and self.table.begun.device in by_name:
            return self.views[by_name[self.table.begun.device]]
        last = by_name.get(self.table.finished[-1], -1) if self.table.finished else -1
        turns = [self.views[(last + 1 + i) % len(self.views)] for i in range(len(self.views))]
        return next((view for view in turns if not view.study.exhausted), None)

    def progress(self, view: DeviceView | None) -> SearchProgress:
        return SearchProgress(
            batch=self.table.batch - 1,
            device="" if view is None else view.name,
            num_evaluations=self.table.num_own,
            max_evaluations=self.budget.max_evaluations,
            hypervolume={one.name: one.history[-1] for one in self.views},
            best={one.name: one.best for one in self.views},
            num_measured={
                one.name: one.study.device.active_learning.num_made
                for one in self.views
                if one.study.device.active_learning is not None
            },
        )

    def outcome(self, stopped: Stopped) -> SearchOutcome:
        self.synchronize()
        devices = tuple(self.device_outcome(view, stopped) for view in self.views)
        any_feasible = any(device.front for device in devices)
        reason = self.reason(stopped, any_feasible=any_feasible)
        return SearchOutcome(tuple(self.table.evaluations), devices, stopped, reason)

    def device_outcome(self, view: DeviceView, stopped: Stopped) -> DeviceOutcome:
        own: Stopped = "exhausted" if view.study.exhausted else stopped
        reason = self.reason(own, any_feasible=bool(view.feasible))
        return DeviceOutcome(
            name=view.name,
            candidates=tuple(view.candidates),
            front=view.front,
            hypervolume=tuple(view.history),
            reference_point=view.study.reference_point,
            stopped=own,
            reason=reason + view.measured_sentence(),
        )

    def reason(self, stopped: Stopped, *, any_feasible: bool) -> str:
        num = self.table.num_own
        if stopped == "budget":
            return f"The budget of {self.budget.max_evaluations} evaluations is spent."
        if stopped == "time":
            return f"The time for the search is spent ({num} evaluations in all)."
        if stopped == "stalled":
            return f"{self.stopping} ({num} evaluations in all)."
        if stopped == "interrupted":
            return f"Interrupted after {num} evaluations; run the same command again to resume."
        if not any_feasible:
            return "No widths are predicted to keep the bounds."
        return (
            "Nothing new that is predicted to keep the bounds was found: all feasible widths are "
            "evaluated."
        )
