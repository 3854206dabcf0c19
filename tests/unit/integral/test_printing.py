"""Networks, groups and converted networks as people see them; widths that are no widths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from inn_automl.core.errors import WidthsError
from inn_automl.integral import IntegralNetwork, convert
from tests.unit.integral.two_groups import X
from tests.unit.integral.zoo import Net, conv, head


def test_a_network_prints_the_layers_of_each_group() -> None:
    module = Net(
        lambda m, x: m.head(m.norm(m.res(x := m.up(m.down(x))) + x)),
        down=conv(3, 8),
        up=nn.ConvTranspose2d(8, 12, 3, padding=1),
        res=conv(12, 12),
        norm=nn.BatchNorm2d(12, affine=False),
        head=head(12),
    )
    lines = str(IntegralNetwork(module, X)).split("\n")
    assert lines[1:] == [
        "group 'down': 8 channels, allowed 2 to 8: down -> up",
        "group 'up': 12 channels, allowed 3 to 12: up, res, norm -> res, head.2",
    ]


def test_a_long_list_of_layers_is_cut() -> None:
    scale = torch.nn.Parameter(torch.ones(8, 1, 1))
    blocks = [layer for _ in range(4) for layer in (conv(8, 8, groups=8), nn.BatchNorm2d(8))]
    module = Net(
        lambda m, x: m.head(m.blocks(m.stem(x) * m.scale)),
        stem=conv(3, 8),
        blocks=nn.Sequential(*blocks),
        head=head(8),
        scale=scale,
    )
    network = IntegralNetwork(module, X)
    outputs, inputs = network.coupling.layers_of(0)
    assert set(outputs) == {"scale", "stem", *(f"blocks.{i}" for i in range(8))}
    assert inputs == ["head.2"]
    assert str(network).endswith(f"{', '.join(outputs[:6])} and 4 more -> head.2")


def test_a_group_prints_its_allowed_widths() -> None:
    module = nn.Sequential(conv(3, 12), conv(12, 12, groups=4), conv(12, 5, 1), head(5))
    groups = IntegralNetwork(module, X, min_ratio=0.5).groups
    assert repr(groups[0]) == "Group('0', 12 channels, allowed 8 to 12 in steps of 4)"
    assert repr(groups[2]) == "Group('2', 5 channels, allowed 3 to 5)"


@pytest.mark.parametrize("order", ["pivoted_cholesky", "tsp"])
def test_a_converted_network_prints_its_order_and_samples(order: str) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)).eval()
    samples = torch.randn(64, 4)
    printed = f"ConvertedNetwork of Sequential: order {order!r}, 64 samples"
    assert str(convert(module, samples[:2], samples=samples, order=order)) == printed


@pytest.mark.parametrize("ratio", [1.5, 7, 0, -1, float("nan"), float("inf"), "0.5", None])
def test_a_ratio_out_of_range_is_refused(network: IntegralNetwork, ratio: Any) -> None:
    with pytest.raises(WidthsError, match=r"give more than 0, at most 1 \(.* at 0\.25\)"):
        network.uniform_widths(ratio)


@pytest.mark.parametrize("widths", [0.5, None, [4, 6], "a"])
def test_widths_that_are_not_by_group_are_refused(network: IntegralNetwork, widths: Any) -> None:
    message = r"give widths by group, e\.g\. network\.uniform_widths\(0\.5\)\."
    for refuse in (network.discretize, network.costs, network.sample_parameters):
        with pytest.raises(WidthsError, match=message):
            refuse(widths)
