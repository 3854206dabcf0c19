"""Means with confidence intervals, of few values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom. Of more, the last is on the
# safe side.
_T = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
    2.101,
    2.093,
    2.086,
)


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, which is not known of one value and then empty."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if self.count < 2:
            return f"{self.mean:.2f} (of one seed)"
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of independent values, by Student's t."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return Interval(mean, mean, mean, len(values))
    t = _T[min(len(values) - 2, len(_T) - 1)]
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values))
