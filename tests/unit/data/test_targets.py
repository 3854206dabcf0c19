from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inn_automl.core.errors import DatasetFormatError, DatasetTooSmallError
from inn_automl.data import Dataset, load_dataset

RNG = np.random.default_rng(0)
X = RNG.integers(256, size=(40, 1, 6, 6), dtype=np.uint8)
Y = RNG.normal(50.0, 3.0, size=40)
LARGE = X.repeat(2, axis=2).repeat(2, axis=3)

Load = Callable[..., Dataset]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write(**arrays: Any) -> Dataset:
        np.savez(tmp_path / "user.npz", **arrays)
        return load_dataset(tmp_path / "user.npz")

    return write


def test_floats_are_targets(load: Load) -> None:
    dataset = load(x=X, y=Y)
    assert (dataset.task, dataset.y.shape, dataset.y.dtype) == ("regression", (40, 1), np.float32)
    np.testing.assert_array_equal(dataset.y[:, 0], Y.astype(np.float32))
    assert dataset.target_statistics is not None
    mean, std = dataset.target_statistics
    assert float(mean[0]) == pytest.approx(Y[dataset.train].mean(), rel=1e-6)
    assert float(std[0]) == pytest.approx(Y[dataset.train].std(), rel=1e-6)
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [28, 6, 6]
    assert sorted([*dataset.train, *dataset.validation, *dataset.test]) == list(range(40))
    assert dataset.notes == ()
    assert dataset.metadata()["target_mean"] == mean.tolist()


def test_targets_drawn_with_the_seed_of_the_split_do_not_decide_it(load: Load) -> None:
    y = np.random.default_rng(0).uniform(size=400)
    dataset = load(x=np.random.default_rng(1).normal(size=(400, 1, 12)), y=y)
    means = [dataset.y[split].mean() for split in (dataset.train, dataset.validation, dataset.test)]
    assert all(abs(mean - 0.5) < 4 * y.std() / 60**0.5 for mean in means)


def test_several_targets_and_given_splits(load: Load) -> None:
    targets = np.stack([Y, 1000 + 2 * Y], axis=1).astype(np.float32)
    dataset = load(x_train=X[:30], y_train=targets[:30], x_val=X[30:], y_val=targets[30:])
    assert (dataset.output_shape, dataset.num_classes) == ((2,), 0)
    assert len(dataset.validation) == 10
    assert (
        dataset.fingerprint
        != load(
            x_train=X[:30], y_train=targets[:30] + 1, x_val=X[30:], y_val=targets[30:]
        ).fingerprint
    )


def test_whole_floats_are_noted(load: Load) -> None:
    dataset = load(x=X, y=(np.arange(40) % 4).astype(np.float32))
    assert dataset.task == "regression"
    assert any("store classes as integers" in note for note in dataset.notes)
    assert load(x=X, y=np.arange(40) % 4).task == "classification"
    assert load(x=X, y=np.arange(40.0)).notes == ()


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (
            np.where(np.arange(40) == 7, np.nan, Y),
            DatasetFormatError,
            "NaN or infinite values, first nan in sample 7",
        ),
        (
            np.full(40, 2.5),
            DatasetFormatError,
            r"target 0 of 'user' is 2\.5 for all samples of the "
            r"train split",
        ),
        (np.stack([Y, 0 * Y], 1), DatasetFormatError, "target 1 of 'user' is 0 for all samples"),
        (np.zeros((40, 0)), DatasetFormatError, "store at least one target"),
        (Y[:39], DatasetFormatError, "x of 'user.npz' has 40 samples but y of 'user.npz' has 39"),
    ],
)
def test_targets_that_cannot_be_learned(
    load: Load, y: np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(x=X, y=y)


def test_too_few_samples(load: Load) -> None:
    with pytest.raises(
        DatasetTooSmallError, match="has 2 training samples, but training and validation and test"
    ):
        load(x=X[:2], y=Y[:2])
    with pytest.raises(DatasetTooSmallError, match="the validation split of 'user' has 1 sample"):
        load(x=X[:8], y=Y[:8])


def test_splits_must_ask_for_one_task(load: Load) -> None:
    with pytest.raises(
        DatasetFormatError,
        match=r"asks for classification but y_test of 'user\.npz' for regression",
    ):
        load(x=X, y=np.arange(40) % 4, x_test=X, y_test=Y)


def test_larger_images_are_targets(load: Load) -> None:
    dataset = load(x=X, y=LARGE)
    assert (dataset.task, dataset.scale, dataset.peak) == ("super-resolution", 2, 255.0)
    np.testing.assert_array_equal(dataset.y, LARGE)
    without_channels = load(x=X[:, 0], y=LARGE[:, 0])
    assert (without_channels.x.shape, without_channels.y.shape) == (X.shape, LARGE.shape)
    floats = load(x=X / 255, y=LARGE / 51)
    assert floats.peak == pytest.approx(
        (LARGE[floats.train].max() - LARGE[floats.train].min()) / 51
    )


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (LARGE[:, :, :, :11], r"are 1 x 6 x 6 and their targets 1 x 12 x 11: give targets"),
        (X, r"are 1 x 6 x 6 and their targets 1 x 6 x 6"),
        (
            LARGE.repeat(3, axis=1),
            r"and their targets 3 x 12 x 12: give targets of as many "
            r"channels",
        ),
        (LARGE.astype(np.float32), r"x of 'user.npz' holds uint8 values but y of 'user.npz' other"),
    ],
)
def test_images_that_are_no_pairs(load: Load, y: np.ndarray, message: str) -> None:
    with pytest.raises(DatasetFormatError, match=message):
        load(x=X, y=y)
