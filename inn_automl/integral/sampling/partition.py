"""Partitions of a continuous channel dimension, one rule a class.

A function of x in [0, 1] is given by `m` control points; a partition samples `n` channels from it,
with quadrature weights. All weights here are relative: `q_i * m`, so that sampling at full width
with equal weights changes nothing.

Measured on mnist1d at ratios 0.25 to 1.0: point samples of a coarse uniform grid alias and lose
3 to 6 points of accuracy against nested partitions, whose subnets share their channels; cell
averages lose 0.2.
"""

from __future__ import annotations

import abc
import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inn_automl.core.errors import CorruptFileError, WidthsError
from inn_automl.integral.sampling.interpolation import (
    CubicConvolution,
    Interpolation,
    Linear,
    Nearest,
    matrix,
)
from inn_automl.integral.sampling.quadrature import (
    GaussLegendre,
    PointwiseQuadrature,
    Quadrature,
    Riemann,
    Simpson,
    Trapezoid,
)


@dataclass(frozen=True)
class Sampling:
    """A linear map from `m` control points to `n` channels, few control points a channel.

    Either `take` picks control points (a slice, or an index (n,)), or `index` (n, t) and
    `coefficient` (n, t) mix `t` control points for each channel. `weights` (n,) are relative
    quadrature weights; None where all are 1.
    """

    num_control_points: int
    num_channels: int
    take: slice | Tensor | None = None
    index: Tensor | None = None
    coefficient: Tensor | None = None
    weights: Tensor | None = None

    @property
    def is_prefix(self) -> bool:
        """True if the channels are the first control points, unchanged."""
        return isinstance(self.take, slice) and self.weights is None

    @property
    def is_identity(self) -> bool:
        return self.is_prefix and self.num_channels == self.num_control_points

    def to(self, device: torch.device, dtype: torch.dtype) -> Sampling:
        """Copies the tensors to a device; coefficients and weights get the dtype."""
        return Sampling(
            self.num_control_points,
            self.num_channels,
            take=self.take.to(device) if isinstance(self.take, Tensor) else self.take,
            index=None if self.index is None else self.index.to(device),
            coefficient=None if self.coefficient is None else self.coefficient.to(device, dtype),
            weights=None if self.weights is None else self.weights.to(device, dtype),
        )

    def apply(self, values: Tensor, dim: int, *, integrate: bool) -> Tensor:
        """Samples a tensor along one dimension.

        Args:
            values: (..., m, ...) control points, `m` at `dim`.
            integrate: whether the channels are multiplied by the quadrature weights, because a
                layer sums over them.

        Returns:
            (..., n, ...), differentiable in `values` and in the coefficients.
        """
        weights = self.weights if integrate else None
        if self.index is not None and self.coefficient is not None:
            # A channel is the weighted sum of a few rows: many times faster than a product with a
            # dense (n, m) matrix.
            rows = values.movedim(dim, 0)
            coefficient = (
                self.coefficient if weights is None else self.coefficient * weights.unsqueeze(-1)
            )
            mixed = F.embedding_bag(
                self.index,
                rows.reshape(self.num_control_points, -1),
                per_sample_weights=coefficient,
                mode="sum",
            )
            return mixed.reshape(-1, *rows.shape[1:]).movedim(0, dim)
        if isinstance(self.take, Tensor):
            out = values.index_select(dim, self.take)
        else:
            out = values.narrow(dim, 0, self.num_channels)
        return (
            out if weights is None else out * weights.reshape([-1] + [1] * (values.dim() - dim - 1))
        )


