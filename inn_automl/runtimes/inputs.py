"""Input that a model is timed on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inn_automl.core.errors import MeasurementError


def random_input(
    path: Path, names: Sequence[str], kinds: Sequence[str], shape: Sequence[object], batch_size: int
) -> NDArray[np.float32]:
    """Random numbers, the same for every model of the same shape and whatever runs it.

    Args:
        path: the model, for messages.
        names: of the model's inputs.
        kinds: of the same, `tensor(float)` for float32.
        shape: of the first of them; the first size is the batch, and may be anything.

    Raises:
        MeasurementError: the model takes something other than one float32 tensor whose sizes are
            known.
    """
    if len(names) != 1 or kinds[0] != "tensor(float)":
        found = (
            ", ".join(f"{name}: {kind}" for name, kind in zip(names, kinds, strict=True))
            or "no input"
        )
        raise MeasurementError(
            f"{str(path)!r} takes {found}: a model to be timed must take one float32 tensor."
        )
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    if not shape or len(sizes) + 1 != len(shape):
        raise MeasurementError(
            f"{str(path)!r} takes an input of shape {list(shape)}: only its first dimension, the "
            f"batch, may be "
            "symbolic; export it with the other sizes fixed."
        )
    return np.random.default_rng(0).standard_normal([batch_size, *sizes], dtype=np.float32)
