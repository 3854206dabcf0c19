"""Choosing among candidates: which are worth a real measurement, and which measured one to
recommend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from inn_automl.core.metric import ACCURACY, Metric
from inn_automl.core.spec import DeviceBudget
from inn_automl.width_search.constraints import constraint_violations
from inn_automl.width_search.pareto import Floats, Indices, distinct_front, pareto_front


class MeasuredLatency(Protocol):
    """Latency in milliseconds at the percentile that a device's budget names. A `LatencySummary`
    is one.
    """

    @property
    def at_percentile(self) -> float: ...
    @property
    def percentile(self) -> float: ...
    @property
    def ci(self) -> tuple[float, float]: ...
    @property
    def comparison_ci(self) -> tuple[float, float] | None: ...


class MeasuredPoint(Protocol):
    """A candidate that was measured on the device. A `FrontPoint` is one."""

    @property
    def metric_value(self) -> float: ...
    @property
    def latency_ms(self) -> MeasuredLatency: ...
    @property
    def params(self) -> int: ...
    @property
    def macs(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def peak_memory_bytes(self) -> int | None: ...


def front_and_recommendation(
    points: Sequence[MeasuredPoint],
    bounds: DeviceBudget,
    metric: Metric = ACCURACY,
    ranks: ArrayLike | None = None,
) -> tuple[list[int], int | None, str]:
    """The front that a device shows, and the point of it to recommend.

    The recommendation is made first and is always on the front. It stands for neighbours that miss
    the bound and whose latency cannot be distinguished from its own, even for one that looks faster
    but is so uncertain that it may be slower.

    Args:
        ranks: (n,), what points are ranked by (see `promotion.promoted`); None: their metric
            values.

    Returns:
        Indices of the front (latency and ranks strictly increase along it), the index of the
        recommended point or None, and one sentence of explanation.
    """
    recommended, sentence = recommend(points, bounds, metric, ranks)
    latency = np.array([point.latency_ms.at_percentile for point in points])
    metric_value = _ranks(points, ranks)
    # Points of one device are measured together: what slowed them all alike does not blur which of
    # them is faster.
    interval = np.array(
        [point.latency_ms.comparison_ci or point.latency_ms.ci for point in points]
    ).reshape(-1, 2)
    shown = np.ones(len(points), dtype=bool)
    if recommended is not None:
        shown = (latency > latency[recommended]) | (metric_value < metric_value[recommended])
        shown[recommended] = True
    indices = np.flatnonzero(shown)
    always = [int(i) for i in np.flatnonzero(indices == recommended)]
    front = indices[
        distinct_front(latency[indices], interval[indices], metric_value[indices], always=always)
    ]
    return [int(i) for i in front], recommended, sentence


def _ranks(points: Sequence[MeasuredPoint], ranks: ArrayLike | None) -> Floats:
    values = [point.metric_value for point in points] if ranks is None else ranks
    return np.asarray(values, dtype=np.float64)


def recommend(
    points: Sequence[MeasuredPoint],
    bounds: DeviceBudget,
    metric: Metric = ACCURACY,
    ranks: ArrayLike | None = None,
) -> tuple[int | None, str]:
    """The most accurate point that keeps every bound, the latency bound by the upper end of its
    confidence interval.

    Returns:
        Its index and one sentence why; or None and one sentence that says how far the nearest
        point is from the bounds. Of equally accurate points the fastest is taken.
    """
    if not points:
        return None, "No candidate was measured, so none can be recommended."
    values = _ranks(points, ranks)
    violations = [_excess(point, bounds) for point in points]
    keeping = [i for i, over in enumerate(violations) if all(ratio <= 0 for ratio in over.values())]
    if keeping:
        best = max(keeping, key=lambda i: (values[i], -points[i].latency_ms.at_percentile))
        held = [_bound_text(bounds, name) for name in violations[best]]
        among = f"keeps {' and '.join(held)}" if held else "was measured (no bound was set)"
        return (
            best,
            f"The {_most(metric)} candidate that {among}: {_describe(points[best], metric)}.",
        )
    nearest = min(range(len(points)), key=lambda i: (max(violations[i].values()), -values[i]))
    missed = [
        f"{_bound_text(bounds, name)} by {100 * ratio:.2g} %"
        for name, ratio in violations[nearest].items()
        if ratio > 0
    ]
    most = f"No candidate keeps all bounds; the nearest exceeds {' and '.join(missed)}"
    return None, f"{most}: {_describe(points[nearest], metric)}."


def choose_finalists(
    latency_ms: ArrayLike,
    metric_value: ArrayLike,
    *,
    relative_error: float,
    limit: int = 20,
    max_latency_ms: float | None = None,
) -> Indices:
    """The candidates to measure for what is shown: the first of `rank_finalists`, with the same
    arguments.

    Args:
        limit: most candidates to choose.

    Returns:
        At most `limit` indices, sorted by predicted latency.

    Raises:
        ValueError: the arrays are not of one length, or hold a NaN.
    """
    ranked = rank_finalists(
        latency_ms, metric_value, relative_error=relative_error, max_latency_ms=max_latency_ms
    )
    chosen = ranked[: max(limit, 0)]
    return chosen[np.argsort(np.asarray(latency_ms, dtype=np.float64)[chosen], kind="stable")]


def rank_finalists(
    latency_ms: ArrayLike,
    metric_value: ArrayLike,
    *,
    relative_error: float,
    max_latency_ms: float | None = None,
) -> Indices:
    """The candidates that may be on the true front, given how far the cost model can be off, most
    telling first.

    A candidate is out if one at least as accurate would be faster even with the prediction of
    either off by `relative_error` in the other's favour. Of the rest the fastest and the most
    accurate within the bound come first, then those just below the bound at growing distance (one
    of them is to be recommended even if the cost model is too optimistic) and one just above it,
    then the predicted front in the order in which its points add hypervolume, which spreads them
    over it, then what is nearest to the front.

    Args:
        latency_ms: (n,), predicted.
        metric_value: (n,).
        relative_error: fraction by which a prediction may be off, e.g. the cost model's 90th
            percentile.
        max_latency_ms: the device's latency bound, if it has one.

    Returns:
        Indices.

    Raises:
        ValueError: the arrays are not of one length, or hold a NaN.
    """
    latency, score = (
        np.asarray(latency_ms, dtype=np.float64),
        np.asarray(metric_value, dtype=np.float64),
    )
    front = pareto_front(latency, score)
    if len(front) == 0:
        return np.array([], dtype=np.intp)
    error = min(max(relative_error, 0.0), 0.9)
    # Predicted latency of the fastest candidate that is at least as accurate: a point of the
    # front.
    rival = latency[front][np.searchsorted(score[front], score, side="left")]
    contenders = np.flatnonzero(latency * (1 - error) <= rival * (1 + error))
    ranked = [int(front[0])]
    bound = np.inf if max_latency_ms is None else max_latency_ms
    for factor in (1.0, 1 + error, 1 + 2 * error, 1 - error):
        within = contenders[latency[contenders] * factor <= bound]
        if len(within):
            ranked.append(int(within[np.lexsort((latency[within], -score[within]))[0]]))
    ranked += _by_added_hypervolume(latency, score, front)
    ranked += [
        int(i)
        for i in contenders[np.argsort(latency[contenders] / rival[contenders], kind="stable")]
    ]
    return np.array(list(dict.fromkeys(ranked)), dtype=np.intp)


def _by_added_hypervolume(latency: Floats, score: Floats, front: Indices) -> list[int]:
    """Orders a front greedily by the area that each point adds to the ones before it.

    Between its chosen neighbours (l0, a0) and (l1, a1) a point (l, a) adds (a - a0) * (l1 - l).
    """
    lat, acc = latency[front], score[front]
    order = [0, len(front) - 1][: len(front)]
    while len(order) < len(front):
        chosen = np.sort(order)
        above = np.searchsorted(chosen, np.arange(len(front)))
        gain = (acc - acc[chosen[np.maximum(above - 1, 0)]]) * (lat[chosen[above]] - lat)
        gain[chosen] = -1.0
        order.append(int(np.argmax(gain)))
    return [int(front[i]) for i in order]


def _excess(point: MeasuredPoint, bounds: DeviceBudget) -> dict[str, float]:
    return constraint_violations(
        bounds,
        latency_ms=max(point.latency_ms.ci[1], point.latency_ms.at_percentile),
        params=point.params,
        macs=point.macs,
        size_bytes=point.size_bytes,
        memory_bytes=point.peak_memory_bytes,
    )


def _bound_text(bounds: DeviceBudget, name: str) -> str:
    return (
        f"{name} = {getattr(bounds, name):g}"
        if name == "max_latency_ms"
        else f"{name} = {getattr(bounds, name):,}"
    )


def _most(metric: Metric) -> str:
    return "most accurate" if metric == ACCURACY else "best"


def _describe(point: MeasuredPoint, metric: Metric) -> str:
    latency = point.latency_ms
    return (
        f"{metric.label} {metric.text(point.metric_value)}, {latency.at_percentile:.3g} ms at "
        f"p{latency.percentile:g} "
        f"(95 % interval {latency.ci[0]:.3g} to {latency.ci[1]:.3g} ms), {point.params:,} "
        f"parameters"
    )
