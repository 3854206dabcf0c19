from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from inn_automl.integral import IntegralNetwork
from inn_automl.integral.conversion.channel_ranking import permute
from tests.unit.integral.oracle import randomized
from tests.unit.integral.two_groups import SMALL, X, make
from tests.unit.integral.zoo import conv, head


@pytest.fixture
def conditioned(network: IntegralNetwork) -> IntegralNetwork:
    network.add_width_deltas()
    torch.manual_seed(1)
    for delta in network.width_deltas:
        delta.data.normal_()
    return network.eval()


def test_width_deltas_change_nothing_until_they_are_trained(network: IntegralNetwork) -> None:
    before = network.eval()(X, SMALL)
    network.add_width_deltas()
    network.add_width_deltas()  # there already
    assert network.named_width_deltas().keys() == {f"{layer}.weight" for layer in "abc"} | {
        *(f"{layer}.bias" for layer in "abc"),
        "norm.weight",
        "norm.bias",
        "head.2.weight",
    }
    assert torch.equal(network(X, SMALL), before)


@pytest.mark.parametrize(
    ("widths", "width_coordinate"),
    [
        ({"a": 8, "c": 12}, {"a.weight": 0, "c.weight": 0, "head.2.weight": 0}),
        (
            {"a": 2, "c": 3},
            {"a.weight": 1, "b.weight": 1, "c.weight": 1, "norm.bias": 1, "head.2.weight": 1},
        ),
        ({"a": 5, "c": 12}, {"a.weight": 1 / 2, "b.bias": 1 / 2, "c.weight": 1 / 4, "c.bias": 0}),
        (
            {"a": 8, "c": 9},
            {"a.weight": 0, "c.weight": 1 / 6, "norm.weight": 1 / 3, "head.2.weight": 1 / 3},
        ),
    ],
)
def test_a_weight_is_its_own_value_and_its_width_coordinate_times_its_delta(
    conditioned: IntegralNetwork, widths: dict[str, int], width_coordinate: dict[str, float]
) -> None:
    module = conditioned.discretize(widths).eval()
    for name, share in width_coordinate.items():
        expected = (
            conditioned.module.get_parameter(name) + share * conditioned.named_width_deltas()[name]
        )
        found = module.get_parameter(name)
        torch.testing.assert_close(found, expected[tuple(slice(size) for size in found.shape)])
    assert torch.equal(conditioned(X, widths), module(X))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_slices(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 1))
    network = IntegralNetwork(module.to(memory_format=layout), torch.zeros(2, 3, 8, 8))
    network.add_width_deltas()
    found = network.sample_parameters({"0": 3})
    nodes, width_deltas = dict(network.module.named_parameters()), network.named_width_deltas()
    width_coordinate = 5 / 6
    expected = {
        name: (nodes[name] + width_coordinate * width_deltas[name])[:3]
        for name in ("0.weight", "0.bias", "1.weight")
    }
    expected["3.weight"] = (nodes["3.weight"] + width_coordinate * width_deltas["3.weight"])[:, :3]
    trained = [tensor for name in expected for tensor in (nodes[name], width_deltas[name])]
    weights = [torch.randn_like(value) for value in expected.values()]
    gradients = [
        torch.autograd.grad([values[name] for name in expected], trained, weights)
        for values in (found, expected)
    ]
    for one, other, tensor in zip(*gradients, trained, strict=True):
        torch.testing.assert_close(one, other)
        assert one.stride() == tensor.stride()


def test_width_deltas_of_the_narrow_are_trained_by_the_narrow(conditioned: IntegralNetwork) -> None:
    conditioned.train()(X).sum().backward()
    assert all(delta.grad is None for delta in conditioned.width_deltas)
    conditioned(X, SMALL).square().sum().backward()
    assert all(
        delta.grad is not None and delta.grad.count_nonzero() for delta in conditioned.width_deltas
    )


def test_width_deltas_of_tied_and_of_frozen_parameters() -> None:
    tied = nn.Sequential(conv(3, 8), conv(8, 8), nn.ReLU(), conv(8, 8), head(8))
    tied[3].weight = tied[1].weight
    tied[0].weight.requires_grad_(False)
    network = IntegralNetwork(tied, X)
    network.add_width_deltas()
    assert "3.weight" not in network.named_width_deltas()
    assert not network.named_width_deltas()["0.weight"].requires_grad
    network.named_width_deltas()["1.weight"].data.fill_(1)
    narrow: Any = network.discretize({"0": 2})
    assert narrow[3].weight is narrow[1].weight
    torch.testing.assert_close(narrow[3].weight, tied[1].weight[:2, :2] + 1)


def test_width_deltas_are_put_in_order_with_their_weights(conditioned: IntegralNetwork) -> None:
    for name, delta in conditioned.named_width_deltas().items():
        delta.data = 2 * conditioned.module.get_parameter(name).detach()
    full = conditioned(X)
    permute(conditioned, {"a": torch.randperm(8), "c": torch.randperm(12)})
    torch.testing.assert_close(conditioned(X), full)
    assert all(
        torch.equal(s, 2 * conditioned.module.get_parameter(name))
        for name, s in conditioned.named_width_deltas().items()
    )


def test_width_deltas_are_saved_copied_and_loaded(
    conditioned: IntegralNetwork, tmp_path: Path
) -> None:
    conditioned.save(tmp_path)
    again = IntegralNetwork.load(tmp_path, randomized(make())).eval()
    copied = copy.deepcopy(conditioned)
    for other in (again, copied):
        assert torch.equal(other(X, SMALL), conditioned(X, SMALL))
    copied.width_deltas[0].data.zero_()
    assert not torch.equal(copied(X, SMALL), conditioned(X, SMALL))
