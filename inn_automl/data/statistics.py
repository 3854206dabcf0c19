"""Statistics and identity of samples, in memory that does not grow with their number."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data.samples import RawSamples, Split, blocks

if TYPE_CHECKING:
    from inn_automl.data.cache.shards import ShardedArray


def channel_statistics(samples: RawSamples, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (C,) of each channel, float32: those of a pretrained network
    where the preprocessing carries them, else of the samples `train`.

    A deviation is 1 for a channel that is constant.

    Raises:
        DatasetFormatError: a value is NaN or infinite.
    """
    given = samples.preprocessing
    if given is not None and given.mean is not None and given.std is not None:
        return np.array(given.mean, np.float32), np.array(given.std, np.float32)
    order = np.sort(train)  # memory order, and sums that do not depend on the seed's order
    if samples.moments is not None:
        finite = np.isfinite(samples.moments).all(axis=(1, 2))
        if not finite.all():
            raise DatasetFormatError(
                f"sample {int(np.argmin(finite))} of the dataset holds NaN or infinite values: "
                "remove such samples or fill the values in."
            )
        mean, std = _of_moments(samples.moments, order)
    else:
        mean, std = _of_values(samples.x, order)
    # Below the resolution of float32 a deviation is rounding, and dividing by it would blow
    # rounding up.
    constant = std <= np.maximum(np.abs(mean) * np.finfo(np.float32).eps, np.finfo(np.float32).tiny)
    return mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32)


def _of_moments(moments: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All samples have the same number of values: variance within plus variance between."""
    chosen = moments[order]
    mean = chosen[..., 0].mean(axis=0)
    variance = (chosen[..., 1] + np.square(chosen[..., 0] - mean)).mean(axis=0)
    return mean, np.sqrt(variance)


def _of_values(x: np.ndarray | ShardedArray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two passes of float64."""
    num_channels = x.shape[1]
    num_values = len(order) * int(np.prod(x.shape[2:]))
    mean = np.zeros(num_channels)
    for block in blocks(x, len(order)):
        mean += _flat(x, order[block]).sum(axis=(0, 2), dtype=np.float64)
    mean /= num_values
    variance = np.zeros(num_channels)
    for block in blocks(x, len(order)):
        variance += np.square(_flat(x, order[block]) - mean[:, None]).sum(axis=(0, 2))
    return mean, np.sqrt(variance / num_values)


def _flat(x: np.ndarray | ShardedArray, rows: np.ndarray) -> np.ndarray:
    chosen = x[rows]
    return chosen.reshape(len(chosen), chosen.shape[1], -1)


def fingerprint_of(
    samples: RawSamples,
    y: np.ndarray,
    classes: tuple[str, ...],
    splits: Mapping[Split, np.ndarray],
) -> str:
    """SHA-256 of samples, targets, classes and splits; independent of the order within a split."""
    digest = hashlib.sha256()
    x = samples.x
    digest.update(f"x:{x.dtype}:{x.shape};".encode())
    if samples.content_hash is not None:
        digest.update(samples.content_hash.encode())
    elif isinstance(x, np.ndarray):
        digest.update(_bytes(x))
    else:
        for block in blocks(x):
            digest.update(_bytes(x[block]))
    parts: dict[str, np.ndarray] = {"y": y}
    parts.update((split, np.sort(indices)) for split, indices in splits.items())
    for key, array in parts.items():
        digest.update(f"{key}:{array.dtype}:{array.shape};".encode())
        digest.update(_bytes(array))
    digest.update(repr(classes).encode())
    if samples.weights is not None:
        digest.update(_bytes(samples.weights))
    given = samples.preprocessing
    if given is not None and (given.input_size != given.stored_size or given.mean is not None):
        digest.update(repr(given).encode())
    return digest.hexdigest()


def _bytes(array: np.ndarray) -> memoryview:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).data
