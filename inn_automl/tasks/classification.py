"""Classification: cross-entropy, and the fraction of samples that are classified correctly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor

from inn_automl.core.metric import ACCURACY
from inn_automl.data.augmentation import augment
from inn_automl.tasks.objective import Objective, Score

if TYPE_CHECKING:
    from inn_automl.data import Dataset


class Classification(Objective):
    """Outputs are logits (N, classes), targets class indices (N,)."""

    metric = ACCURACY

    def __init__(self, dataset: Dataset | None = None) -> None:
        """Nothing about it depends on the dataset."""

    def augment(
        self, x: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return augment(x, generator), targets

    def loss(self, output: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        return F.cross_entropy(output, targets, label_smoothing=label_smoothing)

    def soft_targets(
        self,
        output: Tensor,
        targets: Tensor,
        *,
        label_fraction: float,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        labels = F.one_hot(targets, output.shape[1]).to(output.dtype)
        labels = labels * (1 - label_smoothing) + label_smoothing / output.shape[1]
        return torch.lerp(output.softmax(1), labels, label_fraction)

    def soft_loss(self, output: Tensor, soft_targets: Tensor) -> Tensor:
        return F.cross_entropy(output, soft_targets)

    def scores(self, output: Tensor, y: Tensor) -> Tensor:
        """(N, 1): 1 where the largest logit is that of the class."""
        return (output.argmax(1) == y).double()[:, None]

    def score(self, scores: NDArray[np.float64]) -> Score:
        """Accuracy with its Wilson interval."""
        num_correct, num_samples = int(scores.sum()), len(scores)
        return Score(num_correct / num_samples, wilson(num_correct, num_samples), num_samples)

    def baseline(self, dataset: Dataset) -> float:
        """Accuracy of guessing."""
        return 1 / dataset.num_classes


def wilson(num_correct: int, num_samples: int) -> tuple[float, float]:
    """95 % confidence interval of a fraction (E. B. Wilson, 1927)."""
    interval = binomtest(num_correct, num_samples).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
