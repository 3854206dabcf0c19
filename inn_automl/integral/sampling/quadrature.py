"""Quadrature on [0, 1], one rule a class: int_0^1 f(x) dx ~ sum_i w_i f(x_i).

Source: P. J. Davis and P. Rabinowitz, "Methods of Numerical Integration", 2nd ed., 1984, chapter
2.
"""

from __future__ import annotations

import abc

import numpy as np
import torch
from torch import Tensor


class Quadrature(abc.ABC):
    """A rule that gives points and weights. Immutable; equal if of one class and parameters."""

    @property
    @abc.abstractmethod
    def order(self) -> int:
        """Order of convergence in the number of points, for a smooth function."""

    @abc.abstractmethod
    def rule(self, num_points: int) -> tuple[Tensor, Tensor]:
        """Points and weights.

        Args:
            num_points: `n`, at least 1.

        Returns:
            points: (n,) float64, ascending in [0, 1].
            weights: (n,) float64, summing to 1.
        """

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *sorted(vars(self).items())))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name.lstrip('_')}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"


class PointwiseQuadrature(Quadrature):
    """A quadrature that also gives weights for any ascending points, differentiable in them."""

    @abc.abstractmethod
    def weights(self, points: Tensor) -> Tensor:
        """Weights (n,) for ascending points (n,) in [0, 1]; they sum to 1."""


class Riemann(PointwiseQuadrature):
    """Equal cells, each sampled in its middle: equal weights whatever the points."""

    order = 2

    def rule(self, num_points: int) -> tuple[Tensor, Tensor]:
        points = (torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points
        return points, self.weights(points)

    def weights(self, points: Tensor) -> Tensor:
        return torch.full_like(points, 1.0 / points.numel())


class Trapezoid(PointwiseQuadrature):
    """The integral of the piecewise linear function through the points; beyond them it is
    constant.
    """

    order = 2

    def rule(self, num_points: int) -> tuple[Tensor, Tensor]:
        points = torch.linspace(0, 1, num_points, dtype=torch.float64)
        if num_points == 1:
            points = torch.full((1,), 0.5, dtype=torch.float64)
        return points, self.weights(points)

    def weights(self, points: Tensor) -> Tensor:
        middles = (points[1:] + points[:-1]) / 2
        edges = torch.cat([points.new_zeros(1), middles, points.new_ones(1)])
        return edges[1:] - edges[:-1]


class Simpson(Quadrature):
    """Composite Simpson on equally spaced points; with an even number, the last three intervals by
    the 3/8 rule.
    """

    order = 4

    def rule(self, num_points: int) -> tuple[Tensor, Tensor]:
        if num_points < 3:
            return Trapezoid().rule(num_points)
        weights = torch.zeros(num_points, dtype=torch.float64)
        last = num_points - 1
        if num_points % 2 == 0:
            last -= 3
            weights[last:] += torch.tensor([3.0, 9.0, 9.0, 3.0], dtype=torch.float64) / 8
        for start in range(0, last, 2):
            weights[start : start + 3] += torch.tensor([1.0, 4.0, 1.0], dtype=torch.float64) / 3
        return torch.linspace(0, 1, num_points, dtype=torch.float64), weights / (num_points - 1)


class GaussLegendre(Quadrature):
    """Composite Gauss-Legendre: equal panels of `points_per_panel` points.

    Where `n` is not a multiple of it, the first panel takes the remaining points as well, so that
    its order is not below that of the others.
    """

    def __init__(self, points_per_panel: int = 2) -> None:
        if points_per_panel < 1:
            raise ValueError(f"panels of {points_per_panel} points were requested: give 1 or more")
        self.points_per_panel = points_per_panel

    @property
    def order(self) -> int:
        return 2 * self.points_per_panel

    def rule(self, num_points: int) -> tuple[Tensor, Tensor]:
        panels = max(1, num_points // self.points_per_panel)
        counts = [self.points_per_panel] * panels
        counts[0] = num_points - self.points_per_panel * (panels - 1)
        points, weights = [], []
        for panel, count in enumerate(counts):
            x, w = np.polynomial.legendre.leggauss(count)
            points.append((torch.from_numpy(x) + 1) / 2 / panels + panel / panels)
            weights.append(torch.from_numpy(w) / 2 / panels)
        return torch.cat(points), torch.cat(weights)
