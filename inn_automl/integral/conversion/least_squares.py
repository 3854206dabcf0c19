"""Least-squares fits of one layer: the weights whose outputs are nearest to wanted outputs.

Linear least squares with a ridge that pulls to the layer's present weights. Where an activation
saturates, alternating least squares leave free what the activation does not distinguish.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

NUM_ALTERNATIONS = 20
"""Alternations of `fit_saturated`."""
_NO_SCALE = 1e-9
"""Standard deviation after normalization below which a channel is constant."""


def fit(layer: nn.Module, x: Tensor, wanted: Tensor, *, ridge: float, is_centered: bool) -> None:
    """Fits a layer's weights, and its bias if it has one, so that its outputs are nearest to
    wanted ones.

    Args:
        layer: linear or convolutional, with the weights that the ridge pulls to; changed in place.
        x: (r, f) inputs that it multiplies with its weights.
        wanted: (r, o) outputs.
        ridge: weight of the distance to the present weights, relative to the mean square of a
            feature.
        is_centered: whether the means of the outputs do not matter.
    """
    regression = _Regression(
        layer, x, ridge, has_intercept=is_centered or isinstance(layer.bias, Tensor)
    )
    weights, mean = regression.solve(wanted.double())
    _assign(layer, weights, mean - regression.shift(weights))


def fit_saturated(
    layer: nn.Module,
    x: Tensor,
    wanted: Tensor,
    *,
    ridge: float,
    saturation: tuple[float, float],
    norm: _BatchNorm | None = None,
) -> None:
    """Fits a layer as `fit` does, but leaves outputs free where the activation saturates.

    Alternates between the outputs nearest to those of the layer among all that the activation does
    not distinguish from the wanted ones, and the weights that fit them best; neither step ever
    raises the error after the activation (X. Zhang, J. Zou, K. He and J. Sun, "Accelerating
    Very Deep Convolutional Networks for Classification and Detection", TPAMI 2016, section 3.2).

    Args:
        layer, x, wanted, ridge: see `fit`; the layer has a bias where there is no `norm`.
        saturation: bounds of the activation: the identity in between, constant elsewhere.
        norm: the batch normalization between layer and activation, with the affine weights and
            statistics of the full network; changed in place. It gets the statistics of the layer's
            new outputs, and affine weights with which it still computes the fitted values.
    """
    regression = _Regression(layer, x, ridge, has_intercept=True)
    wanted = wanted.double()
    lower, upper = (bound.float() for bound in _bounds(norm, saturation, wanted))
    single = wanted.float()
    is_below, is_above = single <= lower, single >= upper

    def nearest(outputs: Tensor) -> Tensor:
        below = torch.where(is_below, outputs.minimum(lower), single)
        return torch.where(is_above, outputs.maximum(upper), below)

    weights, mean = regression.solve(regression.alternate(nearest, single))
    shift = regression.shift(weights)
    _assign(layer, weights, mean - shift)
    if norm is not None:
        made_mean = shift if layer.bias is None else mean
        _renormalize(
            norm, wanted, mean, made_mean, regression.predict(weights, mean).var(0, correction=0)
        )


class _Regression:
    """Ridge regression of a layer's outputs on its inputs, for any number of targets.

    Args:
        layer: with the weights that the ridge pulls to.
        x: (r, f) inputs that the layer multiplies with its weights.
        ridge: weight of the distance to the present weights, relative to the mean square of a
            feature.
        has_intercept: whether outputs may have means of their own.
    """

    def __init__(self, layer: nn.Module, x: Tensor, ridge: float, *, has_intercept: bool) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        x = x.double()
        self._mean = x.mean(0) if has_intercept else torch.zeros_like(x[0])
        self._x = x - self._mean
        gram = self._x.T @ self._x
        pull = ridge * gram.diagonal().mean() + torch.finfo(torch.float32).tiny
        self._held = pull * weight.detach().flatten(1).double().T
        gram.diagonal().add_(pull)
        self._factor = torch.linalg.lu_factor(gram)
        self._has_intercept = has_intercept

    def solve(self, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (f, o), and the means (o,) of their outputs."""
        mean = wanted.mean(0) if self._has_intercept else torch.zeros_like(wanted[0])
        return torch.linalg.lu_solve(*self._factor, self._x.T @ (wanted - mean) + self._held), mean

    def alternate(self, nearest: Callable[[Tensor], Tensor], wanted: Tensor) -> Tensor:
        """Targets (r, o) after `NUM_ALTERNATIONS` between the layer's outputs and their nearest
        targets.

        In single precision: its rounding is far below the freedom of the targets.

        Args:
            nearest: the allowed targets nearest to outputs (r, o), float32.
            wanted: (r, o), float32, the first targets.
        """
        x, held = self._x.float(), torch.linalg.lu_solve(*self._factor, self._held).float()
        solution = torch.linalg.lu_solve(*self._factor, self._x.T).float()
        target = wanted
        for _ in range(NUM_ALTERNATIONS):
            mean = target.mean(0)
            target = nearest(x @ (solution @ (target - mean) + held) + mean)
        return target.double()

    def predict(self, weights: Tensor, mean: Tensor) -> Tensor:
        """Outputs (r, o) whose means are `mean`."""
        return self._x @ weights + mean

    def shift(self, weights: Tensor) -> Tensor:
        """(o,) outputs of the weights alone for the means of `x`."""
        return self._mean @ weights


def _assign(layer: nn.Module, weights: Tensor, bias: Tensor) -> None:
    """Weights (f, o); the bias (o,) where the layer has one."""
    assert isinstance(layer.weight, Tensor)
    layer.weight.data.copy_(weights.T.reshape(layer.weight.shape))
    if isinstance(layer.bias, Tensor):
        layer.bias.data.copy_(bias)


def _statistics(norm: _BatchNorm, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (o,) with which the full network normalizes `wanted` (r, o)."""
    if norm.running_mean is None or norm.running_var is None:
        return wanted.mean(0), (wanted.var(0, correction=0) + norm.eps).sqrt()
    return norm.running_mean.double().clone(), (norm.running_var.double() + norm.eps).sqrt()


def _bounds(
    norm: _BatchNorm | None, saturation: tuple[float, float], wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """Bounds (o,) of the layer's outputs, before any normalization, where the activation is the
    identity.
    """
    low, high = (torch.full_like(wanted[0], bound) for bound in saturation)
    if norm is None:
        return low, high
    mean, deviation = _statistics(norm, wanted)
    scale = norm.weight.double() / deviation
    ends = [mean + (bound - norm.bias.double()) / scale for bound in (low, high)]
    lower, upper = (
        torch.where(scale < 0, ends[1], ends[0]),
        torch.where(scale < 0, ends[0], ends[1]),
    )
    is_constant = scale.abs() * wanted.std(0) < _NO_SCALE  # no output of such a channel matters
    return lower.masked_fill(is_constant, -math.inf), upper.masked_fill(is_constant, math.inf)


def _renormalize(
    norm: _BatchNorm, wanted: Tensor, mean: Tensor, made_mean: Tensor, variance: Tensor
) -> None:
    """Gives a normalization the statistics of a layer's new outputs, and matching affine weights.

    Args:
        wanted: (r, o) outputs of the full layer, which `norm` was made for.
        mean: (o,) of the outputs that were fitted to them.
        made_mean, variance: (o,) of the new outputs, which differ from the fitted ones by a shift.
    """
    old_mean, deviation = _statistics(norm, wanted)
    scale = norm.weight.double() / deviation
    norm.bias.data.add_((mean - old_mean) * scale)
    norm.weight.data.copy_(scale * (variance + norm.eps).sqrt())
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.copy_(made_mean)
        norm.running_var.copy_(variance)
