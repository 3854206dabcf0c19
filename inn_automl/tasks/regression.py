"""Regression: squared error of standardized targets, and the coefficient of determination R²."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from inn_automl.core.metric import R2
from inn_automl.core.sample_scores import SampleScores
from inn_automl.tasks.objective import (
    Objective,
    Score,
    channels,
    mean_interval,
)

if TYPE_CHECKING:
    from inn_automl.data import Dataset


class Regression(Objective):
    """Outputs and targets are numbers (N, K), standardized by the mean and deviation of the
    training split.

    Samples are not augmented: only the user knows if a shifted image still has its target.
    """

    metric = R2

    def __init__(self, dataset: Dataset) -> None:
        assert dataset.target_statistics is not None
        self._mean, self._std = dataset.target_statistics

    def targets(self, y: Tensor) -> Tensor:
        return (y - channels(self._mean, y)) / channels(self._std, y)

    def raw(self, output: Tensor) -> Tensor:
        return output * channels(self._std, output) + channels(self._mean, output)

    def loss(self, output: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        return F.mse_loss(output, targets)

    def soft_targets(
        self,
        output: Tensor,
        targets: Tensor,
        *,
        label_fraction: float,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        return torch.lerp(output, targets, label_fraction)

    def soft_loss(self, output: Tensor, soft_targets: Tensor) -> Tensor:
        return F.mse_loss(output, soft_targets)

    def scores(self, output: Tensor, y: Tensor) -> Tensor:
        """(N, 2 K): squared errors and targets, both of standardized values."""
        wanted = self.targets(y).double()
        return torch.cat([(self.targets(output).double() - wanted).square(), wanted], dim=1)

    def score(self, scores: NDArray[np.float64]) -> Score:
        """R² as the mean over the targets, with the interval of a ratio of means (delta method).

        R² of one target is 1 - (mean squared error) / (variance of the target on the same
        samples). To first order a sample changes the ratio r = e / v by (e_i - r v_i) / v.
        """
        errors, targets = np.hsplit(scores, 2)
        squares = np.square(targets - targets.mean(axis=0))
        variance = squares.mean(axis=0)
        ratio = errors.mean(axis=0) / variance
        value = 1 - float(ratio.mean())
        contributions = value - ((errors - ratio * squares) / variance).mean(axis=1)
        low, high = mean_interval(contributions)
        rmse = np.sqrt(errors.mean(axis=0)) * self._std
        losses = errors.mean(axis=1)
        return Score(
            value,
            (low, min(1.0, high)),
            len(scores),
            tuple(rmse.tolist()),
            loss=float(losses.mean()),
            samples=SampleScores(contributions.astype(np.float32), losses.astype(np.float32)),
        )

    def baseline(self, dataset: Dataset) -> float:
        """R² of predicting the mean."""
        return 0.0
