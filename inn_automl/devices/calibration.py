"""Which widths to measure on a device before its latency can be predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_LANES = 8
_UNIFORM_RATIOS = (0.375, 0.5, 0.625, 0.75, 0.875)
_MAX_DRAWS = 20


class Space(Protocol):
    """What is asked of a search space."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def values(self) -> Sequence[Sequence[int]]:
        """The widths that each group may take, ascending."""
        ...


def calibration_widths(space: Space, num: int, *, seed: int = 0) -> list[dict[str, int]]:
    """At most `num` different widths that span a search space, fewer where the space holds fewer.

    The narrowest and the widest network, a few that are resized evenly, and Latin hypercube samples, in which every
    group varies over its whole range independently of the others. Kernels compute several channels at a time, so a
    width of 32 can be faster than one of 31, and fast widths are where fronts are: in every other sample each
    group takes the nearest multiple of 8 that it may.
    """
    from scipy.stats import qmc  # a worker's library

    values = [np.asarray(v) for v in space.values]
    even = [v[v % _LANES == 0] if (v % _LANES == 0).any() else v for v in values]
    ends = [tuple(int(v[0]) for v in values), tuple(int(v[-1]) for v in values)]
    uniform = [tuple(_nearest(v, ratio * v[-1]) for v in values) for ratio in _UNIFORM_RATIOS]
    chosen = dict.fromkeys((ends + uniform)[: max(num, 0)])
    for attempt in range(_MAX_DRAWS):
        missing = num - len(chosen)
        if missing <= 0:
            break
        points = qmc.LatinHypercube(len(values), rng=np.random.default_rng([seed, attempt])).random(missing)
        for index, point in enumerate(points):
            inside = [v[min(int(share * len(v)), len(v) - 1)] for v, share in zip(values, point, strict=True)]
            grid = even if index % 2 else values
            chosen[tuple(_nearest(v, width) for v, width in zip(grid, inside, strict=True))] = None
    return [dict(zip(space.names, widths, strict=True)) for widths in chosen]


def _nearest(values: NDArray[np.int64], width: float) -> int:
    return int(values[np.abs(values - width).argmin()])
