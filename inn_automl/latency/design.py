"""Which widths to measure on a device before its latency can be predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inn_automl.latency.granularity import STEPS, rounded_up

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


def initial_design(space: Space, num: int, *, seed: int = 0) -> list[dict[str, int]]:
    """At most `num` different widths that span a search space, fewer where the space holds fewer.

    The narrowest and the widest network, a few that are resized evenly, and Latin hypercube
    samples, in which every group varies over its whole range independently of the others. Kernels
    compute several channels at a time, so a width of 32 can be faster than one of 31, and fast
    widths are where fronts are: beside every other sample stands the same with each group rounded
    up to a multiple of 8 or 16, in turn. These pairs also tell whether the device computes in such
    steps: see `granularity`.
    """
    from scipy.stats import qmc  # a worker's library

    values = [np.asarray(v) for v in space.values]
    ends = [tuple(int(v[0]) for v in values), tuple(int(v[-1]) for v in values)]
    uniform = [tuple(_nearest(v, ratio * v[-1]) for v in values) for ratio in _UNIFORM_RATIOS]
    chosen = dict.fromkeys((ends + uniform)[: max(num, 0)])
    for attempt in range(_MAX_DRAWS):
        missing = num - len(chosen)
        if missing <= 0:
            break
        points = qmc.LatinHypercube(len(values), rng=np.random.default_rng([seed, attempt])).random(
            -(-missing // 2)
        )
        for index, point in enumerate(points):
            inside = [
                int(v[min(int(share * len(v)), len(v) - 1)])
                for v, share in zip(values, point, strict=True)
            ]
            step = STEPS[index % len(STEPS)]
            whole = [
                rounded_up(v, width, step) for v, width in zip(space.values, inside, strict=True)
            ]
            for one in (tuple(inside), tuple(whole)):
                if len(chosen) < num:
                    chosen[one] = None
    return [dict(zip(space.names, widths, strict=True)) for widths in chosen]


def _nearest(values: NDArray[np.int64], width: float) -> int:
    return int(values[np.abs(values - width).argmin()])
