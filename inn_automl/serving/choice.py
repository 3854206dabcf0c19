"""Choice of the point that serves under a latency target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inn_automl.core.errors import InputError
from inn_automl.core.result import LatencySummary
from inn_automl.export.elastic import ElasticPoint

STEP_UP_FRACTION = 0.9
"""While adapting, a slower point takes over only if it keeps this fraction of the target: a
slow-down that wavers around a point's limit would otherwise switch back and forth."""


@dataclass(frozen=True)
class Choice:
    """The point that serves under a latency target."""

    point: ElasticPoint
    keeps_target: bool
    """True if `point` keeps the target; otherwise no point does, and it is the fastest."""
    target_ms: float
    percentile: float
    expected_ms: float
    """Upper bound of the point's latency at the percentile: the evidence's, times `slowdown`."""
    slowdown: float
    """Observed latencies relative to the evidence's; 1 if they were not requested, or are too
    few.
    """

    def __str__(self) -> str:
        expected = (
            f"{self.point.id} stays below {self.expected_ms:.3g} ms at the "
            f"{self.percentile:g}th percentile"
        )
        if self.keeps_target:
            return f"{expected}: it keeps {self.target_ms:g} ms."
        return f"No point keeps {self.target_ms:g} ms; the fastest, {expected}."


def latency_at(summary: LatencySummary, percentile: float) -> float:
    """Measured latency at a percentile, in milliseconds.

    Raises:
        InputError: that one was not measured.
    """
    known = {
        50.0: summary.p50,
        95.0: summary.p95,
        99.0: summary.p99,
        summary.percentile: summary.at_percentile,
    }
    if percentile not in known:
        names = ", ".join(f"{one:g}" for one in sorted(known))
        raise InputError(f"percentile {percentile!r} was not measured: give one of {names}.")
    return known[percentile]


def upper_bound_ms(summary: LatencySummary, percentile: float) -> float:
    """Upper end of the confidence interval of the latency at a percentile.

    The evidence has the interval at one percentile; at the others it is taken to be as wide in
    proportion.
    """
    width = max(1.0, summary.ci[1] / summary.at_percentile)
    return latency_at(summary, percentile) * width


def choose(
    points: Sequence[ElasticPoint],
    device: str,
    target_ms: float,
    percentile: float,
    *,
    slowdown: float = 1.0,
    current: str | None = None,
) -> Choice:
    """The best point (the faster one of equals) whose upper bound keeps the target; the fastest,
    if none does.

    Args:
        slowdown: factor on the evidence.
        current: id of the point that serves, which slower ones take over from only with some room
            to spare; None: no point is favored.
    """
    bounds = {p.id: slowdown * upper_bound_ms(p.latency[device], percentile) for p in points}
    now = bounds.get(current or "", float("inf"))

    def limit(point: ElasticPoint) -> float:
        return target_ms * (STEP_UP_FRACTION if bounds[point.id] > now else 1.0)

    keeping = [p for p in points if bounds[p.id] <= limit(p)]
    if keeping:
        point = max(keeping, key=lambda p: (p.metric.validation, -bounds[p.id]))
    else:
        point = min(points, key=lambda p: bounds[p.id])
    expected = bounds[point.id]
    return Choice(point, expected <= target_ms, target_ms, percentile, expected, slowdown)
