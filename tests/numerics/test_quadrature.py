from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inn_automl.integral.sampling.quadrature import (
    GaussLegendre,
    PointwiseQuadrature,
    Quadrature,
    Riemann,
    Simpson,
    Trapezoid,
)

RULES = [Riemann(), Trapezoid(), Simpson(), GaussLegendre(1), GaussLegendre(2), GaussLegendre(3)]


def smooth(x: Tensor) -> Tensor:
    return torch.sin(4 * x) + x.exp()


EXACT = (1 - math.cos(4)) / 4 + math.e - 1


def integral(rule: Quadrature, num_points: int) -> float:
    points, weights = rule.rule(num_points)
    return float(weights @ smooth(points))


@pytest.mark.parametrize("offset", [0, 1], ids=["even", "odd"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_order_of_convergence(rule: Quadrature, offset: int) -> None:
    # Numbers of cells or panels that double, whatever remains beside whole panels.
    step = rule.points_per_panel if isinstance(rule, GaussLegendre) else 1
    sizes = [step * size + offset for size in (8, 16, 32)]
    if isinstance(rule, Trapezoid | Simpson):
        sizes = [size + 1 for size in sizes]
    errors = [abs(integral(rule, size) - EXACT) for size in sizes]
    cells = [size - 1 if isinstance(rule, Trapezoid | Simpson) else size for size in sizes]
    orders = [
        math.log(errors[i] / errors[i + 1]) / math.log(cells[i + 1] / cells[i])
        for i in range(2)
        if errors[i + 1] > 1e-13
    ]
    assert orders
    # A rule with a remainder closes in on its order from either side.
    assert orders[-1] == pytest.approx(rule.order, abs=0.6 if offset else 0.2)


@pytest.mark.parametrize(
    ("rule", "degree"),
    [
        (Riemann(), 1),
        (Trapezoid(), 1),
        (Simpson(), 3),
        *((GaussLegendre(k), 2 * k - 1) for k in (1, 2, 3, 5)),
    ],
    ids=str,
)
@pytest.mark.parametrize("num_points", [3, 4, 5, 6, 7, 12])
def test_polynomials_are_exact(rule: Quadrature, degree: int, num_points: int) -> None:
    points, weights = rule.rule(num_points)
    for power in range(min(degree, 2 * num_points - 1) + 1):
        assert float(weights @ points**power) == pytest.approx(1 / (power + 1), abs=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=str)
@given(num_points=st.integers(1, 40))
def test_points_ascend_and_weights_sum_to_one(rule: Quadrature, num_points: int) -> None:
    points, weights = rule.rule(num_points)
    assert points.shape == weights.shape == (num_points,)
    assert points.dtype == weights.dtype == torch.float64
    assert bool((points.diff() > 0).all())
    assert 0 <= float(points[0]) <= float(points[-1]) <= 1
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert bool((weights > 0).all())


@pytest.mark.parametrize("rule", [Riemann(), Trapezoid()], ids=str)
@given(points=st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_weights_of_any_points(rule: PointwiseQuadrature, points: list[float]) -> None:
    weights = rule.weights(torch.tensor(sorted(points), dtype=torch.float64))
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert bool((weights >= 0).all())


def test_trapezoid_of_uneven_points_is_exact_on_lines() -> None:
    points = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)
    assert float(Trapezoid().weights(points) @ (3 * points + 1)) == pytest.approx(2.5)


def test_trapezoid_weights_are_differentiable_in_the_points() -> None:
    points = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: Trapezoid().weights(p) @ p.square(), (points,))


def test_rules_are_equal_by_kind_and_parameters() -> None:
    assert GaussLegendre(2) == GaussLegendre() != GaussLegendre(3)
    assert len({GaussLegendre(2), GaussLegendre(), Simpson()}) == 2
    assert repr(GaussLegendre(3)) == "GaussLegendre(points_per_panel=3)"


def test_panels_without_points() -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        GaussLegendre(0)
