from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inn_automl.pipeline.backend import OVERCOMMIT, TrainingRequest
from inn_automl.training.recipe import Recipe, TrialSpec


@pytest.mark.parametrize(
    ("num_trials", "num_parallel", "remaining_s", "planned_s"),
    [
        (1, 1, 100.0, 100.0),
        (4, 2, 100.0, 100.0),  # the best of them uses all of it
        (4, 2, 60.0, 60.0),
        (4, 1, 100.0, OVERCOMMIT * 25),
        (4, 1, 20.0, 20.0),
    ],
)
def test_trials_side_by_side_plan_for_all_of_the_time(
    num_trials: int, num_parallel: int, remaining_s: float, planned_s: float
) -> None:
    task: Any = None
    request = TrainingRequest(
        model="mlp",
        specs=(TrialSpec(Recipe(), 1.0, 1),) * num_trials,
        task=task,
        folder=Path("training"),
        seed=0,
        seconds=100.0,
        max_epochs=None,
        cpus=2,
        gpus=0,
    )
    assert request.planned_seconds(remaining_s, num_parallel) == planned_s
