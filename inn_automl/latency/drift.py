"""Drift correction: latencies of several iterations on one scale.

A device can change its speed between iterations: another clock, a busy neighbour, two cores of a
virtual machine that become two threads of one core. Each iteration is therefore measured beside
a few reference configurations of the initial design. Their latencies now, relative to then, are
the speed factor of the iteration. All rows are put on the scale of the speed that the device had
most of the time.

All functions are pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from inn_automl.latency.records import LatencyRow, ProfilingIteration

MIN_ITERATIONS = 2
"""Iterations that are needed to tell whether the clock regime is another one."""


def measured_factor(now: Sequence[LatencyRow], then: Sequence[LatencyRow]) -> float:
    """Latency of the same networks now, relative to then: the median over the networks.

    Args:
        now, then: rows of the same widths, in the same order.
    """
    return statistics.median(
        one.latency_ms / other.latency_ms for one, other in zip(now, then, strict=True)
    )


def scaled(rows: Sequence[LatencyRow], factor: float) -> list[LatencyRow]:
    """Rows with their latencies multiplied by `factor`."""
    return [replace(row, latency_ms=factor * row.latency_ms) for row in rows]


def speed_factor(iterations: Sequence[ProfilingIteration]) -> float:
    """Latency at the reference speed, relative to the initial design.

    It is the median over the initial design (1.0) and all iterations; the larger one of two, as
    the mean of two clock regimes is a speed that the device never has.
    """
    return statistics.median_high([1.0, *(iteration.speed_factor for iteration in iterations)])


def to_reference(
    initial: Sequence[LatencyRow], iterations: Sequence[ProfilingIteration]
) -> list[LatencyRow]:
    """All rows as if measured at the reference speed of the device.

    Where the initial design was measured again, the repeated rows replace the first ones and define
    the scale.
    """
    measured = [row for iteration in iterations for row in iteration.rows]
    repeated = repeated_design(iterations)
    if not repeated:
        return scaled([*initial, *measured], speed_factor(iterations))
    now_ms = {row.key: row.latency_ms for row in repeated}
    factor = statistics.median(
        now_ms[row.key] / row.latency_ms for row in initial if row.key in now_ms
    )
    return [*repeated, *scaled(measured, factor)]


def repeated_design(iterations: Sequence[ProfilingIteration]) -> tuple[LatencyRow, ...]:
    """The initial design as it was measured again; empty if it was not."""
    return next((iteration.repeated for iteration in iterations if iteration.repeated), ())


def is_other_clock_regime(
    initial: Sequence[LatencyRow], iterations: Sequence[ProfilingIteration], *, max_drift: float
) -> bool:
    """Return whether the reference model drifted in most iterations since the initial design.

    A speed factor does not correct for that: in another clock regime some widths slow down more
    than others.

    Args:
        max_drift: relative change of the reference model's latency that is still the same regime.
    """
    before_ms = initial[0].reference_ms
    if not before_ms or len(iterations) < MIN_ITERATIONS or repeated_design(iterations):
        return False
    drifts = [
        abs((iteration.rows[0].reference_ms or before_ms) / before_ms - 1)
        for iteration in iterations
    ]
    return sum(drift > max_drift for drift in drifts) > len(drifts) / 2


def reference_ms(initial: Sequence[LatencyRow], iterations: Sequence[ProfilingIteration]) -> float:
    """Milliseconds of the reference model in the median of all measurements; 0 if not known.

    Of the two in the middle the larger one.
    """
    measurements = [
        initial,
        *(iteration.rows for iteration in iterations),
        repeated_design(iterations),
    ]
    known = [rows[0].reference_ms for rows in measurements if rows]
    return statistics.median_high([ms for ms in known if ms] or [0.0])
