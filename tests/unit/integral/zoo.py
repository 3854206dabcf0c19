"""Small modules, each with one way in which channels depend on each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Net(nn.Module):
    """A module from its layers and its forward."""

    def __init__(
        self, run: Callable[[Any, Tensor], Any], **layers: nn.Module | nn.Parameter | float
    ) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


@dataclass(frozen=True)
class Case:
    """A module and what must be found in it.

    Attributes:
        groups: size and unit of each coupled group.
        frozen: layers that stay, each with a word of the reason.
        is_maskable: whether removed channels may as well be set to zero (nothing averages over
            channels).
    """

    make: Callable[[], nn.Module]
    groups: dict[str, tuple[int, int]]
    shape: tuple[int, ...] = (2, 3, 8, 8)
    frozen: dict[str, str] = field(default_factory=dict)
    is_maskable: bool = True
    input: Callable[[], Tensor] | None = None

    def example(self) -> Tensor:
        torch.manual_seed(1)
        return self.input() if self.input else torch.randn(self.shape)


CASES: dict[str, Case] = {}


def case(
    groups: dict[str, tuple[int, int] | int], **options: Any
) -> Callable[[Callable[[], nn.Module]], None]:
    """Registers a function that makes a module; groups without a unit have a unit of 1."""

    def register(make: Callable[[], nn.Module]) -> None:
        sizes = {
            name: size if isinstance(size, tuple) else (size, 1) for name, size in groups.items()
        }
        CASES[make.__name__] = Case(make, sizes, **options)

    return register


def conv(c_in: int, c_out: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, **options)


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def own(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape))


# Convolutions.


@case({"0": 8, "3": 12}, shape=(2, 3, 16))
def conv_1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 8, 3),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Conv1d(8, 12, 3, 2),
        nn.AvgPool1d(2),
        nn.Flatten(),
        nn.Linear(36, 5),
    )


@case({"0": 8, "3": 12}, shape=(2, 2, 6, 6, 6))
def conv_3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 8, 3),
        nn.BatchNorm3d(8),
        nn.MaxPool3d(2),
        nn.Conv3d(8, 12, 1),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


@case({"0": 8, "1": 6, "3": 10})
def conv_transposed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2),
        nn.ConvTranspose2d(8, 6, 3, 2),
        nn.BatchNorm2d(6),
        nn.ConvTranspose2d(6, 10, 3),
        head(10),
    )


@case({"0": (8, 2), "1": (12, 2)})
def conv_transposed_grouped() -> nn.Module:
    return nn.Sequential(conv(3, 8), nn.ConvTranspose2d(8, 12, 3, groups=2), nn.ReLU(), head(12))


@case({"0": 8})
def conv_transposed_depthwise() -> nn.Module:
    return nn.Sequential(conv(3, 8), nn.ConvTranspose2d(8, 16, 3, groups=8), nn.ReLU(), head(16))


@case({"0": (12, 4), "1": (16, 4), "3": 6})
def conv_grouped() -> nn.Module:
    return nn.Sequential(conv(3, 12), conv(12, 16, groups=4), nn.ReLU(), conv(16, 6, 1), head(6))


@case({"0": 8, "1.a": (8, 4), "1.b": (8, 4)})
def resnext_block() -> nn.Module:
    return nn.Sequential(
        conv(3, 8),
        Net(
            lambda m, x: x + m.c(F.relu(m.b(F.relu(m.norm(m.a(x)))))),
            a=conv(8, 8, 1),
            norm=nn.BatchNorm2d(8),
            b=conv(8, 8, groups=4),
            c=conv(8, 8, 1),
        ),
        head(8),
    )


@case({"0": 8, "4": 12})
def depthwise() -> nn.Module:
    return nn.Sequential(
        conv(3, 8),
        conv(8, 8, groups=8),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        conv(8, 12, 1),
        conv(12, 12, groups=12),
        head(12),
    )


@case({"0": 8, "3": 6})
def depthwise_multiplier() -> nn.Module:
    return nn.Sequential(
        conv(3, 8), conv(8, 24, groups=8), nn.BatchNorm2d(24), conv(24, 6, 1), head(6)
    )


@case({"0": (8, 2), "1": (8, 2)})
def depthwise_multiplier_of_grouped() -> nn.Module:
    return nn.Sequential(conv(3, 8), conv(8, 8, groups=2), conv(8, 24, groups=8), head(24))


@case({"0": 8})
def depthwise_same_padding() -> nn.Module:
    return nn.Sequential(
        conv(3, 8), nn.Conv2d(8, 8, 3, padding="same", groups=8), nn.Hardswish(), head(8)
    )


# Normalization.


@case({"0": 16, "3": 12}, shape=(2, 10))
def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(10, 16), nn.BatchNorm1d(16), nn.LogSigmoid(), nn.Linear(16, 12), nn.Linear(12, 5)
    )


@case({"0": 16, "2": 8}, shape=(2, 10), is_maskable=False)
def layer_and_rms_norm() -> nn.Module:
    return nn.Sequential(
        nn.Linear(10, 16), nn.LayerNorm(16), nn.Linear(16, 8), nn.RMSNorm(8), nn.Linear(8, 5)
    )


@case({"0": 16, "2": 8}, shape=(2, 10), is_maskable=False)
def layer_norm_without_weights() -> nn.Module:
    return nn.Sequential(
        nn.Linear(10, 16),
        nn.LayerNorm(16, elementwise_affine=False),
        nn.Linear(16, 8),
        nn.RMSNorm(8, elementwise_affine=False),
        nn.Linear(8, 5),
    )


@case({"0": 8}, is_maskable=False)
def layer_norm_of_images() -> nn.Module:
    return nn.Sequential(conv(3, 8), nn.LayerNorm([8, 8, 8]), head(8))


@case({"0": (12, 4)}, frozen={"2": "every channel for itself"}, is_maskable=False)
def group_norm() -> nn.Module:
    return nn.Sequential(
        conv(3, 12),
        nn.GroupNorm(4, 12),
        conv(12, 8),
        nn.GroupNorm(1, 8),
        nn.GroupNorm(8, 8),
        head(8),
    )


@case({"0": 8, "2": 6})
def instance_norm() -> nn.Module:
    return nn.Sequential(
        conv(3, 8),
        nn.InstanceNorm2d(8, affine=True),
        conv(8, 6),
        nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
        head(6),
    )


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of images."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(
            0, 3, 1, 2
        )


@case({"0": 8, "2": 6}, is_maskable=False)
def layer_norm_of_channels() -> nn.Module:
    return nn.Sequential(conv(3, 8), ChannelLayerNorm(8), conv(8, 6), head(6))


@case({"a": 8}, shape=(2, 10), is_maskable=False)
def one_layer_norm_twice() -> nn.Module:
    """It declares one size, so that both layers that it follows have one size."""
    return Net(
        lambda m, x: m.out(m.norm(m.a(x)).relu()) + m.out(m.norm(m.b(x)).tanh()),
        a=nn.Linear(10, 8),
        b=nn.Linear(10, 8),
        norm=nn.LayerNorm(8, elementwise_affine=False),
        out=nn.Linear(8, 5),
    )


# Joins.


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


# Shared layers.


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


# Rearranged channels.


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


# Parameters and buffers of the module's own.


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


# Tokens.


class Attention(nn.Module):
    def __init__(self, channels: int, num_heads: int, *, is_fused: bool) -> None:
        super().__init__()
        self.num_heads, self.scale, self.is_fused = (
            num_heads,
            (channels // num_heads) ** -0.5,
            is_fused,
        )
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        if self.is_fused:
            q, k, v = (
                self.qkv(x).reshape(n, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            )
            y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        else:
            q, k, v = (
                one.view(n, t, self.num_heads, -1).transpose(1, 2)
                for one in self.qkv(x).chunk(3, -1)
            )
            y = ((q @ k.transpose(-2, -1)) * self.scale).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


class HeadAttention(nn.Module):
    """Heads of a fixed size; their number is what is left."""

    def __init__(self, channels: int, num_heads: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.q, self.k, self.v = (nn.Linear(channels, num_heads * size) for _ in range(3))
        self.proj = nn.Linear(num_heads * size, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k = (
            layer(x).unflatten(-1, (-1, self.size)).transpose(1, 2) for layer in (self.q, self.k)
        )
        v = self.v(x).view(n, t, -1, self.size).transpose(1, 2)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1))


def transformer(*, with_norm: bool, attention: nn.Module) -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([m.token.expand(x.shape[0], -1, -1), x], 1) + m.position
        x = x + m.scale * m.attention(m.norm(x))
        x = x + m.down(F.gelu(m.up(x)))
        return m.head(x[:, 0])

    return Net(
        run,
        patches=nn.Conv2d(3, 8, 4, 4),
        token=own(1, 1, 8),
        position=own(1, 5, 8),
        scale=own(8),
        norm=nn.LayerNorm(8) if with_norm else nn.Identity(),
        attention=attention,
        up=nn.Linear(8, 12),
        down=nn.Linear(12, 8),
        head=nn.Linear(8, 5),
    )


@case({"patches": 8, "attention.qkv": (24, 6), "up": 12})
def attention_by_hand() -> nn.Module:
    return transformer(with_norm=False, attention=Attention(8, 2, is_fused=False))


@case({"patches": 8, "attention.qkv": (24, 6), "up": 12}, is_maskable=False)
def attention_fused() -> nn.Module:
    return transformer(with_norm=True, attention=Attention(8, 2, is_fused=True))


@case({"patches": 8, "attention.q": (16, 4), "up": 12})
def attention_heads() -> nn.Module:
    return transformer(with_norm=False, attention=HeadAttention(8, 4, 4))


@case({"patches": 8, "attention.q": (16, 4), "up": 12}, is_maskable=False)
def attention_heads_behind_layer_norm() -> nn.Module:
    return transformer(with_norm=True, attention=HeadAttention(8, 4, 4))


@case({"embed": 8, "fc": 6}, input=lambda: torch.randint(0, 10, (2, 7)))
def tokens() -> nn.Module:
    return Net(
        lambda m, x: m.out(F.relu(m.fc(m.embed(x).mean(1)))),
        embed=nn.Embedding(10, 8),
        fc=nn.Linear(8, 6),
        out=nn.Linear(6, 5),
    )


@case({"patches": 8, "up": 6}, frozen={"mix": "fixed size"})
def token_mixing() -> nn.Module:
    """The number of tokens cannot be resized, whatever mixes them."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.patches(x).flatten(2)
        x = x + m.mix(x)
        return m.head(F.relu(m.up(x.transpose(1, 2))).mean(1))

    return Net(
        run,
        patches=nn.Conv2d(3, 8, 2, 2),
        mix=nn.Linear(16, 16),
        up=nn.Linear(8, 6),
        head=nn.Linear(6, 5),
    )


