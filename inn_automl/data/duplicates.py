"""Identical samples in different splits: what was trained on is not a test."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from inn_automl.data.samples import SPLITS, Split


def duplicates_note(
    digests: np.ndarray | None, splits: Mapping[Split, np.ndarray]
) -> tuple[str, ...]:
    """A note on the samples of the validation and test splits that are in an earlier split, too.

    Args:
        digests: (N, 16) uint8, of the content of each sample; None where it is not known.
        splits: positions by split.
    """
    if digests is None:
        return ()
    names = np.ascontiguousarray(digests).view(f"V{digests.shape[1]}").ravel()
    known = names[splits["train"]]
    found = []
    for split in SPLITS[1:]:
        own = names[splits[split]]
        count = int(np.isin(own, known).sum())
        if count:
            found.append(f"{count} of {len(own)} in {split}")
        known = np.concatenate([known, own])
    if not found:
        return ()
    return (
        f"Identical files are in several splits ({' and '.join(found)} are in an earlier one): "
        "what is measured there is too good; remove the copies, or name what belongs together as "
        "a group.",
    )
