from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inn_automl.core.errors import WidthsError
from inn_automl.width_search.space import SearchSpace


@dataclass(frozen=True)
class Group:
    name: str
    size: int
    allowed: range


@st.composite
def spaces(draw):
    groups = []
    for i in range(draw(st.integers(1, 5))):
        step = draw(st.sampled_from([1, 1, 2, 4]))
        low, count = draw(st.integers(1, 20)), draw(st.integers(0, 30))
        allowed = range(low, low + step * count + 1, step)
        groups.append(Group(f"g{i}", allowed[-1], allowed))
    return SearchSpace(groups, draw(st.sampled_from([1, 2, 8, 16])))


def on_grid(space, points):
    return all(space.contains(space.from_key(point)) for point in points.tolist())


@given(spaces(), st.floats(0, 1.5), st.integers(0, 2**31))
def test_everything_a_space_gives_lies_on_its_grid(space, ratio, seed):
    rng = np.random.default_rng(seed)
    for widths in (space.smallest, space.largest, space.uniform(ratio)):
        assert space.contains(widths)
        assert space.from_key(space.key(widths)) == widths
        assert space.nearest_key(space.key(widths)) == space.key(widths)
    sampled = space.sample(7, rng)
    assert sampled.shape == (7, len(space.names)) and on_grid(space, sampled)
    varied = space.vary(sampled[:3], 11, rng)
    assert varied.shape == (11, len(space.names)) and on_grid(space, varied)


@given(spaces())
def test_values_are_the_allowed_multiples_and_the_full_size(space):
    for values, allowed in zip(space.values, space.allowed, strict=True):
        multiples = {width for width in allowed if width % space.granularity == 0}
        assert set(values) == multiples | {allowed[-1]}
        assert list(values) == sorted(values)


@given(spaces().filter(lambda space: space.num_points <= 3000))
def test_points_are_all_points(space):
    points = {tuple(point) for point in space.points().tolist()}
    assert len(points) == space.num_points == len(space.points())
    assert on_grid(space, space.points())


@given(spaces(), st.lists(st.integers(1, 200), min_size=5, max_size=5))
def test_nearest_key_is_nearest(space, widths):
    widths = widths[: len(space.names)]
    for values, width, found in zip(space.values, widths, space.nearest_key(widths), strict=True):
        assert abs(found - width) == min(abs(value - width) for value in values)


def test_granularity_by_hand():
    groups = [
        Group("a", 10, range(3, 11)),
        Group("b", 6, range(2, 7)),
        Group("c", 32, range(8, 33)),
    ]
    space = SearchSpace(groups, 8)
    assert [list(values) for values in space.values] == [[8, 10], [6], [8, 16, 24, 32]]
    assert space.num_points == 8
    assert space.uniform(0.5) == {"a": 8, "b": 6, "c": 16}
    assert space.smallest == {"a": 8, "b": 6, "c": 8}
    assert space.largest == {"a": 10, "b": 6, "c": 32}
    assert not space.contains({"a": 9, "b": 6, "c": 8})
    assert space.key({"c": 9, "b": 2, "a": 3}) == (3, 2, 9)


def test_variations_stay_near_and_reach_far():
    space = SearchSpace([Group(f"g{i}", 64, range(8, 65)) for i in range(6)])
    parent = np.array([space.key(space.uniform(0.5))])
    children = space.vary(parent, 500, np.random.default_rng(0))
    changed = (children != parent).sum(axis=1)
    assert 0.5 < changed.mean() < 2.5
    assert np.abs(children - parent).max() > 20
    assert np.median(np.abs(children - parent)[children != parent]) < 10


@pytest.mark.parametrize(
    ("widths", "said"),
    [({"a": 3}, "b"), ({"a": 3, "b": 4, "c": 1}, "c"), ({"a": 11, "b": 4}, "width 11 of 'a'")],
)
def test_widths_that_are_not_the_networks_are_refused(widths, said):
    space = SearchSpace([Group("a", 10, range(3, 11)), Group("b", 6, range(2, 7))])
    with pytest.raises(WidthsError, match=said):
        space.key(widths)
    assert not space.contains(widths)


def test_impossible_spaces_are_refused():
    group = Group("a", 10, range(3, 11))
    with pytest.raises(WidthsError, match="granularity is 0"):
        SearchSpace([group], 0)
    with pytest.raises(WidthsError, match="no coupled group"):
        SearchSpace([])
    with pytest.raises(WidthsError, match="share a name"):
        SearchSpace([group, group])
