from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from inn_automl.data import Dataset
from inn_automl.tasks import Task
from inn_automl.training import folds
from inn_automl.training.folds import split_folds
from inn_automl.training.recipe import TrialSpec
from inn_automl.training.run import EpochReport
from inn_automl.training.trial import load_trial, run_trial
from tests.unit.training.small_trainings import SANDWICH


def test_folds_hold_out_each_sample_once_and_never_a_test_sample(signals: Dataset) -> None:
    known = set(signals.train) | set(signals.validation)
    held: list[int] = []
    for train, held_out in split_folds(signals, 3):
        assert set(train) | set(held_out) == known and not set(train) & set(held_out)
        counts = np.bincount(signals.y[held_out])
        assert counts.max() - counts.min() <= 2
        held += held_out.tolist()
    assert sorted(held) == sorted(known)


def test_a_trial_is_scored_on_folds_and_learns_from_all(
    signals: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.7, 0.9, 0.1])
    taken: list[tuple[int, int, bool, float]] = []

    def train(network: object, task: Task, recipe: object, **more: object) -> object:
        score = next(scores)
        taken.append((len(task.train), len(task.validation), recipe.keeps_last, score))
        report = EpochReport(1, 1, 0.1, {"smallest": score, "full": score}, score, 1.0, 1.0)
        more["on_epoch"](report)
        return type("Result", (), {"stopped": "epochs", "best_score": score, "history": [report]})

    monkeypatch.setattr("inn_automl.training.trial.train", train)
    monkeypatch.setattr(
        "inn_automl.training.trial.fit_to_budget", lambda network, task, recipe, **_: recipe
    )
    spec = TrialSpec(dataclasses.replace(SANDWICH, epochs=1, folds=3), 0.25, 2)
    reports: list[EpochReport] = []
    options = {"seed": 0, "seconds": 100.0, "on_epoch": reports.append}
    trained = run_trial(spec, "signal", Task.from_dataset(signals), tmp_path, **options)
    assert [one[:3] for one in taken] == [
        (66, 34, False), (67, 33, False), (67, 33, False), (100, 20, True),
    ]  # fmt: skip
    assert trained.best_score == trained.score == pytest.approx(0.7)
    assert len(trained.history) == 3
    assert [r.epoch for r in reports] == [1, 2, 3, 4]
    assert [r.progress for r in reports] == pytest.approx([0.1, 0.2, 0.3, 1.0])
    # It is finished: nothing is trained again.
    again = run_trial(spec, "signal", Task.from_dataset(signals), tmp_path, **options)
    assert again == trained == load_trial(tmp_path)
    assert trained.network().full_widths


def test_the_last_state_is_kept_whatever_its_score(
    signals: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inn_automl.training.loop import train
    from tests.unit.training.small_trainings import assert_same, make, scripted, state_of

    states = scripted(monkeypatch, 0.9, 0.1)
    network = make(signals, "signal")
    recipe = dataclasses.replace(SANDWICH, epochs=2, keeps_last=True)
    train(network, Task.from_dataset(signals), recipe, seed=0)
    assert_same(state_of(network), states[1])
    assert folds.SCORING_FRACTION < 0.5
