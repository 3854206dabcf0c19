"""The interface of an objective: loss, targets and metric of a kind of task."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inn_automl.core.metric import Metric
from inn_automl.core.sample_scores import SampleScores

if TYPE_CHECKING:
    from inn_automl.data import Dataset

NORMAL_95 = 1.959963984540054
"""Half the width of a 95 % interval in standard deviations of a normal variable."""


@dataclass(frozen=True)
class Score:
    """The metric value of a model on the samples of a split. Scores are equal if their values,
    intervals and numbers of samples are.
    """

    value: float
    interval: tuple[float, float]
    """95 % confidence interval for other samples of the same kind."""
    num_samples: int
    rmse: tuple[float, ...] = ()
    """Of a regression: root mean squared error of each target, in its own units."""
    loss: float = field(default=0.0, compare=False)
    """Mean of a proper score, by which equal metric values are told apart; less is better."""
    confusion: tuple[tuple[int, int, int], ...] = field(default=(), compare=False, repr=False)
    """Of a classification: class, predicted class, and number of such samples."""
    samples: SampleScores | None = field(default=None, compare=False, repr=False)
    """What each sample says; None of a score that was read from a file."""
    is_partial: bool = field(default=False, compare=False)
    """True if the model lost a race: the value is estimated from a first share of the split."""

    @property
    def rank(self) -> tuple[float, float]:
        """The key that models are ranked by: the metric value, then the loss."""
        return self.value, -self.loss

    def to_dict(self) -> dict[str, Any]:
        """The score as JSON values, without those of its samples."""
        values = asdict(replace(self, samples=None))
        del values["samples"], values["is_partial"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Score:
        """The score that `to_dict` wrote."""
        low, high = values["interval"]
        return cls(
            float(values["value"]),
            (float(low), float(high)),
            int(values["num_samples"]),
            tuple(values.get("rmse", ())),
            float(values.get("loss", 0.0)),
            tuple((int(i), int(j), int(num)) for i, j, num in values.get("confusion", ())),
        )


@dataclass(frozen=True)
class Learned:
    """Whether a model is better than a prediction without training."""

    value: float
    interval: tuple[float, float]
    baseline: float
    metric: str
    """Name of the metric that the numbers are in."""
    loss_gain: float = -math.inf
    """The lower end of the 95 % interval of the gain in the proper score, on the same samples."""

    @property
    def is_above(self) -> bool:
        """True if the interval is above the baseline; or the value, and the gain in the proper
        score, which small splits tell more of, is surely above zero.
        """
        return self.interval[0] > self.baseline or (
            self.value > self.baseline and self.loss_gain > 0
        )


class Objective(abc.ABC):
    """Loss, distillation targets and metric of a kind of task.

    A network gives standardized outputs; `raw` brings them to the dataset's own units. Tensors of
    targets are (N,) class indices, (N, K) numbers or (N, C, H, W) images.
    """

    metric: Metric

    def targets(self, y: Tensor) -> Tensor:
        """The dataset's targets, standardized, as training compares outputs with them."""
        return y

    def raw(self, output: Tensor) -> Tensor:
        """Outputs of a network in the dataset's own units."""
        return output

    def augment(
        self, x: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """A random variant of each sample, with its target made to fit; as they are, where no
        variant is safe.
        """
        return x, targets

    @abc.abstractmethod
    def loss(self, output: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Loss of the full width, a scalar: the mean over the batch."""

    @abc.abstractmethod
    def soft_targets(
        self,
        output: Tensor,
        targets: Tensor,
        *,
        label_fraction: float,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Distillation targets of reduced widths: outputs of the full width, mixed with a fraction
        of the targets.
        """

    @abc.abstractmethod
    def soft_loss(self, output: Tensor, soft_targets: Tensor) -> Tensor:
        """Loss of a reduced width, a scalar."""

    @abc.abstractmethod
    def scores(self, output: Tensor, y: Tensor) -> Tensor:
        """What the metric and the proper score need of each sample: (N, s) float64.

        Args:
            output: in the dataset's own units.
            y: targets as the dataset has them.
        """

    @abc.abstractmethod
    def score(self, scores: NDArray[np.float64]) -> Score:
        """The metric value of all samples together, from the (N, s) `scores` of each."""

    @abc.abstractmethod
    def baseline(self, dataset: Dataset) -> float:
        """The metric value, on the validation split, of a prediction without training: a search
        counts its gain as zero.
        """

    def learned(self, score: Score, dataset: Dataset) -> Learned:
        """Compares a model with the prediction without training.

        Args:
            score: of the model on the validation split, with its samples.
        """
        return Learned(score.value, score.interval, self.baseline(dataset), self.metric.name)


def mean_interval(contributions: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean of (N,) contributions."""
    value, num = float(contributions.mean()), len(contributions)
    reach = NORMAL_95 * float(contributions.std(ddof=1)) / num**0.5 if num > 1 else 0.0
    return value - reach, value + reach


def channels(values: NDArray[np.float32], like: Tensor) -> Tensor:
    """(C,) values so that they go along the second dimension of a tensor."""
    return torch.as_tensor(values, dtype=torch.float32, device=like.device).reshape(
        1, -1, *[1] * (like.ndim - 2)
    )
