"""Splits: disjoint, covering, stratified, the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inn_automl.core.errors import DatasetTooSmallError
from inn_automl.data.splits import complete_splits

class_counts = st.lists(st.integers(3, 60), min_size=2, max_size=6)


def names(counts: list[int]) -> tuple[str, ...]:
    return tuple(f"c{i}" for i in range(len(counts)))


def labels(counts: list[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


@settings(deadline=None)
@given(class_counts, st.integers(0, 2**31 - 1))
def test_made_splits_are_stratified_and_cover_all(counts: list[int], seed: int) -> None:
    y = labels(counts)
    splits = complete_splits("d", y, names(counts), {"train": np.arange(len(y))}, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(len(y)))
    for split, share in (("train", 0.70), ("validation", 0.15), ("test", 0.15)):
        found = np.bincount(y[splits[split]], minlength=len(counts))
        assert found.min() >= 1
        assert splits[split].dtype == np.int64
        np.testing.assert_allclose(
            found, share * np.array(counts), atol=1.0 if split != "train" else 2.0
        )


@settings(deadline=None)
@given(class_counts, st.sampled_from([("test",), ("validation",), ("validation", "test")]))
def test_given_splits_stay_as_they_are(counts: list[int], held_out: tuple[str, ...]) -> None:
    y = np.tile(labels(counts), 1 + len(held_out))
    parts = np.split(np.arange(len(y)), 1 + len(held_out))
    given_splits = dict(zip(("train", *held_out), parts, strict=True))
    splits = complete_splits("d", y, names(counts), given_splits, seed=3)
    for split in held_out:
        np.testing.assert_array_equal(np.sort(splits[split]), given_splits[split])
    missing = {"validation", "test"} - set(held_out)
    for split in missing:
        assert set(splits[split]) <= set(given_splits["train"])
        np.testing.assert_allclose(len(splits[split]), 0.15 * sum(counts), atol=len(counts))
    assert sum(map(len, splits.values())) == len(y)
    assert len(set(np.concatenate(list(splits.values())))) == len(y)


def test_seed_decides_and_is_stable_across_machines_and_versions() -> None:
    y = np.repeat([0, 1], 10)
    everything = {"train": np.arange(20)}
    first = complete_splits("d", y, ("a", "b"), everything, seed=0)
    # Frozen on purpose: the accuracies of a job are only comparable while its splits stay what
    # they were.
    assert first["validation"].tolist() == [11, 3, 2, 13]
    assert first["test"].tolist() == [1, 15, 8, 18]
    other = complete_splits("d", y, ("a", "b"), everything, seed=1)
    assert not np.array_equal(first["train"], other["train"])


def test_any_beginning_of_a_split_is_a_fair_sample_of_sorted_data() -> None:
    y = np.repeat(np.arange(4), 500)
    train = complete_splits("d", y, tuple("abcd"), {"train": np.arange(2000)}, seed=0)["train"]
    assert np.bincount(y[train[:200]], minlength=4).min() > 30
    given_all = {
        "train": np.arange(0, 2000, 2),
        "validation": np.arange(1, 2000, 4),
        "test": np.arange(3, 2000, 4),
    }
    splits = complete_splits("d", y, tuple("abcd"), given_all, seed=0)
    for indices in splits.values():
        assert np.bincount(y[indices[:100]], minlength=4).min() > 10


@pytest.mark.parametrize(
    ("given_splits", "counts", "needed"),
    [
        (["train"], "2 training samples", 3),
        (["train", "test"], "1 training sample,", 2),
        (["train", "validation", "test"], "0 training samples", 1),
    ],
)
def test_a_class_smaller_than_the_splits_need(
    given_splits: list[str], counts: str, needed: int
) -> None:
    rare = needed - 1
    y = np.array([0] * 10 + [1] * rare + [0, 1] * 4)
    parts = {
        "train": np.arange(10 + rare),
        "validation": np.arange(10 + rare, 14 + rare),
        "test": np.arange(14, 18) + rare,
    }
    used = {split: parts[split] for split in given_splits}
    with pytest.raises(
        DatasetTooSmallError,
        match=f"class 'rare' of 'd' has {counts}.* at least {needed}: add samples",
    ):
        complete_splits("d", y, ("common", "rare"), used, seed=0)  # type: ignore[arg-type]


def test_an_empty_given_split() -> None:
    empty = {"train": np.arange(6), "test": np.array([], np.int64)}
    with pytest.raises(DatasetTooSmallError, match="test split of 'd' is empty"):
        complete_splits("d", np.array([0, 1] * 3), ("a", "b"), empty, seed=0)  # type: ignore[arg-type]
