"""Continuous functions on [0, 1] given by control points, one interpolation rule a class.

With `m` control points, control point `i` stands at position `u = i` in [0, m - 1]. A rule says
which control points a position depends on and with which coefficients; sampling `n` positions of a
function is then a product with an (n, m) matrix with few entries per row.

Sources: R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP
29(6), 1981; K. Solodskikh et al., "Integral Neural Networks", CVPR 2023, eq. 7-9.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor


class Interpolation(abc.ABC):
    """A rule that gives a function's value between its control points. Immutable; equal if of one
    class.
    """

    order: int
    """Order of convergence of the value as control points get denser, for a smooth function."""

    @abc.abstractmethod
    def coefficients(self, positions: Tensor, num_control_points: int) -> tuple[Tensor, Tensor]:
        """Control points and coefficients that give the function's value at positions.

        Args:
            positions: (n,) in control points, within [0, num_control_points - 1].
            num_control_points: number of control points `m`, at least 1.

        Returns:
            index: (n, t) int64, control points that each value depends on.
            coefficient: (n, t) in the dtype of `positions`, differentiable in `positions`; a row
            sums to 1.
        """

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Nearest(Interpolation):
    """The value of the nearest control point; halfway, that of the right one."""

    order = 1

    def coefficients(self, positions: Tensor, num_control_points: int) -> tuple[Tensor, Tensor]:
        index = torch.floor(positions.detach() + 0.5).long().clamp(0, num_control_points - 1)
        return index.unsqueeze(-1), torch.ones_like(positions).unsqueeze(-1)


class Linear(Interpolation):
    """The straight line between the two neighbours."""

    order = 2

    def coefficients(self, positions: Tensor, num_control_points: int) -> tuple[Tensor, Tensor]:
        if num_control_points == 1:
            return Nearest().coefficients(positions, num_control_points)
        left = torch.floor(positions.detach()).long().clamp(0, num_control_points - 2)
        fraction = positions - left
        return torch.stack([left, left + 1], -1), torch.stack([1 - fraction, fraction], -1)


class CubicConvolution(Interpolation):
    """Keys' cubic convolution with a = -1/2, through four neighbours.

    The control point beyond each end is extrapolated by Keys' boundary condition, f(-1) = 3 f(0) -
    3 f(1) + f(2), which keeps the third order up to the ends.
    """

    order = 3

    def coefficients(self, positions: Tensor, num_control_points: int) -> tuple[Tensor, Tensor]:
        if num_control_points < 3:
            return Linear().coefficients(positions, num_control_points)
        left = torch.floor(positions.detach()).long().clamp(0, num_control_points - 2)
        s = positions - left
        weights = torch.stack(
            [
                ((-0.5 * s + 1.0) * s - 0.5) * s,
                (1.5 * s - 2.5) * s * s + 1.0,
                ((-1.5 * s + 2.0) * s + 0.5) * s,
                (0.5 * s - 0.5) * s * s,
            ],
            -1,
        )
        before = (left == 0).to(s.dtype)
        beyond = (left == num_control_points - 2).to(s.dtype)
        extrapolation = torch.tensor([3.0, -3.0, 1.0], dtype=s.dtype, device=s.device)
        # Four control points starting at `left - 1`; the extrapolated one's weight goes to the
        # three that define it.
        inner = weights[:, 1:3]
        first, last = weights[:, :1], weights[:, 3:]
        zero = torch.zeros_like(first)
        from_first = torch.cat([zero, first * extrapolation], -1) * before.unsqueeze(-1)
        from_last = torch.cat([last * extrapolation.flip(0), zero], -1) * beyond.unsqueeze(-1)
        within = torch.cat(
            [first * (1 - before).unsqueeze(-1), inner, last * (1 - beyond).unsqueeze(-1)], -1
        )
        index = (left - 1).unsqueeze(-1) + torch.arange(4, device=left.device)
        # An extrapolated control point has no weight left: any one in range may stand for
        # it.
        return index.clamp(0, num_control_points - 1), within + from_first + from_last


def matrix(index: Tensor, coefficient: Tensor, num_control_points: int) -> Tensor:
    """The (n, m) sampling matrix of indices (n, t) and coefficients (n, t)."""
    dense = coefficient.new_zeros(index.shape[0], num_control_points)
    return dense.scatter_add(1, index, coefficient)
