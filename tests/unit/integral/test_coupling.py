from __future__ import annotations

import pytest
import torch
from torch import nn

from inn_automl.integral import IntegralNetwork
from tests.unit.integral.oracle import check_network, check_zero_padding, randomized
from tests.unit.integral.zoo import CASES, Net


@pytest.mark.parametrize("name", CASES)
def test_groups_are_found_and_mean_what_they_say(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    module = randomized(case.make()).eval()
    x = case.example()
    network = IntegralNetwork(module, x)
    assert {group.name: (group.size, group.unit) for group in network.groups} == case.groups
    reasons = {one.module: one.reason for one in network.frozen}
    assert reasons.keys() == case.frozen.keys(), network.frozen
    for layer, word in case.frozen.items():
        assert word in reasons[layer]
    check_network(network, module, x, is_maskable=case.is_maskable)


@pytest.mark.parametrize("name", CASES)
def test_zero_padding_changes_nothing(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    network, x = IntegralNetwork(randomized(case.make()), case.example()), case.example()
    network._sampler.bucket_size = 3
    assert case.is_maskable or not network.supports_zero_padding
    if network.supports_zero_padding:
        check_zero_padding(network, x)


def test_it_prints_its_groups_and_what_is_frozen() -> None:
    module = Net(
        lambda m, x: m.c(torch.relu(m.b(torch.sort(m.a(x), 1).values))),
        a=nn.Linear(4, 8),
        b=nn.Linear(8, 8),
        c=nn.Linear(8, 3),
    )
    network = IntegralNetwork(module, torch.zeros(2, 4))
    reason = "a stays at 8 channels: sort in the module's own forward cannot be traced through"
    title, group = "IntegralNetwork of Net", "group 'b': 8 channels, allowed 2 to 8"
    assert repr(network).split("\n") == [title, f"{group}: b -> c", f"frozen: {reason}"]
    axes = ["  b.weight: axis 0", "  b.bias: axis 0", "  c.weight: axis 1"]
    assert str(network.coupling).split("\n") == [group, *axes, f"frozen: {reason}"]
