"""Initial design: the widths that are measured on a device before its latency is predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inn_automl.latency.granularity import STEPS, rounded_up

if TYPE_CHECKING:
    from inn_automl.width_search.space import SearchSpace

_UNIFORM_RATIOS = (0.375, 0.5, 0.625, 0.75, 0.875)
_MAX_DRAWS = 20


def initial_design(space: SearchSpace, num: int, *, seed: int = 0) -> list[dict[str, int]]:
    """Draws different widths that span a search space.

    The design has the narrowest and the widest network, a few uniform ones, and a Latin hypercube
    (McKay, Beckman & Conover, Technometrics 1979), in which every group varies over its whole range
    independently of the others. Kernels compute several channels at a time, so a width of 32 can be
    faster than one of 31, and fast widths are where fronts are: each sample is followed by the same
    with each group rounded up to a multiple of 8 or 16, in turn. These pairs also tell whether the
    device computes in such steps, see `granularity`.

    Args:
        num: at most this many; fewer if the space has fewer points.
    """
    from scipy.stats import qmc  # of the worker extra

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
                int(v[min(int(coordinate * len(v)), len(v) - 1)])
                for v, coordinate in zip(values, point, strict=True)
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
