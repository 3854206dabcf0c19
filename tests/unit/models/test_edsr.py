from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from inn_automl.integral import IntegralNetwork
from inn_automl.models import build
from inn_automl.models.edsr import EDSR


def edsr(scale: int, *, channels: int = 3, width: float = 0.5, depth: int = 2) -> EDSR:
    torch.manual_seed(0)
    module = build(
        "edsr", (channels, 9, 7), 0, width=width, depth=depth, task="super-resolution", scale=scale
    )
    assert isinstance(module, EDSR)
    return module.eval()


@pytest.mark.parametrize(("scale", "channels"), [(2, 3), (3, 1), (4, 2)])
def test_it_begins_as_bicubic_interpolation(scale: int, channels: int) -> None:
    module, x = edsr(scale, channels=channels), torch.randn(2, channels, 9, 7)
    with torch.no_grad():
        near = module(x)
        module.tail.weight.zero_()
        expected = F.interpolate(x, scale_factor=scale, mode="bicubic")
        torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)
    assert (near - expected).abs().max() < 0.2


def test_gradients_reach_every_parameter() -> None:
    module = edsr(2)
    module(torch.randn(2, 3, 9, 7)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_the_stream_is_one_group_and_the_image_none() -> None:
    network = IntegralNetwork(edsr(3), torch.zeros(2, 3, 9, 7))
    assert {group.name: group.size for group in network.groups} == {
        "head": 16,
        "blocks.0.conv1": 16,
        "blocks.1.conv1": 16,
    }
    assert not network.frozen
    small = network.discretize(network.smallest_widths)
    assert isinstance(small, EDSR)
    assert (small.tail.in_channels, small.tail.out_channels) == (
        network.smallest_widths["head"],
        27,
    )
    assert torch.equal(small.enlarge.weight, network.module.enlarge.weight)
    assert small(torch.zeros(1, 3, 9, 7)).shape == (1, 3, 27, 21)
