from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inn_automl.integral.graph.axis import Axis, Variables, VariableSegment, merge_reshape


def elements(
    variables: Variables, axis: Axis, samples: dict[int, int] | None = None
) -> list[tuple[int, int]]:
    """(variable, sample) of each element of an axis, as the definition of a segment says."""
    out = []
    for var, outer, inner in variables.resolve(axis):
        size = (samples or {}).get(var, variables.variable_size(var))
        out += [(var, j) for _ in range(outer) for j in range(size) for _ in range(inner)]
    return out


def fixed(variables: Variables, axis: Axis) -> list[str | None]:
    return [variables.fixed_reason(s.var) for s in variables.resolve(axis)]


def test_equal_axes_become_one_variable() -> None:
    variables = Variables()
    a, b = variables.new(8), variables.new(8)
    variables.unify(a, b, "add")
    assert variables.resolve(a) == variables.resolve(b)
    assert variables.is_free(a)


def test_groups_refine_the_channels_that_feed_them() -> None:
    variables = Variables()
    channels = variables.new(12)
    part = variables.chunk(channels, 4, "conv")
    assert elements(variables, channels) == 4 * elements(variables, part)
    half = variables.chunk(channels, 2, "conv")
    assert elements(variables, half) == 2 * elements(variables, part)
    one = variables.chunk(channels, 12, "norm")
    assert (
        fixed(variables, channels)
        == fixed(variables, part)
        == ["norm takes every channel for itself"]
    )
    assert variables.size(one) == 1


def test_a_concatenation_cuts_what_it_meets() -> None:
    variables = Variables()
    a, b, whole = variables.new(3), variables.new(5), variables.new(8)
    variables.unify(whole, a + b, "add")
    assert variables.resolve(whole) == variables.resolve(a + b)
    assert len({var for var, _ in elements(variables, whole)}) == 2


def test_a_concatenation_of_the_other_order_makes_both_alike() -> None:
    variables = Variables()
    a, b = variables.new(4), variables.new(4)
    variables.unify(a + b, b + a, "add")
    assert variables.resolve(a) == variables.resolve(b)
    assert variables.is_free(a)


def test_copies_meet_a_concatenation() -> None:
    variables = Variables()
    a, b, copied = variables.new(4), variables.new(4), variables.new(4)
    variables.unify((VariableSegment(copied[0].var, 2),), a + b, "add")
    assert variables.resolve(a) == variables.resolve(b) == variables.resolve(copied)


def test_copies_meet_runs_of_several_variables() -> None:
    variables = Variables()
    a, b, copied = variables.new(3), variables.new(2), variables.new(5)
    variables.unify((VariableSegment(copied[0].var, 2),), a + b + a + b, "add")
    assert variables.resolve(copied) == variables.resolve(a + b)
    assert variables.is_free(copied)


def test_what_cannot_be_expressed_is_fixed_with_the_place() -> None:
    variables = Variables()
    a, b = variables.new(6), variables.new(6)
    variables.unify(
        (VariableSegment(a[0].var, 1, 4),), (VariableSegment(b[0].var, 4, 1),), "add in block"
    )
    assert (
        fixed(variables, a)
        == fixed(variables, b)
        == ["add in block joins it with channels of another layout"]
    )
    c = variables.new(9)
    variables.unify((VariableSegment(c[0].var, 1, 2),), variables.new(5) + variables.new(13), "cat")
    assert not variables.is_free(c)


def test_constants_fix_what_they_meet() -> None:
    variables = Variables()
    channels = variables.new(8)
    variables.unify(channels, variables.constant(8), "mul in gate")
    assert fixed(variables, channels) == ["mul in gate joins it with an axis of fixed size"]
    other = variables.new(8)
    variables.unify(other, variables.constant(8, "it is an input"), "add")
    assert fixed(variables, other) == ["it is an input"]


def test_the_first_reason_is_kept() -> None:
    variables = Variables()
    channels = variables.new(8)
    variables.fix([channels], "one")
    variables.fix([channels], "two")
    assert fixed(variables, channels) == ["one"]


def test_axes_of_different_lengths_never_meet() -> None:
    variables = Variables()
    with pytest.raises(ValueError, match="axes of 3 and 4 elements meet in add"):
        variables.unify(variables.new(3), variables.new(4), "add")
    with pytest.raises(ValueError, match="7 elements were cut into 2"):
        variables.chunk(variables.new(7), 2, "chunk")


SEGMENTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=4
)


@given(sizes=st.lists(st.integers(1, 6), min_size=4, max_size=4), left=SEGMENTS, right=SEGMENTS)
def test_unified_axes_are_made_of_the_same_elements(
    sizes: list[int], left: list[tuple[int, int, int]], right: list[tuple[int, int, int]]
) -> None:
    """Free elements of unified axes agree place by place, at any number of channels."""
    variables = Variables()
    known = [variables.new(size) for size in sizes]
    first = tuple(VariableSegment(known[v][0].var, outer, inner) for v, outer, inner in left)
    second = tuple(VariableSegment(known[v][0].var, outer, inner) for v, outer, inner in right)
    missing = variables.size(first) - variables.size(second)
    if missing > 0:
        second += variables.new(missing)
    elif missing < 0:
        first += variables.new(-missing)
    variables.unify(first, second, "here")
    for samples in (None, _halved(variables)):
        a, b = elements(variables, first, samples), elements(variables, second, samples)
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            is_fixed = [variables.fixed_reason(var) is not None for var, _ in (one, other)]
            assert one == other or all(is_fixed)


def _halved(variables: Variables) -> dict[int, int]:
    sizes = {var: variables.variable_size(var) for var in range(len(variables._size))}
    return {
        v: size if variables.fixed_reason(v) is not None else math.ceil(size / 2)
        for v, size in sizes.items()
    }


@given(
    size=st.integers(2, 6),
    shape=st.lists(st.integers(2, 4), min_size=1, max_size=3),
    place=st.integers(0, 3),
)
def test_flattening_and_back(size: int, shape: list[int], place: int) -> None:
    variables = Variables()
    place = min(place, len(shape))
    axes = [variables.constant(n) for n in shape]
    axes.insert(place, variables.new(size))
    flat = variables.flatten(axes)
    assert flat is not None
    assert variables.size(flat) == size * math.prod(shape)
    back = variables.unflatten(flat, [*shape[:place], size, *shape[place:]], "view")
    assert [variables.size(axis) for axis in back] == [variables.size(axis) for axis in axes]
    assert variables.resolve(back[place]) == variables.resolve(axes[place])
    assert variables.is_free(back[place])


def test_two_resizable_axes_are_not_flattened() -> None:
    variables = Variables()
    assert variables.flatten([variables.new(2), variables.new(3)]) is None


@given(
    st.lists(st.lists(st.integers(2, 4), min_size=1, max_size=3), min_size=1, max_size=4), st.data()
)
def test_reshapes_are_matched_in_the_smallest_runs(
    runs: list[list[int]], data: st.DataObject
) -> None:
    before, after = [], []
    for run in runs:
        before += run
        after += data.draw(st.permutations(run)) if data.draw(st.booleans()) else [math.prod(run)]
    pairs = merge_reshape(before, after)
    assert [i for left, _ in pairs for i in left] == list(range(len(before)))
    assert [j for _, right in pairs for j in right] == list(range(len(after)))
    for left, right in pairs:
        assert math.prod(before[i] for i in left) == math.prod(after[j] for j in right)
    assert len(pairs) >= len(runs)
