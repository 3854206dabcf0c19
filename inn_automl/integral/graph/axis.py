"""Tensor axes as sequences of segments of resizable channel variables.

The size of a network's channel axis is rarely one free number. A flattened feature map repeats
every channel H x W times, a concatenation puts two channel counts behind each other, a grouped
convolution repeats its channels per group. A `VariableSegment` says this in closed form: `outer x
n x inner` elements, where `n` is the variable that can be resized. Element `(o, j, i)` of a
segment is channel `j` of the variable. An axis is a sequence of segments.

`Variables` records the constraints on variables that propagation finds: which are equal, which
are made of others (a grouped convolution refines the channels that feed it), and which must
stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MAX_REPEATS = 256
"""Largest number of copies of a segment that is written out to match it against other segments."""


class VariableSegment(NamedTuple):
    """`outer x n x inner` elements of variable `var`."""

    var: int
    outer: int = 1
    inner: int = 1


Axis = tuple[VariableSegment, ...]


class Variables:
    """Union-find over channel variables, with substitution.

    A variable is free, fixed (with the reason), or replaced by an axis over other variables.
    """

    def __init__(self) -> None:
        self._size: list[int] = []
        self._replaced: dict[int, Axis] = {}
        self._fixed: dict[int, str] = {}

    def new(self, size: int) -> Axis:
        """An axis of one new variable, free if it has more than one element."""
        self._size.append(size)
        var = len(self._size) - 1
        if size <= 1:
            self._fixed[var] = ""
        return (VariableSegment(var),)

    def constant(self, size: int, reason: str = "") -> Axis:
        """An axis that cannot be resized; without a reason where nobody would expect it to be."""
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
        """Return whether any segment of the axis can be resized."""
        return any(s.var not in self._fixed for s in self.resolve(axis))

    def reason(self, axes: Iterable[Axis]) -> str:
        """The first reason for which a part of the axes is fixed; empty if there is none."""
        reasons = (self._fixed.get(s.var) for axis in axes for s in self.resolve(axis))
        return next((reason for reason in reasons if reason), "")

    def resolve(self, axis: Axis) -> Axis:
        """The axis in terms of variables that are not replaced, with equal neighbours merged."""
        out: list[VariableSegment] = []
        for segment in axis:
            for part in self._substitute(segment):
                if out and (out[-1].var, out[-1].inner) == (part.var, part.inner):
                    part = VariableSegment(part.var, out.pop().outer + part.outer, part.inner)
                out.append(part)
        return tuple(out)

    def fix(self, axes: Iterable[Axis], reason: str) -> None:
        """Keeps every free variable of the axes at its full size, for a reason."""
        for axis in axes:
            for segment in self.resolve(axis):
                self._fixed.setdefault(segment.var, reason)

    def unify(self, left: Axis, right: Axis, where: str) -> None:
        """Makes two axes of the same length resize alike; fixes them if that cannot be expressed.

        Raises:
            ValueError: the axes differ in length.
        """
        if self.size(left) != self.size(right):
            raise ValueError(
                f"axes of {self.size(left)} and {self.size(right)} elements meet in {where}"
            )
        # Neighbours are not merged in here: copies that were written out must stay apart.
        first, second = list(left), list(right)
        while self.resolve(tuple(first)) != self.resolve(tuple(second)):
            first = [part for segment in first for part in self._substitute(segment)]
            second = [part for segment in second for part in self._substitute(segment)]
            a, b = first.pop(0), second.pop(0)
            size_a, size_b = self.size((a,)), self.size((b,))
            if size_a == size_b:
                self._unify_segments(a, b, where)
            elif size_a > size_b:
                first = [*self._split(a, size_b, where), *first]
                second.insert(0, b)
            else:
                second = [*self._split(b, size_a, where), *second]
                first.insert(0, a)

    def chunk(self, axis: Axis, count: int, where: str) -> Axis:
        """The axis of one of `count` equal chunks, which are resized alike from now on.

        Raises:
            ValueError: the axis cannot be cut into so many chunks of one size.
        """
        size = self.size(axis)
        if size % count:
            raise ValueError(f"{size} elements were cut into {count} equal parts in {where}")
        if count == 1:
            return axis
        if not self.is_free(axis):
            return self.constant(size // count, self.reason([axis]))
        if size == count:
            self.fix([axis], f"{where} takes every channel for itself")
        part = self.new(size // count)
        self.unify((VariableSegment(part[0].var, count),), axis, where)
        return part

    def spread(self, axis: Axis, inner: int) -> Axis:
        """The axis with each element repeated `inner` times in place."""
        return tuple(VariableSegment(s.var, s.outer, s.inner * inner) for s in self.resolve(axis))

    def flatten(self, axes: Sequence[Axis]) -> Axis | None:
        """One axis of several, in row-major order; None if more than one of them can be resized.

        None as well if a concatenation would have to be written out too often.
        """
        if len(axes) == 1:
            return axes[0]
        free = [i for i, axis in enumerate(axes) if self.is_free(axis)]
        if not free:
            return self.constant(math.prod(self.size(axis) for axis in axes), self.reason(axes))
        before = math.prod(self.size(axis) for axis in axes[: free[0]])
        behind = math.prod(self.size(axis) for axis in axes[free[0] + 1 :])
        spread = self.spread(axes[free[0]], behind)
        if len(free) > 1:
            return None
        if len(spread) == 1:
            return (VariableSegment(spread[0].var, spread[0].outer * before, spread[0].inner),)
        return spread * before if before <= MAX_REPEATS else None

    def unflatten(
        self, axis: Axis, sizes: Sequence[int], where: str, remaining: int | None = None
    ) -> list[Axis]:
        """The axes that a row-major split of one axis gives. The resizable part goes where its
        repeats allow it.

        Trailing axes that lie inside of the repeats of every channel are constant, what stands in
        front of the resizable axis is a fixed number of parts (heads, groups).

        Args:
            remaining: the position whose size was not given but is what the others leave: it is
                the one that is resized (heads of a fixed size, where that is the last).
        """
        if len(sizes) == 1:
            return [axis]
        if not self.is_free(axis):
            return [self.constant(size, self.reason([axis])) for size in sizes]
        resolved = self.resolve(axis)
        position, inner = len(sizes) - 1, 1
        while position > (remaining or 0) and all(
            s.inner % (inner * sizes[position]) == 0 for s in resolved
        ):
            inner *= sizes[position]
            position -= 1
        if remaining is not None and position > remaining:
            inner, position = math.prod(sizes[remaining + 1 :]), remaining
            part = self.new(sizes[position])
            self.unify(
                (VariableSegment(part[0].var, math.prod(sizes[:position]), inner),), axis, where
            )
        else:
            stripped = tuple(VariableSegment(s.var, s.outer, s.inner // inner) for s in resolved)
            part = self.chunk(stripped, math.prod(sizes[:position]), where)
        return [
            *(self.constant(size) for size in sizes[:position]),
            part,
            *(self.constant(size) for size in sizes[position + 1 :]),
        ]

    def _substitute(self, segment: VariableSegment) -> Axis:
        """A segment in terms of variables that are not replaced."""
        replacement = self._replaced.get(segment.var)
        if replacement is None:
            return (segment,)
        parts = self.resolve(replacement)
        if len(parts) == 1:
            (part,) = parts
            return (
                VariableSegment(part.var, segment.outer * part.outer, part.inner * segment.inner),
            )
        return (
            tuple(
                VariableSegment(part.var, part.outer, part.inner * segment.inner) for part in parts
            )
            * segment.outer
        )

    def _split(self, segment: VariableSegment, head_size: int, where: str) -> Axis:
        """Segments equal to `segment`, the first of which ends at or before `head_size` where that
        can be done.
        """
        var, outer, inner = segment
        if 1 < outer <= MAX_REPEATS:
            return (VariableSegment(var, 1, inner),) * outer
        if outer == 1 and head_size % inner == 0 and var not in self._fixed:
            head = head_size // inner
            self._replaced[var] = self.new(head) + self.new(self._size[var] - head)
            return self._substitute(segment)
        self.fix([(segment,)], f"{where} cuts through its channels")
        reason = self._fixed[var]
        return self.constant(head_size, reason) + self.constant(
            self.size((segment,)) - head_size, reason
        )

    def _unify_segments(self, a: VariableSegment, b: VariableSegment, where: str) -> None:
        fixed = [s.var in self._fixed for s in (a, b)]
        if (a.outer, a.inner) == (b.outer, b.inner):
            self._union(a.var, b.var, where)
        elif not all(fixed):
            outer, inner = math.lcm(a.outer, b.outer), math.lcm(a.inner, b.inner)
            size = self.size((a,))
            if a.var == b.var or any(fixed) or size % (outer * inner) or size == outer * inner:
                self.fix([(a,), (b,)], f"{where} joins it with channels of another layout")
                return
            part = self.new(size // (outer * inner))[0].var
            for segment in (a, b):
                self._replaced[segment.var] = (
                    VariableSegment(part, outer // segment.outer, inner // segment.inner),
                )

    def _union(self, a: int, b: int, where: str) -> None:
        if a == b:
            return
        keep, drop = min(a, b), max(a, b)
        if keep in self._fixed or drop in self._fixed:
            reason = self._fixed.get(keep) or self._fixed.get(drop)
            both = keep in self._fixed and drop in self._fixed
            self._fixed[keep] = reason or (
                "" if both else f"{where} joins it with an axis of fixed size"
            )
        self._replaced[drop] = (VariableSegment(keep),)


def merge_reshape(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Matches the axes of a reshape: the smallest runs of axes with equal products.

    Args:
        before, after: shapes with equal products; no axis has size 0 or 1.

    Returns:
        Pairs of axis positions, in order, that hold the same elements.
    """
    pairs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before):
        left, right = [i], [j]
        size_left, size_right = before[i], after[j]
        while size_left != size_right:
            if size_left < size_right:
                i += 1
                left.append(i)
                size_left *= before[i]
            else:
                j += 1
                right.append(j)
                size_right *= after[j]
        pairs.append((left, right))
        i, j = i + 1, j + 1
    return pairs
