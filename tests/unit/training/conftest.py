"""A tiny labelled data set of each kind: every class is a sine wave, or bars, of its own, under
noise.
"""

from __future__ import annotations

import numpy as np
import pytest

from inn_automl.data import Dataset
from inn_automl.data.dataset import assemble
from inn_automl.data.samples import RawSamples

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


@pytest.fixture(scope="module")
def numbers() -> Dataset:
    """How high a noisy wave is and how fast, in other units."""
    rng = np.random.default_rng(0)
    height, speed = rng.uniform(1, 3, 400), rng.uniform(0.2, 0.6, 400)
    waves = height[:, None] * np.sin(np.arange(24) * speed[:, None]) + rng.normal(
        0, 0.05, (400, 24)
    )
    targets = np.stack([1000 + 50 * height, speed / 100], axis=1).astype(np.float32)
    samples = RawSamples(
        x=waves[:, None].astype(np.float32),
        labels=None,
        targets=targets,
        given={"train": np.arange(400)},
    )
    return assemble("waves", samples, seed=0)


@pytest.fixture(scope="module")
def pairs() -> Dataset:
    """Bars at any angle, and the same at half the size."""
    rng, grid = np.random.default_rng(0), np.arange(16)
    large = np.zeros((80, 1, 16, 16), np.uint8)
    for image, angle, shift in zip(
        large, rng.uniform(0, 3.1, 80), rng.uniform(4, 12, 80), strict=True
    ):
        distance = np.cos(angle) * (grid[:, None] - shift) + np.sin(angle) * (grid - shift)
        image[0] = 255 / (1 + np.exp(4 * (np.abs(distance) - 2)))
    small = large.reshape(80, 1, 8, 2, 8, 2).mean((3, 5)).round().astype(np.uint8)
    samples = RawSamples(x=small, labels=None, targets=large, given={"train": np.arange(80)})
    return assemble("bars", samples, seed=0)
