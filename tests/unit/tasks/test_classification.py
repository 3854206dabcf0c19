from __future__ import annotations

import pytest
import torch

from inn_automl.tasks import Classification
from inn_automl.tasks.classification import wilson


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