# What stays.


def around(run: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    """Two convolutions, something, a third convolution: only the first group is free of it."""
    return Net(
        lambda m, x: m.head(m.c(run(m, m.b(F.relu(m.a(x)))))),
        a=conv(3, 6),
        b=conv(6, 8),
        c=conv(8, 4),
        head=head(4),
    )


FREE = {"a": (6, 1), "c": (4, 1)}
STAYS: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "fft": (lambda m, x: torch.fft.fft(x, dim=1).real, "fft"),
    "einsum": (lambda m, x: torch.einsum("nchw,nchw->nchw", x, x), "einsum"),
    "roll_channels": (lambda m, x: torch.roll(x, 1, 1), "roll"),
    "roll_everything": (lambda m, x: torch.roll(x, 1), "roll"),
    "cumulative_sum": (lambda m, x: x.cumsum(1), "cumsum"),
    "flip_channels": (lambda m, x: x.flip(1), "flip"),
    "sort_channels": (lambda m, x: x.sort(1).values, "sort"),
    "number_of_a_channel": (lambda m, x: x * x.max(1, keepdim=True).indices, "gives the number"),
    "softmax_over_channels": (lambda m, x: x.softmax(1), "softmax"),
    "normalize_over_channels": (lambda m, x: F.normalize(x, dim=1), "norm"),
    "sum_over_channels": (lambda m, x: x * x.sum(1, keepdim=True), "sum"),
    "slice_channels": (lambda m, x: torch.cat([x[:, :4], x[:, 4:].relu()], 1), "slice"),
    "pick_channels": (lambda m, x: x[:, torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])], "index"),
    "shift_channels": (lambda m, x: F.pad(x, (0, 0, 0, 0, 1, -1)), "pad"),
    "assign_channels": (
        lambda m, x: x.clone().index_fill_(1, torch.tensor([0]), 0.0),
        "index_fill",
    ),
    "pool_over_channels": (
        lambda m, x: F.avg_pool1d(x.flatten(2).mT, 3, 1, 1).mT.unflatten(2, x.shape[2:]),
        "avg_pool1d",
    ),
    "conv_over_channels": (
        lambda m, x: F.conv3d(x[:, None], torch.ones(1, 1, 3, 1, 1), padding=(1, 0, 0))[:, 0],
        "conv3d",
    ),
    "local_response_norm": (lambda m, x: F.local_response_norm(x, 3), "pad"),
    "constant_tensor": (lambda m, x: x * torch.arange(8.0).view(1, -1, 1, 1), "fixed size"),
    "hard_coded_view": (lambda m, x: x.view(x.shape[0], 8, -1).reshape(x.shape), "view"),
    "hard_coded_heads": (
        lambda m, x: x.view(x.shape[0], 2, 4, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
        "shape",
    ),
    "hard_coded_split": (lambda m, x: torch.cat(x.split(4, 1)[::-1], 1), "split"),
    "hard_coded_condition": (
        lambda m, x: x.relu() if x.shape[1] > 7 else x.sigmoid(),
        "takes the place of relu",
    ),
    "hard_coded_mixing": (
        lambda m, x: x.reshape(x.shape[0], 64, -1).transpose(1, 2).reshape(x.shape),
        "slides",
    ),
    "no_grad": (lambda m, x: x * _without_gradients(x), "cannot be followed"),
}


