from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inn_automl.latency.design import initial_design
from inn_automl.width_search.space import SearchSpace


def space(sizes, granularity=1):
    groups = [
        SimpleNamespace(name=f"g{i}", size=s, allowed=range(max(1, s // 4), s + 1))
        for i, s in enumerate(sizes)
    ]
    return SearchSpace(groups, granularity)


@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=12),
    st.sampled_from([1, 4, 8, 16]),
    st.integers(0, 50),
    st.integers(0, 2**31),
)
def test_distinct_points_of_the_space(sizes, granularity, num, seed):
    where = space(sizes, granularity)
    chosen = initial_design(where, num, seed=seed)
    assert len(chosen) <= min(num, where.num_points)
    assert len({where.key(widths) for widths in chosen}) == len(chosen)
    assert all(where.contains(widths) for widths in chosen)
    if num >= 2:
        assert where.smallest in chosen
        assert where.largest in chosen
    assert chosen == initial_design(where, num, seed=seed)


@pytest.mark.parametrize("num", [2, 8, 36])
def test_as_many_as_asked_for(num):
    assert len(initial_design(space([16, 32, 48, 64]), num)) == num


def test_other_seeds_draw_other_widths():
    where = space([32, 64, 64])
    assert initial_design(where, 30, seed=0) != initial_design(where, 30, seed=1)


def test_groups_vary_independently_over_their_whole_range():
    where = space([64] * 6)
    widths = np.array([where.key(one) for one in initial_design(where, 100)])
    drawn = widths[7:]  # the first ones are the ends and uniform
    assert (drawn.min(axis=0) <= 20).all()
    assert (drawn.max(axis=0) >= 60).all()
    correlation = np.corrcoef(drawn.T) - np.eye(6)
    assert np.abs(correlation).max() < 0.35


def test_about_half_fill_whole_vectors():
    where = space([64] * 5)
    drawn = np.array([where.key(one) for one in initial_design(where, 100)])[7:]
    whole = (drawn % 8 == 0).all(axis=1).mean()
    assert 0.4 < whole < 0.6


def test_small_space_is_measured_whole():
    where = space([8], granularity=4)
    assert [one["g0"] for one in initial_design(where, 36)] == [4, 8]
