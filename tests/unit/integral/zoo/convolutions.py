"""Convolutions, plain, transposed and grouped, and normalization."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.integral.zoo.case import Net, case, conv, head


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
