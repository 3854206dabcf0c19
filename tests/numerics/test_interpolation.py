from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inn_automl.integral.sampling.interpolation import (
    CubicConvolution,
    Interpolation,
    Linear,
    Nearest,
    matrix,
)

RULES = [Nearest(), Linear(), CubicConvolution()]
DTYPE = torch.float64


def interpolated(rule: Interpolation, nodes: Tensor, positions: Tensor) -> Tensor:
    index, coefficient = rule.coefficients(positions, len(nodes))
    return (nodes[index] * coefficient).sum(-1)


def smooth(x: Tensor) -> Tensor:
    return (2 * x).exp()  # no derivative of it is small anywhere


def largest_error(rule: Interpolation, num_control_points: int, x: Tensor) -> float:
    nodes = smooth(torch.linspace(0, 1, num_control_points, dtype=DTYPE))
    return float((interpolated(rule, nodes, x * (num_control_points - 1)) - smooth(x)).abs().max())


@pytest.mark.parametrize("where", ["everywhere", "first cell", "last cell"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_order_of_convergence(rule: Interpolation, where: str) -> None:
    sizes = [65, 129, 257, 513]
    errors = []
    for size in sizes:
        x = torch.linspace(0, 1, 4001, dtype=DTYPE)
        cell = 1 / (size - 1)
        x = {"everywhere": x, "first cell": x * cell, "last cell": 1 - x * cell}[where]
        errors.append(largest_error(rule, size, x))
    order = math.log2(errors[0] / errors[-1]) / (len(sizes) - 1)
    assert order == pytest.approx(rule.order, abs=0.1)


@pytest.mark.parametrize(
    ("rule", "degree"), [(Nearest(), 0), (Linear(), 1), (CubicConvolution(), 2)], ids=str
)
@pytest.mark.parametrize("num_control_points", [3, 4, 9])
def test_polynomials_are_exact_up_to_the_ends(
    rule: Interpolation, degree: int, num_control_points: int
) -> None:
    positions = torch.linspace(0, num_control_points - 1, 101, dtype=DTYPE)
    nodes = torch.arange(num_control_points, dtype=DTYPE)
    for power in range(degree + 1):
        torch.testing.assert_close(interpolated(rule, nodes**power, positions), positions**power)


@pytest.mark.parametrize("rule", RULES, ids=str)
@given(
    num_control_points=st.integers(1, 12), shares=st.lists(st.floats(0, 1), min_size=1, max_size=8)
)
def test_rows_sum_to_one_and_nodes_are_met(
    rule: Interpolation, num_control_points: int, shares: list[float]
) -> None:
    positions = torch.tensor(shares, dtype=DTYPE) * (num_control_points - 1)
    index, coefficient = rule.coefficients(positions, num_control_points)
    assert index.shape == coefficient.shape
    assert int(index.min()) >= 0
    assert int(index.max()) < num_control_points
    torch.testing.assert_close(coefficient.sum(-1), torch.ones(len(shares), dtype=DTYPE))
    at_nodes = matrix(
        *rule.coefficients(torch.arange(num_control_points, dtype=DTYPE), num_control_points),
        num_control_points,
    )
    torch.testing.assert_close(at_nodes, torch.eye(num_control_points, dtype=DTYPE))


def test_nearest_takes_the_right_node_halfway() -> None:
    assert interpolated(
        Nearest(), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.49, 1.5])
    ).tolist() == [2, 2, 3]


@pytest.mark.parametrize("rule", RULES[1:], ids=str)
def test_gradients_in_the_positions(rule: Interpolation) -> None:
    nodes = torch.rand(7, dtype=DTYPE, requires_grad=True)
    positions = torch.tensor([0.2, 1.7, 3.4, 5.9], dtype=DTYPE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda n, p: interpolated(rule, n, p), (nodes, positions))


def test_few_nodes_fall_back_to_the_rule_that_they_suffice_for() -> None:
    positions = torch.tensor([0.25], dtype=DTYPE)
    two = torch.tensor([1.0, 3.0], dtype=DTYPE)
    assert float(interpolated(CubicConvolution(), two, positions)) == pytest.approx(1.5)
    assert float(interpolated(Linear(), two[:1], positions * 0)) == 1.0


def test_rules_are_equal_by_kind() -> None:
    assert Linear() == Linear() != Nearest()
    assert len({Linear(), Linear(), CubicConvolution()}) == 2
