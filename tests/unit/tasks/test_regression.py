from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from inn_automl.core.metric import R2
from inn_automl.data import Dataset
from inn_automl.tasks import Regression, Task


def test_targets_are_standardized_and_brought_back(numbers: Dataset) -> None:
    objective = Task.from_dataset(numbers).objective
    assert isinstance(objective, Regression) and objective.metric == R2
    y = torch.from_numpy(numbers.y[numbers.train])
    standardized = objective.targets(y)
    torch.testing.assert_close(standardized.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardized.std(0, correction=0), torch.ones(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(objective.raw(standardized), y)


def test_r2_is_that_of_scikit_learn(numbers: Dataset) -> None:
    objective = Task.from_dataset(numbers).objective
    y = numbers.y[numbers.test]
    rng = np.random.default_rng(1)
    found = (y + rng.normal(size=y.shape) * numbers.y.std(0) * [0.3, 0.6]).astype(np.float32)
    score = objective.score(objective.scores(torch.from_numpy(found), torch.from_numpy(y)).numpy())
    assert score.value == pytest.approx(r2_score(y, found), abs=1e-5)
    assert score.interval[0] < score.value < score.interval[1] <= 1
    assert score.num_samples == len(y)
    assert score.rmse == pytest.approx(np.sqrt(np.square(found - y).mean(0)), rel=1e-3)


def test_the_interval_covers_as_it_says(numbers: Dataset) -> None:
    """Of 400 samples of a population whose R² is known, about 95 % give an interval that has it."""
    objective, rng = Task.from_dataset(numbers).objective, np.random.default_rng(2)
    std = numbers.target_statistics[1]  # type: ignore[index]
    held = 0
    for _ in range(400):
        y = rng.normal(size=(120, 2)) * std + numbers.target_statistics[0]  # type: ignore[index]
        found = y + rng.normal(size=y.shape) * std * 0.5
        scores = objective.scores(torch.from_numpy(found), torch.from_numpy(y)).numpy()
        low, high = objective.score(scores).interval
        held += low <= 0.75 <= high
    assert 0.90 <= held / 400 <= 0.99


def test_predicting_the_mean_is_worth_nothing(numbers: Dataset) -> None:
    objective = Task.from_dataset(numbers).objective
    y = torch.from_numpy(numbers.y[numbers.validation])
    constant = y.double().mean(0).float().expand_as(y)
    score = objective.score(objective.scores(constant, y).numpy())
    assert score.value == pytest.approx(objective.baseline(numbers), abs=1e-3) == 0.0


def test_reduced_widths_learn_from_the_full_width_and_the_targets(numbers: Dataset) -> None:
    objective = Task.from_dataset(numbers).objective
    output, targets = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0]])
    soft = objective.soft_targets(output, targets, label_fraction=0.25)
    torch.testing.assert_close(soft, torch.tensor([[1.5, 1.5]]))
    assert float(objective.soft_loss(soft, soft)) == 0
    assert float(objective.loss(output, targets)) == pytest.approx(4.0)


def test_samples_are_not_varied(numbers: Dataset) -> None:
    x, targets = torch.randn(4, 1, 12), torch.randn(4, 2)
    same = Task.from_dataset(numbers).objective.augment(
        x, targets, torch.Generator().manual_seed(0)
    )
    assert same[0] is x and same[1] is targets
