"""The time of a whole job: how much of it a stage may still take, so that the later ones fit."""

from __future__ import annotations

import math
import time

AFTER_TRAINING, AFTER_PROFILING, AFTER_SEARCHING, AFTER_MEASURING = 0.5, 0.4, 0.2, 0.05
"""Fractions of the job's time that are kept for what follows a stage."""


class JobClock:
    """The time that `Budget.max_minutes` leaves, over all starts of a job.

    Args:
        max_minutes: of the whole job; None: no limit.
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        self._total_s = math.inf if max_minutes is None else 60 * max_minutes
        self._started_s = time.monotonic()
        self._spent_s = 0.0

    @property
    def is_limited(self) -> bool:
        """Whether the job's time has a limit."""
        return math.isfinite(self._total_s)

    def resume(self, spent_s: float) -> None:
        """Counts the seconds that earlier starts of the job took."""
        self._spent_s = spent_s

    def seconds_left(self, kept_fraction: float = 0.0) -> float:
        """Seconds that are left, without the fraction of the whole that later stages are to have;
        infinite without a limit, and below 0 once it is passed.
        """
        if not self.is_limited:
            return math.inf
        elapsed_s = self._spent_s + time.monotonic() - self._started_s
        return (1 - kept_fraction) * self._total_s - elapsed_s
