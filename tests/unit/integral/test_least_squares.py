from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from inn_automl.integral import recalibrate_batch_norm
from inn_automl.integral.conversion.least_squares import fit, fit_saturated


def test_a_fit_finds_the_weights_that_made_the_outputs() -> None:
    torch.manual_seed(0)
    true, layer = nn.Linear(5, 3), nn.Linear(5, 3)
    x = torch.randn(200, 5) + 2
    with torch.no_grad():
        fit(layer, x, true(x), ridge=0.0, is_centered=False)
        torch.testing.assert_close(layer.weight, true.weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.bias, true.bias, rtol=1e-4, atol=1e-5)
        before = layer.weight.clone()
        fit(layer, x, x[:, :3], ridge=1e12, is_centered=False)
        torch.testing.assert_close(layer.weight, before, rtol=1e-4, atol=1e-4)


def saturated_error(made: Tensor, wanted: Tensor, low: float, high: float) -> float:
    return float((made.clamp(low, high) - wanted.clamp(low, high)).square().mean())


@pytest.mark.parametrize(("low", "high"), [(0.0, float("inf")), (0.0, 1.0), (-0.5, 0.5)])
def test_a_saturated_fit_is_nearer_behind_the_activation(low: float, high: float) -> None:
    torch.manual_seed(0)
    true, x = nn.Linear(12, 5), torch.randn(500, 12)
    linear, saturated = nn.Linear(6, 5), nn.Linear(6, 5)
    with torch.no_grad():
        wanted = 2 * true(x)
        fit(linear, x[:, :6], wanted, ridge=1e-6, is_centered=False)
        fit_saturated(saturated, x[:, :6], wanted, ridge=1e-6, saturation=(low, high))
        far, near = (
            saturated_error(layer(x[:, :6]), wanted, low, high) for layer in (linear, saturated)
        )
        assert near < 0.98 * far


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_saturated_fit_goes_through_the_normalization(has_bias: bool) -> None:
    """Whatever the signs of its weights, and once it has statistics of its own."""
    torch.manual_seed(0)
    true, x = nn.Linear(12, 6), torch.randn(600, 12) + 1
    norm = nn.BatchNorm1d(6).eval()
    with torch.no_grad():
        wanted = true(x)
        norm.weight.copy_(torch.tensor([1.0, -1.0, 2.0, -0.5, 0.0, 1.0]))
        norm.bias.copy_(torch.tensor([0.0, 0.3, -0.5, 0.2, 0.4, 0.0]))
        norm.running_mean.copy_(wanted.mean(0) + 0.2)  # type: ignore[union-attr]
        norm.running_var.copy_(2 * wanted.var(0))  # type: ignore[union-attr]
        target, errors = torch.relu(norm(wanted)), []
        for fitted in (False, True):
            layer, own = nn.Linear(8, 6, bias=has_bias), copy.deepcopy(norm)
            if fitted:
                fit_saturated(
                    layer, x[:, :8], wanted, ridge=1e-6, saturation=(0.0, float("inf")), norm=own
                )
                at_once = torch.relu(own(layer(x[:, :8])))
            else:
                fit(layer, x[:, :8], wanted, ridge=1e-6, is_centered=True)
            recalibrate_batch_norm(both := nn.Sequential(layer, own), [x[:, :8]])
            errors.append(float((torch.relu(both.eval()(x[:, :8])) - target).square().mean()))
        torch.testing.assert_close(at_once, torch.relu(both(x[:, :8])), rtol=1e-2, atol=1e-2)
        assert errors[1] < 0.8 * errors[0]
        exact, own = nn.Linear(12, 6, bias=has_bias), copy.deepcopy(norm)
        fit_saturated(exact, x, wanted, ridge=0.0, saturation=(0.0, float("inf")), norm=own)
        torch.testing.assert_close(torch.relu(own(exact(x))), target, rtol=1e-3, atol=1e-3)
