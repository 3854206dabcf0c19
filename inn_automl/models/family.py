"""Description of a model family, and the arithmetic that all families share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from inn_automl.core.metric import TaskKind


@dataclass(frozen=True)
class Family:
    """An architecture family.

    `make(input_shape, num_outputs, width, depth)` returns a module from standardized float32 `(N,
    *input_shape)` to logits or standardized targets `(N, num_outputs)`; `input_shape` is `(C, H,
    W)` for images and `(C, L)` for signals. A family for super-resolution takes the scale s in
    place of `num_outputs` and gives images `(N, C, s H, s W)`.
    """

    name: str
    kinds: tuple[str, ...]
    """Kinds of data it accepts: "image", "signal"."""
    default_depth: int
    depths: tuple[int, ...]
    """Depths it can be built with, ascending; the family's docstring says what a depth counts."""
    width_multipliers: tuple[float, ...]
    """Width multipliers worth trying as training candidates, ascending."""
    make: Callable[..., nn.Module]
    tasks: tuple[TaskKind, ...] = ("classification", "regression")
    """Tasks it can be trained for."""
    takes_sample_rate: bool = False
    """Whether `make` also takes `sample_rate_hz`: that of sound, None where it is not known."""


def kind_of(input_shape: tuple[int, ...]) -> str | None:
    """ "image" for `(C, H, W)`, "signal" for `(C, L)`, None for anything else."""
    return {3: "image", 2: "signal"}.get(len(input_shape))


def scaled(channels: int, width: float) -> int:
    """`channels` times the width multiplier, rounded to a multiple of 4 (SIMD lanes) and at least
    4.
    """
    return max(4, 4 * round(channels * width / 4))


def num_halvings(size: int, smallest: int) -> int:
    """Number of times that `size` can be halved without falling below `smallest`."""
    return max(0, int(math.log2(size / smallest)))


def stem_stride(size: int, largest: int) -> int:
    """Stride (a power of 2) of the first convolution that brings a side of `size` to `largest` or
    below.
    """
    return 2 ** max(0, math.ceil(math.log2(size / largest)))


def stem_kernel(stride: int) -> int:
    """Odd kernel size whose windows overlap: 3 at strides 1 and 2, 7 at 4, 15 at 8."""
    return max(3, 2 * stride - 1)
