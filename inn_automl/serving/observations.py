"""Latencies that the application itself saw."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

NUM_KEPT = 1000
"""Latest runs of each point, for what is shown."""

NUM_RECENT = 100
"""Latest runs of all points, for what the machine is like now: three seconds of a video."""

FEWEST = 30
"""Fewest runs to estimate a slow-down from; before, the evidence is used as it is."""


@dataclass(frozen=True)
class Observed:
    """Latencies of a point's latest runs, in milliseconds."""

    num_runs: int
    p50: float
    p95: float
    p99: float


class Observations:
    """The latest runs of each point and of all. Safe to use from several threads."""

    def __init__(self, points: Iterable[str]) -> None:
        self._lock = threading.Lock()  # held for microseconds
        self._by_point: dict[str, deque[float]] = {
            point: deque(maxlen=NUM_KEPT) for point in points
        }
        self._recent: deque[tuple[str, float]] = deque(maxlen=NUM_RECENT)
        self._num_runs = 0

    def add(self, point: str, latency_ms: float) -> int:
        """Notes a run; the number of runs so far."""
        with self._lock:
            self._by_point[point].append(latency_ms)
            self._recent.append((point, latency_ms))
            self._num_runs += 1
            return self._num_runs

    def percentiles(self) -> dict[str, Observed]:
        """Observed latencies by point; only points that ran."""
        with self._lock:
            samples = {point: list(found) for point, found in self._by_point.items() if found}
        return {
            point: Observed(
                len(found), *(float(value) for value in np.percentile(found, (50, 95, 99)))
            )
            for point, found in samples.items()
        }

    def slowdown(self, percentile: float, evidence_ms: Callable[[str], float]) -> float:
        """Factor by which recent runs were slower than the evidence; 1 if there were too few.

        Each run counts as a multiple of what its own point took at the percentile when it was
        measured; where nothing changed since, the percentile of these ratios is 1. It is one
        factor for all points, so that those that have not run yet are judged, too.

        Args:
            evidence_ms: measured latency of a point at the percentile.
        """
        with self._lock:
            recent = list(self._recent)
        if len(recent) < FEWEST:
            return 1.0
        return float(
            np.percentile(
                [latency_ms / evidence_ms(point) for point, latency_ms in recent], percentile
            )
        )
