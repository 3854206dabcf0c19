"""Random architectures: whatever blocks a network is made of, resizing it is removing channels
from it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from inn_automl.core.errors import ModuleError
from inn_automl.integral import CellAverages, IntegralNetwork, Nested, Partition, Uniform
from tests.unit.integral.oracle import (
    assert_same,
    check_network,
    check_zero_padding,
    randomized,
    some_widths,
)
from tests.unit.integral.zoo import HeadAttention, Net, conv

NUM_EXAMPLES = 12

Block = tuple[str, int]
CHANNELS = 3
SIDE = 8


def plain_block(kind: str, number: int, channels: int) -> tuple[nn.Module, int] | None:
    """A block of layers in a row; None where the kind is another or the channels do not fit."""
    grouped = next(g for g in (number, 2, 1) if channels % g == 0)
    factor = 1 + number % 2
    if kind == "conv":
        layers = (conv(channels, 2 * number), nn.BatchNorm2d(2 * number), nn.ReLU())
        return nn.Sequential(*layers), 2 * number
    if kind == "depthwise":
        return conv(channels, factor * channels, groups=channels), factor * channels
    if kind == "grouped":
        return conv(channels, grouped * 4, groups=grouped), grouped * 4
    if kind == "shuffle":
        return nn.ChannelShuffle(grouped), channels
    if kind == "transposed":
        layer = nn.ConvTranspose2d(channels, 4 * grouped, 3, padding=1, groups=grouped)
        return layer, 4 * grouped
    if kind == "pixels" and channels % 4 == 0:
        return nn.Sequential(nn.PixelShuffle(2), nn.MaxPool2d(2)), channels // 4
    return None


def branching_block(kind: str, number: int, channels: int) -> tuple[nn.Module, int] | None:
    """A block that adds, multiplies, joins or splits; None where the kind is another."""
    if kind == "residual":
        layers = {"a": conv(channels, number), "b": conv(number, channels, 1)}
        return Net(lambda m, x: x + m.b(F.relu(m.a(x))), **layers), channels
    if kind == "projected":
        layers = {"a": conv(channels, number), "b": conv(channels, number, 1)}
        return Net(lambda m, x: m.a(x) * m.b(x).sigmoid(), **layers), number
    if kind == "branches":
        layers = {"a": conv(channels, number), "b": conv(channels, 4)}
        return Net(lambda m, x: torch.cat([m.a(x), m.b(x)], 1), **layers), number + 4
    if kind == "dense":
        dense = Net(lambda m, x: torch.cat([x, m.a(x)], 1), a=conv(channels, number))
        return dense, channels + number
    if kind == "joined":
        layers = {"a": conv(channels, number), "c": conv(channels, channels + number)}
        joined = Net(lambda m, x: m.c(x) + torch.cat([m.a(x), x], 1), **layers)
        return joined, channels + number
    if kind == "squeeze":
        return Net(
            lambda m, x: x * m.b(F.relu(m.a(x.mean((2, 3), keepdim=True)))).sigmoid(),
            a=conv(channels, number, 1),
            b=conv(number, channels, 1),
        ), channels
    if kind == "gate" and channels % 2 == 0:
        return Net(lambda m, x: torch.tanh(x.chunk(2, 1)[0]) * x.chunk(2, 1)[1]), channels // 2
    return None


def rewired_block(kind: str, number: int, channels: int) -> tuple[nn.Module, int] | None:
    """A block that uses a layer twice or moves the channels; None where the kind is another."""
    if kind == "twice":
        return Net(lambda m, x: m.a(F.relu(m.a(x))), a=conv(channels, channels)), channels
    if kind == "permuted":
        return Net(
            lambda m, x: m.a(x.permute(0, 2, 3, 1)).movedim(-1, 1).contiguous(),
            a=nn.Linear(channels, number),
        ), number
    if kind == "attention":
        return Net(
            lambda m, x: x + m.a(x.flatten(2).mT).mT.unflatten(2, x.shape[2:]),
            a=HeadAttention(channels, number, 4),
        ), channels
    return None


def make_block(kind: str, number: int, channels: int) -> tuple[nn.Module, int]:
    """A block of a kind and the number of channels that it gives."""
    return (
        plain_block(kind, number, channels)
        or branching_block(kind, number, channels)
        or rewired_block(kind, number, channels)
        or (nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels)), channels)
    )


KINDS = (
    *(
        "conv",
        "depthwise",
        "grouped",
        "transposed",
        "norm",
        "permuted",
        "twice",
        "residual",
        "projected",
        "squeeze",
    ),
    *("branches", "dense", "joined", "gate", "shuffle", "pixels", "attention"),
)


def make_network(blocks: list[Block], head: str) -> nn.Module:
    layers: list[nn.Module] = []
    channels = CHANNELS
    for kind, number in [("conv", 4), *blocks]:
        layer, channels = make_block(kind, number, channels)
        layers.append(layer)
    if head == "flatten":
        return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4 * channels, 5))
    if head == "view":
        return nn.Sequential(
            *layers,
            Net(lambda m, x: m.fc(x.view(x.size(0), -1)), fc=nn.Linear(SIDE * SIDE * channels, 5)),
        )
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


BLOCKS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from([3, 4, 6])), min_size=1, max_size=5
)
HEADS = st.sampled_from(["pool", "flatten", "view"])


def traced(
    blocks: list[Block], head: str, **options: Any
) -> tuple[nn.Module, Tensor, IntegralNetwork | None]:
    torch.manual_seed(0)
    module = randomized(make_network(blocks, head)).eval()
    x = torch.randn(2, CHANNELS, SIDE, SIDE)
    try:
        return module, x, IntegralNetwork(module, x, **options)
    # a shuffle or groups that do not divide keep all channels in place
    except ModuleError as error:
        assert "stays at" in str(error)
        return module, x, None


@given(blocks=BLOCKS, head=HEADS)
@settings(max_examples=NUM_EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
def test_reduced_widths_compute_what_is_left_of_the_full_network(
    blocks: list[Block], head: str
) -> None:
    module, x, network = traced(blocks, head)
    if network is not None:
        check_network(network, module, x)


@given(blocks=BLOCKS, head=HEADS)
@settings(max_examples=NUM_EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
def test_zero_padding_changes_nothing(blocks: list[Block], head: str) -> None:
    _, x, network = traced(blocks, head)
    if network is not None:
        network._sampler.bucket_size = 2
        check_zero_padding(network, x)


@pytest.mark.parametrize(
    "partition",
    [Uniform(), CellAverages(), Nested("van_der_corput")],
    ids=lambda p: type(p).__name__,
)
@given(blocks=BLOCKS, head=HEADS)
@settings(max_examples=NUM_EXAMPLES // 3, suppress_health_check=[HealthCheck.too_slow])
def test_other_partitions(partition: Partition, blocks: list[Block], head: str) -> None:
    module, x, network = traced(blocks, head, partition=partition)
    if network is None:
        return
    network.eval()
    with torch.no_grad():
        assert_same(network(x), module(x), 1e-3)
        for widths in some_widths(network):
            found = network(x, widths)
            assert torch.isfinite(found).all()
            assert_same(network.discretize(widths).eval()(x), found, 1e-6)
