from __future__ import annotations

import numpy as np
import pytest

from inn_automl.data import Dataset
from inn_automl.data.dataset import assemble
from inn_automl.data.samples import RawSamples


@pytest.fixture(scope="module")
def numbers() -> Dataset:
    """Two targets of very different sizes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 1, 12)).astype(np.float32)
    y = np.stack([5000 + 100 * x.sum((1, 2)), 0.01 * x[:, 0, 0]], axis=1).astype(np.float32)
    return assemble(
        "numbers", RawSamples(x=x, labels=None, targets=y, given={"train": np.arange(200)}), seed=0
    )


@pytest.fixture(scope="module")
def pairs() -> Dataset:
    rng = np.random.default_rng(0)
    large = rng.integers(256, size=(20, 3, 8, 12)).astype(np.uint8)
    small = large.reshape(20, 3, 4, 2, 6, 2).mean((3, 5)).astype(np.uint8)
    return assemble(
        "pairs",
        RawSamples(x=small, labels=None, targets=large, given={"train": np.arange(20)}),
        seed=0,
    )
