"""Operators that work on each value, and others without attributes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from inn_automl.runtimes.torch_operators.registry import (
    Attributes,
    Compute,
    Constants,
    Maker,
    makes,
)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


_SAME: dict[str, Compute] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "Cos": torch.cos,
    "Div": _divide,
    "Dropout": lambda x, *_: x,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Mish": F.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "SequenceAt": lambda sequence, position: sequence[int(position)],
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Where": torch.where,
}
"""Operators without attributes, or with a torch function that has the same ones."""


def _always(compute: Compute) -> Maker:
    return lambda attributes, constants: compute


for _operator, _compute in _SAME.items():
    makes(_operator)(_always(_compute))


@makes("Gelu")
def _gelu(attributes: Attributes, constants: Constants) -> Compute:
    approximate = attributes.get("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


@makes("HardSigmoid")
def _hard_sigmoid(attributes: Attributes, constants: Constants) -> Compute:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid
    return lambda x: (alpha * x + beta).clamp(0, 1)


@makes("LeakyRelu")
def _leaky_relu(attributes: Attributes, constants: Constants) -> Compute:
    alpha = attributes.get("alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


@makes("Elu")
def _elu(attributes: Attributes, constants: Constants) -> Compute:
    alpha = attributes.get("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@makes("Clip")
def _clip(attributes: Attributes, constants: Constants) -> Compute:
    bounds = [None if value is None else value.item() for value in constants[1:]]
    if len(constants) > 1 and all(bound is not None for bound in bounds):
        low, high = [*bounds, None][:2]
        return lambda x, *_: x.clamp(low, high)
    return lambda x, low=None, high=None: x if low is high is None else x.clamp(low, high)
