from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inn_automl.core.spec import Budget, JobSpec, TrainingBudget
from inn_automl.data import Dataset
from inn_automl.pipeline import planning
from inn_automl.pipeline.planning import CANDIDATES, plan_trials
from inn_automl.tasks import Task


def signals(num_validation: int) -> Dataset:
    rng, num = np.random.default_rng(0), 60 + num_validation
    x = rng.normal(size=(num, 1, 24)).astype(np.float32)
    y = np.arange(num, dtype=np.int64) % 2
    splits = np.split(np.arange(num), [40, 40 + num_validation])
    return Dataset(
        "noise", x, y, ("a", "b"), *splits, np.zeros(1, "f4"), np.ones(1, "f4"), "fingerprint"
    )


def context(folder: Path, num_validation: int = 120, **training: Any) -> Any:
    notes: list[str] = []
    budget = Budget.model_validate({"devices": [{"name": "one"}], "training": training})
    return SimpleNamespace(
        spec=JobSpec(dataset="noise", budget=budget),
        family="signal",
        initial=None,
        folder=folder,
        task=Task.from_dataset(signals(num_validation)),
        progress=SimpleNamespace(note=notes.append),
        notes=notes,
    )


def test_trials_are_as_many_as_get_ten_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TrainingBudget().trials is None
    for epoch_s, expected in ((0.1, 4), (2.5, 2), (6.0, 1), (60.0, 1)):
        monkeypatch.setattr(planning, "measure_epoch_s", lambda *_, s=epoch_s: s)
        one = context(tmp_path, max_minutes=1)
        assert len(plan_trials(one).trials) == expected
        assert len(one.notes) == (expected < 4)
    # A bound of epochs needs no more than these of each.
    assert len(plan_trials(context(tmp_path, max_minutes=2, max_epochs=1)).trials) == 2
    assert len(plan_trials(context(tmp_path, trials=3)).trials) == 3


def test_an_epoch_is_timed_by_real_steps(tmp_path: Path) -> None:
    assert len(plan_trials(context(tmp_path, max_minutes=30)).trials) == 4


def test_weights_have_one_trial_and_a_recipe_of_their_own(tmp_path: Path) -> None:
    one = context(tmp_path)
    one.initial = object()
    (trial,) = plan_trials(one).trials
    assert trial.recipe.optimizer == "adamw" and trial.recipe.head_samples == 40


def test_few_validation_samples_are_learned_from(tmp_path: Path) -> None:
    (trial,) = plan_trials(context(tmp_path, num_validation=20)).trials
    assert trial.recipe.folds == 3
    assert all(not t.recipe.folds for t in plan_trials(context(tmp_path, trials=2)).trials)


def test_decided_candidates_are_not_timed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / CANDIDATES).parent.mkdir()
    (tmp_path / CANDIDATES).write_text("[]")
    monkeypatch.setattr(planning, "measure_epoch_s", None)
    assert plan_trials(context(tmp_path)).trials


def test_augmentation_is_part_of_the_recipe(tmp_path: Path) -> None:
    one = context(tmp_path, trials=2)
    one.spec = one.spec.model_copy(update={"augmentation": "none"})
    assert [t.recipe.augment for t in plan_trials(one).trials] == [False, False]
