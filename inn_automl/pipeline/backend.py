"""Backends do the heavy work of a job: train candidates, evaluate widths, fine-tune models.

The pipeline calls a `Backend`; `LocalBackend` works in this process,
`inn_automl_workers.ray_backend.RayBackend` on a Ray cluster.
"""

from __future__ import annotations

import abc
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from inn_automl.core.errors import BackendError, TrainingError
from inn_automl.core.precision import split_point
from inn_automl.evaluation.candidates import (
    CandidateBuilder,
    Evaluation,
    evaluate_module,
    split_samples,
)
from inn_automl.evaluation.onnx_precision import converted_file, evaluate_file, template_of
from inn_automl.training.fine_tuning import FineTuningOutcome
from inn_automl.training.fine_tuning_request import FineTuner, FineTuningRequest
from inn_automl.training.loop import EpochReport
from inn_automl.training.recipe import TrialSpec
from inn_automl.training.trial import Trained, run_trial

if TYPE_CHECKING:
    from inn_automl.data import Dataset
    from inn_automl.integral import Widths

OVERCOMMIT = 1.3
"""Factor of its even part of the time that a trial plans for: weak rivals are stopped before they
use theirs.
"""


@dataclass(frozen=True)
class TrainingRequest:
    """Training candidates for a backend to train."""

    family: str
    candidates: tuple[TrialSpec, ...]
    dataset: Dataset
    folder: Path
    """One folder a trial is made in here; all workers must be able to write to it."""
    seed: int
    seconds: float
    max_epochs: int | None
    cpus: int
    gpus: int
    workers_per_trial: int = 1
    """Processes that train one candidate together."""

    def trial_folder(self, index: int) -> Path:
        return self.folder / f"trial-{index}"

    def planned_seconds(self, remaining_s: float, num_parallel: int) -> float:
        """Seconds that one trial may plan for, when `remaining_s` is left for all not done."""
        waves = -(-len(self.candidates) // max(1, num_parallel))
        return remaining_s if waves == 1 else min(remaining_s, OVERCOMMIT * self.seconds / waves)


Report = Callable[[int, EpochReport], None]
"""Called with a trial's index after each of its epochs."""


class Backend(abc.ABC):
    """Trains candidates and evaluates widths. Safe to call again with the same task: what is done
    is not done twice.
    """

    @abc.abstractmethod
    def train(self, task: TrainingRequest, report: Report) -> list[Trained]:
        """Trains the candidates within the task's time and returns those that reached a result,
        best first.

        Raises:
            TrainingError: every candidate failed.
            BackendError: the workers could not do it.
        """

    @abc.abstractmethod
    def evaluate(
        self, trained: Trained, dataset: Dataset, batch: Sequence[Widths], *, split: str
    ) -> list[Evaluation]:
        """Metric value on a split at each of the widths.

        Args:
            batch: points: widths by group and, where it is not fp32, the precision (see
                `inn_automl.core.precision`), whose metric value is that of the very file.

        Raises:
            WidthsError: widths that the network does not allow.
            ExportError: a file of another precision could not be made.
            BackendError: the workers could not do it.
        """

    @abc.abstractmethod
    def fine_tune(
        self,
        trained: Trained,
        dataset: Dataset,
        tasks: Sequence[FineTuningRequest],
        *,
        on_progress: Callable[[float], None],
    ) -> list[FineTuningOutcome]:
        """Fine-tunes a model of the network at each task's widths.

        A task whose file has the outcome already is not run again.

        Args:
            on_progress: called with the fraction that is done.

        Raises:
            WidthsError: widths that the network does not allow.
            BackendError: the workers could not do it.
        """

    @abc.abstractmethod
    def fine_tuning_seconds(self, tasks: Sequence[FineTuningRequest]) -> float:
        """Seconds that the tasks that are not done take at most, without their start."""

    def close(self) -> None:  # noqa: B027 - most backends hold nothing
        """Frees what the backend holds."""


class Evaluator:
    """Evaluates points of one network on one split; what is shared between them is made once."""

    def __init__(
        self, trained: Trained, dataset: Dataset, split: str, *, device: str = "cpu"
    ) -> None:
        self._architecture, self._dataset, self._split = trained.architecture, dataset, split
        self._network = trained.network().to(device)
        self._samples = split_samples(dataset, split, device=device)
        self._candidates = CandidateBuilder(self._network, dataset, device=device)

    def __call__(self, point: Widths) -> Evaluation:
        widths, precision = split_point(point)
        made = self._candidates.make(widths)
        if precision == "fp32":
            score = (
                made.score
                if self._split == "validation"
                else evaluate_module(made.module, self._samples)
            )
            return Evaluation(score, made.num_recalibration)
        template = template_of(self._architecture, self._dataset)
        with converted_file(template, made.module, self._dataset, precision, widths=widths) as (
            _,
            path,
        ):
            return evaluate_file(
                path, self._dataset, self._split, num_recalibration=made.num_recalibration
            )


def best_first(results: Sequence[Trained | None], failures: Sequence[str]) -> list[Trained]:
    """Trials that reached a result, best first.

    Raises:
        TrainingError: there is none.
    """
    done = [trained for trained in results if trained is not None]
    if not done:
        reasons = (
            "; ".join(dict.fromkeys(failures))
            or "no trial finished an epoch: give training.max_minutes more"
        )
        raise TrainingError(f"none of {len(results)} training candidates succeeded: {reasons}.")
    return sorted(done, key=lambda trained: (-trained.score, -trained.best_score))


class LocalBackend(Backend):
    """Works in this process, one trial after the other."""

    def __init__(self, *, cpus: int = 1, gpus: int = 0, address: str | None = None) -> None:
        if address is not None:
            raise BackendError(
                f"the local backend joins no cluster, address {address!r} was given: use --backend "
                f"ray."
            )
        self._device = "cuda" if gpus and torch.cuda.is_available() else "cpu"
        self._threads = cpus
        self._evaluators: dict[tuple[Path, str], Evaluator] = {}

    def train(self, task: TrainingRequest, report: Report) -> list[Trained]:
        if task.workers_per_trial > 1:
            raise BackendError(
                f"the local backend trains in one process, training.workers_per_trial = "
                f"{task.workers_per_trial} was "
                "given: use --backend ray, or set it to 1."
            )
        end_s = time.monotonic() + task.seconds
        results: list[Trained | None] = []
        failures: list[str] = []
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            for index, candidate in enumerate(task.candidates):
                remaining_s = end_s - time.monotonic()
                finished = (task.trial_folder(index) / "outcome.json").exists()
                if results and remaining_s <= 0 and not finished:
                    break
                try:
                    results.append(
                        run_trial(
                            candidate,
                            task.family,
                            task.dataset,
                            task.trial_folder(index),
                            seed=task.seed,
                            seconds=max(0.0, remaining_s) / (len(task.candidates) - index),
                            max_epochs=task.max_epochs,
                            device=self._device,
                            on_epoch=functools.partial(report, index),
                        )
                    )
                except TrainingError as error:
                    failures.append(str(error))
        finally:
            torch.set_num_threads(before)
        return best_first(results, failures)

    def evaluate(
        self, trained: Trained, dataset: Dataset, batch: Sequence[Widths], *, split: str
    ) -> list[Evaluation]:
        key = (trained.folder, split)
        if key not in self._evaluators:
            self._evaluators[key] = Evaluator(trained, dataset, split, device=self._device)
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            return [self._evaluators[key](widths) for widths in batch]
        finally:
            torch.set_num_threads(before)

    def fine_tune(
        self,
        trained: Trained,
        dataset: Dataset,
        tasks: Sequence[FineTuningRequest],
        *,
        on_progress: Callable[[float], None],
    ) -> list[FineTuningOutcome]:
        outcomes: list[FineTuningOutcome] = []
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            fine_tuner = FineTuner(trained, dataset, device=self._device)
            for task in tasks:
                on_progress(len(outcomes) / len(tasks))
                outcomes.append(fine_tuner(task))
        finally:
            torch.set_num_threads(before)
        return outcomes

    def fine_tuning_seconds(self, tasks: Sequence[FineTuningRequest]) -> float:
        return sum(task.seconds for task in tasks if not task.is_done)
