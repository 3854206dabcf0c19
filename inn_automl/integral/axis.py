"""Tensor axes as sequences of segments of resizable channel variables.

The size of a network's channel axis is rarely one free number. A flattened feature map repeats every channel H x W
times, a concatenation puts two channel counts behind each other, a grouped convolution repeats its channels per
group. A `Segment` says this in closed form: `outer x n x inner` elements, where `n` is the variable that can be
resized. Element `(o, j, i)` of a segment is sample `j` of the variable. An axis is a sequence of segments.

`Variables` keeps what is known of the variables while a network is followed: which are equal, which are made of
others (a grouped convolution refines the channels that feed it), and which must stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MAX_REPEATS = 4096
"""Largest number of copies of a segment that is written out to match it against other segments."""


class Segment(NamedTuple):
    """`outer x n x inner` elements of variable `var`."""

    var: int
    outer: int = 1
    inner: int = 1


Axis = tuple[Segment, ...]


class Variables:
    """Union-find over channel variables, with substitution.

    A variable is free, fixed (with the reason), or replaced by an axis over other variables.
    """

    def __init__(self) -> None:
        self._size: list[int] = []
        self._replaced: dict[int, Axis] = {}
        self._fixed: dict[int, str] = {}

    def new(self, size: int) -> Axis:
        """An axis of one new free variable."""
        self._size.append(size)
        var = len(self._size) - 1
        if size <= 1:
            self._fixed[var] = ""
        return (Segment(var),)

    def constant(self, size: int, reason: str = "") -> Axis:
        """An axis that cannot be resized. An empty reason means that nobody would expect it to be."""
        axis = self.new(size)
        self._fixed[axis[0].var] = reason
        return axis

    def size(self, axis: Axis) -> int:
        """Number of elements at full width."""
        return sum(s.outer * self._size[s.var] * s.inner for s in axis)

    def variable_size(self, var: int) -> int:
        return self._size[var]

    def fixed_reason(self, var: int) -> str | None:
        """Why a resolved variable is fixed; None if it is free."""
        return self._fixed.get(var)

    def is_free(self, axis: Axis) -> bool:
        return any(s.var not in self._fixed for s in self.resolve(axis))

    def resolve(self, axis: Axis) -> Axis:
        """The axis in terms of variables that are not replaced, with equal neighbours merged."""
        out: list[Segment] = []
        for segment in axis:
            inner_axis = self._replaced.get(segment.var)
            if inner_axis is None:
                self._append(out, segment)
                continue
            parts = self.resolve(inner_axis)
            if len(parts) == 1:
                part = parts[0]
                self._append(out, Segment(part.var, segment.outer * part.outer, part.inner * segment.inner))
            else:
                for _ in range(segment.outer):
                    for part in parts:
                        self._append(out, Segment(part.var, part.outer, part.inner * segment.inner))
        return tuple(out)

    @staticmethod
    def _append(out: list[Segment], segment: Segment) -> None:
        if out and out[-1].var == segment.var and out[-1].inner == segment.inner:
            out[-1] = Segment(segment.var, out[-1].outer + segment.outer, segment.inner)
        else:
            out.append(segment)

    def fix(self, axes: Iterable[Axis], reason: str) -> None:
        """Keeps every variable of the axes at its full size. The first non-empty reason of a variable is kept."""
        for axis in axes:
            for segment in self.resolve(axis):
                self._fixed[segment.var] = self._fixed.get(segment.var) or reason

    def unify(self, left: Axis, right: Axis, where: str) -> None:
        """Makes two axes of the same length resize alike; fixes them if that cannot be expressed."""
        if self.size(left) != self.size(right):
            raise AssertionError(f"axes of {self.size(left)} and {self.size(right)} elements were unified at {where}")
        first, second = list(self.resolve(left)), list(self.resolve(right))
        while first and second:
            if first == second:
                return
            a, b = first.pop(0), second.pop(0)
            size_a, size_b = self.size((a,)), self.size((b,))
            if size_a == size_b:
                self._unify_segments(a, b, where)
            elif size_a > size_b:
                first = self._split(a, size_b, where) + first
                second.insert(0, b)
            else:
                second = self._split(b, size_a, where) + second
                first.insert(0, a)
            first, second = list(self.resolve(tuple(first))), list(self.resolve(tuple(second)))

    def factor(self, axis: Axis, outer: int) -> Axis | None:
        """The axis of one of `outer` equal parts, refining variables where needed; None if there is no such part."""
        resolved = self.resolve(axis)
        size = self.size(resolved)
        if size % outer:
            return None
        if len(resolved) > 1:
            return self._common_part(resolved, outer)
        segment = resolved[0]
        if segment.outer % outer == 0:
            return (Segment(segment.var, segment.outer // outer, segment.inner),)
        needed = outer // math.gcd(outer, segment.outer)
        if segment.outer * needed % outer or self._size[segment.var] % needed:
            return None
        part = self.new(self._size[segment.var] // needed)
        self._copy_fixed(segment.var, part)
        self._replaced[segment.var] = (Segment(part[0].var, needed),)
        return self.factor(axis, outer)

    def _common_part(self, resolved: Axis, outer: int) -> Axis | None:
        """One of `outer` equal runs of segments, if the axis is made of such runs."""
        parts: list[Segment] = []
        for segment in resolved:
            parts += [Segment(segment.var, 1, segment.inner)] * segment.outer if segment.outer <= MAX_REPEATS else []
        if len(parts) % outer or sum(s.outer for s in resolved) != len(parts):
            return None
        length = len(parts) // outer
        if any(parts[i] != parts[i % length] for i in range(len(parts))):
            return None
        return tuple(parts[:length])

    def _split(self, segment: Segment, head_size: int, where: str) -> list[Segment]:
        """Segments equal to `segment`, the first of which ends at or before `head_size` where that can be done."""
        if 1 < segment.outer <= MAX_REPEATS:
            return [Segment(segment.var, 1, segment.inner)] * segment.outer
        size = self._size[segment.var]
        if segment.outer == 1 and head_size % segment.inner == 0 and segment.var not in self._fixed:
            head = head_size // segment.inner
            self._replaced[segment.var] = self.new(head) + self.new(size - head)
            return list(self.resolve((segment,)))
        if segment.var not in self._fixed:
            self.fix([(segment,)], f"{where} cuts through its channels")
        reason = self._fixed[segment.var]
        return [*self.constant(head_size, reason), *self.constant(self.size((segment,)) - head_size, reason)]

    def _unify_segments(self, a: Segment, b: Segment, where: str) -> None:
        if (a.outer, a.inner) == (b.outer, b.inner):
            self._union(a.var, b.var)
            return
        if a.var in self._fixed and b.var in self._fixed:
            return
        outer, inner = math.lcm(a.outer, b.outer), math.lcm(a.inner, b.inner)
        size = self.size((a,))
        if a.var == b.var or a.var in self._fixed or b.var in self._fixed or size % (outer * inner):
            self.fix([(a,), (b,)], f"{where} joins it with channels of another layout")
            return
        part = self.new(size // (outer * inner))[0].var
        for segment in (a, b):
            self._replaced[segment.var] = (Segment(part, outer // segment.outer, inner // segment.inner),)

    def _union(self, a: int, b: int) -> None:
        if a == b:
            return
        keep, drop = min(a, b), max(a, b)
        self._copy_fixed(drop, (Segment(keep),))
        self._replaced[drop] = (Segment(keep),)

    def _copy_fixed(self, source: int, target: Axis) -> None:
        if source in self._fixed:
            self.fix([target], self._fixed[source])


def merge_reshape(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Matches the axes of a reshape: the smallest runs of axes with equal products.

    Args:
        before, after: shapes with equal products.

    Returns:
        Pairs of axis positions, in order, that hold the same elements.
    """
    pairs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [], []
        size_left = size_right = 1
        while True:
            if size_left == size_right and left and right:
                break
            if (size_left <= size_right or j >= len(after)) and i < len(before):
                left.append(i)
                size_left *= before[i]
                i += 1
            elif j < len(after):
                right.append(j)
                size_right *= after[j]
                j += 1
            else:
                break
        pairs.append((left, right))
    return pairs
