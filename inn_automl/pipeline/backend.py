"""The heavy work of a job: training trials, evaluating widths, fine-tuning models.

The pipeline calls a `Backend`; `LocalBackend` works in this process,
`inn_automl_workers.ray_backend.RayBackend` on a Ray cluster.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from inn_automl.core.errors import BackendError, TrainingError
from inn_automl.core.precision import split_point
from inn_automl.core.sample_scores import SampleScores
from inn_automl.evaluation.building import make_builder
from inn_automl.evaluation.candidates import CandidateBuilder, evaluate_module
from inn_automl.evaluation.onnx_precision import OnnxTemplates, converted_file, evaluate_file
from inn_automl.training.fine_tuning import FineTuningOutcome
from inn_automl.training.fine_tuning_request import FineTuner, FineTuningRequest
from inn_automl.training.loop import EpochReport
from inn_automl.training.recipe import TrialSpec
from inn_automl.training.trained import OUTCOME, Trained
from inn_automl.training.trial import run_trial

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork, Widths
    from inn_automl.models.architecture import Architecture
    from inn_automl.tasks import Score, Task

OVERCOMMIT = 1.3
"""Factor by which the planned time of a trial exceeds an even part of the whole: weak trials are
stopped before they use their part.
"""


@dataclass(frozen=True)
class TrainingRequest:
    """Training candidates for a backend to train."""

    model: str
    """Name of a model family, or of a network of the zoo."""
    specs: tuple[TrialSpec, ...]
    """One for each trial."""
    task: Task
    folder: Path
    """One folder a trial is made in here; all workers must be able to write to it."""
    seed: int
    seconds: float
    max_epochs: int | None
    cpus: int
    gpus: int
    workers_per_trial: int = 1
    """Processes that train one network together."""
    start: Path | None = None
    """File of `InitialWeights` that every trial starts from; None for fresh networks."""

    def trial_folder(self, index: int) -> Path:
        return self.folder / f"trial-{index}"

    def planned_seconds(self, remaining_s: float, num_parallel: int) -> float:
        """Seconds that a trial may plan for, when `remaining_s` is left for all unfinished ones.

        Of trials side by side each plans for all of the time: the best one uses it, and those that
        fall behind make room for the next. Trials one after the other share it.
        """
        if num_parallel > 1 or len(self.specs) == 1:
            return remaining_s
        return min(remaining_s, OVERCOMMIT * self.seconds / len(self.specs))


Report = Callable[[int, EpochReport], None]
"""Called with a trial's index after each of its epochs."""


