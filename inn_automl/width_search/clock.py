"""The time of a search: how many evaluations and measurements still fit into it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

EVALUATED_FRACTION = 0.75
"""Of the time, for evaluations; the rest is for measurements of what they found."""
_MANY = 2**31


def _no_limit() -> float:
    return math.inf


@dataclass(eq=False)
class SearchClock:
    """What is left of the time of a search, in evaluations and measurements.

    Attributes:
        seconds_left: until the search must have ended.
        evaluation_s: seconds that an evaluation takes, as far as is known; 0 for not yet.
        measurement_s: likewise of a measured width.
    """

    seconds_left: Callable[[], float] = _no_limit
    evaluation_s: float = 0.0
    measurement_s: float = 0.0
    _total_s: float = field(init=False)
    _started_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._total_s = self.seconds_left()

    @property
    def num_evaluations(self) -> int:
        """Evaluations that fit into their part of what is left."""
        left_s = self.seconds_left()
        if math.isinf(left_s):
            return _MANY
        return _fitting(left_s - (1 - EVALUATED_FRACTION) * self._total_s, self.evaluation_s)

    @property
    def num_measurements(self) -> int:
        """Measurements that fit into what is left."""
        left_s = self.seconds_left()
        return _MANY if math.isinf(left_s) else _fitting(left_s, self.measurement_s)

    def count_evaluated(self, num: int, seconds: float) -> None:
        """Learns from a batch how long an evaluation takes, where several run at a time too."""
        self.evaluation_s = seconds / num

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Times the measurements of the block."""
        self._started_s = time.monotonic()
        yield

    def count_measured(self, num: int) -> None:
        """Learns from the block how long a measurement takes."""
        if num:
            self.measurement_s = (time.monotonic() - self._started_s) / num


def _fitting(seconds: float, each_s: float) -> int:
    if seconds <= 0:
        return 0
    return _MANY if each_s <= 0 else int(seconds / each_s)
