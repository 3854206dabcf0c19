"""The initial design of a width search: uniform widths, evenly spaced in latency."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from inn_automl.width_search.device import DeviceSearch
from inn_automl.width_search.space import Key

NUM_INITIAL = 12
"""Uniform widths that a search starts with, divided among the precisions."""
REFERENCE_FACTOR = 1.25
"""Reference latency / latency bound: metric gained right at the bound must add hypervolume."""
_LADDER_STEPS = 200


@dataclass(frozen=True)
class InitialDesign:
    """Widths that a search on one device starts with.

    Attributes:
        keys: in the order in which they are evaluated.
        slowest_ms: latency of the slowest uniform widths in milliseconds.
    """

    keys: tuple[Key, ...]
    slowest_ms: float


def initial_design(device: DeviceSearch) -> InitialDesign:
    """Chooses uniform widths to start with.

    Of each precision the fastest, the slowest and the middle feasible widths come first, then
    others evenly spaced in latency, then the full network if it is infeasible (it is recorded, not
    evaluated). Precisions alternate.
    """
    space = device.space
    num = -(-NUM_INITIAL // len(space.precisions))
    designs: list[list[Key]] = []
    slowest_ms = 0.0
    for precision in space.precisions:
        ladder = list(dict.fromkeys(_uniform_keys(device, precision)))
        latency, feasible = device.assess(np.array(ladder, dtype=np.int64))
        slowest_ms = max(slowest_ms, float(latency.max()))
        order = [int(i) for i in np.argsort(latency, kind="stable") if feasible[i]]
        chosen: list[Key] = []
        if order:
            span = np.linspace(latency[order[0]], latency[order[-1]], num)
            nearest = [
                ladder[order[int(np.argmin(np.abs(latency[order] - target)))]] for target in span
            ]
            chosen = [nearest[0], nearest[-1], nearest[num // 2], *nearest]
        designs.append([*dict.fromkeys([*chosen, ladder[-1]])])
    turns = itertools.chain.from_iterable(itertools.zip_longest(*designs))
    return InitialDesign(tuple(key for key in turns if key is not None), slowest_ms)


def _uniform_keys(device: DeviceSearch, precision: str) -> list[Key]:
    ratios = np.linspace(0.0, 1.0, _LADDER_STEPS + 1)
    return [device.space.key(device.space.uniform(float(ratio), precision)) for ratio in ratios]
