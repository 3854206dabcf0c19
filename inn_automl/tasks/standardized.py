"""Samples as tensors, standardized when they are read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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

    Samples that a dataset holds in memory are copied to the device once. Those of a dataset on
    disk stay there: each read brings the wanted ones, so that memory does not grow with the
    dataset.

    Attributes:
        y: the dataset's targets: class indices (N,), numbers (N, K) or images (N, C, s H, s W).
        weights: (N,) float64, how often training draws each sample relative to others; None for
            all alike.
        objective: of the task.
        device: of the tensors.
        input_shape: of one sample as a network takes it.
        mean: of each channel, as it is taken off.
        is_in_memory: whether reading a sample costs no access to the disk.

    Args:
        dataset: which the samples are read from.
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
        self.device = torch.device(device)
        self.is_in_memory = isinstance(dataset.x, np.ndarray)
        self.input_shape = tuple(dataset.input_shape)
        self.objective = objective
        self.y = torch.as_tensor(dataset.y[indices]).to(self.device)
        self.weights = (
            None
            if dataset.weights is None
            else torch.as_tensor(dataset.weights[indices], dtype=torch.float64)
        )
        self.source, self.positions = dataset.x, np.asarray(indices, np.int64)
        """The dataset's samples, and where those of this object are among them."""
        self._copied = (
            torch.as_tensor(dataset.x[indices]).to(self.device) if self.is_in_memory else None
        )
        shape = (-1, *[1] * (len(self.input_shape) - 1))
        self.mean, std = (
            torch.as_tensor(values, dtype=torch.float32).reshape(shape).to(self.device)
            for values in (dataset.mean, dataset.std)
        )
        self._scale = 1 / std

    def __len__(self) -> int:
        return len(self.y)

    @property
    def num_values(self) -> int:
        """Values of one sample as a network takes it."""
        return math.prod(self.input_shape)

    def raw(self, indices: Tensor | slice) -> Tensor:
        """The values at `indices` as the dataset stores them: (n, C, ...) of its own type, images
        in the size that is stored.
        """
        if self._copied is not None:
            return self._copied[indices]
        chosen = indices if isinstance(indices, slice) else indices.cpu().numpy()
        return torch.from_numpy(self.source[self.positions[chosen]]).to(self.device)

    def standardized(self, indices: Tensor | slice) -> Tensor:
        """The samples at `indices`, float32 (n, *input_shape), zero mean and unit variance per
        channel; of stored images that are larger, the centre.
        """
        return self.standardize(self._centre(self.raw(indices)))

    def standardize(self, raw: Tensor) -> Tensor:
        """Raw values (n, C, ...) of any size with zero mean and unit variance per channel."""
        return raw.to(torch.float32).sub(self.mean).mul_(self._scale)

    def batches(self, batch_size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples in order, as pairs of standardized x (n, *input_shape) and y (n, ...).

        Batches are of equal size (give or take one sample), because batch-norm recalibration
        weighs them equally. The next batch of a dataset on disk is read while one is used.

        Args:
            batch_size: samples in a batch, at most; None for a size that the device computes fast.
        """
        limit = batch_size or max(32, BATCH_VALUES.get(self.device.type, 2**19) // self.num_values)
        parts = np.array_split(np.arange(len(self)), -(-len(self) // limit))
        chosen = [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
        for rows, x in zip(chosen, self._read_ahead(chosen), strict=True):
            yield x, self.y[rows]

    def _read_ahead(self, chosen: list[slice]) -> Iterator[Tensor]:
        if self.is_in_memory:
            yield from map(self.standardized, chosen)
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self.raw, chosen[0])
            for rows in [*chosen[1:], None]:
                raw = ahead.result()
                if rows is not None:
                    ahead = reader.submit(self.raw, rows)
                yield self.standardize(self._centre(raw))

    def _centre(self, raw: Tensor) -> Tensor:
        """(n, C, ...) values cut to the size that a network takes, around their centre."""
        for axis, size in enumerate(self.input_shape[1:], start=2):
            if raw.shape[axis] != size:
                raw = raw.narrow(axis, (raw.shape[axis] - size) // 2, size)
        return raw
