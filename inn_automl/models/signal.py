"""1-D convolutional network for audio and time series; the depth counts convolutions.

Long signals are shortened as in M5 (Dai et al., "Very deep convolutional neural networks for raw
waveforms", 2017): a wide strided first convolution, then pools of 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inn_automl.models.family import Family, num_halvings, scaled

KERNEL = 5
SMALLEST_LENGTH = 8


class SignalNet(nn.Module):
    """1-D convolution, batch norm, ReLU and (in some blocks) a max pool, then average pooling and
    a linear layer.

    Args:
        channels: output channels of each convolution.
        pools: size of the max pool after each convolution; 1 for none.
        stride: stride of the first convolution, for long signals.
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
        layers: list[nn.Module] = []
        for index, (c_in, c_out) in enumerate(
            zip([in_channels, *channels], channels, strict=False)
        ):
            s = stride if index == 0 else 1
            k = KERNEL if s == 1 else 16 * s + 1
            layers += [
                nn.Conv1d(c_in, c_out, k, s, k // 2, bias=False),
                nn.BatchNorm1d(c_out),
                nn.ReLU(),
            ]
            if pools[index] > 1:
                layers.append(nn.MaxPool1d(pools[index]))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.classifier = nn.Linear(channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, L) -> logits (N, num_classes)."""
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


def reductions(length: int, depth: int) -> tuple[int, list[int]]:
    """Stride of the first convolution and size of each pool that bring `length` down to 8 to 16
    samples.

    Each convolution but the last is followed by a pool of 2 while halvings are left; then the stem
    and the pools take a second halving each, and the stem whatever remains.
    """
    left = num_halvings(length, SMALLEST_LENGTH)
    num_pools = depth - 1
    halvings = [1 if index < left else 0 for index in range(num_pools)]
    left -= sum(halvings)
    stem = min(left, 2)
    left -= stem
    second = min(left, num_pools)
    halvings = [h + (index < second) for index, h in enumerate(halvings)]
    stem += left - second
    return 2**stem, [2**h for h in halvings] + [1]


def make(input_shape: tuple[int, ...], num_classes: int, width: float, depth: int) -> SignalNet:
    """Channels 32, 32, 64, 64, 96, 96, ... times the width."""
    channels = [scaled(32 * (index // 2 + 1), width) for index in range(depth)]
    stride, pools = reductions(input_shape[1], depth)
    return SignalNet(input_shape[0], num_classes, channels, pools=pools, stride=stride)


FAMILY = Family("signal", ("signal",), 4, (2, 3, 4, 5, 6), (0.5, 1.0, 2.0), make)
