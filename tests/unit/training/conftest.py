"""A tiny labelled data set of each kind: every class is a sine wave, or bars, of its own, under noise."""

from __future__ import annotations

import numpy as np
import pytest

from inn_automl.data import Dataset

NUM_CLASSES = 3
NUM_SAMPLES = 120


def _dataset(name: str, x: np.ndarray, y: np.ndarray) -> Dataset:
    axes = (0, *range(2, x.ndim))
    order = np.random.default_rng(1).permutation(len(x))
    train, validation, test = np.split(order, [80, 100])
    raw = x[train].astype(np.float32)
    return Dataset(
        name=name,
        x=x,
        y=y,
        classes=tuple(str(c) for c in range(NUM_CLASSES)),
        train=train,
        validation=validation,
        test=test,
        mean=raw.mean(axes),
        std=raw.std(axes),
        fingerprint=f"fingerprint of {name}",
    )


@pytest.fixture
def signals() -> Dataset:
    """float32, 1 x 24."""
    rng = np.random.default_rng(0)
    y = np.arange(NUM_SAMPLES, dtype=np.int64) % NUM_CLASSES
    waves = np.sin(np.arange(24) * (y[:, None] + 1) / 2 + rng.uniform(0, 0.5, (NUM_SAMPLES, 1)))
    x = 5 + 3 * waves + rng.normal(0, 0.3, waves.shape)
    return _dataset("signals", x[:, None].astype(np.float32), y)


@pytest.fixture
def images() -> Dataset:
    """uint8, 2 x 8 x 8."""
    rng = np.random.default_rng(0)
    y = np.arange(NUM_SAMPLES, dtype=np.int64) % NUM_CLASSES
    x = rng.integers(0, 60, (NUM_SAMPLES, 2, 8, 8))
    for sample, label in enumerate(y):
        x[sample, :, :, 1 + 2 * label] += 150
    return _dataset("images", x.astype(np.uint8), y)
