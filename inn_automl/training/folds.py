"""Trials on small data: scored by cross-validation, and fitted to all samples that are not for
testing.

A few dozen validation samples cannot tell epochs or recipes apart, and are worth more as training
samples. Each fold trains a network of its own, on the training and validation samples outside of
the fold, and is scored on the fold; the mean is the trial's score. The network that the trial keeps
then learns from all of them, and keeps its last state. What the validation split says of it
flatters it; the test split does not.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inn_automl.training.recipe import TrialSpec
from inn_automl.training.run import EpochReport

if TYPE_CHECKING:
    from inn_automl.data import Dataset
    from inn_automl.tasks import Task
    from inn_automl.training.trained import Trained

SCORING_FRACTION = 0.3
"""Of a trial's time, for all folds together."""
OnEpoch = Callable[[EpochReport], None]
RunPart = Callable[[TrialSpec, "Task", Path, float, OnEpoch], "Trained"]
"""Trains one network of a trial: its spec, task, folder and seconds."""


def run_folds(
    spec: TrialSpec,
    task: Task,
    folder: Path,
    run: RunPart,
    *,
    seconds: float,
    on_epoch: OnEpoch,
) -> Trained:
    """Trains a network on each fold, and then the one that is kept.

    Args:
        folder: of the trial; each network has a folder in it, so that what is finished is not done
            again.
        on_epoch: gets the epochs of all networks, numbered as one training.

    Returns:
        The network that is kept, in its own folder, with the score and the epochs of the folds.
    """
    started_at = time.monotonic()
    num_folds = spec.recipe.folds
    part = dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, folds=0))
    counter = _Counter(on_epoch, num_folds)
    scored: list[Trained] = []
    for number, (train, held_out) in enumerate(split_folds(task.dataset, num_folds)):
        spent_s = time.monotonic() - started_at
        left_s = max(0.0, SCORING_FRACTION * seconds - spent_s) / (num_folds - number)
        one = task.with_splits(train, held_out)
        scored.append(run(part, one, folder / f"fold-{number}", left_s, counter.of_fold(number)))
    everything = np.concatenate([task.dataset.train, task.dataset.validation])
    last = dataclasses.replace(part, recipe=dataclasses.replace(part.recipe, keeps_last=True))
    kept = run(
        last,
        task.with_splits(everything, task.dataset.validation),
        folder / "all",
        max(0.0, seconds - (time.monotonic() - started_at)),
        counter.of_the_last,
    )
    return dataclasses.replace(
        kept,
        best_score=float(np.mean([one.score for one in scored])),
        history=[report for one in scored for report in one.history],
    )


def split_folds(dataset: Dataset, num_folds: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training and held-out positions of each fold, of the training and validation samples.

    The classes have the same share in each fold, as far as their sizes allow.
    """
    positions = np.concatenate([dataset.train, dataset.validation])
    if dataset.task == "classification":
        positions = positions[np.argsort(dataset.y[positions], kind="stable")]
    fold = np.arange(len(positions)) % num_folds
    mixed = np.random.default_rng(0)
    for number in range(num_folds):
        yield mixed.permutation(positions[fold != number]), positions[fold == number]


class _Counter:
    """Reports the epochs of several trainings as those of one."""

    def __init__(self, on_epoch: OnEpoch, num_folds: int) -> None:
        self._on_epoch, self._num_folds = on_epoch, num_folds
        self._num_epochs = 0

    def of_fold(self, number: int) -> OnEpoch:
        share = SCORING_FRACTION / self._num_folds
        return lambda report: self._report(report, share * number, share)

    def of_the_last(self, report: EpochReport) -> None:
        self._report(report, SCORING_FRACTION, 1 - SCORING_FRACTION)

    def _report(self, report: EpochReport, start: float, share: float) -> None:
        self._num_epochs += 1
        progress = start + share * report.progress
        epochs = max(self._num_epochs, round(self._num_epochs / max(progress, 1e-6)))
        self._on_epoch(
            dataclasses.replace(
                report, epoch=self._num_epochs, epochs=epochs, progress=min(1.0, progress)
            )
        )
