"""Seeded splits, stratified where there are classes.

Random orders come from the raw bits of PCG64, whose stream numpy guarantees for all versions; it
gives no such promise for the distributions of a Generator (NEP 19).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from inn_automl.core.errors import DatasetTooSmallError
from inn_automl.data.groups import deal_groups
from inn_automl.data.samples import SPLITS, Split

HELD_OUT_PERCENT = 15
"""Percent of each class that a made validation or test split takes; 70 are left for training when
both are made.
"""

_UNSTRATIFIED = 0x5EED


def complete_splits(
    name: str,
    y: np.ndarray,
    classes: tuple[str, ...],
    given: Mapping[Split, np.ndarray],
    *,
    seed: int,
    groups: np.ndarray | None = None,
) -> dict[Split, np.ndarray]:
    """Takes the splits that are not given from the training samples: the same fraction of
    every class, if there are any; of whole groups, as nearly as these allow.

    Each made split takes 15 % of a class, rounded, and at least one sample; training keeps at
    least one.

    Args:
        name: of the dataset in messages.
        y: (N,) class of each sample, an index into `classes`; (N, ...) anything where there are no
            classes.
        given: sample indices by split, with at least `"train"`. Given validation and test splits
            stay as they are.
        seed: of the draw.
        groups: (N,) names of what must stay in one split; None where there are none.

    Returns:
        The three splits: disjoint int64 sample indices, each in a random order.

    Raises:
        DatasetTooSmallError: a class, or where there are none the whole, has fewer samples than
            the splits need; a given split has none; or there are too few groups.
    """
    # One key decides who is taken, another the order within a split, so that the order says
    # nothing of the first. Targets that a user drew from numpy's generator with the same seed must
    # not be what decides: without classes to stratify by, the split would then be sorted by them.
    generator = np.random.PCG64(seed if classes else np.random.SeedSequence((seed, _UNSTRATIFIED)))
    draw_key, order_key = generator.random_raw(2 * len(y)).reshape(2, -1)
    splits = {split: np.asarray(given[split], np.int64) for split in SPLITS if split in given}
    for split, indices in splits.items():
        if len(indices) == 0:
            raise DatasetTooSmallError(
                f"the {split} split of {name!r} is empty: add samples, or leave that split out."
            )
    missing: list[Split] = [split for split in SPLITS if split not in given]
    if groups is not None and missing:
        train = splits["train"]
        kept_rows, dealt = deal_groups(
            name,
            groups[train],
            y[train],
            classes,
            missing,
            share=HELD_OUT_PERCENT / 100,
            key=draw_key[train],
        )
        splits["train"] = train[kept_rows]
        splits.update((split, train[rows]) for split, rows in dealt.items())
        return {split: _by_key(splits[split], order_key) for split in SPLITS}
    kept: list[np.ndarray] = []
    taken: dict[Split, list[np.ndarray]] = {split: [] for split in missing}
    strata: list[tuple[str | None, np.ndarray]] = [
        (class_name, splits["train"][y[splits["train"]] == label])
        for label, class_name in enumerate(classes)
    ]
    for class_name, members in strata or [(None, splits["train"])]:
        rest = _by_key(members, draw_key)
        if len(rest) < 1 + len(missing):
            raise DatasetTooSmallError(_too_few(name, class_name, len(rest), missing))
        num_taken = max(1, (HELD_OUT_PERCENT * len(rest) + 50) // 100)
        for split in missing:
            taken[split].append(rest[:num_taken])
            rest = rest[num_taken:]
        kept.append(rest)
    splits["train"] = np.concatenate(kept)
    splits.update((split, np.concatenate(taken[split])) for split in missing)
    return {split: _by_key(indices, order_key) for split, indices in splits.items()}


def _by_key(indices: np.ndarray, key: np.ndarray) -> np.ndarray:
    return indices[np.argsort(key[indices], kind="stable")]


def _too_few(name: str, class_name: str | None, count: int, missing: list[Split]) -> str:
    needs = " and ".join(["training", *missing])
    have = f"{count} training sample{'' if count == 1 else 's'}"
    if class_name is None:
        return f"{name!r} has {have}, but {needs} need at least {1 + len(missing)}: add samples."
    return (
        f"class {class_name!r} of {name!r} has {have}, but {needs} need at least "
        f"{1 + len(missing)}: "
        "add samples of it or remove the class."
    )
