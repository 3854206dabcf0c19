"""Branches that join or split, and layers that are used several times."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.integral.zoo.case import Net, case, conv, head


@case({"0": 8, "1.b": 8, "2.a": 12})
def residual_identity_and_projection() -> nn.Module:
    return nn.Sequential(
        conv(3, 8),
        residual(8),
        Net(lambda m, x: m.a(x) + m.b(x), a=conv(8, 12), b=conv(8, 12, 1)),
        head(12),
    )


def residual(channels: int) -> nn.Module:
    return Net(
        lambda m, x: F.relu(x + m.c(F.relu(m.norm(m.b(x))))),
        b=conv(channels, channels),
        norm=nn.BatchNorm2d(channels),
        c=conv(channels, channels),
    )


@case({"a": 6, "b": 10, "c": 8})
def concat_unequal() -> nn.Module:
    return Net(
        lambda m, x: m.head(F.relu(m.c(torch.cat([m.a(x), m.b(x)], 1)))),
        a=conv(3, 6),
        b=conv(3, 10),
        c=conv(16, 8),
        head=head(8),
    )


@case({"stem": 6, "a": 4, "b": 4})
def concat_growing() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = torch.cat([x, m.a(F.relu(m.norm_a(x)))], 1)
        x = torch.cat([x, m.b(F.relu(m.norm_b(x)))], 1)
        return m.head(x)

    return Net(
        run,
        stem=conv(3, 6),
        norm_a=nn.BatchNorm2d(6),
        a=conv(6, 4),
        norm_b=nn.BatchNorm2d(10),
        b=conv(10, 4),
        head=head(14),
    )


@case({"a": 6, "b": 10})
def concat_then_residual() -> nn.Module:
    """The plain convolution's output is cut where the concatenation is joined."""
    return Net(
        lambda m, x: m.head(torch.cat([m.a(x), m.b(x)], 1) + m.c(x)),
        a=conv(3, 6),
        b=conv(3, 10),
        c=conv(3, 16),
        head=head(16),
    )


@case({"c.0": 6, "c.1": 10})
def residual_then_concat() -> nn.Module:
    """As before, but the layer whose output is cut runs first."""
    return Net(
        lambda m, x: m.head(m.c(x) + torch.cat([m.a(x), m.b(x)], 1)),
        a=conv(3, 6),
        b=conv(3, 10),
        c=conv(3, 16),
        head=head(16),
    )


@case({"a": 8})
def concats_in_two_orders() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        a, b = m.a(x), m.b(x)
        return m.head(torch.cat([a, b], 1) + torch.cat([b, a], 1) + torch.cat([a, a], 1))

    return Net(run, a=conv(3, 8), b=conv(3, 8), head=head(16))


@case({"a": 6, "b": 4}, shape=(2, 3, 4, 4))
def flatten_after_concat() -> nn.Module:
    return Net(
        lambda m, x: m.fc(torch.cat([m.a(x), m.b(x)], 1).view(x.size(0), -1)),
        a=conv(3, 6),
        b=conv(3, 4),
        fc=nn.Linear(160, 5),
    )


@case({"0": 8, "4": 12}, shape=(2, 3, 4, 4))
def flatten_into_linear() -> nn.Module:
    return nn.Sequential(
        conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 12), nn.Linear(12, 5)
    )


@case({"a": 6, "b": 4}, shape=(2, 3, 4, 4))
def unflatten_after_concat() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        joined = torch.cat([m.a(x), m.b(x)], 1)
        return m.head(joined.flatten(1).reshape(x.size(0), -1, *x.shape[2:]))

    return Net(run, a=conv(3, 6), b=conv(3, 4), head=head(10))


@case({"a": 6, "b": 4})
def split_by_sizes_of_branches() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        a, b = m.a(x), m.b(x)
        left, right = torch.split(torch.cat([a, b], 1).relu(), [a.shape[1], b.shape[1]], 1)
        return m.left(left) + m.right(right)

    return Net(run, a=conv(3, 6), b=conv(3, 4), left=head(6), right=head(4))


@case({"enc.0": 4, "down": 8, "up": 4, "dec": 6})
def unet() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        skip = m.enc(x)
        deep = F.relu(m.down(F.max_pool2d(skip, 2)))
        up = F.interpolate(m.up(deep), size=skip.shape[2:], mode="bilinear")
        return m.out(F.relu(m.dec(torch.cat([skip, up], 1))))

    return Net(
        run,
        enc=nn.Sequential(conv(3, 4), nn.ReLU()),
        down=conv(4, 8),
        up=nn.ConvTranspose2d(8, 4, 2, 2),
        dec=conv(8, 6),
        out=conv(6, 2, 1),
    )


@case({"0": 8, "1.reduce": 4})
def squeeze_excite() -> nn.Module:
    return nn.Sequential(
        conv(3, 8),
        Net(
            lambda m, x: x * m.expand(F.relu(m.reduce(x.mean((2, 3), keepdim=True)))).sigmoid(),
            reduce=conv(8, 4, 1),
            expand=conv(4, 8, 1),
        ),
        head(8),
    )


@case({"stem": 8})
def one_layer_twice() -> nn.Module:
    return Net(
        lambda m, x: m.head(m.block(F.relu(m.block(m.stem(x))))),
        stem=conv(3, 8),
        block=conv(8, 8),
        head=head(8),
    )


@case({"stem": 8})
def tied_weights() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.head(m.b(F.relu(m.a(m.stem(x)))))

    module = Net(run, stem=conv(3, 8), a=conv(8, 8), b=conv(8, 8), head=head(8))
    module.b.weight = module.a.weight
    return module


@case({"stem": 8})
def tied_depthwise() -> nn.Module:
    module = Net(
        lambda m, x: m.head(m.b(F.relu(m.a(m.stem(x))))),
        stem=conv(3, 8),
        a=conv(8, 8, groups=8),
        b=conv(8, 8, groups=8),
        head=head(8),
    )
    module.b.weight = module.a.weight
    return module


@case({"inner": 6}, shape=(2, 10), frozen={"outer": "another use does not"})
def tied_transposed() -> nn.Module:
    """An autoencoder whose decoder is the transposed encoder: quadrature weights would suit only
    one of them.
    """
    return Net(
        lambda m, x: F.linear(F.relu(m.inner(F.relu(m.outer(x)))), m.back.weight) @ m.outer.weight,
        outer=nn.Linear(10, 8, bias=False),
        inner=nn.Linear(8, 6),
        back=nn.Linear(6, 8),
    )


@case({"stem": 8, "a": 6})
def many_consumers() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(m.a(x) * m.b(x)) + m.other(x) + m.head(m.a(x.flip(2)))

    return Net(run, stem=conv(3, 8), a=conv(8, 6), b=conv(8, 6), head=head(6), other=head(8))
