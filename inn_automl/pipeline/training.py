"""Training: candidates that fit the budget are trained by the backend; the best network goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json, write_json
from inn_automl.pipeline.backend import TrainingRequest
from inn_automl.pipeline.context import JobContext
from inn_automl.tasks import objective_of
from inn_automl.training.loop import EpochReport
from inn_automl.training.recipe import TrialSpec
from inn_automl.training.trial import Trained, load_trial

DONE = "training/done.json"
"""The names of the finished trials, best first."""
_ALL_WIDTHS, _FULL_WIDTH = "mean over widths", "full width"
"""What scores of epochs are of."""


def train_network(job: JobContext, candidates: Sequence[TrialSpec]) -> list[Trained]:
    """The trained candidates, best first.

    Raises:
        TrainingError: none succeeded.
        BackendError, StorageError: the workers or the folder failed; what was trained so far is
            kept.
    """
    done = job.folder / DONE
    if done.exists():
        return [load_trial(job.folder / "training" / name) for name in read_json(done)]
    budget = job.spec.budget.training
    allowed_s = budget.max_minutes * 60
    spent_s = job.seconds().get(Stage.TRAINING, 0.0)
    with job.stage(Stage.TRAINING):
        task = TrainingRequest(
            family=job.family,
            candidates=tuple(candidates),
            dataset=job.dataset,
            folder=job.folder / "training",
            seed=job.spec.seed,
            seconds=max(0.0, allowed_s - spent_s),
            max_epochs=budget.max_epochs,
            cpus=budget.cpus,
            gpus=budget.gpus,
            workers_per_trial=budget.workers_per_trial,
        )
        shown = _Shown(job, len(candidates), task.seconds)
        trials = job.backend.train(task, shown)
    write_json(done, [trained.folder.parent.name for trained in trials])
    return trials


class _Shown:
    """Turns the epochs of all trials into one share done."""

    def __init__(self, job: JobContext, num_trials: int, seconds: float) -> None:
        self._job, self._seconds = job, seconds
        self._done = [0.0] * num_trials
        self._started_at = time.monotonic()
        self._best: dict[str, float] = {}
        self._metric = objective_of(job.dataset).metric

    def __call__(self, trial: int, epoch: EpochReport) -> None:
        self._done[trial] = epoch.epoch / epoch.epochs
        of = _FULL_WIDTH if epoch.is_warmup else _ALL_WIDTHS
        self._best[of] = max(self._best.get(of, -math.inf), epoch.score)
        shown = _ALL_WIDTHS if _ALL_WIDTHS in self._best else _FULL_WIDTH
        by_time = (time.monotonic() - self._started_at) / self._seconds if self._seconds else 0.0
        # Trials that a scheduler stops early never reach their end: time says more than they do.
        fraction = min(0.99, max(by_time, sum(self._done) / len(self._done)))
        text = self._metric.brief
        by_width = ", ".join(f"{name} {text(value)}" for name, value in epoch.metric_values.items())
        self._job.progress.update(
            fraction,
            best=f"{text(self._best[shown])} {shown}",
            detail=f"trial {trial + 1} of {len(self._done)}, epoch {epoch.epoch} of "
            f"{epoch.epochs}: {by_width}",
        )
