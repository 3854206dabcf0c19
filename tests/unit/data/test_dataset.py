"""Classes, statistics, fingerprint and metadata."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inn_automl.core.errors import DatasetFormatError, DatasetTooSmallError
from inn_automl.data.dataset import assemble
from inn_automl.data.samples import RawSamples, ordered


def samples(
    x: np.ndarray | None = None, labels: list[str] | None = None, **options: object
) -> RawSamples:
    labels = labels or ["b", "a"] * 10
    if x is None:
        x = np.random.default_rng(0).integers(0, 256, (len(labels), 3, 4, 5)).astype(np.uint8)
    options.setdefault("given", {"train": np.arange(len(x))})
    return RawSamples(x=x, labels=np.array(labels), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(40, 3, 4, 5), (40, 2, 30)])
def test_statistics_are_of_the_training_split_by_channel(
    dtype: type, shape: tuple[int, ...]
) -> None:
    x = np.random.default_rng(1).uniform(0, 255, shape).astype(dtype)
    dataset = assemble("d", samples(x, ["a", "b"] * 20), seed=0)
    axes = (0, *range(2, len(shape)))
    train = x[dataset.train].astype(np.float64)
    np.testing.assert_allclose(dataset.mean, train.mean(axes), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, train.std(axes), rtol=1e-6)
    assert (dataset.mean.dtype, dataset.std.dtype) == (np.float32, np.float32)
    assert not np.allclose(dataset.mean, x.mean(axes), rtol=1e-6)


def test_statistics_go_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = assemble("d", samples(), seed=0)
    monkeypatch.setattr("inn_automl.data.samples.BLOCK_VALUES", 100)
    np.testing.assert_allclose(assemble("d", samples(), seed=0).std, whole.std, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8, -3e38, 1e-42])
def test_std_of_a_constant_channel_is_one(value: float) -> None:
    x = np.full((20, 2, 7), value, np.float32)
    x[:, 1, ::2] = 1.0
    dataset = assemble("d", samples(x), seed=0)
    assert dataset.std[0] == 1.0
    assert dataset.std[1] > 0
    np.testing.assert_allclose(dataset.mean[0], np.float32(value))


def test_statistics_of_the_largest_floats_stay_finite() -> None:
    x = np.full((20, 1, 4), 3e38, np.float32)
    x[:, :, ::2] *= -1
    dataset = assemble("d", samples(x), seed=0)
    assert np.isfinite(dataset.mean).all()
    np.testing.assert_allclose(dataset.std, 3e38, rtol=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=8, unique=True))
def test_integer_classes_keep_their_names_in_numeric_order(values: list[int]) -> None:
    y = [str(value) for value in values] * 3
    dataset = assemble("d", samples(np.zeros((len(y), 1, 5), np.uint8), y), seed=0)
    assert dataset.classes == tuple(str(value) for value in sorted(values))
    assert [dataset.classes[i] for i in dataset.y] == y


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"10", "9", "1"}, ("1", "9", "10")),
        ({"b", "B", "a", "ä"}, ("B", "a", "b", "ä")),
        ({"10", "9", "x"}, ("10", "9", "x")),
        ({"01", "1", "0"}, ("0", "01", "1")),
        ({"-1", "-10", "+1"}, ("+1", "-1", "-10")),
    ],
)
def test_class_order(names: set[str], expected: tuple[str, ...]) -> None:
    assert ordered(names) == expected


def test_fingerprint_sees_values_labels_classes_and_splits_but_not_the_name() -> None:
    base = samples()
    dataset = assemble("d", base, seed=0)
    assert len(dataset.fingerprint) == 64
    assert assemble("other", base, seed=0).fingerprint == dataset.fingerprint

    changed_x = base.x.copy()
    changed_x[3, 0, 0, 0] ^= 1
    flipped = base.labels[::-1].copy()
    given_test = {"train": np.arange(16), "test": np.arange(16, 20)}
    others = [
        assemble("d", replace(base, x=changed_x), seed=0),
        assemble("d", replace(base, x=base.x.astype(np.float32)), seed=0),
        assemble("d", replace(base, x=base.x.reshape(20, 3, 5, 4)), seed=0),
        assemble("d", replace(base, labels=flipped), seed=0),
        assemble("d", replace(base, labels=np.where(base.labels == "a", "A", "b")), seed=0),
        assemble("d", replace(base, given=given_test), seed=0),
        assemble("d", base, seed=1),
    ]
    assert len({dataset.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)


def test_fingerprint_of_given_splits_does_not_depend_on_the_seed() -> None:
    given_all = {"train": np.arange(12), "validation": np.arange(12, 16), "test": np.arange(16, 20)}
    first, other = (assemble("d", samples(given=given_all), seed=seed) for seed in (0, 1))
    assert first.fingerprint == other.fingerprint


def test_facts_are_json() -> None:
    dataset = assemble("d", samples(notes=("Something.",)), seed=0)
    metadata = json.loads(json.dumps(dataset.metadata()))
    assert metadata == {
        "name": "d",
        "kind": "image",
        "input_shape": [3, 4, 5],
        "dtype": "uint8",
        "classes": ["a", "b"],
        "num_samples": {"train": 12, "validation": 4, "test": 4},
        "sample_rate_hz": None,
        "notes": ["Something."],
        "fingerprint": dataset.fingerprint,
        "task": "classification",
        "preprocessing": {
            "input_size": [4, 5],
            "stored_size": [4, 5],
            "resize": "stretch",
            "crop_fraction": 1.0,
            "interpolation": "bilinear",
            "channels": None,
            "mean": None,
            "std": None,
            "fill": 0.0,
        },
    }


def test_it_prints_on_one_line() -> None:
    labels = [label for label in "abcdefgh" for _ in range(20)]
    dataset = assemble("d", samples(labels=labels), seed=0)
    sizes = [len(split) for split in (dataset.train, dataset.validation, dataset.test)]
    assert repr(dataset) == (
        "Dataset('d', image classification, input 3 x 4 x 5 uint8, samples: "
        "train {}, validation {}, test {}, "
        "8 classes: 'a', 'b', 'c', 'd', 'e', 'f' and 2 more)".format(*sizes)
    )


def test_a_regression_prints_the_shape_of_its_targets() -> None:
    x = np.random.default_rng(0).normal(size=(40, 2, 30)).astype(np.float32)
    raw = RawSamples(x=x, labels=None, given={"train": np.arange(40)}, targets=x[:, 0, :3].copy())
    printed = str(assemble("d", raw, seed=0))
    assert printed.startswith("Dataset('d', signal regression, input 2 x 30 float32, samples: ")
    assert printed.endswith(", output 3)")


def test_one_class_only() -> None:
    with pytest.raises(
        DatasetTooSmallError, match=r"'d' has one class only, 'a': .* at least two classes"
    ):
        assemble("d", samples(labels=["a"] * 20), seed=0)


def test_a_declared_class_without_samples() -> None:
    with pytest.raises(DatasetTooSmallError, match="class 'empty' of 'd' has 0 training samples"):
        assemble("d", samples(empty_classes=frozenset({"empty"})), seed=0)


def test_a_class_that_training_lacks() -> None:
    given_test = {"train": np.arange(16), "test": np.arange(16, 20)}
    labels = ["a", "b"] * 8 + ["a", "b", "c", "b"]
    with pytest.raises(
        DatasetFormatError,
        match="test split of 'd' has the class 'c', which the training split lacks",
    ):
        assemble("d", samples(labels=labels, given=given_test), seed=0)


def test_a_held_out_split_may_lack_a_class() -> None:
    given_test = {"train": np.arange(16), "test": np.arange(16, 20)}
    dataset = assemble("d", samples(labels=["a", "b"] * 8 + ["a"] * 4, given=given_test), seed=0)
    assert set(dataset.y[dataset.test]) == {0}
