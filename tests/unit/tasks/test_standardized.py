from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from inn_automl.data import Dataset
from inn_automl.data.dataset import assemble
from inn_automl.data.samples import RawSamples
from inn_automl.tasks import Task


class OnDisk:
    """Array-like samples that count what is read of them."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim
        self.num_read = 0

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: Any) -> np.ndarray:
        found = self._values[key].copy()
        self.num_read += len(found)
        return found


@pytest.fixture(scope="module")
def images() -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (300, 3, 6, 9), dtype=np.uint8)
    samples = RawSamples(
        x=x, labels=np.array(["a", "b"] * 150), targets=None, given={"train": np.arange(300)}
    )
    return assemble("noise", samples, seed=0)


def test_samples_on_disk_are_read_when_they_are_wanted(images: Dataset) -> None:
    on_disk = OnDisk(images.x)
    lazy = Task.from_dataset(dataclasses.replace(images, x=on_disk)).train
    kept = Task.from_dataset(images).train
    assert (lazy.is_in_memory, kept.is_in_memory) == (False, True)
    assert on_disk.num_read == 0
    chosen = torch.tensor([5, 0, 5, 17])
    assert torch.equal(lazy.standardized(chosen), kept.standardized(chosen))
    assert torch.equal(lazy.raw(slice(3, 8)), kept.raw(slice(3, 8)))
    assert on_disk.num_read == 4 + 5
    assert lazy.raw(chosen).dtype == torch.uint8
    for (x, y), (expected_x, expected_y) in zip(lazy.batches(32), kept.batches(32), strict=True):
        assert torch.equal(x, expected_x) and torch.equal(y, expected_y)
    assert on_disk.num_read == 4 + 5 + 4 + len(lazy)


def test_batches_are_read_one_ahead(images: Dataset) -> None:
    on_disk = OnDisk(images.x)
    samples = Task.from_dataset(dataclasses.replace(images, x=on_disk)).train
    batches = samples.batches(len(samples) // 4)
    next(batches)
    batches.close()
    assert on_disk.num_read <= len(samples) // 2


def test_larger_stored_images_are_cut_around_their_centre(images: Dataset) -> None:
    class Smaller(Dataset):
        input_shape = (3, 4, 6)

    values = {field.name: getattr(images, field.name) for field in dataclasses.fields(images)}
    dataset = Smaller(**values)
    samples = Task.from_dataset(dataset).validation
    assert samples.num_values == 72
    assert samples.raw(slice(0, 2)).shape == (2, 3, 6, 9)
    whole = images.x[images.validation[:2]][:, :, 1:5, 1:7].astype(np.float32)
    expected = (whole - images.mean[:, None, None]) / images.std[:, None, None]
    torch.testing.assert_close(samples.standardized(slice(0, 2)), torch.from_numpy(expected))
