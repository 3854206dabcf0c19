"""Pareto fronts of metric value (more is better) against latency (less is better), and their
hypervolume.

Functions take parallel arrays, one entry a candidate: latency in milliseconds (n,), metric
value in its unit (n,), for accuracy a fraction in 0..1. The hypervolume
indicator is that of Zitzler and Thiele, "Multiobjective optimization using evolutionary
algorithms", PPSN 1998; in two dimensions it is the area under a staircase and exact.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def pareto_front(latency_ms: ArrayLike, metric_value: ArrayLike) -> Indices:
    """The candidates that no other one beats.

    Args:
        latency_ms: (n,).
        metric_value: (n,).

    Returns:
        Indices (m,), m <= n, along which latency and metric value both strictly increase. Of equals
        the first stays.

    Raises:
        ValueError: the arrays are not of one length, or hold a NaN.
    """
    latency, score = _parallel(latency_ms, metric_value)
    # Fastest first and, at equal latency, most accurate first: a candidate is on the front if it
    # beats all before it.
    order = np.lexsort((np.arange(len(score)), -score, latency))
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], score[order]]))[:-1]
    return order[score[order] > best_before]


def distinct_front(
    latency_ms: ArrayLike,
    latency_ci: ArrayLike,
    metric_value: ArrayLike,
    *,
    always: Collection[int] = (),
) -> Indices:
    """The front of measured candidates, where indistinguishable latencies count as equal.

    A candidate leaves if one at least as accurate, itself on the front, is faster, or slower by no
    more than the candidate's own confidence interval reaches. So a point that claims to be faster
    than the next proves it, and of indistinguishable candidates the most accurate stands
    for all. Only points of the front drive others out: in a chain of overlapping intervals the
    clearly faster end stays.

    Args:
        latency_ms: (n,).
        latency_ci: (n, 2), lower and upper end in milliseconds.
        metric_value: (n,).
        always: indices that stay as long as they are on the Pareto front.

    Returns:
        Indices (m,), along which latency and metric value both strictly increase. It is a subset of
        `pareto_front`.

    Raises:
        ValueError: the arrays are not of one length, or hold a NaN.
    """
    latency, score = _parallel(latency_ms, metric_value)
    interval = np.asarray(latency_ci, dtype=np.float64).reshape(-1, 2)
    if len(interval) != len(latency) or np.isnan(interval).any():
        raise ValueError(f"latency_ci must hold {len(latency)} pairs of numbers, one a candidate.")
    reach = np.maximum(interval[:, 1], latency)
    front: list[int] = []
    for index in pareto_front(latency, score)[::-1]:
        if not front or index in always or reach[index] < latency[front[-1]]:
            front.append(int(index))
    return np.array(front[::-1], dtype=np.intp)


def hypervolume(
    latency_ms: ArrayLike, metric_value: ArrayLike, reference_point: tuple[float, float]
) -> float:
    """The area that the candidates dominate, up to a reference point.

    Args:
        latency_ms: (n,).
        metric_value: (n,).
        reference_point: latency in milliseconds and metric value of the worst point that counts;
            candidates that are not better in both add nothing.

    Returns:
        Metric value times milliseconds; 0 for no candidates.

    Raises:
        ValueError: the arrays are not of one length, or hold a NaN.
    """
    latency, score = _parallel(latency_ms, metric_value)
    inside = (latency < reference_point[0]) & (score > reference_point[1])
    latency, score = latency[inside], score[inside]
    front = pareto_front(latency, score)
    steps = np.diff(score[front], prepend=reference_point[1])
    return float(np.sum(steps * (reference_point[0] - latency[front])))


def hypervolume_history(
    latency_ms: ArrayLike,
    metric_value: ArrayLike,
    batch: ArrayLike,
    num_batches: int,
    reference_point: tuple[float, float],
) -> list[float]:
    """Hypervolume of all candidates found up to and with each batch.

    Args:
        latency_ms: (n,).
        metric_value: (n,).
        batch: (n,), the batch that found each candidate, counted from 0.
        num_batches: length of the history.
        reference_point: as in `hypervolume`.

    Returns:
        num_batches values that never decrease.

    Raises:
        ValueError: the arrays are not of one length, or hold a NaN.
    """
    latency, score = _parallel(latency_ms, metric_value)
    found_in = np.asarray(batch)
    return [
        hypervolume(latency[found_in <= b], score[found_in <= b], reference_point)
        for b in range(num_batches)
    ]


def ranked(metric_value: ArrayLike, loss: ArrayLike) -> Floats:
    """Metric values in whose place candidates are ranked: of equal ones, those with the lower loss
    lie above, by less than the distance to the next value.

    Args:
        metric_value: (n,).
        loss: (n,), of a proper score.
    """
    score, losses = np.array(metric_value, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    distinct, group = np.unique(score, return_inverse=True)
    gap = float(np.diff(distinct).min()) if len(distinct) > 1 else 1.0
    for index in range(len(distinct)):
        members = np.flatnonzero(group == index)
        steps = np.unique(-losses[members], return_inverse=True)[1]
        score[members] += 0.5 * gap * steps / len(members)
    return score


def _parallel(latency_ms: ArrayLike, metric_value: ArrayLike) -> tuple[Floats, Floats]:
    latency = np.asarray(latency_ms, dtype=np.float64).reshape(-1)
    score = np.asarray(metric_value, dtype=np.float64).reshape(-1)
    if len(latency) != len(score):
        raise ValueError(
            f"latency has {len(latency)} entries and metric_value {len(score)}: they must belong "
            f"together."
        )
    if np.isnan(latency).any() or np.isnan(score).any():
        raise ValueError("latency and metric_value must not hold NaN: leave such candidates out.")
    return latency, score
