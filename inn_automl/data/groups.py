"""Splits that keep groups whole: a speaker, patient or device is in one of them alone.

Groups are dealt one by one, those with most samples first, each to the split that lacks most of
what it has (Sechidis et al., On the Stratification of Multi-Label Data, 2011).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inn_automl.core.errors import DatasetTooSmallError
from inn_automl.data.samples import Split


def deal_groups(
    name: str,
    groups: np.ndarray,
    y: np.ndarray,
    classes: tuple[str, ...],
    missing: Sequence[Split],
    *,
    share: float,
    key: np.ndarray,
) -> tuple[np.ndarray, dict[Split, np.ndarray]]:
    """Takes whole groups from the training samples for the splits that are missing.

    A group that alone has samples of a class stays in training.

    Args:
        name: of the dataset in messages.
        groups: (n,) group of each training sample.
        y: (n,) class of each; anything where there are no classes.
        share: of the samples that each missing split is to have.
        key: (n,) random numbers, which decide between groups of equal size.

    Returns:
        Positions of the training samples that stay, and those of each missing split.

    Raises:
        DatasetTooSmallError: there are too few groups for every split to have one.
    """
    names, first, member = np.unique(groups, return_index=True, return_inverse=True)
    labels = y if classes else np.zeros(len(groups), np.int64)
    counts = np.zeros((len(names), max(1, len(classes))))
    np.add.at(counts, (member, labels), 1)
    total = counts.sum(axis=0)
    # Each class counts alike, whatever its size.
    weighted = counts / np.maximum(total, 1)
    bound = ((counts > 0) & ((counts > 0).sum(axis=0) == 1)).any(axis=1)
    if len(classes) == 0:
        bound[:] = False
    wanted = np.array([1 - share * len(missing), *[share] * len(missing)])
    lacking = np.repeat(wanted[:, None], counts.shape[1], axis=1)
    place = np.zeros(len(names), np.int64)
    filled = np.zeros(1 + len(missing), np.int64)
    order = np.lexsort((key[first], -counts.sum(axis=1), ~bound))
    for i, group in enumerate(order):
        left = len(order) - i
        empty = np.flatnonzero(filled == 0)
        if bound[group]:
            chosen = 0
        elif len(empty) and left <= len(empty):
            chosen = int(empty[0])  # the last groups go where there is none yet
        else:
            chosen = int(np.argmax(lacking @ weighted[group]))
        place[group] = chosen
        filled[chosen] += 1
        lacking[chosen] -= weighted[group]
    if (filled == 0).any():
        needs = " and ".join(["training", *missing])
        only = f", {int(bound.sum())} of them the only ones of a class" if bound.any() else ""
        raise DatasetTooSmallError(
            f"{name!r} has {len(names)} group(s) of training samples{only}, but {needs} each need "
            "one of their own: add groups, or give the splits."
        )
    positions = place[member]
    found = {split: np.flatnonzero(positions == 1 + i) for i, split in enumerate(missing)}
    return np.flatnonzero(positions == 0), found
