"""Training: the backend trains the candidates that fit the budget; the best network is used."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json, write_json
from inn_automl.pipeline.backend import TrainingRequest
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.exporting import ModelExporter
from inn_automl.pipeline.folder import stage_seconds
from inn_automl.pipeline.records import PlannedTrials, TrainedTrials
from inn_automl.training.loop import EpochReport
from inn_automl.training.trial import Trained, load_trial

DONE = "training/done.json"
"""The names of the finished trials, best first."""
START = "training/start.safetensors"
"""The weights that training starts from."""
_ALL_WIDTHS, _FULL_WIDTH = "mean over widths", "full width"
"""Widths that the scores of epochs belong to."""


def train(context: JobContext, planned: PlannedTrials) -> TrainedTrials:
    """Trains the candidates within the time that is left.

    Raises:
        TrainingError: none succeeded.
        BackendError, StorageError: the workers or the folder failed; the checkpoints so far stay
            in the folder.
    """
    if (context.folder / DONE).exists():
        return read_trials(context)
    budget = context.spec.budget.training
    spent_s = stage_seconds(context.folder).get(Stage.TRAINING, 0.0)
    with context.stage(Stage.TRAINING):
        request = TrainingRequest(
            model=context.family,
            specs=planned.trials,
            task=context.task,
            folder=context.folder / "training",
            seed=context.spec.seed,
            seconds=max(0.0, budget.max_minutes * 60 - spent_s),
            max_epochs=budget.max_epochs,
            cpus=budget.cpus,
            gpus=budget.gpus,
            workers_per_trial=budget.workers_per_trial,
            start=_write_start(context),
        )
        report = _TrainingProgress(context, len(planned.trials), request.seconds)
        trials = context.backend.train(request, report)
    write_json(context.folder / DONE, [trained.folder.parent.name for trained in trials])
    return _with_exporter(context, trials)


def _write_start(context: JobContext) -> Path | None:
    """The file of the weights that training starts from, which every worker can read."""
    if context.initial is None:
        return None
    path = context.folder / START
    if not path.exists():
        context.initial.save(path)
    return path


def read_trials(context: JobContext) -> TrainedTrials:
    """Reads the trained candidates of a job whose training is finished."""
    return _with_exporter(context, load_trials(context.folder))


def load_trials(folder: Path) -> list[Trained]:
    """Reads the trained candidates from a job's folder, best first."""
    return [load_trial(folder / "training" / name) for name in read_json(folder / DONE)]


def _with_exporter(context: JobContext, trials: Sequence[Trained]) -> TrainedTrials:
    exporter = ModelExporter(
        trials[0], context.task, context.folder, context.backend.templates, context.parent
    )
    return TrainedTrials(tuple(trials), exporter)


class _TrainingProgress:
    """Turns the epochs of all trials into one fraction done."""

    def __init__(self, context: JobContext, num_trials: int, seconds: float) -> None:
        self._progress, self._seconds = context.progress, seconds
        self._done = [0.0] * num_trials
        self._started_at = time.monotonic()
        self._best: dict[str, float] = {}
        self._metric = context.task.metric

    def __call__(self, trial: int, epoch: EpochReport) -> None:
        self._done[trial] = epoch.progress
        scored = _FULL_WIDTH if epoch.is_warmup else _ALL_WIDTHS
        self._best[scored] = max(self._best.get(scored, -math.inf), epoch.score)
        shown = _ALL_WIDTHS if _ALL_WIDTHS in self._best else _FULL_WIDTH
        by_time = (time.monotonic() - self._started_at) / self._seconds if self._seconds else 0.0
        # Trials that a scheduler stops early never reach their end: time says more than they do.
        fraction = min(0.99, max(by_time, sum(self._done) / len(self._done)))
        text = self._metric.brief
        by_width = ", ".join(f"{name} {text(value)}" for name, value in epoch.metric_values.items())
        self._progress.update(
            fraction,
            best=f"{text(self._best[shown])} {shown}",
            detail=f"trial {trial + 1} of {len(self._done)}, epoch {epoch.epoch} of "
            f"{epoch.epochs}: {by_width}",
        )
