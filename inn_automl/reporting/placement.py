"""Placement of labels in a plot: each covers as little as possible and is near its point."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

Spot = tuple[float, float]
"""Position in fractions of the plot's width and height, from its lower left corner."""

DISTANCE_COST = 6.0
"""Cost of a whole plot's width between a label and what it names, beside the weights of what it
covers.
"""
GRID = 21
"""Positions tried in each direction."""


def free_spot(size: Spot, target: Spot, obstacles: Iterable[tuple[float, float, float]]) -> Spot:
    """The centre for a label of `size` that names `target`.

    Args:
        size: width and height of the label, with its margin.
        obstacles: x, y and weight of points that are better not covered.
    """
    points = np.array([*obstacles, (*target, 100.0)], dtype=float)
    best, cost = target, np.inf
    for x in np.linspace(size[0] / 2, 1 - size[0] / 2, GRID):
        for y in np.linspace(size[1] / 2, 1 - size[1] / 2, GRID):
            covered = (abs(points[:, 0] - x) <= size[0] / 2) & (
                abs(points[:, 1] - y) <= size[1] / 2
            )
            here = points[covered, 2].sum() + DISTANCE_COST * np.hypot(x - target[0], y - target[1])
            if here < cost:
                best, cost = (float(x), float(y)), here
    return best


def along_steps(corners: Sequence[Spot], spacing: float = 0.02) -> list[Spot]:
    """Points on a line that goes right, then up, from each corner to the next."""
    points: list[Spot] = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        points += [(x, y0) for x in np.arange(x0, x1, spacing)]
        points += [(x1, y) for y in np.arange(y0, y1, spacing)]
    return points