class Partition(abc.ABC):
    """A rule that samples `n` channels from `m` control points."""

    @abc.abstractmethod
    def sampling(self, num_control_points: int, num_channels: int) -> Sampling:
        """The sampling on the CPU in float64 (coefficients, weights).

        Raises:
            WidthsError: the partition has no sampling of that size.
        """

    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A JSON value from which `partition_from_json` builds an equal partition (learned values
        excepted).
        """


def _check(num_control_points: int, num_channels: int) -> None:
    if not 1 <= num_channels <= num_control_points:
        raise WidthsError(
            f"{num_channels} channels of {num_control_points} control points were requested: give "
            f"1 to {num_control_points}."
        )


@dataclass(frozen=True)
class Nested(Partition):
    """The first `n` control points in a fixed order: every partition is contained in all larger
    ones.

    Attributes:
        order: `"first"`: ascending, the integral over [0, n/m]; or `"van_der_corput"`:
            bit-reversed, so that any number of control points spans [0, 1] evenly (J. G. van der
            Corput, 1935).
    """

    order: str = "first"

    def __post_init__(self) -> None:
        if self.order not in ("first", "van_der_corput"):
            raise ValueError(
                f"unknown order {self.order!r} of a nested partition: give 'first' or "
                f"'van_der_corput'"
            )

    def sampling(self, num_control_points: int, num_channels: int) -> Sampling:
        _check(num_control_points, num_channels)
        if self.order == "first" or num_channels == num_control_points:
            # The integral over [0, n/m] has n cells of width 1/m: relative weights of 1.
            return Sampling(num_control_points, num_channels, take=slice(0, num_channels))
        take = torch.tensor(sorted(van_der_corput(num_control_points)[:num_channels]))
        weights = torch.full(
            (num_channels,), num_control_points / num_channels, dtype=torch.float64
        )
        return Sampling(num_control_points, num_channels, take=take, weights=weights)

    def to_json(self) -> dict[str, Any]:
        return {"rule": "nested", "order": self.order}


@functools.lru_cache(maxsize=1024)
def van_der_corput(num_control_points: int) -> tuple[int, ...]:
    """The numbers 0 to `num_control_points` - 1 in bit-reversed order."""
    bits = max(1, (num_control_points - 1).bit_length())
    reversed_bits = (int(format(i, f"0{bits}b")[::-1], 2) for i in range(2**bits))
    return tuple(i for i in reversed_bits if i < num_control_points)


@dataclass(frozen=True)
class Uniform(Partition):
    """Point samples on a uniform grid from 0 to 1: the INN paper's partition with its default
    arguments.

    Control points stand at 0, 1/(m-1), ..., 1. A quadrature with points of its own
    (Gauss-Legendre) samples at those instead.
    """

    interpolation: Interpolation = CubicConvolution()
    quadrature: Quadrature = Trapezoid()

    def sampling(self, num_control_points: int, num_channels: int) -> Sampling:
        _check(num_control_points, num_channels)
        if isinstance(self.quadrature, PointwiseQuadrature):
            points = Trapezoid().rule(num_channels)[0]
            weights = self.quadrature.weights(points)
        else:
            points, weights = self.quadrature.rule(num_channels)
        index, coefficient = self.interpolation.coefficients(
            points * (num_control_points - 1), num_control_points
        )
        return Sampling(
            num_control_points,
            num_channels,
            index=index,
            coefficient=coefficient,
            weights=weights * num_control_points,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": "uniform",
            "interpolation": type(self.interpolation).__name__,
            "quadrature": quadrature_to_json(self.quadrature),
        }


@dataclass(frozen=True)
class CellAverages(Partition):
    """The mean of the function over each of `n` equal cells; no aliasing.

    Control point `i` stands in the middle of [i/m, (i+1)/m]. With `Nearest` the function is
    constant on these cells, and sampling at full width changes nothing.
    """

    interpolation: Interpolation = Nearest()

    def sampling(self, num_control_points: int, num_channels: int) -> Sampling:
        _check(num_control_points, num_channels)
        if isinstance(self.interpolation, Nearest):
            return self._overlaps(num_control_points, num_channels)
        # Breakpoints of the piecewise polynomial are the control points; between them
        # Gauss-Legendre of 3 points is exact.
        control_points = torch.arange(num_control_points, dtype=torch.float64)
        control_points = (control_points + 0.5) / num_control_points
        edges = torch.arange(num_channels + 1, dtype=torch.float64) / num_channels
        breaks = torch.unique(torch.cat([control_points, edges]))
        lengths = breaks[1:] - breaks[:-1]
        offsets = torch.tensor([0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5], dtype=torch.float64)
        quadrature = torch.tensor([5.0, 8.0, 5.0], dtype=torch.float64) / 18
        points = (breaks[:-1, None] + lengths[:, None] * offsets).flatten()
        positions = (points * num_control_points - 0.5).clamp(0, num_control_points - 1)
        dense = matrix(
            *self.interpolation.coefficients(positions, num_control_points), num_control_points
        )
        weighted = dense * (lengths[:, None] * quadrature).flatten()[:, None] * num_channels
        cells = (points * num_channels).floor().long().clamp(0, num_channels - 1)
        averages = torch.zeros(num_channels, num_control_points, dtype=torch.float64).index_add(
            0, cells, weighted
        )
        return self._from_matrix(averages, num_control_points, num_channels)

    def _overlaps(self, num_control_points: int, num_channels: int) -> Sampling:
        cells = torch.arange(num_channels + 1, dtype=torch.float64) / num_channels
        own_cells = torch.arange(num_control_points + 1, dtype=torch.float64) / num_control_points
        ends = torch.minimum(cells[1:, None], own_cells[None, 1:])
        starts = torch.maximum(cells[:-1, None], own_cells[None, :-1])
        return self._from_matrix(
            (ends - starts).clamp(min=0) * num_channels, num_control_points, num_channels
        )

    def to_json(self) -> dict[str, Any]:
        return {"rule": "cell_averages", "interpolation": type(self.interpolation).__name__}

    @staticmethod
    def _from_matrix(dense: Tensor, num_control_points: int, num_channels: int) -> Sampling:
        weights = torch.full(
            (num_channels,), num_control_points / num_channels, dtype=torch.float64
        )
        if num_channels == num_control_points and torch.allclose(
            dense, torch.eye(num_control_points, dtype=torch.float64)
        ):
            return Sampling(num_control_points, num_channels, take=slice(0, num_control_points))
        taps = int((dense.abs() > 1e-12).sum(1).max())
        index = dense.abs().topk(taps, dim=1).indices.sort(1).values
        return Sampling(
            num_control_points,
            num_channels,
            index=index,
            coefficient=dense.gather(1, index),
            weights=weights,
        )


class Trainable(nn.Module, Partition):
    """A partition whose `n` points are learned.

    Latent delta = (0, d_1, ..., d_{n-1}); normalized delta^2 / sum(delta^2); points are its
    cumulative sum: always ordered, always from 0 to 1 (INN paper, section 4.2).

    On `n` control points it begins with the control points themselves: with equal weights,
    sampling changes nothing until it learns.

    Args:
        num_channels: `n`, at least 2.
        has_factors: whether the quadrature weight of each point is multiplied with a learned
            factor, at first 1.
    """

    def __init__(
        self,
        num_channels: int,
        interpolation: Interpolation | None = None,
        quadrature: PointwiseQuadrature | None = None,
        *,
        has_factors: bool = False,
    ) -> None:
        super().__init__()
        if num_channels < 2:
            raise WidthsError(
                f"a trainable partition of {num_channels} points was requested: give 2 or more."
            )
        self.num_channels = num_channels
        self.interpolation = interpolation or Linear()
        self.quadrature = quadrature or Riemann()
        self.delta = nn.Parameter(torch.full((num_channels - 1,), (num_channels - 1) ** -0.5))
        self.factors = nn.Parameter(torch.ones(num_channels)) if has_factors else None

    def points(self) -> Tensor:
        """(n,) ascending points from 0 to 1, differentiable in `delta`."""
        squared = self.delta.square()
        steps = squared / squared.sum()
        return torch.cat([steps.new_zeros(1), steps.cumsum(0)[:-1], steps.new_ones(1)])

    def sampling(self, num_control_points: int, num_channels: int) -> Sampling:
        if num_channels != self.num_channels:
            raise WidthsError(
                f"this trained partition has {self.num_channels} points, {num_channels} were "
                f"requested."
            )
        points = self.points()
        index, coefficient = self.interpolation.coefficients(
            points * (num_control_points - 1), num_control_points
        )
        weights = self.quadrature.weights(points) * num_control_points
        if self.factors is not None:
            weights = weights * self.factors
        return Sampling(
            num_control_points, num_channels, index=index, coefficient=coefficient, weights=weights
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": "trainable",
            "has_factors": self.factors is not None,
            "num_channels": self.num_channels,
            "interpolation": type(self.interpolation).__name__,
            "quadrature": quadrature_to_json(self.quadrature),
        }


_INTERPOLATIONS: dict[str, type[Interpolation]] = {
    c.__name__: c for c in (Nearest, Linear, CubicConvolution)
}
_QUADRATURES: dict[str, type[Quadrature]] = {
    c.__name__: c for c in (Riemann, Trapezoid, Simpson, GaussLegendre)
}


def quadrature_to_json(quadrature: Quadrature) -> dict[str, Any]:
    return {"rule": type(quadrature).__name__, **vars(quadrature)}


def partition_from_json(value: dict[str, Any]) -> Partition:
    """The partition that `Partition.to_json` described.

    Raises:
        CorruptFileError: the value describes no known partition.
    """
    try:
        rule = value["rule"]
        if rule == "nested":
            return Nested(value["order"])
        interpolation = _INTERPOLATIONS[value["interpolation"]]()
        if rule == "cell_averages":
            return CellAverages(interpolation)
        arguments = dict(value["quadrature"])
        quadrature = _QUADRATURES[arguments.pop("rule")](**arguments)
        if rule == "uniform":
            return Uniform(interpolation, quadrature)
        if rule == "trainable" and isinstance(quadrature, PointwiseQuadrature):
            has_factors = bool(value["has_factors"])
            return Trainable(
                int(value["num_channels"]), interpolation, quadrature, has_factors=has_factors
            )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(
            f"{value!r:.200} describes no partition ({error}): save the network again."
        ) from error
    raise CorruptFileError(f"{value!r:.200} describes no partition: save the network again.")
