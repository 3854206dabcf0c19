"""Samples as tensors, standardized when they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inn_automl.tasks.objective import Objective

if TYPE_CHECKING:
    from inn_automl.data import Dataset

BATCH_VALUES = {"cpu": 2**16, "cuda": 2**21}
"""Input values per batch without gradients. On a CPU, activations (some 50 times the input) should
stay near its cache: a mobilenet took 1.4 ms a sample in batches of 128, 4.6 ms in batches of 668.
"""


class StandardizedSamples:
    """Samples of a dataset as tensors on one device, standardized when they are read.

    Attributes:
        x: raw values (N, *input_shape), of the dataset's own type: a byte image stays four times
            smaller than float32.
        y: the dataset's targets: class indices (N,), numbers (N, K) or images (N, C, s H, s W).
        objective: of the task.

    Args:
        dataset: which the samples are copied from.
        indices: (N,) positions in the dataset.
        objective: of the task.
        device: of the tensors.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: np.ndarray,
        objective: Objective,
        device: str | torch.device = "cpu",
    ) -> None:
        self.x = torch.as_tensor(dataset.x[indices]).to(device)
        self.y = torch.as_tensor(dataset.y[indices]).to(device)
        self.objective = objective
        shape = (-1, *[1] * (len(dataset.input_shape) - 1))
        self._mean = torch.as_tensor(dataset.mean, dtype=torch.float32).reshape(shape).to(device)
        self._scale = 1 / torch.as_tensor(dataset.std, dtype=torch.float32).reshape(shape).to(
            device
        )

    def __len__(self) -> int:
        return len(self.y)

    def standardized(self, indices: Tensor | slice) -> Tensor:
        """The samples at `indices`, float32 (n, *input_shape), zero mean and unit variance per
        channel.
        """
        return self.x[indices].to(torch.float32).sub(self._mean).mul_(self._scale)

    def batches(self, batch_size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples in order, as pairs of standardized x (n, *input_shape) and y (n, ...).

        Batches are of equal size (give or take one sample), because batch-norm recalibration
        weighs them equally.

        Args:
            batch_size: samples in a batch, at most; None for a size that the device computes fast.
        """
        limit = batch_size or max(
            32, BATCH_VALUES.get(self.x.device.type, 2**19) // self.x[0].numel()
        )
        for part in np.array_split(np.arange(len(self)), -(-len(self) // limit)):
            chosen = slice(int(part[0]), int(part[-1]) + 1)
            yield self.standardized(chosen), self.y[chosen]
