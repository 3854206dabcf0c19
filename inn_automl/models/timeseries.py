"""1-D residual network for time series; the depth counts convolutions, three a block.

That of Wang et al., "Time series classification from scratch with deep neural networks" (IJCNN
2017), which was the most accurate network of the comparison of Fawaz et al., "Deep learning for
time series classification: a review" (2019). It keeps the resolution where others pool, since what
tells series apart may be short and anywhere; here pools between blocks spare time where series are
long.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inn_automl.models.family import Family, scaled, stem_stride

CHANNELS = (32, 64, 64)
KERNELS = (9, 5, 3)
LONGEST = 256
"""Positions that are left of longer series by the stride of the first convolution."""
SHORTEST_POOLED = 96


class ResidualBlock(nn.Module):
    """Three convolutions with batch norm, added to a shortcut: a 1x1 convolution with batch norm.

    Args:
        stride: of the first convolution and the shortcut, whose kernels grow with it.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, kernel in enumerate(KERNELS):
            s = stride if index == 0 else 1
            size = kernel if s == 1 else kernel * s + 1
            given = c_in if index == 0 else c_out
            layers += [
                nn.Conv1d(given, c_out, size, s, size // 2, bias=False),
                nn.BatchNorm1d(c_out),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers[:-1])
        size = 1 if stride == 1 else stride + 1
        self.shortcut = nn.Sequential(
            nn.Conv1d(c_in, c_out, size, stride, size // 2, bias=False), nn.BatchNorm1d(c_out)
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, L) -> (N, c_out, ceil(L / stride))."""
        y: Tensor = self.relu(self.layers(x) + self.shortcut(x))
        return y


class TimeSeriesNet(nn.Module):
    """Residual blocks with pools between them, average pooling, linear.

    Args:
        channels: of each block.
        pools: size of the max pool after each block; 1 for none.
        stride: of the first block, for long series.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: list[int],
        *,
        pools: list[int],
        stride: int = 1,
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        given = [in_channels, *channels]
        for index, (c_in, c_out) in enumerate(zip(given, channels, strict=False)):
            blocks.append(ResidualBlock(c_in, c_out, stride if index == 0 else 1))
            if pools[index] > 1:
                blocks.append(nn.MaxPool1d(pools[index]))
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.classifier = nn.Linear(channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, L) -> logits (N, num_classes)."""
        return self.classifier(torch.flatten(self.pool(self.blocks(x)), 1))


def make(input_shape: tuple[int, ...], num_classes: int, width: float, depth: int) -> TimeSeriesNet:
    """Channels 32, 64, 64 times the width; a pool of 2 between blocks while 96 positions are
    there.
    """
    channels, length = input_shape
    stride = stem_stride(length, LONGEST)
    left = -(-length // stride)
    pools = []
    num_blocks = depth // len(KERNELS)
    for index in range(num_blocks):
        halves = left >= SHORTEST_POOLED and index < num_blocks - 1
        pools.append(2 if halves else 1)
        left = left // 2 if halves else left
    return TimeSeriesNet(
        channels,
        num_classes,
        [scaled(one, width) for one in CHANNELS[:num_blocks]],
        pools=pools,
        stride=stride,
    )


FAMILY = Family("timeseries", ("signal",), 6, (3, 6, 9), (0.5, 1.0, 2.0), make)
"""The depth counts convolutions."""
