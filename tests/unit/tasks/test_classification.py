from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from inn_automl.core.errors import SpecError, UnknownNameError
from inn_automl.data import Dataset
from inn_automl.data.dataset import assemble
from inn_automl.data.samples import RawSamples
from inn_automl.tasks import Classification, Score, Task
from inn_automl.tasks.classification import LEAST_PROBABILITY, wilson


def test_accuracy_counts_the_largest_logit() -> None:
    objective = Classification()
    logits, y = (
        torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]]),
        torch.tensor([0, 1, 1, 1]),
    )
    score = objective.score(objective.scores(logits, y).numpy())
    assert (score.value, score.num_samples) == (0.75, 4)
    assert score.interval == wilson(3, 4)


def test_wilson_interval() -> None:
    assert wilson(90, 100) == pytest.approx(
        (0.8256, 0.9448), abs=1e-4
    )  # newcombe, 1998, table I's method 3
    assert wilson(0, 10)[0] == 0.0


def test_reduced_widths_learn_probabilities_mixed_with_labels() -> None:
    logits, y = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    soft = Classification().soft_targets(logits, y, label_fraction=0.3)
    torch.testing.assert_close(soft, torch.tensor([[0.65, 0.35], [0.35, 0.65]]))


def imbalanced() -> Dataset:
    """Sixty samples of class a, twenty of b."""
    x = np.random.default_rng(0).normal(size=(80, 1, 8)).astype(np.float32)
    raw = RawSamples(
        x=x, labels=np.repeat(["a", "b"], [60, 20]), targets=None, given={"train": np.arange(80)}
    )
    return assemble("imbalanced", raw, seed=0)


def test_equal_accuracies_are_told_apart_by_log_loss() -> None:
    objective, y = Classification(), torch.tensor([0, 1])
    sure, unsure = (
        objective.score(objective.scores(scale * torch.eye(2), y).numpy()) for scale in (5.0, 1.0)
    )
    assert sure.value == unsure.value == 1.0
    assert unsure.loss == pytest.approx(np.log1p(np.exp(-1)))
    assert sure.rank > unsure.rank
    assert sure.samples is not None
    np.testing.assert_allclose(sure.samples.losses.mean(), sure.loss, rtol=1e-6)


def test_a_logit_that_is_infinitely_wrong_costs_a_finite_loss() -> None:
    objective = Classification()
    scores = objective.scores(torch.tensor([[1e4, -1e4]]), torch.tensor([1]))
    assert objective.score(scores.numpy()).loss == pytest.approx(-np.log(LEAST_PROBABILITY))


def test_a_score_counts_predictions_by_class_and_survives_a_file() -> None:
    objective = Task.from_dataset(imbalanced()).objective
    logits, y = torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1, 1])
    score = objective.score(objective.scores(logits, y).numpy())
    assert score.confusion == ((0, 0, 1), (1, 0, 1), (1, 1, 1))
    read = Score.from_dict(json.loads(json.dumps(score.to_dict())))
    assert read == score and (read.confusion, read.loss) == (score.confusion, score.loss)


@pytest.mark.parametrize(
    ("metric", "baseline"),
    [
        ("accuracy", 0.75),
        ("balanced_accuracy", 0.5),
        ("macro_f1", 0.75 / 1.75),
        ("auroc", 0.5),
        ("recall:b", 0.25),
    ],
)
def test_the_baseline_is_the_majority(metric: str, baseline: float) -> None:
    dataset = imbalanced()
    objective = Task.from_dataset(dataset, metric=metric).objective
    assert objective.metric.name == metric
    assert objective.baseline(dataset) == pytest.approx(baseline)


def test_the_recall_of_a_class_is_learned_where_balanced_accuracy_is() -> None:
    """Always naming the class has its recall, and has learned nothing."""
    dataset = imbalanced()
    objective = Task.from_dataset(dataset, metric="recall:a").objective
    y = torch.as_tensor(dataset.y[dataset.validation])
    constant = torch.tensor([[2.0, 0.0]]).expand(len(y), 2)
    always = objective.score(objective.scores(constant, y).numpy())
    assert always.value == 1.0
    assert not objective.learned(always, dataset).is_above
    perfect = objective.score(objective.scores(9 * torch.eye(2)[y], y).numpy())
    learned = objective.learned(perfect, dataset)
    assert learned.is_above and (learned.value, learned.baseline) == (1.0, 0.5)


def test_a_small_split_tells_by_its_log_loss_what_accuracy_cannot() -> None:
    dataset = imbalanced()
    objective = Task.from_dataset(dataset).objective
    y = torch.as_tensor(dataset.y[dataset.validation])
    logits = 4 * torch.eye(2)[y]
    logits[torch.nonzero(y == 1)[:2]] = torch.tensor([0.5, 0.0])
    learned = objective.learned(objective.score(objective.scores(logits, y).numpy()), dataset)
    assert learned.interval[0] < learned.baseline < learned.value
    assert learned.loss_gain > 0 and learned.is_above


def test_balanced_weights_let_all_classes_weigh_the_same() -> None:
    dataset = imbalanced()
    objective = Task.from_dataset(dataset, class_weights="balanced").objective
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    each = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    expected = (each[:6].mean() + each[6:].mean()) / 2
    torch.testing.assert_close(objective.loss(logits, y), expected)
    soft = torch.nn.functional.one_hot(y, 2).float()
    torch.testing.assert_close(objective.soft_loss(logits, soft), expected)


def test_a_metric_of_another_task_is_refused(numbers: Dataset) -> None:
    with pytest.raises(SpecError, match="'auroc' is none of regression"):
        Task.from_dataset(numbers, metric="auroc")
    with pytest.raises(UnknownNameError, match="unknown class 'c'"):
        Task.from_dataset(imbalanced(), metric="recall:c")
