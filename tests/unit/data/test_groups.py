"""Splits of whole groups, and identical files across splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import DatasetFormatError, DatasetTooSmallError
from inn_automl.data import load_dataset
from inn_automl.data.samples import SPLITS
from inn_automl.data.splits import complete_splits

Tree = Callable[[dict[str, bytes]], Path]


def drawn(seed: int = 0, num_groups: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """1,000 samples of three classes, 60, 30 and 10 %, in groups of very different sizes."""
    generator = np.random.default_rng(seed)
    sizes = generator.dirichlet(np.ones(num_groups))
    groups = generator.choice(num_groups, 1000, p=sizes)
    return groups.astype(np.str_), generator.choice(3, 1000, p=[0.6, 0.3, 0.1])


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_whole_and_classes_balanced(seed: int) -> None:
    groups, y = drawn(seed)
    given = {"train": np.arange(1000)}
    splits = complete_splits("d", y, ("a", "b", "c"), given, seed=seed, groups=groups)
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(1000))
    members = [set(groups[splits[split]]) for split in SPLITS]
    assert not members[0] & members[1] and not members[0] & members[2]
    assert not members[1] & members[2]
    for split, share in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
        counts = np.bincount(y[splits[split]], minlength=3)
        np.testing.assert_allclose(counts / np.bincount(y), share, atol=0.06)
    again = complete_splits("d", y, ("a", "b", "c"), given, seed=seed, groups=groups)
    for split in SPLITS:
        np.testing.assert_array_equal(again[split], splits[split])


def test_the_seed_decides_between_groups_of_one_size() -> None:
    groups, y = np.repeat(np.arange(30), 4).astype(np.str_), np.tile([0, 1], 60)
    found = [
        set(
            complete_splits("d", y, ("a", "b"), {"train": np.arange(120)}, seed=s, groups=groups)[
                "test"
            ].tolist()
        )
        for s in range(3)
    ]
    assert found[0] != found[1] != found[2]


def test_the_only_group_of_a_class_is_trained_on() -> None:
    groups = np.array(["a", "b", "c", "d", "rare"]).repeat(10)
    y = np.array([0, 0, 0, 0, 1]).repeat(10)
    splits = complete_splits("d", y, ("x", "y"), {"train": np.arange(50)}, seed=0, groups=groups)
    assert set(range(40, 50)) <= set(splits["train"].tolist())


def test_given_splits_stay_and_targets_have_groups_too() -> None:
    groups = np.arange(50).astype(np.str_).repeat(2)
    y = np.random.default_rng(0).normal(size=(100, 1)).astype(np.float32)
    given = {"train": np.arange(80), "test": np.arange(80, 100)}
    splits = complete_splits("d", y, (), given, seed=0, groups=groups)
    assert set(splits["test"].tolist()) == set(range(80, 100))
    assert len(splits["validation"]) == 12
    assert not set(groups[splits["validation"]]) & set(groups[splits["train"]])


def test_too_few_groups() -> None:
    groups, y = np.array(["a", "b"]).repeat(20), np.tile([0, 1], 20)
    with pytest.raises(DatasetTooSmallError, match=r"'d' has 2 group\(s\) .* each need one"):
        complete_splits("d", y, ("x", "y"), {"train": np.arange(40)}, seed=0, groups=groups)


def test_groups_in_file_names(make: Any, tree: Tree) -> None:
    files = {
        f"{name}/{i}_p{i % 6}.png": make.png(i, size=(6, 4)) for name in "ab" for i in range(24)
    }
    dataset = load_dataset(tree(files), options=DataOptions(group_pattern=r"_(p[0-9])\."))
    assert dataset.groups is not None
    found = [set(dataset.groups[getattr(dataset, split)]) for split in SPLITS]
    assert sum(map(len, found)) == 6 and set.union(*found) == {f"p{i}" for i in range(6)}
    for pattern, message in (("(p[0-9", "no regular"), ("p[0-9]", "no group"), ("(q)", "nothing")):
        with pytest.raises(DatasetFormatError, match=message):
            load_dataset(tree({}), options=DataOptions(group_pattern=pattern))


def test_a_group_in_two_given_splits(make: Any, tree: Tree) -> None:
    files = {
        f"{split}/{name}/{i}_p{i}.png": make.png(i)
        for split, numbers in (("train", range(8)), ("test", range(7, 12)))
        for name in "ab"
        for i in numbers
    }
    with pytest.raises(DatasetFormatError, match=r"'7' .* in the given splits 'train' and 'test'"):
        load_dataset(tree(files), options=DataOptions(group_pattern="_p([0-9]+)"))


def test_identical_files_across_splits_are_told(make: Any, tree: Tree) -> None:
    files = {
        f"{split}/{name}/{i}.png": make.png(start + i)
        for split, start, count in (("train", 0, 20), ("val", 18, 10), ("test", 60, 10))
        for name in "ab"
        for i in range(count)
    }
    dataset = load_dataset(tree(files))
    assert dataset.notes == (
        "Identical files are in several splits (4 of 20 in validation are in an earlier one): "
        "what is measured there is too good; remove the copies, or name what belongs together as "
        "a group.",
    )
