"""Raw samples of a dataset in the size that a network takes, read when they are wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from inn_automl.data import Dataset


class RawInputs:
    """Some samples of a dataset as an exported model takes them: raw values, of stored images the
    centre. Of a dataset on disk only what is asked for is in memory.

    Args:
        indices: (N,) positions in the dataset.
    """

    def __init__(self, dataset: Dataset, indices: NDArray[np.int64]) -> None:
        self._dataset, self._indices = dataset, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, key: int | slice) -> NDArray[np.generic]:
        """(n, *input_shape), or one sample (*input_shape), of the dataset's type."""
        found: NDArray[np.generic] = self._dataset.x[self._indices[key]]
        shape = tuple(self._dataset.input_shape)
        for axis in range(1 - len(shape), 0):
            size, stored = shape[axis], found.shape[axis]
            if stored != size:
                start = (stored - size) // 2
                found = found.take(range(start, start + size), axis=axis)
        return found

    def float32(self) -> NDArray[np.float32]:
        """All of them: (N, *input_shape)."""
        return np.ascontiguousarray(self[:], dtype=np.float32)
