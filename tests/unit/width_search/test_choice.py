from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inn_automl.core.result import LatencySummary
from inn_automl.core.spec import DeviceBudget
from inn_automl.width_search.choice import choose_finalists, front_and_recommendation, recommend
from inn_automl.width_search.constraints import constraint_violations
from inn_automl.width_search.pareto import pareto_front


@dataclass(frozen=True)
class Point:
    metric_value: float
    latency_ms: LatencySummary
    params: int = 1000
    macs: int = 5000
    size_bytes: int = 4000
    peak_memory_bytes: int | None = None


def point(metric_value, latency, half=0.05, **costs):
    summary = LatencySummary(
        p50=latency,
        p95=latency,
        p99=latency,
        ci=(latency - half, latency + half),
        percentile=95,
        at_percentile=latency,
        num_samples=100,
    )
    return Point(metric_value, summary, **costs)


def budget(**bounds):
    return DeviceBudget(name="laptop", **bounds)


def test_the_most_accurate_that_keeps_the_bound_by_its_interval_is_recommended():
    points = [point(0.8, 1.0), point(0.9, 1.9), point(0.95, 1.97), point(0.99, 3.0)]
    index, sentence = recommend(points, budget(max_latency_ms=2.0))
    assert index == 1  # the third is below the bound, but the upper end of its interval is not
    assert (
        "accuracy 90.00 %" in sentence
        and "max_latency_ms = 2" in sentence
        and "1.85 to 1.95" in sentence
    )


def test_every_bound_binds():
    points = [point(0.8, 1.0, params=10), point(0.9, 1.0, params=30), point(0.95, 1.0, macs=10**9)]
    assert recommend(points, budget(max_params=20))[0] == 0
    assert recommend(points, budget(max_macs=10**6))[0] == 1
    assert recommend(points, budget())[0] == 2
    assert "no bound was set" in recommend(points, budget())[1]
    assert recommend(points, budget(max_size_bytes=3999))[0] is None
    assert recommend(points, budget(max_memory_bytes=10**9))[0] is None  # not known, so not kept


def test_of_equally_accurate_points_the_fastest():
    assert recommend([point(0.9, 1.5), point(0.9, 1.2)], budget())[0] == 1


def test_none_says_how_far_the_nearest_is():
    points = [point(0.9, 2.95), point(0.8, 2.35, params=1500)]
    index, sentence = recommend(points, budget(max_latency_ms=2.0, max_params=1000))
    assert index is None
    assert "max_latency_ms = 2 by 50 %" in sentence and "accuracy 90.00 %" in sentence
    assert (
        "max_params" not in sentence
    )  # the nearest is the first, whose worst excess is the smaller: it keeps this one
    assert recommend([], budget())[0] is None


def test_excess_names_only_what_binds():
    over = constraint_violations(
        budget(max_latency_ms=2.0, max_macs=100), latency_ms=2.5, params=9, macs=100, size_bytes=9
    )
    assert over == {"max_latency_ms": pytest.approx(0.25), "max_macs": 0.0}


measured = st.lists(
    st.tuples(st.integers(0, 10), st.integers(10, 40), st.integers(0, 9)), min_size=1, max_size=12
)


@given(measured, st.integers(10, 45))
def test_the_recommended_point_is_on_the_front_and_the_front_is_strictly_increasing(raw, bound):
    points = [point(a / 10, latency / 10, half / 10) for a, latency, half in raw]
    front, recommended, _ = front_and_recommendation(points, budget(max_latency_ms=bound / 10))
    metric_value = [points[i].metric_value for i in front]
    latency = [points[i].latency_ms.at_percentile for i in front]
    assert front and metric_value == sorted(set(metric_value)) and latency == sorted(set(latency))
    keeping = [p for p in points if p.latency_ms.ci[1] <= bound / 10]
    assert (recommended is None) == (not keeping)
    if recommended is not None:
        assert recommended in front
        assert points[recommended] in keeping
        assert points[recommended].metric_value == max(p.metric_value for p in keeping)


def test_a_tied_neighbour_beyond_the_bound_does_not_take_the_recommended_point_off_the_front():
    points = [point(0.90, 1.95, 0.04), point(0.91, 1.98, 0.04)]
    assert front_and_recommendation(points, budget(max_latency_ms=2.0))[:2] == ([0, 1], 0)
    assert front_and_recommendation(points, budget())[:2] == ([1], 1)


def test_a_faster_but_uncertain_neighbour_does_not_either():
    points = [point(0.90, 1.95, 0.04), point(0.91, 1.90, 0.5)]
    assert front_and_recommendation(points, budget(max_latency_ms=2.0))[:2] == ([0], 0)


def test_ties_are_judged_by_the_interval_for_comparison():
    points = [point(0.90, 1.0, 0.5), point(0.91, 1.1, 0.5)]
    assert front_and_recommendation(points, budget())[0] == [1]
    sharp = [
        Point(
            p.metric_value,
            p.latency_ms.model_copy(update={"comparison_ci": (latency - 0.01, latency + 0.01)}),
        )
        for p, latency in zip(points, [1.0, 1.1], strict=True)
    ]
    assert front_and_recommendation(sharp, budget())[0] == [0, 1]


candidates = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 40)), min_size=1, max_size=60)


@given(candidates, st.floats(0, 0.3), st.integers(1, 25), st.none() | st.integers(1, 60))
def test_finalists_may_be_on_the_true_front(raw, error, limit, bound):
    latency, metric_value = np.array([r[0] / 10 for r in raw]), np.array([r[1] / 40 for r in raw])
    bound_ms = None if bound is None else bound / 10
    chosen = choose_finalists(
        latency, metric_value, relative_error=error, limit=limit, max_latency_ms=bound_ms
    )
    assert len(set(chosen)) == len(chosen) <= limit
    assert (np.diff(latency[chosen]) >= 0).all()
    for i in chosen:
        surely_faster = latency * (1 + error) < latency[i] * (1 - error)
        assert not (surely_faster & (metric_value >= metric_value[i])).any()
    front = pareto_front(latency, metric_value)
    assert front[0] in chosen
    if limit >= 2:
        within = np.flatnonzero(latency <= (np.inf if bound_ms is None else bound_ms))
        if len(within):
            assert (
                metric_value[chosen][latency[chosen] <= latency[within].max()].max()
                == metric_value[within].max()
            )
    if limit >= len(front) + 5:
        assert set(front) <= set(chosen)


def test_finalists_spread_over_the_front_and_gather_below_the_bound():
    latency = np.linspace(1, 10, 200)
    metric_value = 1 - 1 / (1 + latency)
    chosen = choose_finalists(
        latency, metric_value, relative_error=0.05, limit=20, max_latency_ms=6.0
    )
    at = latency[chosen]
    assert len(chosen) == 20 and chosen[0] == 0 and chosen[-1] == 199
    assert np.diff(at).max() < 2.0
    assert ((at > 6.0 / 1.12) & (at <= 6.0)).sum() >= 3
    assert ((at > 6.0) & (at <= 6.0 / 0.95)).any()


def test_finalists_of_nothing():
    assert len(choose_finalists([], [], relative_error=0.1)) == 0
