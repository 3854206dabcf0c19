"""Targets of a regression: numbers, checked."""

from __future__ import annotations

import numpy as np

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data.samples import plain_values, shape_text

MOST_CLASSES = 100
"""Whole numbers of more kinds than this do not look like classes."""


def number_targets(y: np.ndarray, what: str) -> np.ndarray:
    """Targets of a regression as (N, K) float32.

    Args:
        y: (N,) or (N, K) floating point numbers, K at least 1.
        what: name of the array in messages.

    Raises:
        DatasetFormatError: no target, or a value that is NaN, infinite, or beyond the range of
            float32.
    """
    table = y[:, None] if y.ndim == 1 else y
    if not table.shape[1]:
        raise DatasetFormatError(
            f"{what} has shape {shape_text(y.shape)}: store at least one target per sample."
        )
    return plain_values(table, what)


def looks_like_classes(y: np.ndarray) -> bool:
    """True if (N, K) numbers may be the labels of a classification, or one-hot rows of them."""
    whole = bool((y == np.trunc(y)).all())
    return whole and len(np.unique(y)) <= min(MOST_CLASSES, max(2, len(y) // 2))
