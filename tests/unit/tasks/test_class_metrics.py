from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    recall_score,
    roc_auc_score,
)

from inn_automl.tasks import class_metrics
from inn_automl.tasks.class_metrics import ClassMetric, Integers, wilson

SHARES = np.array([0.6, 0.25, 0.15])
RECALLS = np.array([0.9, 0.8, 0.6])


def drawn(num: int, rng: np.random.Generator) -> tuple[Integers, Integers]:
    """Labels, and predictions that have the recalls above."""
    y = rng.choice(3, num, p=SHARES)
    wrong = (y + rng.integers(1, 3, num)) % 3
    return y, np.where(rng.random(num) < RECALLS[y], y, wrong)


def test_values_are_those_of_scikit_learn() -> None:
    y, predicted = drawn(500, np.random.default_rng(0))
    found = class_metrics.balanced_accuracy(y, predicted)
    assert found.value == pytest.approx(balanced_accuracy_score(y, predicted))
    found = class_metrics.macro_f1(y, predicted)
    assert found.value == pytest.approx(f1_score(y, predicted, average="macro"))
    found = class_metrics.recall(y, predicted, 2)
    assert found.value == pytest.approx(recall_score(y, predicted, average=None)[2])


@pytest.mark.parametrize("num_classes", [2, 3])
def test_auroc_is_that_of_scikit_learn_with_ties(num_classes: int) -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, num_classes, 300)
    logits = np.round(rng.normal(size=(300, num_classes)) + 1.2 * np.eye(num_classes)[y], 1)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scored = probabilities[:, 1] if num_classes == 2 else probabilities
    found = class_metrics.auroc(y, probabilities)
    assert found.value == pytest.approx(roc_auc_score(y, scored, multi_class="ovr"))


@pytest.mark.parametrize(
    "metric",
    [
        class_metrics.accuracy,
        class_metrics.balanced_accuracy,
        class_metrics.macro_f1,
        lambda y, predicted: class_metrics.recall(y, predicted, 1),
        lambda y, predicted: class_metrics.auroc(y, np.eye(3)[predicted]),
    ],
)
def test_contributions_have_the_value_as_mean_and_its_spread(
    metric: Callable[[Integers, Integers], ClassMetric],
) -> None:
    """The jackknife, which needs no formula of the metric, says the same of the variance."""
    y, predicted = drawn(400, np.random.default_rng(2))
    found = metric(y, predicted)
    assert found.contributions.mean() == pytest.approx(found.value)
    left_out = np.array(
        [metric(np.delete(y, i), np.delete(predicted, i)).value for i in range(len(y))]
    )
    jackknife = (len(y) - 1) * np.mean((left_out - left_out.mean()) ** 2)
    assert found.contributions.var() / len(y) == pytest.approx(jackknife, rel=0.03)


@pytest.mark.parametrize(
    ("metric", "truth"),
    [
        (class_metrics.accuracy, float(SHARES @ RECALLS)),
        (class_metrics.balanced_accuracy, float(RECALLS.mean())),
        (class_metrics.macro_f1, None),
    ],
)
def test_intervals_cover_as_they_say(
    metric: Callable[[Integers, Integers], ClassMetric], truth: float | None
) -> None:
    rng = np.random.default_rng(3)
    expected = metric(*drawn(400_000, rng)).value if truth is None else truth
    held = 0
    for _ in range(400):
        low, high = metric(*drawn(120, rng)).interval
        held += low <= expected <= high
    assert 0.92 <= held / 400 <= 0.99


def test_a_value_without_an_error_has_the_interval_of_its_smallest_classes() -> None:
    y = np.repeat([0, 1], [1000, 5])
    assert class_metrics.accuracy(y, y).interval == wilson(1005, 1005)
    for found in (class_metrics.balanced_accuracy(y, y), class_metrics.macro_f1(y, y)):
        low, high = found.interval
        assert (found.value, high) == (1.0, 1.0)
        assert low == pytest.approx(wilson(20, 20)[0], abs=0.01)
    assert class_metrics.recall(y, y, 1).interval == wilson(5, 5)


def test_classes_without_samples_do_not_count() -> None:
    y = np.array([0, 0, 1, 1])
    assert class_metrics.balanced_accuracy(y, np.array([0, 0, 1, 2])).value == 0.75
    assert class_metrics.recall(y, y, 2).value == 0.0
    assert class_metrics.auroc(np.zeros(3, dtype=np.int64), np.full((3, 2), 0.5)).value == 0.5
