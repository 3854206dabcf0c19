"""The interface of an objective: loss, targets and metric of a kind of task."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inn_automl.core.metric import Metric

if TYPE_CHECKING:
    from inn_automl.data import Dataset

NORMAL_95 = 1.959963984540054
"""Half the width of a 95 % interval in standard deviations of a normal variable."""


@dataclass(frozen=True)
class Score:
    """The metric value of a model on the samples of a split."""

    value: float
    interval: tuple[float, float]
    """95 % confidence interval for other samples of the same kind."""
    num_samples: int
    rmse: tuple[float, ...] = ()
    """Of a regression: root mean squared error of each target, in its own units."""


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
        """Contributions of each sample to the metric value: (N, s) float64.

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


def channels(values: NDArray[np.float32], like: Tensor) -> Tensor:
    """(C,) values so that they go along the second dimension of a tensor."""
    return torch.as_tensor(values, dtype=torch.float32, device=like.device).reshape(
        1, -1, *[1] * (like.ndim - 2)
    )
