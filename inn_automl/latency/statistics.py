"""Percentiles of measured latency, and their confidence intervals.

Samples are nested: runs in blocks in processes. Runs of one process are far from independent: they
share its layout in memory and whatever the machine was doing in those seconds. The processes are
the only replicates, so an interval is built on the percentiles that they found, one number each,
in logarithms because disturbances multiply (a core whose sibling is busy computes everything at
two thirds of its speed).

Two questions, two intervals, both by Student's t:

- *Will it hold when it is measured again?* `ci` is the interval for one more process: mean and
  spread of the processes' percentiles with the factor sqrt(1 + 1/k) (Hahn & Meeker, "Statistical
  Intervals", 1991, section 4.8). The interval for their mean would not do: a mean can be known to
  1 % where processes differ by 20 %. Processes of one minute say nothing about another hour, in
  which a machine is a little faster or slower as a whole, so `SESSION` is added in square.
- *Is this model slower than that one?* Models that were measured together, turn by turn, share
  most of the differences between processes. `comparison_ci` is the interval for the mean after the
  differences common to all models (their median in each process) are taken out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inn_automl.core.result import LatencySummary

# Two-sided 95 % points of Student's t for 1, 2, ... degrees of freedom: the base install has no
# scipy.
_T95 = (
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
)
_FEWEST_SHARING = 3

SESSION = 0.08
"""Half of the 95 % interval, in logarithms, for the variation from hour to hour: of 36 models that
were measured again on a machine that did nothing else, those whose processes had agreed to 2 % were
off by -1 to +7 %."""

Samples = Sequence[Sequence[Sequence[float]]]
"""Milliseconds of [process][block][run]."""


def summarize(samples_ms: Mapping[str, Samples], percentile: float) -> dict[str, LatencySummary]:
    """Summaries of models that were measured together.

    Percentiles are those of all runs of a model; none is left out.

    Args:
        samples_ms: for each model the samples of the same two or more processes, at least one run
            in each.
        percentile: the one that the intervals are for, 0 to 100.
    """
    runs = {
        name: [
            np.concatenate([np.asarray(block, dtype=float) for block in process])
            for process in processes
        ]
        for name, processes in samples_ms.items()
    }
    logs = np.log(
        [
            [np.percentile(process, percentile) for process in processes]
            for processes in runs.values()
        ]
    )
    deviations = logs - logs.mean(axis=1, keepdims=True)
    own = _own(deviations)
    found = {}
    for index, (name, processes) in enumerate(runs.items()):
        together = np.concatenate(processes)
        p50, p95, p99, point = (
            float(value) for value in np.percentile(together, [50, 95, 99, percentile])
        )
        center = float(logs[index].mean())
        found[name] = LatencySummary(
            p50=p50,
            p95=p95,
            p99=p99,
            ci=_interval(
                point, center, math.hypot(half_width(deviations[index], another=True), SESSION)
            ),
            comparison_ci=_interval(point, center, half_width(own[index])),
            percentile=percentile,
            at_percentile=point,
            num_samples=len(together),
        )
    return found


def relative_width(samples_ms: Samples, percentile: float) -> float:
    """Relative width of the 95 % interval for the mean of the processes' percentiles."""
    logs = np.log([np.percentile(np.concatenate([*process]), percentile) for process in samples_ms])
    return 2 * math.sinh(half_width(logs - logs.mean()))


def half_width(deviations: NDArray[np.float64], *, another: bool = False) -> float:
    """Half the 95 % interval for the mean of k values, or for another value, given their
    deviations (k,) from it.
    """
    k = len(deviations)
    t = _T95[min(k - 1, len(_T95)) - 1]
    spread = math.sqrt(float(np.sum(deviations**2)) / (k - 1))
    return t * spread * math.sqrt(1 / k + (1 if another else 0))


def _own(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deviations (models, processes) less the ones common to all models; unchanged for fewer than
    three models.
    """
    if len(deviations) < _FEWEST_SHARING:
        return deviations
    own = deviations - np.median(deviations, axis=0)
    return own - own.mean(axis=1, keepdims=True)


def _interval(point: float, center: float, half: float) -> tuple[float, float]:
    # The percentile of all runs together can lie outside of an interval around the processes' mean
    # percentile.
    return min(point, math.exp(center - half)), max(point, math.exp(center + half))
