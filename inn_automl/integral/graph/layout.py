"""Layouts of tensor axes in terms of the coupled groups.

The channels of an axis need not be one group, once. A flattened feature map repeats each channel
H x W times, a concatenation puts two groups behind each other. An `AxisLayout` says so in closed
form, as a sequence of segments:

    Conv2d(3, 4).weight, axis 0           Segment(0, outer=1, inner=1)     0 1 2 3
    Linear behind flatten of (4, 2, 2)    Segment(0, outer=1, inner=4)     0 0 0 0 1 1 1 1 ...
    concatenation of groups 0 and 1       Segment(0, 1, 1), Segment(1, 1, 1)
    an axis of 9 that no width changes    Segment(CONSTANT, outer=1, inner=9)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CONSTANT = -1
"""The group of segments that widths do not change."""


@dataclass(frozen=True)
class Segment:
    """A run of `outer x n x inner` elements of an axis; element (o, j, i) belongs to channel j.

    `n` is the count of coupled group `group` (its channels, in units of the group), or 1 where
    `group` is `CONSTANT`.

    Attributes:
        group: index of the coupled group.
        outer: number of times that the channels are repeated as a whole.
        inner: number of times that each channel is repeated in place.
    """

    group: int
    outer: int
    inner: int


AxisLayout = tuple[Segment, ...]


def length(layout: AxisLayout, counts: Sequence[int]) -> int:
    """Number of elements of an axis at the counts of the coupled groups."""
    return sum(s.outer * s.inner * (counts[s.group] if s.group >= 0 else 1) for s in layout)


def volume(axes: Sequence[AxisLayout], counts: Sequence[int]) -> int:
    """Number of elements of a tensor at the counts of the coupled groups."""
    return math.prod(length(layout, counts) for layout in axes)


def groups_of(axes: Iterable[AxisLayout]) -> list[int]:
    """Indices of the coupled groups that axes belong to, ascending."""
    return sorted({s.group for layout in axes for s in layout if s.group >= 0})
