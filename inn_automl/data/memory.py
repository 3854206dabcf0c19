"""Whether samples fit into the memory of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inn_automl.core.errors import DatasetError
from inn_automl.core.memory import available_bytes
from inn_automl.data.samples import bytes_text

if TYPE_CHECKING:
    from inn_automl.data.dataset import Dataset

READING_BYTES = 2**28
"""What reading takes beside samples in memory: shards in the making, batches."""


def check_memory(dataset: Dataset, *, num_processes: int) -> None:
    """Refuses a dataset whose samples in memory would not leave room for those who train on it.

    Each process has a copy of the splits that it works on; samples that are read from disk take
    none.

    Args:
        num_processes: those that train or evaluate at the same time.

    Raises:
        DatasetError: there is too little memory.
    """
    copies = sum(
        values.nbytes for values in (dataset.x, dataset.y) if isinstance(values, np.ndarray)
    )
    needed = READING_BYTES + num_processes * copies
    available = available_bytes()
    if available is not None and needed > available:
        raise DatasetError(
            f"training {dataset.name!r} in {num_processes} process(es) takes {bytes_text(needed)} "
            f"of memory for samples, but this machine has {bytes_text(available)} left: use fewer "
            "processors (training.cpus), end other programs, or give samples that are read from "
            "disk (files of images, or .npy in place of .npz)."
        )