def _without_gradients(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x.sigmoid()


for _name, (_run, _reason) in STAYS.items():
    CASES[_name] = Case(lambda run=_run: around(run), FREE, frozen={"b": _reason})


@case({"a": 6}, frozen={"lstm": "lstm", "b": "lstm"})
def lstm() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.b(F.relu(m.a(x))).flatten(2).transpose(1, 2)
        return m.fc(m.lstm(x)[0][:, -1])

    return Net(
        run, a=conv(3, 6), b=conv(6, 8), lstm=nn.LSTM(8, 7, batch_first=True), fc=nn.Linear(7, 5)
    )


@case(
    {"a": 6, "fc": 6},
    frozen={"b": "does not run", "attention": "does not run"},
    is_maskable=False,
)
def multi_head_attention_layer() -> nn.Module:
    """torch's own layer compares its input with the size that it was made for."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.b(F.relu(m.a(x))).flatten(2).transpose(1, 2)
        return m.out(F.relu(m.fc((x + m.attention(x, x, x, need_weights=False)[0]).mean(1))))

    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    return Net(
        run,
        a=conv(3, 6),
        b=conv(6, 8),
        attention=attention,
        fc=nn.Linear(8, 6),
        out=nn.Linear(6, 5),
    )


@case({"a": 6}, frozen={"b": "shape"})
def hard_coded_flatten() -> nn.Module:
    return Net(
        lambda m, x: m.fc(m.b(F.relu(m.a(x))).view(x.shape[0], 512)),
        a=conv(3, 6),
        b=conv(6, 8),
        fc=nn.Linear(512, 5),
    )


@case({"a": 6, "c": 4})
def two_outputs() -> nn.Module:
    """Channels that the module gives out are not its own to resize; nobody needs to be told."""

    def run(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        x = m.b(F.relu(m.a(x)))
        return m.head(F.relu(m.c(x))), x

    return Net(run, a=conv(3, 6), b=conv(6, 8), c=conv(8, 4), head=head(4))


@case({"a": 6})
def residual_on_the_input() -> nn.Module:
    return Net(
        lambda m, x: m.head(x + m.b(F.relu(m.a(x)))), a=conv(3, 6), b=conv(6, 3), head=head(3)
    )


@case({"a": 6}, frozen={"b": "does not run"})
def head_for_training_only() -> nn.Module:
    """The trace of the evaluation mode never sees the second head."""

    def run(m: Any, x: Tensor) -> Any:
        x = m.b(F.relu(m.a(x)))
        return (m.head(x), m.aux(x)) if m.training else m.head(x)

    return Net(run, a=conv(3, 6), b=conv(6, 8), head=head(8), aux=head(8))


@case({"a": 6}, frozen=dict.fromkeys(("b", "c", "c.parametrizations.weight"), "_weight_norm"))
def weight_norm() -> nn.Module:
    """Each weight is computed from two others."""
    return Net(
        lambda m, x: m.head(F.relu(m.c(F.relu(m.b(m.a(x)))))),
        a=conv(3, 6),
        b=conv(6, 8),
        c=nn.utils.parametrizations.weight_norm(conv(8, 8)),
        head=head(8),
    )


@case({"a": 6})
def changes_its_buffers() -> nn.Module:
    """Keeps a moving average of its channels in evaluation mode too."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        m.average.mul_(0.9).add_(x.mean((0, 2, 3)).detach(), alpha=0.1)
        return m.head(x.sub_(1).relu_().add(1))

    module = Net(run, a=conv(3, 6), head=head(6))
    module.register_buffer("average", torch.zeros(6))
    return module


@case({"a": 6, "b": 8}, input=lambda: torch.randn(2, 3, 8, 8, dtype=torch.float64))
def other_types() -> nn.Module:
    return Net(
        lambda m, x: m.head(m.b(F.relu(m.a(x)).float().to(torch.float64))),
        a=conv(3, 6),
        b=conv(6, 8),
        head=head(8),
    ).double()
