"""Channels that are rearranged, and parameters and buffers of the module's own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.integral.zoo.case import Net, case, conv, head, own


@case({"a": (18, 9), "b": (12, 3), "c": 4})
def channel_shuffle() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        x = x.view(x.shape[0], 3, x.shape[1] // 3, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        return m.head(m.c(F.relu(m.b(x))))

    return Net(run, a=conv(3, 18), b=conv(18, 12, groups=3), c=conv(12, 4), head=head(4))


@case({"0": (8, 4), "2": (12, 2), "3": 6})
def channel_shuffle_layer() -> nn.Module:
    return nn.Sequential(
        conv(3, 8), nn.ChannelShuffle(2), conv(8, 12, groups=2), conv(12, 6), head(6)
    )


@case({"a": (16, 4), "b": (24, 6)})
def parts_of_a_fixed_size() -> nn.Module:
    """What a reshape leaves open is what is resized, be it the number of parts or their size."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        x = x.view(x.shape[0], -1, 4, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        x = m.b(F.relu(x))
        return m.head(x.unflatten(1, (2, -1, 3)).transpose(1, 3).flatten(1, 3))

    return Net(run, a=conv(3, 16), b=conv(16, 24), head=head(24))


@case({"0": (16, 4), "3": 24})
def pixel_shuffle() -> nn.Module:
    return nn.Sequential(
        conv(3, 16), nn.PixelShuffle(2), nn.PixelUnshuffle(2), conv(16, 24), nn.ReLU(), conv(24, 5)
    )


@case({"0": (16, 2), "2": 6})
def gated_linear_unit() -> nn.Module:
    return nn.Sequential(conv(3, 16), nn.GLU(1), conv(8, 6), head(6))


@case({"a": (16, 2)})
def gate_by_hand() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        left, right = m.a(x).chunk(2, 1)
        first, second = m.a(x).split(m.a(x).shape[1] // 2, 1)
        return m.head(left * right.sigmoid() + first.tanh() * second)

    return Net(run, a=conv(3, 16), head=head(8))


@case({"a": 4, "b": 6})
def repeated() -> nn.Module:
    return Net(
        lambda m, x: m.c(m.a(x).repeat(1, 2, 1, 1)) + m.d(m.b(x).repeat_interleave(3, 1)),
        a=conv(3, 4),
        b=conv(3, 6),
        c=head(8),
        d=head(18),
    )


@case({"a": 6, "b": 8})
def permuted() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.a(x).permute(0, 2, 3, 1)
        x = m.b(F.gelu(x)).movedim(-1, 1) + m.c(x).transpose(3, 1).mT
        return m.head(x)

    return Net(run, a=conv(3, 6), b=nn.Linear(6, 8), c=nn.Linear(6, 8), head=head(8))


@case({"a": 6, "b": 8})
def padded_and_pooled() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = F.pad(m.a(F.pad(x, (1, 1, 1, 1))), (1, 1, 1, 1), mode="reflect")[..., 1:-1, 1:-1]
        x = F.lp_pool2d(x, 2, 2) + F.max_pool2d(x, 2) + F.adaptive_max_pool2d(x, 5)
        x = F.dropout2d(m.b(x), training=m.training)
        return m.fc(x.mean((2, 3)) + x.amax((2, 3)) + x.std((2, 3)) + x.flatten(2).max(2).values)

    return Net(run, a=conv(3, 6), b=conv(6, 8), fc=nn.Linear(8, 5))


@case({"a": 6, "b": 8}, shape=(2, 3, 16))
def shifted_in_time() -> nn.Module:
    """Written into a tensor of zeros, in place."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        shifted = torch.zeros_like(x)
        shifted[..., 1:] = x[..., :-1]
        return m.fc(m.b(shifted).mean(-1))

    return Net(run, a=nn.Conv1d(3, 6, 3), b=nn.Conv1d(6, 8, 3), fc=nn.Linear(8, 5))


@case({"a": 6, "b": 8}, is_maskable=False)
def mean_over_channels() -> nn.Module:
    """Spatial attention: a gate from the mean and the maximum over channels."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        gate = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return m.head(m.b(x * m.gate(gate).sigmoid()))

    return Net(run, a=conv(3, 6), gate=conv(2, 1), b=conv(6, 8), head=head(8))


@case({"a": 8, "b": 6})
def own_parameters() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.a(x) * m.scale + m.position
        x = F.prelu(m.b(x), m.slope) * m.mask[:, None, None]
        return m.head(m.prelu(x))

    module = Net(
        run,
        a=conv(3, 8),
        b=conv(8, 6),
        head=head(6),
        prelu=nn.PReLU(),
        scale=own(8, 1, 1),
        position=own(1, 8, 8, 8),
        slope=own(6),
    )
    module.register_buffer("mask", torch.ones(6))
    return module


@case({"w": 8, "v": 6}, shape=(2, 10))
def functional_weights() -> nn.Module:
    """Weights that belong to no layer, used the one way and the other."""
    return Net(
        lambda m, x: torch.addmm(m.bias, F.relu(F.linear(x, m.w) @ m.v.T.contiguous()), m.u),
        w=own(8, 10),
        v=own(6, 8),
        u=own(6, 5),
        bias=own(5),
    )


@case({"a": 8, "linear_2": 4}, shape=(2, 10), frozen={"b": "computed from others"})
def computed_weights() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.c(F.relu(F.linear(m.b(m.a(x)), m.u.exp())))

    return Net(run, a=nn.Linear(10, 8), b=nn.Linear(8, 6), u=own(4, 6), c=nn.Linear(4, 5))


@case({"fc": 8}, shape=(2, 10))
def frozen_layers() -> nn.Module:
    module = nn.Sequential()
    module.add_module("fc", nn.Linear(10, 8))
    module.add_module("norm", nn.BatchNorm1d(8))
    module.add_module("out", nn.Linear(8, 5))
    for parameter in module.fc.parameters():
        parameter.requires_grad_(False)
    return module
