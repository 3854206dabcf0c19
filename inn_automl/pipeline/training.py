"""Training: the backend trains the candidates that fit the budget; the best network is used."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from inn_automl.core.progress import duration
from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json, write_json
from inn_automl.pipeline.backend import TrainingRequest
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.exporting import ModelExporter
from inn_automl.pipeline.folder import stage_seconds
from inn_automl.pipeline.job_clock import AFTER_TRAINING
from inn_automl.pipeline.records import PlannedTrials, TrainedTrials
from inn_automl.pipeline.starting import write_start
from inn_automl.training.loop import EpochReport
from inn_automl.training.trained import Trained
from inn_automl.training.trial import load_trial

DONE = "training/done.json"
"""The names of the finished trials, best first."""
_USED_FRACTION = 0.9
"""Of the time for training; where less is used, the job says why."""
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
        start = write_start(context)
        request = TrainingRequest(
            model=context.family,
            specs=planned.trials,
            task=context.task,
            folder=context.folder / "training",
            seed=context.spec.seed,
            seconds=max(
                0.0,
                min(
                    budget.max_minutes * 60 - spent_s,
                    context.clock.seconds_left(AFTER_TRAINING),
                ),
            ),
            max_epochs=budget.max_epochs,
            cpus=budget.cpus,
            gpus=budget.gpus,
            workers_per_trial=budget.workers_per_trial,
            start=start,
        )
        report = _TrainingProgress(context, len(planned.trials), request.seconds)
        started_at = time.monotonic()
        trials = context.backend.train(request, report)
        _note_on(context, planned, trials[0], time.monotonic() - started_at, request.seconds)
    write_json(context.folder / DONE, [trained.folder.parent.name for trained in trials])
    return _with_exporter(context, trials)


def _note_on(
    context: JobContext, planned: PlannedTrials, best: Trained, spent_s: float, given_s: float
) -> None:
    """Tells what training did otherwise than the budget lets expect."""
    note = context.progress.note
    wanted = planned.trials[0].recipe
    if best.recipe.batch_size < wanted.batch_size:
        note(
            f"batches of {wanted.batch_size} do not fit into the memory of the GPU: they have "
            f"{best.recipe.batch_size} samples"
        )
    if wanted.folds:
        num_validation = len(context.task.dataset.validation)
        note(
            f"{num_validation} validation samples are few: trials are scored on {wanted.folds} "
            f"folds ({context.task.metric.brief(best.best_score)}), and the network learned from "
            "training and validation samples together; its validation values flatter it, its test "
            "values do not"
        )
    if spent_s < _USED_FRACTION * given_s:
        why = "candidates that fell behind were stopped"
        if best.stopped == "epochs":
            why = f"training.max_epochs = {context.spec.budget.training.max_epochs} ended it"
        note(f"training took {duration(spent_s)} of {duration(given_s)}: {why}")


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