class Backend(abc.ABC):
    """Trains networks, evaluates widths and fine-tunes models. A request may be repeated: finished
    work is not done twice.
    """

    @functools.cached_property
    def templates(self) -> OnnxTemplates:
        """Exporters that this process has made."""
        return OnnxTemplates()

    @abc.abstractmethod
    def train(self, request: TrainingRequest, report: Report) -> list[Trained]:
        """Trains the networks within the request's time and returns those that reached a result,
        best first.

        Raises:
            TrainingError: every trial failed.
            BackendError: the workers could not do it.
        """

    @abc.abstractmethod
    def evaluate(
        self,
        trained: Trained,
        task: Task,
        batch: Sequence[Widths],
        *,
        split: str,
        rivals: Sequence[SampleScores | None] = (),
    ) -> list[Score]:
        """Metric values on a split, one for each of the widths.

        Args:
            batch: points: widths by group and, where it is not fp32, the precision (see
                `inn_automl.core.precision`), whose metric value is that of the very file.
            rivals: what the validation samples say of another model, one for each of the batch:
                where a model is surely worse on a first share, its score is an estimate. Empty for
                none.

        Raises:
            WidthsError: widths that the network does not allow.
            ExportError: a file of another precision could not be made.
            BackendError: the workers could not do it.
        """

    @abc.abstractmethod
    def fine_tune(
        self,
        trained: Trained,
        task: Task,
        requests: Sequence[FineTuningRequest],
        *,
        on_progress: Callable[[float], None],
    ) -> list[FineTuningOutcome]:
        """Fine-tunes a model of the network at each request's widths, unless its outcome is stored.

        Args:
            on_progress: called with the fraction that is done.

        Raises:
            WidthsError: widths that the network does not allow.
            BackendError: the workers could not do it.
        """

    @abc.abstractmethod
    def fine_tuning_seconds(self, requests: Sequence[FineTuningRequest]) -> float:
        """Seconds that the unfinished requests may take, without the preparation of each."""

    def close(self) -> None:  # noqa: B027 - most backends hold nothing
        """Frees the resources of the backend."""


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Evaluates points of one network on one split, from candidates that are prepared once.

    Attributes:
        architecture: of the network.
        candidates: builds the network's candidates, on the task's device.
        task: whose samples and metric are used.
        split: to evaluate on.
        templates: exporters, for points in other precisions than fp32.
    """

    architecture: Architecture
    candidates: CandidateBuilder
    task: Task
    split: str
    templates: OnnxTemplates

    @classmethod
    def load(cls, trained: Trained, task: Task, split: str, templates: OnnxTemplates) -> Evaluator:
        """Loads the network and prepares its candidates.

        Raises:
            InputError: there is no such split.
            CorruptFileError: the network cannot be read.
        """
        task.split(split)
        network: IntegralNetwork = trained.network().to(task.device)
        candidates = make_builder(network, task, trained.folder)
        return cls(trained.architecture, candidates, task, split, templates)

    def batch(
        self, points: Sequence[Widths], rivals: Sequence[SampleScores | None] = ()
    ) -> list[Score]:
        """The metric values at points, each against its rival, where there are any."""
        return [
            self(point, rival)
            for point, rival in zip(points, rivals or [None] * len(points), strict=True)
        ]

    def __call__(self, point: Widths, rival: SampleScores | None = None) -> Score:
        """The metric value at a point: widths, and the precision where it is not fp32.

        Args:
            rival: of another model on the validation samples; see `Backend.evaluate`.
        """
        widths, precision = split_point(point)
        # A file is another model than the one it is made of, and a test is no race.
        races = precision == "fp32" and self.split == "validation"
        built = self.candidates.build(widths, rival if races else None)
        if precision == "fp32":
            if self.split == "validation":
                return built.score
            return evaluate_module(built.module, self.task.split(self.split))
        dataset = self.task.dataset
        template = self.templates.get(self.architecture, dataset)
        with converted_file(template, built.module, dataset, precision, widths=widths) as (_, path):
            return evaluate_file(path, self.task, self.split)


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

    def train(self, request: TrainingRequest, report: Report) -> list[Trained]:
        if request.workers_per_trial > 1:
            raise BackendError(
                f"the local backend trains in one process, training.workers_per_trial = "
                f"{request.workers_per_trial} was "
                "given: use --backend ray, or set it to 1."
            )
        end_s = time.monotonic() + request.seconds
        task = request.task.to(self._device)
        results: list[Trained | None] = []
        failures: list[str] = []
        with self._own_threads():
            for index, spec in enumerate(request.specs):
                remaining_s = end_s - time.monotonic()
                finished = (request.trial_folder(index) / OUTCOME).exists()
                if results and remaining_s <= 0 and not finished:
                    break
                try:
                    trained = run_trial(
                        spec,
                        request.model,
                        task,
                        request.trial_folder(index),
                        seed=request.seed,
                        seconds=max(0.0, remaining_s) / (len(request.specs) - index),
                        max_epochs=request.max_epochs,
                        on_epoch=functools.partial(report, index),
                        start=request.start,
                    )
                except TrainingError as error:
                    failures.append(str(error))
                else:
                    results.append(trained)
        return best_first(results, failures)

    def evaluate(
        self,
        trained: Trained,
        task: Task,
        batch: Sequence[Widths],
        *,
        split: str,
        rivals: Sequence[SampleScores | None] = (),
    ) -> list[Score]:
        key = (trained.folder, split)
        if key not in self._evaluators:
            self._evaluators[key] = Evaluator.load(
                trained, task.to(self._device), split, self.templates
            )
        with self._own_threads():
            return self._evaluators[key].batch(batch, rivals)

    def fine_tune(
        self,
        trained: Trained,
        task: Task,
        requests: Sequence[FineTuningRequest],
        *,
        on_progress: Callable[[float], None],
    ) -> list[FineTuningOutcome]:
        outcomes: list[FineTuningOutcome] = []
        with self._own_threads():
            fine_tuner = FineTuner(trained, task.to(self._device))
            for request in requests:
                on_progress(len(outcomes) / len(requests))
                outcomes.append(fine_tuner(request))
        return outcomes

    def fine_tuning_seconds(self, requests: Sequence[FineTuningRequest]) -> float:
        return sum(request.seconds for request in requests if not request.is_done)

    @contextlib.contextmanager
    def _own_threads(self) -> Iterator[None]:
        """Computes on this backend's number of threads inside of the context."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
