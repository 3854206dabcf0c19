"""The search space of one device: which widths each coupled group may take there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inn_automl.core.errors import WidthsError
from inn_automl.core.precision import BITS, COORDINATE, DEFAULT, is_a_choice

Widths = Mapping[str, int]
"""Widths by coupled group; where precision is a choice, its bits under `precision`, too."""
Key = tuple[int, ...]
"""Widths in the order of the groups, and last the bits where precision is a choice."""
Points = NDArray[np.int64]
"""Widths of n candidates, (n, d), columns in the order of a key."""


class CoupledGroup(Protocol):
    """A coupled group, as far as a search space depends on it.

    A protocol, because the search stands below the integral network, which implements it.
    """

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def allowed(self) -> range: ...


class SearchSpace:
    """Integer widths for every coupled group, on a device's granularity, and a precision where
    there is a choice.

    A group may take the allowed widths that are multiples of `granularity`, and always its full
    size, so that the full network is a point of every space: a group of size 10 on granularity 8
    takes 8 or 10, one of size 6 only 6.

    Widths from elsewhere (another device, the user) need not lie on this grid: `key` takes any
    widths that the network itself allows, `contains` and `nearest_key` are about the grid.

    Args:
        groups: the coupled groups, in the network's order.
        granularity: channels that the device computes at a time.
        precisions: the ones that the device offers. Where a job knows others than fp32,
            `precision` is the last name, with the bits of a number for a width.
        known: precisions that any device of the job offers; by default those of this device.

    Attributes:
        names: the groups' names, in order.
        allowed: for each group the widths that the network itself allows.
        values: for each group the widths it may take here, ascending; the last is its full size.

    Raises:
        WidthsError: there is no group, two share a name, or `granularity` is not positive.
    """

    def __init__(
        self,
        groups: Iterable[CoupledGroup],
        granularity: int = 1,
        precisions: Sequence[str] = (DEFAULT,),
        known: Sequence[str] | None = None,
    ) -> None:
        groups = tuple(groups)
        if granularity < 1:
            raise WidthsError(f"granularity is {granularity}: give a positive number of channels.")
        if not groups:
            raise WidthsError(
                "there is no coupled group to resize: give a network with at least one."
            )
        self.granularity = granularity
        self.names = tuple(group.name for group in groups)
        if len(set(self.names)) < len(self.names):
            raise WidthsError(f"two coupled groups share a name: {', '.join(self.names)}.")
        self.values = tuple(_values(group, granularity) for group in groups)
        self.allowed: tuple[Sequence[int], ...] = tuple(group.allowed for group in groups)
        self.precisions = tuple(sorted(precisions, key=BITS.__getitem__, reverse=True))
        """The ones that the device offers, the widest first."""
        if is_a_choice(known or precisions):
            if COORDINATE in self.names:
                raise WidthsError(
                    f"a coupled group is named {COORDINATE!r}: give its module another name."
                )
            self.names += (COORDINATE,)
            self.values += (tuple(sorted(BITS[name] for name in precisions)),)
            self.allowed += (sorted(BITS[name] for name in known or precisions),)
        self._arrays = tuple(np.array(values, dtype=np.int64) for values in self.values)

    @property
    def smallest(self) -> dict[str, int]:
        """The narrowest widths."""
        return self.from_key([values[0] for values in self.values])

    @property
    def largest(self) -> dict[str, int]:
        """The full widths."""
        return self.from_key([values[-1] for values in self.values])

    @property
    def num_points(self) -> int:
        """Number of different widths in the space."""
        return math.prod(len(values) for values in self.values)

    def uniform(self, ratio: float, precision: str | None = None) -> dict[str, int]:
        """Widths at one fraction of every group's full size, rounded to the nearest widths
        that the groups may take.

        Args:
            precision: one that the device offers; by default the widest.
        """
        key = [_nearest(values, ratio * values[-1]) for values in self._arrays]
        if self.names[-1] == COORDINATE:
            key[-1] = BITS[precision or self.precisions[0]]
        return self.from_key(key)

    def key(self, widths: Widths) -> Key:
        """Widths as a hashable tuple in the order of `names`.

        Raises:
            WidthsError: a group is missing or unknown, or its width is not one that the network
                allows.
        """
        if widths.keys() != set(self.names):
            wrong = ", ".join(sorted(widths.keys() ^ set(self.names)))
            raise WidthsError(
                f"widths are missing or of no coupled group: {wrong}; known are "
                f"{', '.join(self.names)}."
            )
        for name, allowed in zip(self.names, self.allowed, strict=True):
            if widths[name] not in allowed:
                raise WidthsError(
                    f"width {widths[name]} of {name!r} is not among {allowed}: choose one of these."
                )
        return tuple(int(widths[name]) for name in self.names)

    def from_key(self, key: Sequence[int]) -> dict[str, int]:
        """The widths of a key."""
        return {name: int(width) for name, width in zip(self.names, key, strict=True)}

    def nearest_key(self, widths: Sequence[int]) -> Key:
        """The point of the space that is nearest to widths in the order of `names`, group by
        group.
        """
        return tuple(
            _nearest(values, width) for values, width in zip(self._arrays, widths, strict=True)
        )

    def contains(self, widths: Widths) -> bool:
        """Return whether all widths lie on the grid."""
        return widths.keys() == set(self.names) and all(
            widths[name] in values for name, values in zip(self.names, self.values, strict=True)
        )

    def points(self) -> Points:
        """Every point of the space, (num_points, d): look at `num_points` first."""
        return np.stack(
            [axis.reshape(-1) for axis in np.meshgrid(*self._arrays, indexing="ij")], axis=1
        )

    def sample(self, num: int, rng: np.random.Generator) -> Points:
        """Random points (num, d): every group independent and uniform over its widths."""
        return np.stack([rng.choice(values, size=num) for values in self._arrays], axis=1)

    def vary(self, parents: Points, num: int, rng: np.random.Generator) -> Points:
        """Random points (num, d) near the given ones: crossed with each other and mutated.

        Args:
            parents: (m, d) widths, on the grid or not.
        """
        limits = np.array([len(values) - 1 for values in self.values])
        indices = np.stack(
            [_nearest_index(values, parents[:, j]) for j, values in enumerate(self._arrays)], axis=1
        )
        shape = (num, len(limits))
        child, other = (
            indices[rng.integers(0, len(indices), num)],
            indices[rng.integers(0, len(indices), num)],
        )
        crossed = (rng.random((num, 1)) < 0.4) & (rng.random(shape) < 0.3)
        child = np.where(crossed, other, child)
        # One or two groups of a child move; small steps refine, large ones escape.
        scale = np.maximum(limits * rng.choice([0.03, 0.1, 0.25], size=(num, 1)), 0.7)
        moved = rng.random(shape) < 1.5 / len(limits)
        child = child + np.where(moved, np.rint(rng.normal(0.0, scale)), 0).astype(np.intp)
        child = np.clip(child, 0, limits)
        return np.stack([values[child[:, j]] for j, values in enumerate(self._arrays)], axis=1)


def _values(group: CoupledGroup, granularity: int) -> tuple[int, ...]:
    return tuple(
        width for width in group.allowed if width % granularity == 0 or width == group.size
    )


def _nearest(values: NDArray[np.int64], width: float) -> int:
    return int(values[_nearest_index(values, np.array([width]))[0]])


def _nearest_index(
    values: NDArray[np.int64], widths: NDArray[np.float64] | NDArray[np.int64]
) -> NDArray[np.intp]:
    """Index of the nearest of ascending values for each width; the smaller one on a tie."""
    above = np.clip(np.searchsorted(values, widths), 0, len(values) - 1)
    below = np.maximum(above - 1, 0)
    return np.where(widths - values[below] <= values[above] - widths, below, above)
