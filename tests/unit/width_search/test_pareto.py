from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inn_automl.width_search.pareto import (
    distinct_front,
    hypervolume,
    hypervolume_history,
    pareto_front,
)

# Few distinct values, so that ties are common.
points = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 10)), max_size=25).map(
    lambda pairs: (
        np.array([p[0] for p in pairs], dtype=float),
        np.array([p[1] / 10 for p in pairs]),
    )
)


def beats(latency, metric_value, i, j):
    return (
        latency[i] <= latency[j]
        and metric_value[i] >= metric_value[j]
        and (latency[i], metric_value[i]) != (latency[j], metric_value[j])
    )


@given(points)
def test_front_holds_exactly_the_values_that_nothing_beats(candidates):
    latency, metric_value = candidates
    front = pareto_front(latency, metric_value)
    unbeaten = {
        (latency[j], metric_value[j])
        for j in range(len(latency))
        if not any(beats(latency, metric_value, i, j) for i in range(len(latency)))
    }
    assert [(latency[i], metric_value[i]) for i in front] == sorted(unbeaten)
    assert (np.diff(latency[front]) > 0).all()
    assert (np.diff(metric_value[front]) > 0).all()


def test_of_equal_candidates_the_first_stays():
    assert pareto_front([2.0, 1.0, 1.0, 2.0], [0.9, 0.5, 0.5, 0.9]).tolist() == [1, 0]


@given(points)
def test_hypervolume_is_the_share_of_a_grid_that_is_dominated(candidates):
    latency, metric_value = candidates
    # Candidates lie on the corners of cells, so counting the centres of dominated cells is exact.
    centre_latency = np.arange(0, 10) + 0.5
    centre_accuracy = np.arange(2, 11) / 10 - 0.05
    counted = sum(
        bool(np.any((latency < a) & (metric_value > b)))
        for a in centre_latency
        for b in centre_accuracy
        if b > 0.2
    )
    assert hypervolume(latency, metric_value, (10.0, 0.2)) == pytest.approx(counted * 0.1)


@given(points, st.tuples(st.integers(1, 12), st.integers(0, 10)))
def test_hypervolume_grows_only_with_what_nothing_beats(candidates, new):
    latency, metric_value = candidates
    point = (float(new[0]), new[1] / 10)
    before = hypervolume(latency, metric_value, (11.0, 0.05))
    more = np.append(latency, point[0]), np.append(metric_value, point[1])
    after = hypervolume(*more, (11.0, 0.05))
    assert after >= before - 1e-12
    last = len(latency)
    known = any(
        (latency[i], metric_value[i]) == point or beats(*more, i, last) for i in range(last)
    )
    if known:
        assert after == pytest.approx(before)
    elif point[0] < 11.0 and point[1] > 0.05:
        assert after > before


def test_hypervolume_by_hand():
    assert hypervolume([1.0, 3.0], [0.5, 0.9], (5.0, 0.1)) == pytest.approx(4 * 0.4 + 2 * 0.4)
    assert hypervolume([], [], (5.0, 0.1)) == 0.0
    assert hypervolume([6.0, 1.0], [0.9, 0.05], (5.0, 0.1)) == 0.0


def test_history_is_the_hypervolume_of_what_each_batch_knew():
    latency, metric_value, batch = [3.0, 1.0, 2.0], [0.9, 0.5, 0.7], [0, 2, 2]
    one, all_three = (
        hypervolume([3.0], [0.9], (5.0, 0.1)),
        hypervolume(latency, metric_value, (5.0, 0.1)),
    )
    assert hypervolume_history(latency, metric_value, batch, 3, (5.0, 0.1)) == [one, one, all_three]


@given(points, st.lists(st.floats(0, 3), min_size=25, max_size=25))
def test_distinct_front_keeps_only_what_is_proven_faster_than_the_next(candidates, half_widths):
    latency, metric_value = candidates
    half = np.array(half_widths[: len(latency)])
    interval = np.stack([latency - half, latency + half], axis=1)
    plain, front = (
        pareto_front(latency, metric_value),
        distinct_front(latency, interval, metric_value),
    )
    assert set(front) <= set(plain)
    assert (np.diff(latency[front]) > 0).all()
    assert (np.diff(metric_value[front]) > 0).all()
    assert (interval[front[:-1], 1] < latency[front[1:]]).all()
    # Whatever left has a stand-in on the front: at least as accurate, and within its own interval
    # not slower.
    for i in set(plain) - set(front):
        assert any(
            metric_value[j] >= metric_value[i] and latency[j] <= interval[i, 1] for j in front
        )


def test_distinct_front_without_uncertainty_is_the_front():
    latency, metric_value = np.array([1.0, 2.0, 3.0, 2.5]), np.array([0.5, 0.6, 0.7, 0.55])
    exact = np.stack([latency, latency], axis=1)
    assert (
        distinct_front(latency, exact, metric_value).tolist()
        == pareto_front(latency, metric_value).tolist()
    )


def test_the_clearly_faster_end_of_a_chain_of_ties_stays():
    latency, metric_value = [1.0, 1.2, 1.4], [0.5, 0.6, 0.7]
    interval = [[0.9, 1.25], [1.0, 1.45], [1.2, 1.6]]
    assert distinct_front(latency, interval, metric_value).tolist() == [0, 2]


def test_what_must_stay_stays():
    latency, metric_value = [1.0, 1.1], [0.5, 0.6]
    interval = [[0.9, 1.2], [1.0, 1.3]]
    assert distinct_front(latency, interval, metric_value).tolist() == [1]
    assert distinct_front(latency, interval, metric_value, always=[0]).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("latency", "metric_value", "said"),
    [([1.0], [0.5, 0.6], "1 entries"), ([float("nan")], [0.5], "NaN")],
)
def test_arrays_that_do_not_fit_are_refused(latency, metric_value, said):
    with pytest.raises(ValueError, match=said):
        pareto_front(latency, metric_value)
    with pytest.raises(ValueError, match=said):
        hypervolume(latency, metric_value, (1.0, 0.0))


def test_intervals_of_another_length_are_refused():
    with pytest.raises(ValueError, match="2 pairs"):
        distinct_front([1.0, 2.0], [[0.9, 1.1]], [0.5, 0.6])
